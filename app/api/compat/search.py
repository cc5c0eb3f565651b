"""What the searches of all these products have in common."""

from typing import TypeVar

import structlog

from app.api.callers import caller_of
from app.api.disconnect import while_connected
from app.api.json_body import BodyRequest
from app.domain import Caller, Hit, Query, SearchResult
from app.wiring import Services

MAX_QUERY_CHARACTERS = 8192
"""A longer one is cut: most of these products send whatever a user, or a model, has written."""

N = TypeVar("N", int, float)

log = structlog.get_logger()


async def found(request: BodyRequest, services: Services, query: Query) -> SearchResult:
    """A search that ends when the client leaves. Raises what the search raises."""
    caller = caller_of(request)
    result = await while_connected(request, services.searcher.search(query, caller))
    request.scope["state"]["timings"] = result.timings_ms
    told(caller, *result.degraded, *result.warnings)
    return result


def told(caller: Caller, *notes: str) -> list[str]:
    """What did not go as asked, each once; the log has it, too, for most clients show nothing of it."""
    once = [note for note in dict.fromkeys(notes) if note]
    if once:
        log.warning("not as asked", id=caller.request_id, notes=once)
    return once


def within(lowest: N, value: N, highest: N) -> N:
    """The value, or the bound that it passes; the lowest for NaN."""
    return min(highest, max(lowest, value))


def title_of(hit: Hit) -> str:
    """What people call its document."""
    return hit.title or hit.source or hit.document_id
