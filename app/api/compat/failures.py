"""Errors in the shapes of foreign clients."""

from collections.abc import Callable
from typing import Any, Literal

import msgspec
import structlog
from litestar import Request, Response

from app.api.problems import CLIENT_GONE, Problem, headers_of, on_error

log = structlog.get_logger()

Shape = Callable[[Problem, Exception], tuple[int, msgspec.Struct]]
"""The status and the body that a client understands for a problem."""

Handler = Callable[[Request[Any, Any, Any], Exception], Response[Any]]


def shaped(shape: Shape) -> dict[int | type[Exception], Handler]:
    """The `exception_handlers` of a route.

    Every refusal gets its line in the log: these clients show their users an empty result, and no reason.
    """

    def on_failure(request: Request[Any, Any, Any], exc: Exception) -> Response[Any]:
        ours = on_error(request, exc)
        if ours.status_code == CLIENT_GONE:
            return ours
        problem: Problem = ours.content
        status, body = shape(problem, exc)
        log.warning("refused", id=problem.instance, path=request.url.path, status=status, detail=problem.detail)
        return Response(body, status_code=status, headers=headers_of(exc), media_type="application/json")

    return {Exception: on_failure}


class OpenAIError(msgspec.Struct, frozen=True, kw_only=True):
    """`param` names the bad field, as in "documents.3"."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIFailure(msgspec.Struct, frozen=True):
    """OpenAI's, and vLLM's and Infinity's."""

    error: OpenAIError


class RerankFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Cohere's clients read `message`, Jina's `detail`, those of vLLM `error`; who is calling nobody can tell."""

    id: str
    message: str
    detail: str
    error: OpenAIError


class TeiFailure(msgspec.Struct, frozen=True):
    """Text Embeddings Inference's."""

    error: str
    error_type: Literal["Validation", "Overloaded", "Backend"]


def failing_as(shape: Callable[[Problem], msgspec.Struct]) -> dict[int | type[Exception], Handler]:
    """As `shaped`, where the problem alone tells all, and keeps its status."""
    return shaped(lambda problem, _: (problem.status, shape(problem)))


def openai_failure(problem: Problem) -> OpenAIFailure:
    """See OpenAIFailure."""
    return OpenAIFailure(_error(problem))


def rerank_failure(problem: Problem) -> RerankFailure:
    """See RerankFailure."""
    return RerankFailure(id=problem.instance, message=problem.detail, detail=problem.detail, error=_error(problem))


def tei_failure(problem: Problem) -> TeiFailure:
    """See TeiFailure."""
    if problem.status in (429, 503):
        return TeiFailure(problem.detail, "Overloaded")
    return TeiFailure(problem.detail, "Validation" if problem.status < 500 else "Backend")


_TYPES = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 429: "rate_limit_error"}


def _error(problem: Problem) -> OpenAIError:
    pointer = problem.errors[0].pointer if problem.errors else ""
    return OpenAIError(
        message=problem.detail,
        type=_TYPES.get(problem.status, "invalid_request_error" if problem.status < 500 else "server_error"),
        param=pointer.strip("/").replace("/", ".") or None,
        code=problem.type.rpartition(":")[2].replace("-", "_"),
    )
