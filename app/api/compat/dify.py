"""POST /retrieval: an external knowledge base of Dify."""

from collections.abc import Mapping
from typing import Any

import msgspec
from litestar import post
from litestar.params import JSONBody

from app.api.compat.errors import shaped
from app.api.compat.inputs import MAX_QUERY_CHARACTERS, LenientJSON, search_for, title_of, within
from app.api.compat.metadata_conditions import MetadataCondition, conditions_of
from app.api.problem_details import Problem
from app.api.request import BodyRequest, Injected
from app.api.schemas import MAX_CANDIDATES
from app.config.settings import Settings
from app.domain import Hit, Query, RankingOptions
from app.errors import MissingCapability, NotAllowed, NotAuthenticated, UnknownBackend, pointing_at
from app.services.model_ids import split_backend
from app.services.search import Searcher
from indexing.errors import CollectionNotFound

TOP_K = 10
"""The default number of records."""

DEADLINE_MS = 3500
"""Dify gives up after 5 s and shows an empty result: the order of retrieval, in time, is better."""

NO_SUCH_KNOWLEDGE = 2001
NOT_AUTHENTICATED = 1002

_TOLERATED: Mapping[int, int] = {403: 401, 404: 400, 502: 500}
"""Statuses that Dify mistakes for a wrong address when it checks the settings, and the status sent instead."""

_CODES: Mapping[tuple[type[Exception], ...], int] = {
    (NotAuthenticated, NotAllowed): NOT_AUTHENTICATED,
    (CollectionNotFound, UnknownBackend, MissingCapability): NO_SUCH_KNOWLEDGE,
}


class RetrievalSetting(msgspec.Struct, frozen=True, kw_only=True):
    """How many records, and the lowest score."""

    top_k: int | None = None
    score_threshold: float | None = None


class DifyRequest(msgspec.Struct, frozen=True, kw_only=True):
    """POST /retrieval. `knowledge_id` is a collection's name, or `collection@backend`."""

    knowledge_id: str
    query: str
    retrieval_setting: RetrievalSetting | None = None
    metadata_condition: MetadataCondition | None = None

    def to_query(self, default_top_k: int, ranking: RankingOptions) -> Query:
        """Raises InvalidRequest. A longer query is cut; numbers out of their range are brought into it."""
        setting = self.retrieval_setting or RetrievalSetting()
        collection, backend = split_backend(self.knowledge_id)
        if not self.query.strip():
            raise pointing_at("/query", "the query is empty")
        limit = within(1, default_top_k if setting.top_k is None else setting.top_k, MAX_CANDIDATES)
        return Query(
            text=self.query[:MAX_QUERY_CHARACTERS],
            collection=collection,
            backend=backend,
            limit=limit,
            candidates=max(limit, Query(text="").candidates),
            conditions=conditions_of(self.metadata_condition),
            ranking=ranking,
            min_score=within(0.0, setting.score_threshold or 0.0, 1.0),
        )


def dify_error(problem: Problem, exc: Exception) -> tuple[int, dict[str, Any]]:
    """`error_code` 1002: the key is not known; 2001: no such collection or backend; else the HTTP status."""
    status = _TOLERATED.get(problem.status, problem.status)
    code = next((code for kinds, code in _CODES.items() if isinstance(exc, kinds)), status)
    return status, {"error_code": code, "error_msg": problem.detail}


async def find_records(request: BodyRequest, searcher: Searcher, query: Query) -> dict[str, list[dict[str, Any]]]:
    """A search in Dify's words: `records` by descending score, which is that of /search."""
    result = await search_for(request, searcher, query)
    return {"records": [_record(hit) for hit in result.results]}


@post(
    "/retrieval",
    dto=LenientJSON[DifyRequest],
    return_dto=None,
    status_code=200,
    exception_handlers=shaped(dify_error),
    opt={"scope": "search"},
)
async def dify_retrieval(
    request: BodyRequest,
    data: JSONBody[DifyRequest],
    searcher: Injected[Searcher],
    settings: Injected[Settings],
) -> dict[str, list[dict[str, Any]]]:
    """The results of /search within Dify's time limit: in the order of retrieval if no model has ranked by then."""
    deadline_ms = min(DEADLINE_MS, settings.ranking.deadline_ms)
    return await find_records(request, searcher, data.to_query(TOP_K, RankingOptions(deadline_ms=deadline_ms)))


def _record(hit: Hit) -> dict[str, Any]:
    """The metadata also says where the passage stands."""
    place = {
        "document_id": hit.document_id,
        "source": hit.source,
        "page": hit.page,
        "page_end": hit.page_end,
        "heading": " > ".join(hit.heading),
        "start": hit.start,
        "end": hit.end,
        "chunk_id": hit.id,
        "ranked_by": hit.ranked_by,
    }
    metadata = {**hit.metadata, **{key: value for key, value in place.items() if value not in (None, "")}}
    return {"content": hit.text or "", "score": hit.score, "title": title_of(hit), "metadata": metadata}
