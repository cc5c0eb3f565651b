"""Errors as OpenAI's clients read them. Those of chats help their users, too: RAGFlow decides by words in the text
whether to ask again, for minutes; OpenAI's SDK by the status, and by a header that can say no.
"""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec

from app.api.problem_details import Problem
from app.errors import (
    BudgetExceeded,
    MissingCapability,
    NotFound,
    PromptTooLong,
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
TOO_LONG = "context_length_exceeded"

_TOLD = {SPENT: "insufficient quota: ", REJECTED: "invalid upstream request: "}
"""What stands in the text, too: it is all that later versions of the SDK put into their exceptions."""

_EXCEEDED = "this model's maximum context length is exceeded"
"""LiteLLM knows by these words, and not by the code, that another model may help."""

_STATUS = {422: 400}
_TYPES = {401: "authentication_error", 402: SPENT, 403: "permission_error", 429: "rate_limit_error"}


class OpenAIError(msgspec.Struct, frozen=True, kw_only=True):
    """`param` names the bad field, as in "documents.3"."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIFailure(msgspec.Struct, frozen=True):
    """OpenAI's, and vLLM's and Infinity's."""

    error: OpenAIError


class AnyonesFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Cohere's clients read `message`, Jina's `detail`, the others `error`; who is calling nobody can tell."""

    id: str
    message: str
    detail: str
    error: OpenAIError


def openai_failure(problem: Problem, exc: Exception) -> tuple[int, OpenAIFailure]:
    """A problem as it is, in these words."""
    error = OpenAIError(
        message=problem.detail,
        type=_type(problem.status),
        param=_param(problem, exc),
        code=problem.type.rpartition(":")[2].replace("-", "_"),
    )
    return problem.status, OpenAIFailure(error)


def anyones_failure(problem: Problem, exc: Exception) -> tuple[int, AnyonesFailure]:
    """The same for every client. The status is ours."""
    status, failure = openai_failure(problem, exc)
    told = AnyonesFailure(id=problem.instance, message=problem.detail, detail=problem.detail, error=failure.error)
    return status, told


def openai_error(problem: Problem, exc: Exception) -> tuple[int, OpenAIFailure]:
    """That of a chat. A safety block is 400 as with Azure: nothing that asking again would change."""
    if isinstance(exc, NotFound | CollectionNotFound | UnknownBackend):
        message = f"invalid model: {problem.detail}"
        return 404, OpenAIFailure(OpenAIError(message=message, type=_type(404), param="model", code="model_not_found"))
    if isinstance(exc, PromptTooLong):
        message = f"invalid request: {_EXCEEDED}; {problem.detail}"
        return 400, OpenAIFailure(OpenAIError(message=message, type=_type(400), param="messages", code=TOO_LONG))
    plain = openai_failure(problem, exc)[1].error
    status = 400 if isinstance(exc, Refused) else _STATUS.get(problem.status, problem.status)
    kind = SPENT if _is_spent(exc) else REJECTED if isinstance(exc, UpstreamRejected) else _type(status)
    code = SPENT if _is_spent(exc) else "content_filter" if isinstance(exc, Refused) else plain.code
    message = f"{_TOLD.get(kind, '')}{problem.detail}"
    return status, OpenAIFailure(OpenAIError(message=message, type=kind, param=plain.param, code=code))


def retry_hints(status: int, exc: Exception) -> Mapping[str, str]:
    """A header for the SDK where it is of no use to ask again, although the status may not tell: the SDK thinks better
    of 409 and 5xx.
    """
    final = status < 500 and status != HTTPStatus.TOO_MANY_REQUESTS
    lasting = isinstance(exc, UpstreamError) and not exc.retryable
    return {SHOULD_RETRY: "false"} if final or lasting or _is_spent(exc) else {}


def _param(problem: Problem, exc: Exception) -> str | None:
    """A backend that is unknown, or cannot do it, is in the model's name."""
    if isinstance(exc, UnknownBackend | MissingCapability):
        return "model"
    pointer = problem.errors[0].pointer if problem.errors else ""
    return pointer.strip("/").replace("/", ".") or None


def _is_spent(exc: Exception) -> bool:
    return isinstance(exc, BudgetExceeded) or (isinstance(exc, UpstreamRateLimited) and exc.quota == "day")


def _type(status: int) -> str:
    return _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
