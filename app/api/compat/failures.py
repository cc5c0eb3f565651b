"""Errors in the shapes that other products' clients read."""

from collections.abc import Callable
from typing import Any, Literal

import msgspec
from litestar import MediaType, Request, Response

from app.api.problems import Problem, on_error

Handlers = dict[type[Exception] | int, Callable[[Request[Any, Any, Any], Any], Response[Any]]]


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


def failing_as(shape: Callable[[Problem], object]) -> Handlers:
    """The `exception_handlers` of routes whose clients expect errors of this shape."""

    def handle(request: Request[Any, Any, Any], exc: Exception) -> Response[Any]:
        response = on_error(request, exc)
        return Response(
            content=shape(response.content),
            status_code=response.status_code,
            headers=response.headers,
            media_type=MediaType.JSON,
        )

    return {Exception: handle}


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
