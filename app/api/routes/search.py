"""POST /search."""

from litestar import post
from litestar.params import JSONBody

from app.api.openapi import problems
from app.api.request import BodyRequest, Injected, StrictJSON, caller_of, while_connected
from app.api.schemas import SearchRequest
from app.domain import SearchResult
from app.services.search import Searcher


@post(
    "/search",
    dto=StrictJSON[SearchRequest],
    return_dto=None,
    status_code=200,
    operation_id="search",
    summary="Find passages",
    responses=problems(400, 401, 402, 403, 404, 409, 413, 415, 422, 429, 502, 503, 504),
    opt={"scope": "search"},
)
async def search(request: BodyRequest, data: JSONBody[SearchRequest], searcher: Injected[Searcher]) -> SearchResult:
    """The best passages for a query, with the scores of each and the time of every stage."""
    caller = caller_of(request)
    result = await while_connected(request, searcher.search(data.to_query(), caller))
    request.scope["state"]["timings"] = result.timings_ms
    return result
