"""What only the replica that writes to the index can serve, handed on to it by the others.

Body and response pass as they come; an upload that is too large is refused here, and one that the writer answers early
is read no further. The replica that was asked checks the caller, and counts the request towards its rates; the one that
writes checks the key again, and believes the rest of a request with its own secret, which only the database tells. A
request is handed on once.
"""

import asyncio
import secrets
import string
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any
from urllib.parse import quote

import httpcore
import httpx
import structlog
from litestar import Request, Response
from litestar.handlers import BaseRouteHandler
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp, Receive, Send

from app.api.bodies import decode
from app.api.multipart import form_too_large, is_form
from app.api.request import ClientGone, declared_length
from app.errors import Conflict, InvalidRequest
from app.instance import HOP_HEADER, TOKEN_HEADER
from app.observability.tracing import trace_headers
from app.services.replicas import RETRY_S, TIMEOUT, Replicas
from app.wiring import Services
from indexing.errors import IndexBusy
from indexing.pipeline.progress import NEEDS_FILES, SyncRequest
from indexing.writer import Writer

HOP = HOP_HEADER.lower().encode()

CLIENT = b"x-winnow-client"
"""The same secret, and the address of the caller: for the audit log."""

STANDING = "standing"
"""In the state of a request: "operator", "local" or "remote"."""

ANY_REPLICA = "any_replica"
"""In `opt` of a route that takes one of `OF_THE_WRITER`, and yet needs no index."""

FILES = "files"
"""In `opt` of a route that reads or writes files of the machine."""

OF_THE_WRITER = frozenset({"documents", "jobs", "snapshots", "repairs"})

_OF_A_CONNECTION = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect")
)
_NOT_ASKED = _OF_A_CONNECTION | {HOP, CLIENT, TOKEN_HEADER.lower().encode(), b"x-request-id"}
_NOT_TOLD = _OF_A_CONNECTION | {b"date", b"server", b"x-request-id", b"x-content-type-options"}
"""The middleware and the server of the replica that was asked write these."""

LOOK_S = 0.25
"""Between two looks at whether the writer has answered, while the client sends nothing."""

log = structlog.get_logger()


def is_of_the_writer(handler: BaseRouteHandler) -> bool:
    """Whether the route needs what only the replica that writes has."""
    return not OF_THE_WRITER.isdisjoint(handler.parsed_fn_signature.parameters) and ANY_REPLICA not in handler.opt


def standing_of(headers: Iterable[tuple[bytes, bytes]], replicas: Replicas | None) -> str:
    """How the caller stands to the replica that handed the request on; "" if none did."""
    return _told(HOP, headers, replicas)


def client_of(headers: Iterable[tuple[bytes, bytes]], replicas: Replicas | None) -> str:
    """The address of who asked the replica that handed the request on; "" if none did, or it did not know."""
    return _told(CLIENT, headers, replicas)


def _told(header: bytes, headers: Iterable[tuple[bytes, bytes]], replicas: Replicas | None) -> str:
    """What follows our secret in a header that only another replica can send; "" for anything else."""
    given = next((value for name, value in headers if name == header), b"")
    secret, _, told = given.decode("latin-1").partition(" ")
    if replicas is None or not secrets.compare_digest(secret.encode(), replicas.secret.encode()):
        return ""
    return told


class Elsewhere:
    """`before_request` of the application: the response of the replica that writes, where that is another one."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, request: Request[Any, Any, Any]) -> Response[Any] | None:
        if self._services.replicas is None or not is_of_the_writer(request.route_handler):
            return None
        app = await hand_on(self._services, request)
        return None if app is None else _Response(app)


class _Response(Response[Any]):
    def __init__(self, app: ASGIApp) -> None:
        super().__init__(None)
        self._app = app

    def to_asgi_response(self, *_: Any, **__: Any) -> ASGIResponse:
        return self._app  # type: ignore[return-value] # Litestar calls it, and no more


async def hand_on(services: Services, request: Request[Any, Any, Any], body: bytes | None = None) -> ASGIApp | None:
    """What sends the response of the replica that writes; None where it is this one. `body`: as far as it was read.

    Raises IndexBusy while there is none, StoreUnavailable, Conflict for a command that needs this machine's files, and
    TooLarge for a form.
    """
    replicas = services.replicas
    if replicas is None or replicas.writes:
        return None
    if any(name == HOP for name, _ in request.scope["headers"]):
        raise IndexBusy("this replica does not write to the index: another one is taking over", RETRY_S)
    writer = await replicas.writer()
    if writer is None:
        return None
    if FILES in request.route_handler.opt and not await replicas.is_beside(writer):
        body = await request.body()
        if request.scope["path"] != "/internal/sync" or decode(body, SyncRequest).needs_files:
            raise Conflict(NEEDS_FILES)
    most = None
    if is_form(request.headers.get("content-type")):
        most = services.settings.service.max_upload_bytes
        if declared_length(request) > most:
            raise form_too_large(most)
    return _Handed(replicas.client, writer, body, most)


class _Handed:
    """An ASGI application: the response of the replica that writes. `given` is the body, as far as it was read; it may
    have `most` bytes.
    """

    def __init__(self, client: httpx.AsyncClient, writer: Writer, given: bytes | None, most: int | None = None) -> None:
        self._client, self._writer, self._given, self._most = client, writer, given, most

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """A client that hangs up ends the request to the writer, too."""
        has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])
        body = _Body(receive, self._given, self._most, is_sent=has_body)
        work = asyncio.ensure_future(_exchange(self._client, self._request(scope, body), send))
        hung_up = asyncio.ensure_future(body.hung_up())
        try:
            await asyncio.wait((work, hung_up), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            work.cancel()
            hung_up.cancel()
            await asyncio.gather(work, hung_up, return_exceptions=True)

    def _request(self, scope: Any, body: "_Body") -> httpx.Request:
        state, query = scope["state"], scope["query_string"]
        own = {HOP: f"{self._writer.secret} {state[STANDING]}".encode(), b"x-request-id": state["request_id"].encode()}
        own |= {name.encode(): value.encode() for name, value in trace_headers().items()}
        if client := scope.get("client"):
            own[CLIENT] = f"{self._writer.secret} {client[0]}".encode()
        came = [one for one in scope["headers"] if one[0] not in _NOT_ASKED and one[0] not in own]
        headers = [(name, value.strip(b" \t")) for name, value in came]  # what surrounds a value is no part of it
        # The target as it came: httpx would take "." and ".." out of a path, and so lead to another document.
        target = quote(scope["raw_path"] + (b"?" + query if query else b""), safe=string.punctuation)
        return httpx.Request(
            scope["method"],
            self._writer.url,
            headers=[*own.items(), *headers],  # the hop first: it allows for what is added
            content=body.pieces() if body.is_sent else None,  # of a length that the headers tell, or in chunks
            extensions={"timeout": TIMEOUT.as_dict(), "target": target.encode(), "trace": body.connected},
        )


async def _exchange(client: httpx.AsyncClient, request: httpx.Request, send: Send) -> None:
    """Send the request, and then the response as it comes. One that is cut off ends without its end."""
    begun = False
    try:
        reply = await client.send(request, stream=True)
        try:
            headers = [(name.lower(), value) for name, value in reply.headers.raw]
            kept = [one for one in headers if one[0] not in _NOT_TOLD and not one[0].startswith(b"access-control-")]
            await send({"type": "http.response.start", "status": reply.status_code, "headers": kept})
            begun = True
            async for piece in reply.aiter_raw():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        finally:
            await reply.aclose()
    except httpx.LocalProtocolError as exc:
        raise InvalidRequest("a header has a character that HTTP does not allow") from exc
    except httpx.HTTPError as exc:
        log.warning(
            "the replica that writes was lost during a request", url=str(request.url.host), why=type(exc).__name__
        )
        if not begun:
            detail = "the replica that writes to the index was lost during the request, which it may have carried out"
            raise IndexBusy(f"{detail}; it is safe to ask again", RETRY_S) from exc
    else:
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Body:
    """What the client sends, and whether it is still there. `given`: what has been read of it already."""

    def __init__(self, receive: Receive, given: bytes | None, most: int | None = None, *, is_sent: bool) -> None:
        self._receive, self._given, self._most, self.is_sent = receive, given, most, is_sent
        self._connection: httpcore.AsyncNetworkStream | None = None
        self._whole = asyncio.Event()
        if not is_sent:
            self._whole.set()

    async def connected(self, event: str, info: Mapping[str, Any]) -> None:
        """Hear of the connection to the writer (httpcore's extension "trace")."""
        if event == "connection.connect_tcp.complete":
            self._connection = info["return_value"]
        elif event == "connection.start_tls.started":  # what can be read there may be no more than TLS's own
            self._connection = None

    async def pieces(self) -> AsyncIterator[bytes]:
        """In their order, until the writer answers: one that refuses a body reads no more of it. Raises ClientGone,
        TooLarge.
        """
        if self._given is not None:
            yield self._given
        else:
            more, size = True, 0
            while more:
                message = await self._next()
                if message is None:
                    self._whole.set()
                    raise httpcore.WriteError  # for which httpcore goes on to the response
                if message["type"] == "http.disconnect":
                    raise ClientGone
                size += len(message.get("body", b""))
                if self._most is not None and size > self._most:
                    raise form_too_large(self._most)
                yield message.get("body", b"")
                more = message.get("more_body", False)
        self._whole.set()

    async def _next(self) -> Any:
        """What the client sends next; None once the writer has answered, or is gone."""
        receiving = asyncio.ensure_future(self._receive())
        try:
            while not self._answered():
                if (await asyncio.wait((receiving,), timeout=LOOK_S))[0]:
                    return receiving.result()
            return None
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)

    def _answered(self) -> bool:
        return self._connection is not None and bool(self._connection.get_extra_info("is_readable"))

    async def hung_up(self) -> None:
        """Wait until the client is gone, once it has sent everything: before that, `pieces` notices."""
        await self._whole.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
