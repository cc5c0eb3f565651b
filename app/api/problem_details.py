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
from app.domain import Fallback
from app.errors import FieldProblem, InvalidRequest, WinnowError
from indexing import errors as index_errors

MEDIA_TYPE = "application/problem+json"

CLIENT_GONE = 499
"""Nobody reads it; it is for the log."""

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


class UnsupportedMediaType(InvalidRequest):
    """The body is not of a kind that we read."""


class ClientGone(Exception):
    """The client closed the connection before it was answered."""


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
    UnsupportedMediaType: 415,
    index_errors.UnreadableDocument: 422,
    errors.UnknownBackend: 422,
    errors.MissingCapability: 422,
    errors.RateLimited: 429,
    errors.Overloaded: 503,
    index_errors.EmbedderUnavailable: 503,
    index_errors.IndexBusy: 503,
    index_errors.StoreUnavailable: 503,
    errors.UpstreamError: 502,
    errors.UpstreamTimeout: 504,
    errors.UpstreamUnavailable: 503,
    errors.Resting: 503,
    errors.UpstreamRateLimited: 503,
    errors.UpstreamRejected: 502,
    errors.PromptTooLong: 502,
    errors.UpstreamBadReply: 502,
    errors.Refused: 502,
}
"""By class, and for a class that is not listed, by its nearest base; the name of that class is the problem's type."""


def request_id(scope: Mapping[str, object]) -> str:
    """The id that `app.api.middleware` gave the request."""
    state = scope.get("state")
    return str(state.get("request_id", "")) if isinstance(state, dict) else ""


def problem_of(exc: Exception, instance: str) -> Problem:
    """What the client may know of `exc`; of a programmer's error, nothing but that it happened."""
    if isinstance(exc, HTTPException):
        return _from_http(exc, instance)
    known = next((kind for kind in type(exc).__mro__ if kind in STATUS), None)
    if known is None:
        detail = f"something went wrong on our side; the log has it under {instance}"
        return Problem(
            type=_urn("internal-error"), title="Internal error", status=500, detail=detail, instance=instance
        )
    return Problem(
        type=_urn(_words(known, "-")),
        title=_words(known, " ").capitalize(),
        status=STATUS[known],
        detail=str(exc),
        instance=instance,
        errors=exc.problems if isinstance(exc, InvalidRequest) else (),
        fallbacks=getattr(exc, "failures", ()) or msgspec.UNSET,
    )


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
    problem = problem_of(exc, request_id(request.scope))
    note_failure(problem, exc)
    return Response(content=problem, status_code=problem.status, headers=headers_of(exc), media_type=MEDIA_TYPE)


def note_failure(problem: Problem, exc: Exception) -> None:
    """Our own failures with their trace, others' with their text; a caller's mistake is not worth a line."""
    if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("unexpected error", id=problem.instance, exc_info=exc)
    elif problem.status > HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("cannot serve", id=problem.instance, problem=problem.type, detail=problem.detail)


def _from_http(exc: HTTPException, instance: str) -> Problem:
    status = HTTPStatus(exc.status_code)
    detail = _HTTP_DETAIL.get(status, _said(exc) if status < HTTPStatus.INTERNAL_SERVER_ERROR else status.phrase)
    return Problem(
        type=_urn(status.phrase.lower().replace(" ", "-")),
        title=status.phrase,
        status=status.value,
        detail=detail,
        instance=instance,
    )


def _said(exc: HTTPException) -> str:
    """Litestar's words; for parameters, which of them and why."""
    if isinstance(exc, ValidationException) and isinstance(exc.extra, list):
        wrong = (f"{found.get('key', 'it')}: {found.get('message', '')}" for found in exc.extra)
        return "; ".join(wrong).replace("`", "").replace("Expected", "expected")
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
    HTTPStatus.NOT_FOUND: "there is nothing at this path; /schema describes what there is",
    HTTPStatus.METHOD_NOT_ALLOWED: "this path does not take that method; the header Allow lists those that it takes",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "the body is larger than the service takes; [service] max_body_bytes sets it",
}


def _urn(code: str) -> str:
    return f"urn:winnow:problem:{code}"


def _words(kind: type[Exception], separator: str) -> str:
    name = kind.__name__
    return "".join(f"{separator}{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))
