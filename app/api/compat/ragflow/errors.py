"""RAGFlow's errors."""

import msgspec

from app.api.problem_details import Problem
from app.errors import NotAllowed, NotAuthenticated, UpstreamError
from indexing.errors import CollectionNotFound, StoreUnavailable


class RagflowError(msgspec.Struct, frozen=True, kw_only=True):
    """One of RAGFlow's codes: 102 a request that cannot be served, 105 a service that is away, 100 anything else."""

    code: int
    message: str


def ragflow_error(problem: Problem, exc: Exception) -> tuple[int, RagflowError]:
    """HTTP 200 as RAGFlow has it, but for who may not come in."""
    if isinstance(exc, NotAuthenticated | NotAllowed):
        return problem.status, RagflowError(code=problem.status, message=problem.detail)
    if problem.status < 500:
        return 200, RagflowError(code=102, message=problem.detail)
    away = isinstance(exc, UpstreamError | StoreUnavailable)
    return 200, RagflowError(code=105 if away else 100, message=problem.detail)


def ragflow_unserved(problem: Problem, _exc: Exception) -> tuple[int, RagflowError]:
    """RAGFlow's API has much that is not here."""
    message = "Winnow does not serve this part of RAGFlow's API; documents come in by `winnow index` or POST /documents"
    return problem.status, RagflowError(code=problem.status, message=message)


def ragflow_dify_error(problem: Problem, exc: Exception) -> tuple[int, RagflowError]:
    """The same endpoint's errors have statuses of their own in RAGFlow when Dify asks."""
    if isinstance(exc, CollectionNotFound):
        return 404, RagflowError(code=404, message=problem.detail)
    code = 101 if problem.status in (400, 413, 415, 422) else 100 if problem.status >= 500 else problem.status
    return problem.status, RagflowError(code=code, message=problem.detail)
