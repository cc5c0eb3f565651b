"""Reranking as Cohere (v1 and v2), Jina, vLLM, Xinference, LocalAI and Infinity offer it, and as TEI does; and how
relevant texts are to one another, pair by pair, as vLLM tells it (POST /v1/score).
"""

import time
from collections.abc import Awaitable, Mapping
from typing import Any

import msgspec
from litestar import post
from litestar.params import JSONBody

from app.api.compat.errors import anyones_failure, shaped
from app.api.compat.inputs import LenientJSON, document_texts, log_notes, query_text
from app.api.request import BodyRequest, Injected, caller_of, request_id, while_connected
from app.backends.client import BackendClient
from app.errors import pointing_at
from app.services.model_ids import RERANK, ModelNames
from app.services.rerank import RankedTexts, TextRanker

DOCUMENTS_PER_UNIT = 100
"""Documents in a "search unit", in which Cohere bills."""


class RerankBody(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of POST /v1/rerank that are read; others are ignored."""

    query: Any
    documents: Any
    model: str | None = None
    top_n: int | None = None
    return_documents: bool | None = None
    rank_fields: list[str] | None = None


@post(
    ["/v1/rerank", "/v2/rerank", "/rerank"],
    dto=LenientJSON[RerankBody],
    return_dto=None,
    status_code=200,
    exception_handlers=shaped(anyones_failure),
    opt={"scope": "search"},
)
async def rerank(
    request: BodyRequest,
    data: JSONBody[RerankBody],
    text_ranker: Injected[TextRanker],
    names: Injected[ModelNames],
    clients: Injected[Mapping[str, BackendClient]],
) -> dict[str, Any]:
    """The caller's documents by relevance; `top_n` of them, or all.

    Jina's clients read `usage`, Cohere's `meta`, in which `backend`, `cost_usd` and `timings_ms` are ours; its
    `warnings` say why no model's opinion, or not all of it, is in the scores.
    """
    texts = document_texts(data.documents, data.rank_fields)
    top = data.top_n if data.top_n is not None and data.top_n > 0 else None
    query = query_text(data.query)
    backend, warning = names.ranking_backend(data.model or "", clients.values(), caller_of(request))
    ranking = text_ranker.rank(query, texts, caller_of(request), backend, top)
    ranked = await finish_ranking(request, ranking)
    return {
        "id": request_id(request.scope),
        "model": data.model or RERANK,
        "results": [
            {
                "index": index,
                "relevance_score": score,
                # An object, because clients of Cohere break on a string.
                **({"document": {"text": texts[index]}} if data.return_documents else {}),
            }
            for index, score in ranked.results[:top]
        ],
        "usage": usage_of(ranked),
        "meta": {
            "api_version": {"version": "2" if request.url.path.startswith("/v2") else "1"},
            "billed_units": {"search_units": -(-len(texts) // DOCUMENTS_PER_UNIT)},
            **meta_of(request, ranked, warning),
        },
        "object": "rerank",
    }


async def finish_ranking(request: BodyRequest, ranking: Awaitable[RankedTexts]) -> RankedTexts:
    """What was ranked; it ends when the client leaves."""
    ranked = await while_connected(request, ranking)
    request.scope["state"]["timings"] = ranked.timings_ms
    return ranked


def usage_of(ranked: RankedTexts) -> dict[str, int]:
    """What was read, and with it what was written."""
    return {"prompt_tokens": ranked.input_tokens, "total_tokens": ranked.input_tokens + ranked.usage.output_tokens}


def meta_of(request: BodyRequest, ranked: RankedTexts, warning: str) -> dict[str, Any]:
    """The tokens as Cohere counts them, who ranked and what it cost; its notes are logged as well."""
    return {
        "tokens": {"input_tokens": ranked.input_tokens, "output_tokens": ranked.usage.output_tokens},
        "warnings": log_notes(caller_of(request), warning, *ranked.degraded, *ranked.warnings),
        "backend": ranked.use.used,
        "cost_usd": ranked.usage.cost_usd,
        "timings_ms": ranked.timings_ms,
    }


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
