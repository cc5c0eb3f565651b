"""POST /mcp: a message of the Model Context Protocol over streamable HTTP.

The SDK takes half a second to load, and is loaded with the first request that needs it.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import anyio
import msgspec
from litestar import post
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from app.api.bodies import decode
from app.api.compat.citations import base_of
from app.api.compat.errors import jsonrpc_error, jsonrpc_failure, shaped
from app.api.hand_on import hand_on
from app.api.problem_details import Problem
from app.api.request import BodyRequest, Injected, caller_of, require_json, require_plain
from app.domain import Caller
from app.mcp.tools import CONTEXT, TOOLS, Context
from app.wiring import Services
from indexing.concurrency import Resource

SESSION = b"mcp-session-id"
"""Clients of the versions up to 2025-11-25 send it with each request. It tells two clients of one key apart when one of
them cancels: they count their requests alike. Nothing is kept under it."""

Id = int | str


class JSONRPC(msgspec.Struct, frozen=True, kw_only=True):
    """A message of a client: a request, or without an `id` a notification."""

    jsonrpc: Literal["2.0"]
    method: str
    id: Id | msgspec.UnsetType | None = msgspec.UNSET
    params: dict[str, Any] | None = None


class Endpoint:
    """What answers the messages, and which requests are being answered."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._serve = Resource(_load)
        self._running: dict[tuple[str, bytes, Id], anyio.CancelScope] = {}

    async def answer(self, request: BodyRequest) -> ASGIApp:
        """What sends the response. Raises InvalidRequest, UnsupportedMediaType, and Litestar's error of a large one."""
        require_plain(request.headers.get("content-encoding"))
        require_json(request.headers.get("content-type"))
        body = await request.body()
        message = decode(body, JSONRPC)
        if _is_of_the_writer(message) and (elsewhere := await hand_on(self._services, request, body)) is not None:
            return elsewhere
        caller, state = caller_of(request), request.scope["state"]
        state["needed"] = ()
        state[CONTEXT] = Context(
            services=self._services,
            caller=caller,
            base=base_of(request, self._services.settings),
            collection=request.query_params.get("collection") or "default",
        )
        session = next((value for name, value in request.scope["headers"] if name == SESSION), b"")
        if message.method == "notifications/cancelled":
            self._cancel(caller, session, message)
        serve = await self._serve.get()

        async def respond(scope: Scope, receive: Receive, send: Send) -> None:
            response = _Response(send, starts_session=message.method == "initialize")
            state["fail"] = _failing(message)
            with anyio.CancelScope() as running, self._listed(caller, session, message, running):
                await serve(scope, _after(body, receive), response.send)
            if "ended" in state:  # the SDK keeps to itself what sending has raised
                raise state["ended"]
            if running.cancelled_caught:
                await response.end()

        return respond

    def _cancel(self, caller: Caller, session: bytes, message: JSONRPC) -> None:
        """End the request that a client of an earlier version names. The later ones hang up."""
        number = (message.params or {}).get("requestId")
        if isinstance(number, Id) and (running := self._running.get((caller.key, session, number))) is not None:
            running.cancel()

    @contextmanager
    def _listed(self, caller: Caller, session: bytes, message: JSONRPC, running: anyio.CancelScope) -> Iterator[None]:
        """As one that its client can cancel; without a session nobody knows whose it is."""
        if not session or not isinstance(message.id, Id):
            yield
            return
        key = (caller.key, session, message.id)
        self._running[key] = running
        try:
            yield
        finally:
            if self._running.get(key) is running:  # else the client has used the id again
                del self._running[key]


class _Response:
    """What has been sent of a response. The one that `starts_session` names a session."""

    def __init__(self, send: Send, *, starts_session: bool) -> None:
        self._send, self._starts_session = send, starts_session
        self._started = self._ended = False

    async def send(self, message: Message) -> None:
        """An ASGI `send`."""
        if message["type"] == "http.response.start":
            self._started = True
            if self._starts_session:
                message["headers"] = [*message["headers"], (SESSION, secrets.token_urlsafe(16).encode())]
        elif message["type"] == "http.response.body":
            self._ended = not message.get("more_body")
        await self._send(message)

    async def end(self) -> None:
        """End it early: nobody waits for the rest."""
        if not self._started:
            await self._send({"type": "http.response.start", "status": 202, "headers": []})
        if not self._ended:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _after(body: bytes, receive: Receive) -> Receive:
    """An ASGI `receive` that begins with a body that has been read."""
    left = [body]

    async def receive_again() -> Any:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return receive_again


def _failing(message: JSONRPC) -> Callable[[Problem, Exception], bytes]:
    """The last event of a stream that fails, should the service stop meanwhile or the key be revoked."""

    def last_event(problem: Problem, _: Exception) -> bytes:
        error = jsonrpc_error(problem, message.id if isinstance(message.id, Id) else None)
        return b"event: message\r\ndata: %s\r\n\r\n" % msgspec.json.encode(error)

    return last_event


def _is_of_the_writer(message: JSONRPC) -> bool:
    """Whether it asks for documents: of several replicas, only the one that writes to the index knows them."""
    name = (message.params or {}).get("name")
    if message.method == "tools/call" and isinstance(name, str) and name in TOOLS:
        return TOOLS[name].of_the_writer
    return message.method in ("resources/list", "resources/read")


Serve = Callable[[Scope, Receive, Send], Awaitable[None]]


async def _load() -> Serve:
    def load() -> Serve:
        from app.mcp.server import build_server, serve_request

        return partial(serve_request, build_server())

    return await asyncio.to_thread(load)


@post(
    "/mcp",
    status_code=200,
    include_in_schema=False,
    opt={"scope": ("search", "answer", "write")},
    exception_handlers=shaped(jsonrpc_failure),
)
async def serve_mcp(request: BodyRequest, agents: Injected[Endpoint]) -> ASGIApp:
    """A message of an agent, answered by an event stream or as JSON."""
    return await agents.answer(request)
