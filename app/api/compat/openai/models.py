"""GET /v1/models, as OpenAI offers it."""

import asyncio
from collections.abc import Mapping
from typing import Any

from litestar import get
from litestar.params import FromPath

from app.api.compat.errors import openai_error, openai_failure, shaped
from app.api.request import BodyRequest, Injected, caller_of
from app.backends.client import BackendClient
from app.config.settings import Settings
from app.domain import Caller
from app.errors import NotFound, WinnowError
from app.services.documents import Documents
from app.services.model_ids import ModelNames, Offered, Serves, public_name
from app.services.warm_up import PROBE_S
from indexing.concurrency import Resource
from indexing.documents import Audience
from indexing.embedding.model import Embedder

_XINFERENCE: Mapping[Serves, str] = {"rerank": "rerank", "embed": "embedding", "answer": "LLM", "chat": "LLM"}

CREATED = 1_767_225_600
"""2026-01-01 for every model: clients show a date, and there is no true one."""


@get("/v1/models", exception_handlers=shaped(openai_failure), opt={"scope": "any"})
async def list_models(
    request: BodyRequest,
    names: Injected[ModelNames],
    clients: Injected[Mapping[str, BackendClient]],
    documents: Injected[Documents],
    model: Injected[Resource[Embedder]],
    settings: Injected[Settings],
) -> dict[str, Any]:
    """Every name that a request of this key may use: ours, and the models of its backends."""
    offered = await _offered(names, clients, caller_of(request), documents, model, settings)
    return {"data": [_model(one) for one in offered], "object": "list"}


@get("/v1/models/{model_id:path}", exception_handlers=shaped(openai_error), opt={"scope": "any"})
async def show_model(
    request: BodyRequest,
    model_id: FromPath[str],
    names: Injected[ModelNames],
    clients: Injected[Mapping[str, BackendClient]],
    documents: Injected[Documents],
    model: Injected[Resource[Embedder]],
    settings: Injected[Settings],
) -> dict[str, Any]:
    """One of the models."""
    name = model_id.removeprefix("/")
    for one in await _offered(names, clients, caller_of(request), documents, model, settings):
        if one.id == name:
            return _model(one)
    raise NotFound(f"model {name[:100]!r} not found; GET /v1/models lists the models")


async def _offered(
    names: ModelNames,
    clients: Mapping[str, BackendClient],
    caller: Caller,
    documents: Documents,
    model: Resource[Embedder],
    settings: Settings,
) -> list[Offered]:
    embedder = model.opened
    name = public_name(settings.embedding.model)
    reads = embedder.max_tokens if embedder else None
    return names.offered(list(clients.values()), await _collections(documents, caller.audience), name, reads, caller)


async def _collections(documents: Documents, audience: Audience) -> list[str]:
    """Empty while the store does not answer: the other models are listed all the same."""
    try:
        async with asyncio.timeout(PROBE_S):
            return await documents.names(audience)
    except (TimeoutError, WinnowError):
        return []


def _model(offered: Offered) -> dict[str, Any]:
    """`max_model_len`, in tokens, is vLLM's field, which RAGFlow reads; left out if unknown.

    `model_type` is Xinference's: without it, RAGFlow's Xinference provider takes every model for a chat model.
    """
    model = {
        "id": offered.id,
        "owned_by": offered.owner,
        "model_type": _XINFERENCE[offered.serves],
        "object": "model",
        "created": CREATED,
    }
    return model | {"max_model_len": offered.context_tokens} if offered.context_tokens else model
