"""Errors in the format that each client understands."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException

from app.api.problem_details import CLIENT_GONE, MEDIA_TYPE, Problem, headers_of, on_error
from app.errors import (
    BudgetExceeded,
    MissingCapability,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    PromptTooLong,
    Refused,
    UnknownBackend,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
)
from indexing.errors import CollectionNotFound

log = structlog.get_logger()

Shape = Callable[[Problem, Exception], tuple[int, dict[str, Any]]]
"""The status and the JSON that a client understands for a problem."""

Hints = Callable[[int, Exception], Mapping[str, str]]
"""Headers that tell a client more than the status does."""

Handler = Callable[[Request[Any, Any, Any], Exception], Response[Any]]


def _no_hints(_status: int, _exc: Exception) -> Mapping[str, str]:
    return {}


def shaped(shape: Shape, hints: Hints = _no_hints) -> dict[int | type[Exception], Handler]:
    """The `exception_handlers` of a route.

    Every refusal gets its line in the log: many clients show their users an empty result, and no reason.
    """

    def on_failure(request: Request[Any, Any, Any], exc: Exception) -> Response[Any]:
        ours = on_error(request, exc)
        if ours.status_code == CLIENT_GONE:
            return ours
        problem: Problem = ours.content
        status, body = shape(problem, exc)
        log.warning("refused", id=problem.instance, path=request.url.path, status=status, detail=problem.detail)
        headers = {**headers_of(exc), **hints(status, exc)}
        return Response(body, status_code=status, headers=headers, media_type="application/json")

    return {Exception: on_failure}


SHOULD_RETRY = "x-should-retry"

SPENT = "insufficient_quota"
REJECTED = "invalid_upstream_request"
TOO_LONG = "context_length_exceeded"

_PREFIXES = {SPENT: "insufficient quota: ", REJECTED: "invalid upstream request: "}
"""Also in the text, because later versions of the SDK put nothing else into their exceptions."""

_EXCEEDED = "this model's maximum context length is exceeded"
"""LiteLLM looks for these words, not for the code, to learn that another model may help."""

_STATUS = {422: 400}
_TYPES = {401: "authentication_error", 402: SPENT, 403: "permission_error", 429: "rate_limit_error"}


def openai_failure(problem: Problem, exc: Exception) -> tuple[int, dict[str, Any]]:
    """OpenAI's error, which vLLM and Infinity share. `param` names the bad field, as in "documents.3"."""
    code = problem.type.rpartition(":")[2].replace("-", "_")
    return problem.status, _openai(problem.detail, _type(problem.status), _param(problem, exc), code)


def anyones_failure(problem: Problem, exc: Exception) -> tuple[int, dict[str, Any]]:
    """The same for every client, for nobody can tell who is calling: Cohere's clients read `message`, Jina's `detail`,
    the others `error`. The status is ours.
    """
    status, failure = openai_failure(problem, exc)
    return status, {"id": problem.instance, "message": problem.detail, "detail": problem.detail, **failure}


def openai_error(problem: Problem, exc: Exception) -> tuple[int, dict[str, Any]]:
    """The error of a chat. A safety block is 400 as with Azure: nothing that asking again would change."""
    if isinstance(exc, NotFound | UnknownBackend):
        return 404, _openai(f"invalid model: {problem.detail}", _type(404), "model", "model_not_found")
    if isinstance(exc, PromptTooLong):
        return 400, _openai(f"invalid request: {_EXCEEDED}; {problem.detail}", _type(400), "messages", TOO_LONG)
    plain = openai_failure(problem, exc)[1]["error"]
    status = 400 if isinstance(exc, Refused) else _STATUS.get(problem.status, problem.status)
    kind = SPENT if _is_spent(exc) else REJECTED if isinstance(exc, UpstreamRejected) else _type(status)
    code = SPENT if _is_spent(exc) else "content_filter" if isinstance(exc, Refused) else plain["code"]
    return status, _openai(f"{_PREFIXES.get(kind, '')}{problem.detail}", kind, plain["param"], code)


def openai_store_failure(problem: Problem, exc: Exception) -> tuple[int, dict[str, Any]]:
    """The error of a vector store; a backend that is unknown, or unable, was named with its id or as the ranker."""
    status, failure = openai_failure(problem, exc)
    if isinstance(exc, UnknownBackend | MissingCapability):
        failure["error"]["param"] = None
    return _STATUS.get(status, status), failure


def _openai(message: str, kind: str, param: str | None, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def retry_hints(status: int, exc: Exception) -> Mapping[str, str]:
    """A header that stops the SDK from retrying in vain: by status alone it retries 409 and 5xx."""
    final = status < 500 and status != HTTPStatus.TOO_MANY_REQUESTS
    lasting = isinstance(exc, UpstreamError) and not exc.retryable
    return {SHOULD_RETRY: "false"} if final or lasting or _is_spent(exc) else {}


def _param(problem: Problem, exc: Exception) -> str | None:
    """The bad field. A backend that is unknown, or unable, was named in `model`."""
    if isinstance(exc, UnknownBackend | MissingCapability):
        return "model"
    pointer = problem.errors[0].pointer if problem.errors else ""
    return pointer.strip("/").replace("/", ".") or None


def _is_spent(exc: Exception) -> bool:
    return isinstance(exc, BudgetExceeded) or (isinstance(exc, UpstreamRateLimited) and exc.quota == "day")


def _type(status: int) -> str:
    return _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")


def ragflow_error(problem: Problem, exc: Exception) -> tuple[int, dict[str, Any]]:
    """HTTP 200 as RAGFlow has it, but for a caller who is not let in.

    `code` 102: a request that cannot be served; 105: a service that is away or has no time; 100: anything else.
    """
    if isinstance(exc, NotAuthenticated | NotAllowed):
        return problem.status, {"code": problem.status, "message": problem.detail}
    away = problem.status == HTTPStatus.SERVICE_UNAVAILABLE or isinstance(exc, UpstreamError)
    code = 102 if problem.status < 500 else 105 if away else 100
    return 200, {"code": code, "message": problem.detail}


def ragflow_unserved(problem: Problem, _exc: Exception) -> tuple[int, dict[str, Any]]:
    """The error for the parts of RAGFlow's API that are not served."""
    message = "Winnow does not serve this part of RAGFlow's API; documents come in by `winnow index` or POST /documents"
    return problem.status, {"code": problem.status, "message": message}


def ragflow_dify_error(problem: Problem, exc: Exception) -> tuple[int, dict[str, Any]]:
    """RAGFlow's endpoint for Dify has error statuses of its own."""
    if isinstance(exc, CollectionNotFound):
        return 404, {"code": 404, "message": problem.detail}
    code = 101 if problem.status in (400, 413, 415, 422) else 100 if problem.status >= 500 else problem.status
    return problem.status, {"code": code, "message": problem.detail}


def jsonrpc_failure(problem: Problem, _exc: Exception) -> tuple[int, dict[str, Any]]:
    """The error of an MCP message that reaches no tool. The response is to one message, whose id may not be known."""
    return problem.status, jsonrpc_error(problem, None)


def jsonrpc_error(problem: Problem, message_id: int | str | None) -> dict[str, Any]:
    """-32600: the message is wrong; -32000, which is ours to use: all else."""
    code = -32600 if problem.status in (400, 413, 415) else -32000
    return {
        "jsonrpc": "2.0",
        "id": message_id,
        "error": {"code": code, "message": problem.detail, "data": problem},
    }


MCP_PATH = "/mcp"

OTHER_PRODUCTS = ("/v1/", "/v2/")
"""Paths below these are all in the formats of other products."""

RAGFLOW_PATH = "/api/v1/"
"""RAGFlow's client breaks on another format, or saves it as the document."""

_WHAT_THERE_IS = (
    "nothing at this path; there are POST /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/moderations, "
    "/v1/rerank, /v2/rerank, /v1/score and /v1/vector_stores/ID/search, and GET /v1/models and /v1/vector_stores"
)


def fit_for(path: str, problem: Problem, exc: Exception) -> tuple[Problem | dict[str, Any], str]:
    """The body that the clients at this path understand, and its media type."""
    if path.startswith(RAGFLOW_PATH):
        shape = ragflow_error if isinstance(exc, NotAllowed) else ragflow_unserved
        return shape(problem, exc)[1], "application/json"
    if path == MCP_PATH:
        return jsonrpc_error(problem, None), "application/json"
    if not path.startswith(OTHER_PRODUCTS):
        return problem, MEDIA_TYPE
    if problem.status == 404:
        problem = msgspec.structs.replace(problem, detail=_WHAT_THERE_IS)
    return anyones_failure(problem, exc)[1], "application/json"


def on_no_route(request: Request[Any, Any, Any], exc: HTTPException) -> Response[Any]:
    """Litestar's exception handler for paths that do not exist, and for wrong methods."""
    ours = on_error(request, exc)
    content, media_type = fit_for(request.url.path, ours.content, exc)
    return Response(content, status_code=ours.status_code, headers=ours.headers, media_type=media_type)
