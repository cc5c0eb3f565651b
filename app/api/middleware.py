"""What every request passes before and after its route: a request id, a line in the log, a check of the caller.

Plain ASGI, because Litestar's middleware does not see requests that no route serves.
"""

import asyncio
import re
import uuid
from collections.abc import Iterable, Mapping
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import msgspec
import structlog
from litestar.enums import HttpMethod, ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from app.api.authentication import is_audited, is_operator, status_of, tokens_of
from app.api.compat.errors import fit_for
from app.api.hand_on import STANDING, client_of, standing_of
from app.api.problem_details import headers_of, problem_of
from app.api.request import HANDED_ON, request_id
from app.config.settings import ServiceSettings
from app.errors import NotAllowed, NotAuthenticated, Overloaded, WinnowError
from app.instance import is_loopback
from app.observability.metrics import KNOWN_METHODS
from app.observability.timing import OBSERVER
from app.observability.tracing import Span, active
from app.wiring import Services

RawHeader = tuple[bytes, bytes]

_VALID_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")

RETRY_AFTER_S = 10.0
"""A restart takes about as long."""

log = structlog.get_logger()


POLLED = ("/health", "/tei/health", "/health/live", "/health/ready", "/metrics")
"""Asked every few seconds by supervisors and Prometheus: their lines are for debugging."""

SAFE = (b"x-content-type-options", b"nosniff")
PAGE_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)
"""Pages show text that nobody has reviewed: a script that slipped through the escaping would not run."""

EXPOSED = b"X-Request-Id, Retry-After, Location, RateLimit, RateLimit-Policy, Mcp-Session-Id"
METHODS = b"GET, HEAD, POST, PUT, DELETE"
PREFLIGHT_S = b"600"
_HEADER_NAMES = re.compile(rb"[A-Za-z0-9_, -]{1,1000}")


class RequestMiddleware:
    """Wraps the application. Every response carries X-Request-Id: the caller's, if it sent a valid one.

    It also answers HEAD as GET without the body, and browsers' questions about requests from pages of other origins.
    """

    def __init__(self, app: ASGIApp, settings: ServiceSettings, services: Services) -> None:
        self._app = app
        self._settings = settings
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        state: dict[str, Any] = scope.setdefault("state", {})
        headers = dict(scope["headers"])
        state["request_id"] = _request_id(headers)
        method = scope["method"]
        if method == "HEAD":
            scope = {**scope, "method": HttpMethod.GET}
        send_more = self._sending(send, state, headers, without_body=method == "HEAD")
        metrics, tracer = self._services.metrics, self._services.tracer
        metrics.request_begun()
        name = method if method in KNOWN_METHODS else "_OTHER"
        span = state["span"] = None if tracer is None else tracer.request(name, headers)
        observed = OBSERVER.set(metrics)
        try:
            with active(span):
                await self._enter(scope, receive, send_more)
        except asyncio.CancelledError:
            if not self._services.stopping.is_set():
                raise
            await _fail(
                Overloaded("the service is stopping; ask again when it is back", RETRY_AFTER_S), scope, send_more
            )
        except Exception:
            if "ended" not in state:
                raise
            try:
                await _fail(state["ended"], scope, send_more)
            finally:
                if "close" in state:  # Litestar does not, where sending fails
                    await state["close"]()
        finally:
            OBSERVER.reset(observed)
            seconds = perf_counter() - started
            if "refused" in state:
                metrics.refused(state["refused"])
            metrics.request_ended(method, scope.get("path_template"), status_of(state), seconds)
            _end_span(span, scope, state)
            _log_line(scope, method, state, 1000 * seconds)
            if self._services.access.keyed and is_audited(method, state):
                self._record(scope, method, state)

    def _record(self, scope: Scope, method: str, state: dict[str, Any]) -> None:
        """A line of the audit log; an unknown path may have a secret in it, and is left out."""
        peer = client[0] if (client := scope.get("client")) else None
        self._services.audit.record(
            request_id=state["request_id"],
            key=state["caller"].key if "caller" in state else None,
            client=client_of(scope["headers"], self._services.replicas) or peer,
            method=method if method in KNOWN_METHODS else "other",
            route=scope.get("path_template") or "other",
            status=status_of(state),
        )

    def _sending(self, send: Send, state: dict[str, Any], headers: dict[bytes, bytes], *, without_body: bool) -> Send:
        """`send` with what every response has. A stream asks with each piece whether the caller's key is still good."""
        more = [(b"x-request-id", state["request_id"].encode()), SAFE, *cors_headers(headers, self._settings)]

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                state["status"] = int(message["status"])
                rates = self._services.access.rate_headers(state["caller"]) if "rated" in state else ()
                message["headers"] = _completed(message.get("headers", ()), (*more, *rates))
            elif without_body:
                if state.setdefault("head_sent", message) is not message:
                    return
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            elif message.get("more_body") and "caller" in state:
                try:
                    await self._services.access.confirm(state["caller"])
                except NotAuthenticated as exc:
                    state["ended"] = exc  # what is raised may arrive as a part of a group
                    raise
            await send(message)

        return send_more

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._identify(scope)
        except NotAllowed as exc:
            scope["state"]["refused"] = "place"
            await _refuse(exc, scope, send)
            return
        if (allowed := preflight(scope, self._settings)) is None:
            await self._app(scope, receive, send)
        else:
            await send({"type": "http.response.start", "status": 204, "headers": allowed})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _identify(self, scope: Scope) -> None:
        """Find out who is calling. What keeps us from knowing is raised by the routes that need to know."""
        access, state, headers = self._services.access, scope["state"], scope["headers"]
        await access.refresh()
        if standing := standing_of(headers, self._services.replicas):
            state[HANDED_ON] = True
        else:
            check_caller(scope, self._settings, keyed=access.keyed)
            operator, local = is_operator(headers, self._services.presence), is_local(scope)
            standing = "operator" if operator else "local" if local else "remote"
        state[STANDING] = standing
        try:
            tokens = [*tokens_of(headers)]
            caller = access.identify(tokens, operator=standing == "operator", local=standing == "local")
        except WinnowError as exc:
            state["refusal"] = exc
        else:
            state["caller"] = msgspec.structs.replace(caller, request_id=state["request_id"])


def _end_span(span: Span | None, scope: Any, state: Mapping[str, Any]) -> None:
    if span is None:
        return
    status, route = status_of(state), scope.get("path_template")
    if route:
        span.rename(f"{scope['method']} {route}")
        span.set({"http.route": route})
    if status is not None:
        span.set({"http.response.status_code": status})
    span.end("" if status is not None and status < 500 else str(status or "client_gone"))


def _completed(headers: Iterable[RawHeader], more: Iterable[RawHeader]) -> list[RawHeader]:
    """With `more`; those of pages get theirs, if they have none of their own, and where GET is allowed so is HEAD."""
    completed: list[RawHeader] = []
    headers = list(headers)
    own = {name.lower() for name, _ in headers}
    for name, value in headers:
        if name.lower() == b"allow" and b"GET" in value and b"HEAD" not in value:
            value += b", HEAD"
        elif name.lower() == b"content-type" and value.startswith(b"text/html"):
            completed += [header for header in PAGE_HEADERS if header[0] not in own]
        completed.append((name, value))
    return [*completed, *more]


def cors_headers(headers: Mapping[bytes, bytes], settings: ServiceSettings) -> list[RawHeader]:
    """What lets a page of another origin read the response, if the settings list its origin."""
    if not settings.cors_origins:
        return []
    origin = headers.get(b"origin", b"")
    vary = [] if "*" in settings.cors_origins else [(b"vary", b"Origin")]
    if not _is_listed(origin.decode("latin-1"), settings):
        return vary
    allowed = origin if vary else b"*"
    return [(b"access-control-allow-origin", allowed), (b"access-control-expose-headers", EXPOSED), *vary]


def preflight(scope: Any, settings: ServiceSettings) -> list[RawHeader] | None:
    """The headers of the answer to a browser that asks whether a page may send a request; None for other requests.

    A listed origin may send any header: the clients of OpenAI have a dozen of their own.
    """
    headers = dict(scope["headers"])
    asks = scope["method"] == "OPTIONS" and b"access-control-request-method" in headers
    if not asks or not _is_listed(headers.get(b"origin", b"").decode("latin-1"), settings):
        return None
    allowed = [(b"access-control-allow-methods", METHODS), (b"access-control-max-age", PREFLIGHT_S)]
    wanted: bytes = headers.get(b"access-control-request-headers", b"")
    if _HEADER_NAMES.fullmatch(wanted):
        allowed.append((b"access-control-allow-headers", wanted))
    if headers.get(b"access-control-request-private-network") == b"true":
        allowed.append((b"access-control-allow-private-network", b"true"))
    return allowed


def check_caller(scope: Any, settings: ServiceSettings, *, keyed: bool = False) -> None:
    """Serve only programs on this machine, as long as no API keys are needed. Raises NotAllowed with the fix.

    The peer's address counts, never X-Forwarded-For, which anyone can send. A web page that the user visits also sends
    from this machine, but under its own name: so Host must be loopback or configured (DNS rebinding), and Origin, where
    a browser sends one, must be the service's own or configured, port and all: another port is another program.
    Whoever serves all clients keeps the guard of Host by configuring names: in a container every caller is another
    machine, even the browser of the machine that runs it. So does who asks for keys, which a page does not have. That
    of Origin holds in any case.
    """
    headers = dict(scope["headers"])
    if not (settings.allow_anonymous or keyed or is_local(scope)):
        raise NotAllowed(
            f"only clients on this machine are served, not {scope['client'][0]}: `winnow keys create` makes a key for "
            "others, and WINNOW_ALLOW_ANONYMOUS=1 serves all"
        )
    host = headers.get(b"host", b"").decode("latin-1")
    any_name = (settings.allow_anonymous or (keyed and not is_local(scope))) and not settings.hosts
    if host and not any_name and not _is_ours(_host_name(f"//{host}"), settings):
        raise NotAllowed(f"host {host!r} is not allowed; WINNOW_SERVICE_HOSTS lists the names of this service")
    _check_page(headers, host, settings)


def _check_page(headers: Mapping[bytes, bytes], host: str, settings: ServiceSettings) -> None:
    """Serve no page of another origin, but show ours to who follows a link. Raises NotAllowed.

    Browsers send no Origin for images, scripts and frames: a page cannot read what they get, but each may cost a call
    to a model. Sec-Fetch-Site, which no page can set, tells these, and a page of ours behind a proxy that changes Host.
    """
    site, origin = headers.get(b"sec-fetch-site", b""), headers.get(b"origin", b"").decode("latin-1")
    if site == b"same-origin" or "*" in settings.cors_origins:
        return
    if origin and not _is_listed(origin, settings) and not _is_own(origin, host, settings):
        raise NotAllowed(
            f"origin {origin!r} is not allowed; WINNOW_SERVICE_CORS_ORIGINS lists pages that may use the service"
        )
    followed = headers.get(b"sec-fetch-mode") == b"navigate" and headers.get(b"sec-fetch-dest") == b"document"
    if not origin and not followed and site in (b"cross-site", b"same-site"):
        raise NotAllowed(
            "pages of another origin cannot load this; WINNOW_SERVICE_CORS_ORIGINS lists those that may ask"
        )


def is_local(scope: Any) -> bool:
    """Whether a program on this machine is asking, as far as the connection tells."""
    client = scope.get("client")
    return client is None or is_loopback(client[0])


def _is_ours(name: str, settings: ServiceSettings) -> bool:
    names = {host.lower() for host in (settings.host, *settings.hosts)}
    return is_loopback(name) or name.lower() in names | {_host_name(f"//{host}") for host in names}


def _is_listed(origin: str, settings: ServiceSettings) -> bool:
    listed = settings.cors_origins
    return bool(origin) and ("*" in listed or origin.lower() in {one.lower().rstrip("/") for one in listed})


def _is_own(origin: str, host: str, settings: ServiceSettings) -> bool:
    """Whether it is the address that the browser used, as in Host, or one that the settings name.

    Of its scheme only the default port counts: a proxy that speaks TLS hands on http.
    """
    address = origin.lower().partition("://")[2]
    own = {host.removesuffix(":80").removesuffix(":443"), *settings.hosts, urlsplit(settings.public_url or "").netloc}
    return bool(address) and address in {one.lower() for one in own}


def _host_name(url: str) -> str:
    """The host of a URL, without port and brackets; "" if it has none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    sent = headers.get(b"x-request-id", b"")
    return sent.decode() if _VALID_ID.fullmatch(sent) else uuid.uuid4().hex


async def _fail(exc: WinnowError, scope: Scope, send: Send) -> None:
    """Refuse the request, if its response has not begun; else end its stream, in the stream's own way to fail.

    The server cancels the requests that it cannot finish before it ends; and a key may be revoked during a stream.
    """
    state: dict[str, Any] = scope["state"]
    if "status" not in state:
        await _refuse(exc, scope, send)
    elif "fail" in state:
        last = state["fail"](problem_of(exc, request_id(scope), state.get("caller")), exc)
        await send({"type": "http.response.body", "body": last, "more_body": False})


async def _refuse(exc: WinnowError, scope: Scope, send: Send) -> None:
    problem = problem_of(exc, request_id(scope), scope["state"].get("caller"))
    content, media_type = fit_for(scope["path"], problem, exc)
    body = msgspec.json.encode(content)
    headers = [(b"content-type", media_type.encode()), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in headers_of(exc).items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _log_line(scope: Any, method: str, state: dict[str, Any], ms: float) -> None:
    """One line per request: no query text, no query string, no body."""
    say = log.debug if scope["path"] in POLLED else log.info
    say(
        "request",
        id=state["request_id"],
        method=method,
        route=scope.get("path_template") or scope["path"],
        status=status_of(state),
        key=state["caller"].key if "caller" in state else None,
        ms=round(ms, 3),
        **({"trace": state["span"].trace_id} if state.get("span") else {}),
        **state.get("timings", {}),
    )
