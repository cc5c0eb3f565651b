"""POST /v1/score, as vLLM offers it: how relevant texts are to one another, pair by pair."""

import time
from collections.abc import Mapping
from typing import Any

import msgspec
from litestar import post
from litestar.params import JSONBody

from app.api.compat.errors import anyones_failure, shaped
from app.api.compat.inputs import LenientJSON, document_texts
from app.api.compat.rerank import finish_ranking, meta_of, usage_of
from app.api.request import BodyRequest, Injected, caller_of, request_id
from app.backends.client import BackendClient
from app.errors import pointing_at
from app.services.model_ids import RERANK, ModelNames
from app.services.rerank import TextRanker


class ScoreBody(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of POST /v1/score, in the words of all of vLLM's versions: the newest first."""

    model: str | None = None
    queries: Any = None
    documents: Any = None
    items: Any = None
    text_1: Any = None
    text_2: Any = None
    data_1: Any = None
    data_2: Any = None

    def pairs(self) -> tuple[list[str], list[str]]:
        """As many queries as texts, a pair each; one query is for all texts. Raises InvalidRequest."""
        sides = (
            ("queries", self.queries, "documents", self.documents),
            ("queries", self.queries, "items", self.items),
            ("text_1", self.text_1, "text_2", self.text_2),
            ("data_1", self.data_1, "data_2", self.data_2),
        )
        given = next((one for one in sides if None not in (one[1], one[3])), None)
        if given is None:
            raise pointing_at("/queries", "expected `queries` and `documents`, or `text_1` and `text_2`")
        left, right = given[0], given[2]
        queries = document_texts(given[1], pointer=f"/{left}")
        texts = document_texts(given[3], pointer=f"/{right}")
        if not queries or not texts:
            raise pointing_at(f"/{right if queries else left}", "at least one text is needed")
        if len(queries) not in (1, len(texts)):
            detail = f"one text is needed for each of the {len(texts)} on the other side, or one for all"
            raise pointing_at(f"/{left}", detail)
        for index, query in enumerate(queries):
            if not query.strip():
                raise pointing_at(f"/{left}/{index}", "must not be blank")
        return queries * (len(texts) // len(queries)), texts


@post(
    ["/v1/score", "/score"],
    dto=LenientJSON[ScoreBody],
    return_dto=None,
    status_code=200,
    exception_handlers=shaped(anyones_failure),
    opt={"scope": "search"},
)
async def score(
    request: BodyRequest,
    data: JSONBody[ScoreBody],
    text_ranker: Injected[TextRanker],
    names: Injected[ModelNames],
    clients: Injected[Mapping[str, BackendClient]],
) -> dict[str, Any]:
    """A score in [0,1] of each pair, in their order: that of /v1/rerank, whose `meta` is here too."""
    queries, texts = data.pairs()
    caller = caller_of(request)
    backend, warning = names.ranking_backend(data.model or "", clients.values(), caller)
    scored = await finish_ranking(request, text_ranker.score(queries, texts, caller, backend))
    return {
        "id": request_id(request.scope),
        "created": int(time.time()),
        "model": data.model or RERANK,
        "data": [{"index": index, "score": score, "object": "score"} for index, score in scored.results],
        "usage": usage_of(scored),
        "meta": meta_of(request, scored, warning),
        "object": "list",
    }
