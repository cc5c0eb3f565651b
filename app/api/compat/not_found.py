"""Refusals of what reaches no route: who is calling there with other products' paths, only the path tells."""

from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException

from app.api.compat.openai.errors import anyones_failure
from app.api.compat.ragflow.errors import ragflow_error, ragflow_unserved
from app.api.problem_details import MEDIA_TYPE, Problem, on_error
from app.errors import NotAllowed

THEIRS = ("/v1/", "/v2/")
"""Below these, we have nothing but their formats."""

RAGFLOWS = "/api/v1/"
"""Its client breaks on another shape, or saves it as the document."""

_WHAT_THERE_IS = (
    "there is nothing at this path; there are POST /v1/chat/completions, /v1/embeddings, /v1/rerank and /v2/rerank, "
    "and GET /v1/models"
)


def fit_for(path: str, problem: Problem, exc: Exception) -> tuple[msgspec.Struct, str]:
    """The body that the clients at this path understand, and its media type."""
    if path.startswith(RAGFLOWS):
        shape = ragflow_error if isinstance(exc, NotAllowed) else ragflow_unserved
        return shape(problem, exc)[1], "application/json"
    if not path.startswith(THEIRS):
        return problem, MEDIA_TYPE
    if problem.status == 404:
        problem = msgspec.structs.replace(problem, detail=_WHAT_THERE_IS)
    return anyones_failure(problem, exc)[1], "application/json"


def on_no_route(request: Request[Any, Any, Any], exc: HTTPException) -> Response[Any]:
    """Litestar's exception handler for paths that do not exist, and for wrong methods."""
    ours = on_error(request, exc)
    content, media_type = fit_for(request.url.path, ours.content, exc)
    return Response(content, status_code=ours.status_code, headers=ours.headers, media_type=media_type)
