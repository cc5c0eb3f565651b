"""What every request passes before and after its route: a request id, a line in the log, a check of the caller.

Plain ASGI, because Litestar's middleware does not see requests that no route serves.
"""

import asyncio
import re
import uuid
from collections.abc import Callable
from ipaddress import ip_address
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import msgspec
import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from app.api.compat.errors import fit_for
from app.api.problem_details import headers_of, problem_of
from app.api.request import request_id
from app.config.settings import ServiceSettings
from app.errors import NotAllowed, Overloaded, WinnowError

_VALID_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")

RETRY_AFTER_S = 10.0
"""A restart takes about as long."""

log = structlog.get_logger()


class RequestMiddleware:
    """Wraps the application. Every response carries X-Request-Id: the caller's, if it sent a valid one."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings, stopping: Callable[[], bool]) -> None:
        self._app = app
        self._settings = settings
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = sent_id = _request_id(scope)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                state["status"] = int(message["status"])
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", sent_id.encode())]
            await send(message)

        try:
            await self._enter(scope, receive, send_with_id)
        except asyncio.CancelledError:
            if not self._stopping():
                raise
            await _say_stopped(scope, state, send_with_id)
        finally:
            _log_line(scope, state, 1000 * (perf_counter() - started))

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            check_caller(scope, self._settings)
        except NotAllowed as exc:
            await _refuse(exc, scope, send)
        else:
            await self._app(scope, receive, send)


def check_caller(scope: Any, settings: ServiceSettings) -> None:
    """Serve only programs on this machine, as long as there are no API keys. Raises NotAllowed with the fix.

    The peer's address counts, never X-Forwarded-For, which anyone can send. A web page that the user visits also sends
    from this machine, but under its own name: so Host must be loopback or configured (DNS rebinding), and so must
    Origin where a browser sends one. Whoever serves all clients keeps that guard by configuring names: in a container
    every caller is another machine, even the browser of the machine that runs it.
    """
    if settings.allow_anonymous and not settings.hosts:
        return
    headers = dict(scope["headers"])
    client = scope.get("client")
    if not settings.allow_anonymous and client is not None and not is_loopback(client[0]):
        raise NotAllowed(
            f"only clients on this machine are served, not {client[0]}; WINNOW_ALLOW_ANONYMOUS=1 serves all"
        )
    host = headers.get(b"host", b"").decode("latin-1")
    if host and not _is_ours(_host_name(f"//{host}"), settings):
        raise NotAllowed(f"host {host!r} is not allowed; WINNOW_SERVICE_HOSTS lists the names of this service")
    origin = headers.get(b"origin", b"").decode("latin-1")
    if origin and not _is_ours(_host_name(origin), settings):
        raise NotAllowed(f"origin {origin!r} is not allowed; WINNOW_SERVICE_HOSTS lists the names of this service")


def is_loopback(host: str) -> bool:
    """127.0.0.0/8, ::1, their IPv4-mapped forms, and the names that RFC 6761 keeps for them."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _is_ours(name: str, settings: ServiceSettings) -> bool:
    return is_loopback(name) or name.lower() in {host.lower() for host in (settings.host, *settings.hosts)}


def _host_name(url: str) -> str:
    """The host of a URL, without port and brackets; "" if it has none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _request_id(scope: Any) -> str:
    sent: bytes = dict(scope["headers"]).get(b"x-request-id", b"")
    return sent.decode() if _VALID_ID.fullmatch(sent) else uuid.uuid4().hex


async def _say_stopped(scope: Scope, state: dict[str, Any], send: Send) -> None:
    """The server cancels the requests that it cannot finish before it ends: 503, or a stream's own way to fail."""
    exc = Overloaded("the service is stopping; ask again when it is back", RETRY_AFTER_S)
    if "status" not in state:
        await _refuse(exc, scope, send)
    elif "fail" in state:
        last = state["fail"](problem_of(exc, request_id(scope)), exc)
        await send({"type": "http.response.body", "body": last, "more_body": False})


async def _refuse(exc: WinnowError, scope: Scope, send: Send) -> None:
    problem = problem_of(exc, request_id(scope))
    content, media_type = fit_for(scope["path"], problem, exc)
    body = msgspec.json.encode(content)
    headers = [(b"content-type", media_type.encode()), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in headers_of(exc).items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _log_line(scope: Any, state: dict[str, Any], ms: float) -> None:
    """One line per request: no query text, no query string, no body."""
    log.info(
        "request",
        id=state["request_id"],
        method=scope["method"],
        route=scope.get("path_template") or scope["path"],
        status=state.get("status"),
        ms=round(ms, 3),
        **state.get("timings", {}),
    )
