"""Errors as OpenAI's clients read them, and as those clients' users are helped: RAGFlow decides by words in the text
whether to ask again, for minutes; OpenAI's SDK by the status, and by a header that can say no.
"""

from http import HTTPStatus
from typing import Any

from litestar import Request, Response

from app.api.compat.failures import OpenAIError, OpenAIFailure
from app.api.compat.refusals import Handler, shaped
from app.api.problems import CLIENT_GONE, Problem
from app.errors import (
    BudgetExceeded,
    NotFound,
    Refused,
    UnknownBackend,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
)
from indexing.errors import CollectionNotFound

SHOULD_RETRY = "x-should-retry"

SPENT = "insufficient_quota"
REJECTED = "invalid_upstream_request"

_TOLD = {SPENT: "insufficient quota: ", REJECTED: "invalid upstream request: "}
"""What stands in the text, too: it is all that later versions of the SDK put into their exceptions."""

_STATUS = {422: 400}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def openai_error(problem: Problem, exc: Exception) -> tuple[int, OpenAIFailure]:
    """The status and the body. A safety block is 400 as with Azure: nothing that asking again would change."""
    missing = isinstance(exc, NotFound | CollectionNotFound | UnknownBackend)
    status = 404 if missing else 400 if isinstance(exc, Refused) else _STATUS.get(problem.status, problem.status)
    kind = _type(status, exc)
    first = "invalid model: " if missing else _TOLD.get(kind, "")
    error = OpenAIError(
        message=f"{first}{problem.detail}",
        type=kind,
        param="model" if missing else _param(problem),
        code="model_not_found" if missing else _code(problem, exc),
    )
    return status, OpenAIFailure(error)


def openai_handlers() -> dict[int | type[Exception], Handler]:
    """The `exception_handlers` of a route."""
    handle = shaped(openai_error)[Exception]

    def on_failure(request: Request[Any, Any, Any], exc: Exception) -> Response[Any]:
        response = handle(request, exc)
        status = response.status_code or HTTPStatus.INTERNAL_SERVER_ERROR
        if status != CLIENT_GONE and _is_final(exc, status):
            response.headers[SHOULD_RETRY] = "false"
        return response

    return {Exception: on_failure}


def _is_spent(exc: Exception) -> bool:
    return isinstance(exc, BudgetExceeded) or (isinstance(exc, UpstreamRateLimited) and exc.quota == "day")


def _is_final(exc: Exception, status: int) -> bool:
    """Whether it is of no use to ask again, although the status may not tell: the SDK thinks better of 409 and 5xx."""
    if _is_spent(exc) or (status < 500 and status != HTTPStatus.TOO_MANY_REQUESTS):
        return True
    return isinstance(exc, UpstreamError) and not exc.retryable


def _type(status: int, exc: Exception) -> str:
    if _is_spent(exc):
        return SPENT
    if isinstance(exc, UpstreamRejected):
        return REJECTED
    return _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")


def _code(problem: Problem, exc: Exception) -> str:
    if _is_spent(exc):
        return SPENT
    return "content_filter" if isinstance(exc, Refused) else problem.type.rpartition(":")[2].replace("-", "_")


def _param(problem: Problem) -> str | None:
    return problem.errors[0].pointer.strip("/").replace("/", ".") or None if problem.errors else None
