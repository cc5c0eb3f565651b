"""Refusals in the shapes of other products, whose statuses are not always ours."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import structlog
from litestar import Request, Response

from app.api.problem_details import CLIENT_GONE, Problem, headers_of, on_error

log = structlog.get_logger()

Shape = Callable[[Problem, Exception], tuple[int, msgspec.Struct]]
"""The status and the body that a client understands for a problem."""

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
