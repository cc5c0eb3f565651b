"""The REST API, as far as it is used."""

import json
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, TypeAdapter, ValidationError
from qdrant_client import models

from tests.fakes.qdrant_server.collections import Collections
from tests.fakes.qdrant_server.refusals import Kind, Refusal
from tests.fakes.qdrant_server.server import Guard

Call = Callable[[Collections, str, Any], Any]


def _collections(collections: Collections, _name: str, _body: None) -> Any:
    return models.CollectionsResponse(
        collections=[models.CollectionDescription(name=name) for name in collections.names()]
    )


def _aliases(collections: Collections, _name: str, _body: None) -> Any:
    return models.CollectionsAliasesResponse(aliases=collections.aliases())


def _upsert(collections: Collections, name: str, body: Any) -> Any:
    return collections.upsert(name, body.points)


def _query_batch(collections: Collections, name: str, body: Any) -> Any:
    return collections.query(name, body.searches)


def _create_index(collections: Collections, name: str, body: Any) -> Any:
    return collections.create_index(name, body.field_name, body.field_schema)


_ONE = "/collections/(?P<name>[^/]+)"
_SELECTOR: TypeAdapter[Any] = TypeAdapter(models.FilterSelector | models.PointIdsList)
ROUTES: list[tuple[str, str, Any, Call, bool]] = [
    ("GET", "/collections", None, _collections, False),
    ("GET", "/aliases", None, _aliases, False),
    (
        "POST",
        "/collections/aliases",
        models.ChangeAliasesOperation,
        lambda collections, _name, body: collections.change_aliases(body.actions),
        True,
    ),
    ("GET", _ONE, None, lambda collections, name, _body: collections.info(name), False),
    ("PUT", _ONE, models.CreateCollection, Collections.create, True),
    ("PATCH", _ONE, models.UpdateCollection, Collections.change, True),
    ("DELETE", _ONE, None, lambda collections, name, _body: collections.delete(name), True),
    ("PUT", f"{_ONE}/points", models.PointsList, _upsert, True),
    ("POST", f"{_ONE}/points", models.PointRequest, Collections.get, False),
    ("POST", f"{_ONE}/points/delete", _SELECTOR, Collections.delete_points, True),
    ("POST", f"{_ONE}/points/payload", models.SetPayload, Collections.set_payload, True),
    ("POST", f"{_ONE}/points/scroll", models.ScrollRequest, Collections.scroll, False),
    ("POST", f"{_ONE}/points/count", models.CountRequest, Collections.count, False),
    ("POST", f"{_ONE}/points/query/batch", models.QueryRequestBatch, _query_batch, False),
    ("PUT", f"{_ONE}/index", models.CreateFieldIndex, _create_index, True),
    (
        "DELETE",
        f"{_ONE}/index/(?P<field>[^/]+)",
        None,
        lambda collections, name, field: collections.delete_index(name, field),
        True,
    ),
]
"""Method, path, body, what answers, and whether it writes."""


class RestServer:
    """Listens at once."""

    def __init__(self, collections: Collections, guard: Guard, version: str, port: int) -> None:
        class Handler(_Handler):
            pass

        Handler.collections, Handler.guard, Handler.version = collections, guard, version
        self._server = _Server(("127.0.0.1", port), Handler)
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.drop_connections()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    """Knows its connections, so that it can drop them."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._connections: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def drop_connections(self) -> None:
        for request in list(self._connections):
            with suppress(OSError):
                request.shutdown(2)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are a part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    collections: Collections
    guard: Guard
    version: str

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        if path == "/":
            root = models.VersionInfo(title="qdrant - vector search engine", version=self.version)
            self._send(200, root.model_dump_json(exclude_none=True).encode())
            return
        try:
            result = self._result(path, body)
        except Refusal as refusal:
            plain = refusal.kind is Kind.UNAUTHORIZED  # the one that comes without JSON
            said = str(refusal).encode() if plain else json.dumps(refusal.body()).encode()
            self._send(refusal.status, said, refusal.headers())
            return
        self._send(200, b'{"result":' + _encoded(result) + b',"status":"ok","time":0.0}')

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

    def _result(self, path: str, body: bytes) -> Any:
        for method, pattern, shape, call, writes in ROUTES:
            if method == self.command and (match := re.fullmatch(pattern, path)):
                authorization = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
                self.guard.admit(self.headers.get("api-key") or authorization, writes=writes)
                named = {key: unquote(value) for key, value in match.groupdict().items()}
                return call(self.collections, named.get("name", ""), named.get("field") or _decoded(shape, body))
        raise Refusal(Kind.NOT_FOUND, f"{self.command} {path}")

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


def _decoded(shape: Any, body: bytes) -> Any:
    if shape is None:
        return None
    try:
        return shape.validate_json(body) if isinstance(shape, TypeAdapter) else shape.model_validate_json(body)
    except ValidationError as exc:
        raise Refusal(Kind.BAD_REQUEST, f"Format error in JSON body: {exc}") from exc


def _encoded(result: Any) -> bytes:
    if isinstance(result, list):
        return b"[" + b",".join(map(_encoded, result)) + b"]"
    if isinstance(result, BaseModel):
        return result.model_dump_json(exclude_none=True).encode()
    return json.dumps(result).encode()
