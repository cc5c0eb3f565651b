"""What a Qdrant server says when it fails or refuses, as errors of ours. Pure.

What the server wrote goes to the log only: a proxy's page may hold anything.
"""

import logging
import re

import grpc
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import UnexpectedResponse

from indexing.errors import (
    CollectionNotFound,
    Conflict,
    DiskFull,
    InvalidRequest,
    StoreBusy,
    StoreUnavailable,
    WinnowError,
)

log = logging.getLogger(__name__)

BUSY_S = 1.0
"""Until a busy server that names no time is asked again."""
AWAY_S = 5.0
"""Until a server that does not answer is asked again."""

_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.DEADLINE_EXCEEDED: 408,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
}
"""What a Qdrant server answers over REST where it has this code over gRPC."""
_FULL = "qdrant-insufficient-storage"
"""In the metadata of a RESOURCE_EXHAUSTED that is about the disk or the memory, not about the rate."""

_SAID = {
    401: "does not know the key; correct QDRANT_API_KEY",
    403: "does not let the key in QDRANT_API_KEY do this; one that may read and write can",
    404: "knows no such path; check that QDRANT_URL is the address of a Qdrant server",
    408: "does not answer in time; timeout_s in [store] says how long it may take",
    503: "does not answer",
    504: "does not answer in time; timeout_s in [store] says how long it may take",
}
_PASSING = (408, 425)
"""Of the statuses below 500."""

_UNINDEXED = re.compile(r'Index required but not found for \\?"(.{1,200}?)\\?" of one')
_OVER_LIMIT = re.compile(r'Limit exceeded [\d.]+ > ([\d.]+) for \\?"([\w ]{1,40})\\?"')


def translated(name: str, exc: Exception) -> WinnowError:
    """The error to raise. A missing collection is reported under `name`, "" where none was asked for."""
    if isinstance(exc, QdrantException):  # a 429 of which qdrant-client could read the Retry-After
        return _refusal(name, 429, str(exc), float(getattr(exc, "retry_after_s", BUSY_S)))
    if isinstance(exc, grpc.aio.AioRpcError):
        text = exc.details() or ""
        full = any(key == _FULL for key, _ in exc.trailing_metadata() or ())
        return _refusal(name, 507 if full else _STATUS.get(exc.code(), 501), text)
    if isinstance(exc, UnexpectedResponse):
        return _refusal(name, exc.status_code or 500, exc.content.decode(errors="replace"))
    # The source is what failed beneath qdrant-client: a connection, or a reply of another shape.
    source = type(getattr(exc, "source", exc)).__name__
    log.warning("the vector store does not answer: %s", exc)
    return StoreUnavailable(f"the vector store does not answer ({source})", AWAY_S)


def _refusal(name: str, status: int, text: str, retry_after: float = BUSY_S) -> WinnowError:
    if status == 404 and name:
        return CollectionNotFound(name)
    log.warning("the vector store refuses: %d: %.2000s", status, text)
    if status == 507 or "No space left" in text:
        return DiskFull("the vector store has no more room; give the Qdrant server more disk or memory, or delete some")
    if status == 400:
        return _bad_request(text)
    if status == 409:
        return Conflict(f"the vector store has something else under the name {name!r}")
    if status == 429:
        return StoreBusy(
            "the vector store is busy: it takes no more requests for now; raise its rate limits if this goes on",
            retry_after=retry_after,
        )
    said = _SAID.get(status, f"refuses: {status}")
    return StoreUnavailable(f"the vector store {said}", AWAY_S if status in _PASSING or status >= 500 else None)


def _bad_request(text: str) -> WinnowError:
    """Of the limits that the operator of a server has set (strict mode) the field or the number is told."""
    if found := _UNINDEXED.search(text):
        return InvalidRequest(
            f"the vector store's strict mode refuses this filter: {found[1]!r} has no index for such values"
        )
    if found := _OVER_LIMIT.search(text):
        return StoreUnavailable(
            f"the vector store's strict mode allows {found[1]} at most for {found[2]!r}; raise it at the Qdrant server"
        )
    if "Help: " in text:
        return StoreUnavailable("the vector store's strict mode refuses this; its log and ours say which limit")
    return StoreUnavailable("the vector store refuses: 400")
