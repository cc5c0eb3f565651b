"""Reranking as Cohere (v1 and v2), Jina, vLLM, Xinference, LocalAI and Infinity offer it, and as TEI does."""

from collections.abc import Awaitable, Mapping
from typing import Any

import msgspec
from litestar import post
from litestar.params import JSONBody

from app.api.compat.errors import anyones_failure, shaped
from app.api.compat.inputs import LenientJSON, document_texts, log_notes, query_text
from app.api.request import BodyRequest, Injected, caller_of, request_id, while_connected
from app.backends.client import BackendClient
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
