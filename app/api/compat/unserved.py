"""Paths and methods that are not here, in the shape of the product whose API they belong to."""

from typing import Any

from litestar import Request, Response

from app.api.compat.ragflow_errors import ragflow_unserved
from app.api.compat.refusals import shaped
from app.api.problems import on_error

_on_ragflows = shaped(ragflow_unserved)[Exception]


def on_unserved(request: Request[Any, Any, Any], exc: Exception) -> Response[Any]:
    """Where Litestar finds no route. RAGFlow's client breaks on another shape, or saves it as the document."""
    return (_on_ragflows if request.url.path.startswith("/api/v1/") else on_error)(request, exc)
