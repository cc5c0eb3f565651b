"""Text Embeddings Inference: its /embed, /rerank, /info and /health, below /tei."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from litestar import MediaType, Response, get, post
from litestar.params import JSONBody

from app.api.compat.errors import shaped
from app.api.compat.inputs import LenientJSON, document_texts, inputs, log_notes, query_text
from app.api.compat.openai.embeddings import QUERY_TYPES, encoded
from app.api.compat.rerank import finish_ranking
from app.api.problem_details import Problem
from app.api.request import BodyRequest, Injected, caller_of, while_connected
from app.backends.client import BackendClient
from app.config.settings import Settings
from app.instance import installed_version
from app.services.embed import MAX_INPUTS, Embeddings
from app.services.model_ids import EMBED, ModelNames, public_name
from app.services.rerank import TextRanker
from app.services.warm_up import WarmUp
from indexing.concurrency import Resource
from indexing.embedding.model import Embedder


class EmbedBody(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of POST /tei/embed that are read. `prompt_name` is "query" for questions."""

    inputs: Any
    prompt_name: str | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=0)] | None = None


class RerankBody(msgspec.Struct, frozen=True, kw_only=True):
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
    "/tei/embed",
    dto=LenientJSON[EmbedBody],
    return_dto=None,
    status_code=200,
    exception_handlers=shaped(tei_failure),
    opt={"scope": "search"},
)
async def embed_as_tei(
    request: BodyRequest, data: JSONBody[EmbedBody], embeddings: Injected[Embeddings]
) -> list[msgspec.Raw]:
    """A bare list of unit vectors, in the order of the inputs, which are cut where they are too long."""
    texts, queries = inputs(data.inputs, "/inputs"), data.prompt_name in QUERY_TYPES
    embedding = embeddings.embed(EMBED, texts, dimensions=data.dimensions or None, queries=queries)
    return await encoded((await while_connected(request, embedding)).vectors, "float")


@post(
    "/tei/rerank",
    dto=LenientJSON[RerankBody],
    return_dto=None,
    status_code=200,
    exception_handlers=shaped(tei_failure),
    opt={"scope": "search"},
)
async def rerank_as_tei(
    request: BodyRequest,
    data: JSONBody[RerankBody],
    text_ranker: Injected[TextRanker],
    names: Injected[ModelNames],
    clients: Injected[Mapping[str, BackendClient]],
) -> list[dict[str, Any]]:
    """The same for clients of Text Embeddings Inference, which name no model."""
    texts = document_texts(data.texts, pointer="/texts")
    query = query_text(data.query)
    backend, warning = names.ranking_backend("", clients.values(), caller_of(request))
    ranked = await finish_ranking(request, text_ranker.rank(query, texts, caller_of(request), backend))
    log_notes(caller_of(request), warning, *ranked.degraded, *ranked.warnings)
    return [
        {"index": index, "score": score, **({"text": texts[index]} if data.return_text else {})}
        for index, score in ranked.results
    ]


@get("/tei/info", exception_handlers=shaped(tei_failure), opt={"scope": "any"})
async def tei_info(model: Injected[Resource[Embedder]], settings: Injected[Settings]) -> dict[str, Any]:
    """The embedding model, and how much is taken at once. Its length is null until it is loaded."""
    return {
        "model_id": public_name(settings.embedding.model),
        "model_type": {"embedding": {}},
        "max_input_length": model.opened.max_tokens if model.opened else None,
        "max_client_batch_size": MAX_INPUTS,
        "auto_truncate": True,
        "version": installed_version(),
    }


@get("/tei/health", media_type=MediaType.TEXT, opt={"scope": "public"})
async def tei_health(warm_up: Injected[WarmUp]) -> Response[str]:
    """As GET /health."""
    return Response("", status_code=200 if await warm_up.is_ready() else 503)
