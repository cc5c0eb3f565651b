"""Reranking as Cohere (v1 and v2), Jina, vLLM, Xinference, LocalAI and Infinity offer it, and as TEI does."""

from typing import Any, Literal

import msgspec
from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from app.api.compat.errors import anyones_failure, shaped
from app.api.compat.inputs import LenientJSON, document_texts, query_text, told
from app.api.problem_details import Problem, request_id
from app.api.request import BodyRequest, caller_of, while_connected
from app.services.model_ids import RERANK
from app.services.rerank import RankedTexts
from app.wiring import Services

DOCUMENTS_PER_UNIT = 100
"""In a "search unit", in which Cohere bills."""


class RerankBody(msgspec.Struct, frozen=True, kw_only=True):
    """What counts of POST /v1/rerank; nothing else does."""

    query: Any
    documents: Any
    model: str | None = None
    top_n: int | None = None
    return_documents: bool | None = None
    rank_fields: list[str] | None = None


class TeiBody(msgspec.Struct, frozen=True, kw_only=True):
    """What counts of POST /tei/rerank."""

    query: Any
    texts: Any
    return_text: bool | None = None


class DocumentText(msgspec.Struct, frozen=True):
    """An object, because clients of Cohere break on a string."""

    text: str


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """`document` is there if it was asked for."""

    index: int
    relevance_score: float
    document: DocumentText | msgspec.UnsetType = msgspec.UNSET


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """Jina's clients read these."""

    prompt_tokens: int
    total_tokens: int


class ApiVersion(msgspec.Struct, frozen=True):
    """Cohere's."""

    version: str


class BilledUnits(msgspec.Struct, frozen=True):
    """Cohere's."""

    search_units: int


class MetaTokens(msgspec.Struct, frozen=True, kw_only=True):
    """Clients of Cohere read these."""

    input_tokens: int
    output_tokens: int


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """Cohere's; and what only we tell: who ranked, what that cost, how long it took.

    `warnings` say why no model's opinion, or not all of it, is in the scores.
    """

    api_version: ApiVersion
    billed_units: BilledUnits
    tokens: MetaTokens
    warnings: list[str]
    backend: str
    cost_usd: float
    timings_ms: dict[str, float]


class Reranked(msgspec.Struct, frozen=True, kw_only=True):
    """What every one of these clients understands."""

    id: str
    model: str
    results: list[Result]
    usage: Tokens
    meta: Meta
    object: str = "rerank"


class TeiResult(msgspec.Struct, frozen=True, kw_only=True):
    """`text` is there if it was asked for."""

    index: int
    score: float
    text: str | msgspec.UnsetType = msgspec.UNSET


class TeiFailure(msgspec.Struct, frozen=True):
    """Text Embeddings Inference's."""

    error: str
    error_type: Literal["Validation", "Overloaded", "Backend"]


def tei_failure(problem: Problem, _exc: Exception) -> tuple[int, TeiFailure]:
    """The status is ours."""
    if problem.status in (429, 503):
        return problem.status, TeiFailure(problem.detail, "Overloaded")
    return problem.status, TeiFailure(problem.detail, "Validation" if problem.status < 500 else "Backend")


@post(
    ["/v1/rerank", "/v2/rerank", "/rerank"],
    dto=LenientJSON[RerankBody],
    return_dto=None,
    status_code=200,
    exception_handlers=shaped(anyones_failure),
)
async def rerank(request: BodyRequest, data: JSONBody[RerankBody], services: NamedDependency[Services]) -> Reranked:
    """The caller's documents by relevance; `top_n` of them, or all."""
    texts = document_texts(data.documents, data.rank_fields)
    top = data.top_n if data.top_n is not None and data.top_n > 0 else None
    ranked, notes = await _ranked(request, services, data.model or "", query_text(data.query), texts, top)
    tokens = ranked.input_tokens
    results = [_result(index, score, texts if data.return_documents else None) for index, score in ranked.results[:top]]
    return Reranked(
        id=request_id(request.scope),
        model=data.model or RERANK,
        results=results,
        usage=Tokens(prompt_tokens=tokens, total_tokens=tokens + ranked.usage.output_tokens),
        meta=Meta(
            api_version=ApiVersion("2" if request.url.path.startswith("/v2") else "1"),
            billed_units=BilledUnits(-(-len(texts) // DOCUMENTS_PER_UNIT)),
            tokens=MetaTokens(input_tokens=tokens, output_tokens=ranked.usage.output_tokens),
            warnings=notes,
            backend=ranked.use.used,
            cost_usd=ranked.usage.cost_usd,
            timings_ms=ranked.timings_ms,
        ),
    )


@post(
    "/tei/rerank",
    dto=LenientJSON[TeiBody],
    return_dto=None,
    status_code=200,
    exception_handlers=shaped(tei_failure),
)
async def rerank_as_tei(
    request: BodyRequest, data: JSONBody[TeiBody], services: NamedDependency[Services]
) -> list[TeiResult]:
    """The same for clients of Text Embeddings Inference, which name no model."""
    texts = document_texts(data.texts, pointer="/texts")
    ranked, _ = await _ranked(request, services, "", query_text(data.query), texts, top=None)
    return [
        TeiResult(
            index=index,
            score=score,
            text=texts[index] if data.return_text else msgspec.UNSET,
        )
        for index, score in ranked.results
    ]


async def _ranked(
    request: BodyRequest, services: Services, model: str, query: str, texts: list[str], top: int | None
) -> tuple[RankedTexts, list[str]]:
    """The texts by relevance, and what did not go as asked."""
    ranker = services.names.ranker(model, (await services.clients()).values())
    caller = caller_of(request)
    ranked = await while_connected(request, services.text_ranker.rank(query, texts, ranker.backend, top, caller))
    request.scope["state"]["timings"] = ranked.timings_ms
    return ranked, told(caller, ranker.warning, *ranked.degraded, *ranked.warnings)


def _result(index: int, score: float, texts: list[str] | None) -> Result:
    document = DocumentText(texts[index]) if texts is not None else msgspec.UNSET
    return Result(index=index, relevance_score=score, document=document)
