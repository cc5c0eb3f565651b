"""The command line's client of a running service."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import msgspec

from app.errors import InvalidRequest, WinnowError
from app.instance import Failed
from indexing.errors import CollectionNotFound
from indexing.pipeline.progress import Event, Last, RepairRequest, RestoreRequest, SnapshotRequest, Summary, SyncRequest

# No limit on reading: a search on a busy machine, or a step of a long indexing run, may take minutes, and the user can
# interrupt it.
_TIMEOUT = httpx.Timeout(10.0, read=None)

_JSON = {"Content-Type": "application/json"}
_CALLER_ERRORS = (400, 413, 422)


class ServiceRefused(WinnowError):
    """The service answered with a problem, or the connection was lost; the text says which."""


Request = SyncRequest | SnapshotRequest | RestoreRequest | RepairRequest
"""What a run inside the service is asked for."""

_EVENTS: msgspec.json.Decoder[Event | Failed] = msgspec.json.Decoder(Event | Failed)


class RemoteService:
    """Talks to a service as its operator, by these headers. Every call raises ServiceRefused, or InvalidRequest."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url, self.headers = url, headers

    def get(self, path: str, params: Mapping[str, str] | None = None, *, check: bool = True) -> dict[str, Any]:
        """The JSON body of the reply; if not `check`, whatever its status."""
        with self._connected() as client:
            reply = client.get(path, params=params)
            if check:
                _check(reply)
            body: dict[str, Any] = reply.json()
            return body

    def download(self, path: str, params: Mapping[str, str]) -> Iterator[bytes]:
        """The body of the reply to a GET, in pieces."""
        with self._connected() as client, client.stream("GET", path, params=params) as reply:
            _check(reply)
            yield from reply.iter_bytes()

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The JSON body of the reply. Raises also CollectionNotFound."""
        with self._connected() as client:
            reply = client.post(path, json=body)
            _check(reply, body.get("collection"))
            decoded: dict[str, Any] = reply.json()
            return decoded

    def post_form(
        self, path: str, fields: Mapping[str, Any], parts: Sequence[tuple[str, str | bytes]]
    ) -> dict[str, Any]:
        """The JSON body of the reply to a form: `fields`, and then `parts` in their order, bytes as files."""
        texts = [(name, (None, str(value))) for name, value in fields.items()]
        files = [(name, (None if isinstance(part, str) else "file", part)) for name, part in parts]
        with self._connected() as client:
            reply = client.post(path, files=[*texts, *files])
            _check(reply)
            decoded: dict[str, Any] = reply.json()
            return decoded

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: dict[str, Any] | None = None,
        collection: str | None = None,
    ) -> Any:
        """The JSON body of the reply, None if it has none. Raises CollectionNotFound where `collection` is missing."""
        with self._connected() as client:
            reply = client.request(method, path, params=params, json=body)
            _check(reply, collection)
            return reply.json() if reply.content else None

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The events of /answer or /chat as (name, data); the last one is "done". Raises also CollectionNotFound."""
        with (
            self._connected() as client,
            client.stream("POST", path, json={**body, "stream": True}) as reply,
        ):
            _check(reply, body.get("collection"))
            for name, data in _server_sent(reply.iter_lines()):
                if name == "error":
                    raise ServiceRefused(str(data.get("detail")))
                yield name, data
                if name == "done":
                    return
            raise ServiceRefused("the service closed the connection in the middle of the answer")

    def run(self, path: str, request: Request) -> Iterator[Event]:
        """The events of a run inside the service, up to its last one; leaving early stops the run."""
        body = _encoded(request)
        with self._connected() as client, client.stream("POST", path, content=body, headers=_JSON) as reply:
            _check(reply)
            for line in reply.iter_lines():
                event = _EVENTS.decode(line)
                if isinstance(event, Failed):
                    raise ServiceRefused(event.detail)
                yield event
                if isinstance(event, Last):
                    return
            raise ServiceRefused("the service closed the connection before it had finished")

    def put(self, data: bytes, name: str, collection: str, tenant: str, allowed: Sequence[str]) -> Summary:
        """Index a document in the service."""
        with self._connected() as client:
            where = {"name": name, "collection": collection, "tenant": tenant, "allowed": [*allowed]}
            reply = client.post("/internal/document", params=where, content=data)
            _check(reply)
            return msgspec.json.decode(reply.content, type=Summary)

    @contextmanager
    def _connected(self) -> Iterator[httpx.Client]:
        """A client for one call, and the one seam for what httpx and the decoding of replies raise."""
        try:
            with httpx.Client(base_url=self._url, headers=self.headers, timeout=_TIMEOUT, trust_env=False) as client:
                yield client
        except (httpx.HTTPError, ValueError) as exc:  # msgspec's and json's errors are ValueErrors
            raise ServiceRefused(
                f"lost the connection to the service at {self._url} ({type(exc).__name__}); what it has written is "
                "kept, and running the command again continues from there"
            ) from exc


def _encoded(request: Request) -> bytes:
    try:
        return msgspec.json.encode(request)
    except UnicodeEncodeError as exc:
        raise InvalidRequest("a path that is not valid UTF-8 cannot be sent; specify its directory instead") from exc


def _server_sent(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    name = ""
    for line in lines:
        if line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            yield name, msgspec.json.decode(line[5:])


def _check(reply: httpx.Response, collection: str | None = None) -> None:
    """Raise the problem that the reply reports, if it does; `collection` is the one that was asked for."""
    if not reply.is_error:
        return
    reply.read()
    try:
        problem = reply.json()
        detail, kind = str(problem["detail"]), str(problem.get("type"))
    except (ValueError, KeyError, TypeError, AttributeError):
        detail, kind = f"the service answered with HTTP status {reply.status_code}", ""
    if collection is not None and kind.endswith("collection-not-found"):
        raise CollectionNotFound(collection)
    raise (InvalidRequest if reply.status_code in _CALLER_ERRORS else ServiceRefused)(detail)
