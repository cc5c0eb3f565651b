"""GET /v1/models, as OpenAI offers it."""

import asyncio
from collections.abc import Mapping

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath

from app.api.compat.errors import openai_error, openai_failure, shaped
from app.errors import NotFound, WinnowError
from app.services.model_ids import Offered, Serves, public_name
from app.wiring import PROBE_S, Services

_XINFERENCE: Mapping[Serves, str] = {"rerank": "rerank", "embed": "embedding", "answer": "LLM", "chat": "LLM"}

CREATED = 1_767_225_600
"""2026-01-01, for all: clients show it, and nobody knows better."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """`max_model_len`, in tokens, is vLLM's, and read by RAGFlow; left out where nobody knows it.

    `model_type` is Xinference's: without it RAGFlow's provider of that name takes everything for a chat model.
    """

    id: str
    owned_by: str
    model_type: str
    object: str = "model"
    created: int = CREATED
    max_model_len: int | msgspec.UnsetType = msgspec.UNSET


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """All that a request may name."""

    data: list[Model]
    object: str = "list"


@get("/v1/models", exception_handlers=shaped(openai_failure))
async def list_models(services: NamedDependency[Services]) -> ModelList:
    """Ours, and those of the backends."""
    return ModelList(data=[_model(found) for found in await _offered(services)])


@get("/v1/models/{model:path}", exception_handlers=shaped(openai_error))
async def show_model(model: FromPath[str], services: NamedDependency[Services]) -> Model:
    """One of them."""
    name = model.removeprefix("/")
    for found in await _offered(services):
        if found.id == name:
            return _model(found)
    raise NotFound(f"there is no model {name[:100]!r}; GET /v1/models lists them")


async def _offered(services: Services) -> list[Offered]:
    lines = (await services.clients()).values()
    embedder = services.model.opened
    name = public_name(services.settings.embedding.model)
    reads = embedder.max_tokens if embedder else None
    return services.names.offered(list(lines), await _collections(services), name, reads)


async def _collections(services: Services) -> list[str]:
    """Empty while the store cannot say: the other models are there all the same."""
    try:
        async with asyncio.timeout(PROBE_S):
            return [found.name for found in await (await services.store.get()).collections()]
    except (TimeoutError, WinnowError):
        return []


def _model(found: Offered) -> Model:
    return Model(
        id=found.id,
        owned_by=found.owner,
        model_type=_XINFERENCE[found.serves],
        max_model_len=found.context_tokens or msgspec.UNSET,
    )
