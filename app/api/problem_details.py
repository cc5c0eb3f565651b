"""Errors as problem details (RFC 9457). The one place that knows which error has which HTTP status."""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException

from app import errors
from app.api.request import ClientGone, request_id
from app.backends.settings import AUTO
from app.domain import Caller, Fallback
from app.errors import FieldProblem, InvalidRequest, WinnowError
from indexing import errors as index_errors

MEDIA_TYPE = "application/problem+json"

CLIENT_GONE = 499
"""nginx's status for it. Nobody reads the response; it is for the log."""

log = structlog.get_logger()


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A problem detail. `type` is stable and fit for programs, `detail` for people; `instance` is the request's id.

    `fallbacks`: the backends that were tried, and why each did not serve; left out where none was.
    """

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: tuple[FieldProblem, ...] = ()
    fallbacks: tuple[Fallback, ...] | msgspec.UnsetType = msgspec.UNSET


STATUS: Mapping[type[WinnowError], int] = {
    WinnowError: 500,
    errors.ConfigError: 500,
    InvalidRequest: 400,
    index_errors.InvalidFilter: 400,
    index_errors.InvalidName: 400,
    errors.BudgetExceeded: 402,
    errors.NotAuthenticated: 401,
    errors.NotAllowed: 403,
    errors.NotFound: 404,
    index_errors.CollectionNotFound: 404,
    errors.Conflict: 409,
    index_errors.EmbedderMismatch: 409,
    errors.TooLarge: 413,
    errors.UnsupportedMediaType: 415,
    index_errors.UnreadableDocument: 422,
    errors.UnknownBackend: 422,
    errors.MissingCapability: 422,
    errors.RateLimited: 429,
    errors.Overloaded: 503,
    index_errors.EmbedderUnavailable: 503,
    index_errors.IndexBusy: 503,
    index_errors.StoreUnavailable: 503,
    index_errors.StoreBusy: 503,
    index_errors.CollectionDamaged: 503,
    index_errors.DiskFull: 507,
    errors.UpstreamError: 502,
    errors.UpstreamTimeout: 504,
    errors.UpstreamUnavailable: 503,
    errors.Resting: 503,
    errors.UpstreamRateLimited: 503,
    errors.UpstreamUntrusted: 502,
    errors.UpstreamRejected: 502,
    errors.PromptTooLong: 502,
    errors.UpstreamBadReply: 502,
    errors.Refused: 502,
}
"""By class, and for a class that is not listed, by its nearest base; the name of that class is the problem's type."""


def problem_of(exc: Exception, instance: str, caller: Caller | None) -> Problem:
    """What the client may know of `exc`; of a programming error, only that it happened.

    A `caller` whose key is for some backends is told of no others; None is whoever was not let in, or at the machine.
    """
    if isinstance(exc, HTTPException):
        return _from_http(exc, instance)
    listed = next((kind for kind in type(exc).__mro__ if kind in STATUS), None)
    if listed is None:
        detail = f"internal error; the log has the details under {instance}"
        return Problem(
            type=_urn("internal-error"), title="Internal error", status=500, detail=detail, instance=instance
        )
    return Problem(
        type=_urn(_words(listed, "-")),
        title=_words(listed, " ").capitalize(),
        status=STATUS[listed],
        detail=_kept_back(exc, caller) or str(exc),
        instance=instance,
        errors=_fields(exc, _kept_back(exc, caller)) if isinstance(exc, InvalidRequest | errors.NotAllowed) else (),
        fallbacks=getattr(exc, "failures", ()) or msgspec.UNSET,
    )


def _kept_back(exc: BaseException, caller: Caller | None) -> str:
    """What to say where the text, or that of a cause, names backends that are none of the caller's; "" elsewhere."""
    if caller is None or caller.backends is None:
        return ""
    cause: BaseException | None = exc
    while cause is not None:
        if not all(name == AUTO or caller.may_use(name) for name in getattr(cause, "named", ())):
            mine = ", ".join(dict.fromkeys(caller.backends))
            return f"no backend of the key {caller.key!r} can do this; it may use {mine}"
        cause = cause.__cause__
    return ""


def _fields(exc: InvalidRequest | errors.NotAllowed, instead: str) -> tuple[FieldProblem, ...]:
    return tuple(FieldProblem(one.pointer, instead or one.detail) for one in exc.problems)


def headers_of(exc: Exception) -> dict[str, str]:
    """Retry-After in whole seconds, rounded up; what Litestar's own errors carry (Allow); a challenge for a key."""
    headers = dict(exc.headers or {}) if isinstance(exc, HTTPException) else {}
    retry_after = getattr(exc, "retry_after", None)
    if retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
    if isinstance(exc, errors.NotAuthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def on_error(request: Request[Any, Any, Any], exc: Exception) -> Response[Problem]:
    """Litestar's exception handler for everything."""
    if isinstance(exc, ClientGone) or getattr(exc, "detail", "") == "client disconnected prematurely":
        return Response(content=_gone(request), status_code=CLIENT_GONE, media_type=MEDIA_TYPE)
    problem = problem_of(exc, request_id(request.scope), request.scope["state"].get("caller"))
    note_failure(problem, exc)
    return Response(content=problem, status_code=problem.status, headers=headers_of(exc), media_type=MEDIA_TYPE)


def note_failure(problem: Problem, exc: Exception) -> None:
    """Log our own failures with their trace, those of other services with their text, and no mistakes of callers.

    Nor those who are refused for want of room: their requests are in the log, and there may be hundreds a second.
    """
    if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("unexpected error", id=problem.instance, exc_info=exc)
    elif problem.status > HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(exc, errors.Overloaded):
        log.warning("request failed", id=problem.instance, problem=problem.type, detail=problem.detail)


def _from_http(exc: HTTPException, instance: str) -> Problem:
    status = HTTPStatus(exc.status_code)
    detail = _HTTP_DETAIL.get(status, _message(exc) if status < HTTPStatus.INTERNAL_SERVER_ERROR else status.phrase)
    return status_problem(status, detail, instance)


def status_problem(status: HTTPStatus, detail: str, instance: str) -> Problem:
    """A problem that is known by its status alone."""
    return Problem(
        type=_urn(status.phrase.lower().replace(" ", "-")),
        title=status.phrase,
        status=status.value,
        detail=detail,
        instance=instance,
    )


def _message(exc: HTTPException) -> str:
    """Litestar's message; for parameters, which of them and why."""
    if isinstance(exc, ValidationException) and isinstance(exc.extra, list):
        messages = (f"{problem.get('key', 'it')}: {problem.get('message', '')}" for problem in exc.extra)
        return "; ".join(messages).replace("`", "").replace("Expected", "expected")
    return exc.detail


def _gone(request: Request[Any, Any, Any]) -> Problem:
    return Problem(
        type=_urn("client-gone"),
        title="Client gone",
        status=CLIENT_GONE,
        detail="the client closed the connection",
        instance=request_id(request.scope),
    )


_HTTP_DETAIL = {
    HTTPStatus.NOT_FOUND: "nothing at this path; /schema lists the endpoints",
    HTTPStatus.METHOD_NOT_ALLOWED: "method not allowed here; the Allow header lists the methods of this path",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "the body is too large; [service] max_body_bytes sets the limit",
}


def _urn(code: str) -> str:
    return f"urn:winnow:problem:{code}"


def _words(kind: type[Exception], separator: str) -> str:
    name = kind.__name__
    return "".join(f"{separator}{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))
