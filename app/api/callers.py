"""On whose behalf a request is served."""

from typing import Any

from litestar import Request

from app.api.problem_details import request_id
from app.domain import Caller


def caller_of(request: Request[Any, Any, Any]) -> Caller:
    """Known by the request's id alone, while there are no keys."""
    return Caller(request_id=request_id(request.scope))
