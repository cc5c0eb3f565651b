"""Reranking as Cohere (v1 and v2), Jina, vLLM, Xinference, LocalAI and Infinity offer it, and as TEI does."""

from collections.abc import Awaitable, Mapping
from typing import Any

import msgspec
from litestar import post
from litestar.params import JSONBody

from app.api.compat.errors import anyones_failure, shaped
from app.api.compat.inputs import LenientJSON, document_texts, log_notes, query_text
from app.api.problem_details import Problem
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


class TeiBody(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of POST /tei/rerank that are read."""

    query: Any
    texts: Any
    return_text: bool | None = None


def tei_failure(problem: Problem, _exc: Exception) -> tuple[int, dict[str, str]]:
    """Text Embeddings Inference's error. The status is ours."""
    if problem.status in (429, 503):
        return problem.status, {"error": problem.detail, "error_type": "Overloaded"}
    return problem.status, {"error": problem.detail, "error_type": "Validation" if problem.status < 500 else "Backend"}


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
    ranked = await _finish(request, ranking)
    read, written = ranked.input_tokens, ranked.usage.output_tokens
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
        "usage": {"prompt_tokens": read, "total_tokens": read + written},
        "meta": {
            "api_version": {"version": "2" if request.url.path.startswith("/v2") else "1"},
            "billed_units": {"search_units": -(-len(texts) // DOCUMENTS_PER_UNIT)},
            "tokens": {"input_tokens": read, "output_tokens": written},
            "warnings": log_notes(caller_of(request), warning, *ranked.degraded, *ranked.warnings),
            "backend": ranked.use.used,
            "cost_usd": ranked.usage.cost_usd,
            "timings_ms": ranked.timings_ms,
        },
        "object": "rerank",
    }


@post(
    "/tei/rerank",
    dto=LenientJSON[TeiBody],
    return_dto=None,
    status_code=200,
    exception_handlers=shaped(tei_failure),
    opt={"scope": "search"},
)
async def rerank_as_tei(
    request: BodyRequest,
    data: JSONBody[TeiBody],
    text_ranker: Injected[TextRanker],
    names: Injected[ModelNames],
    clients: Injected[Mapping[str, BackendClient]],
) -> list[dict[str, Any]]:
    """The same for clients of Text Embeddings Inference, which name no model."""
    texts = document_texts(data.texts, pointer="/texts")
    query = query_text(data.query)
    backend, warning = names.ranking_backend("", clients.values(), caller_of(request))
    ranked = await _finish(request, text_ranker.rank(query, texts, caller_of(request), backend))
    log_notes(caller_of(request), warning, *ranked.degraded, *ranked.warnings)
    return [
        {"index": index, "score": score, **({"text": texts[index]} if data.return_text else {})}
        for index, score in ranked.results
    ]


async def _finish(request: BodyRequest, ranking: Awaitable[RankedTexts]) -> RankedTexts:
    ranked = await while_connected(request, ranking)
    request.scope["state"]["timings"] = ranked.timings_ms
    return ranked
