"""GET /collections, GET /collections/{name}."""

from typing import Literal

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath

from app.api.documentation import problems
from app.wiring import Services
from indexing.store.base import CollectionInfo, Distance, VectorStore


class Collection(msgspec.Struct, frozen=True, kw_only=True):
    """A collection as users see it.

    `embedder` is the fingerprint of the model that made its vectors. `status` "other embedder" means that searches need
    `winnow index --rebuild` first. `bytes` is null where the store does not tell.
    """

    name: str
    passages: int
    bytes: int | None
    embedder: str
    vector_size: int
    distance: Distance
    status: Literal["ready", "other embedder"]


class CollectionList(msgspec.Struct, frozen=True, kw_only=True):
    """All collections by name."""

    collections: list[Collection]


@get("/collections", operation_id="collections", summary="All collections", responses=problems(403, 503))
async def list_collections(services: NamedDependency[Services]) -> CollectionList:
    """Counts, sizes, and what embedded them."""
    store = await services.store.get()
    return CollectionList(collections=[await _shown(info, store, services) for info in await store.collections()])


@get(
    "/collections/{name:str}",
    operation_id="collection",
    summary="One collection",
    responses=problems(403, 404, 503),
    raises=[],
)
async def show_collection(name: FromPath[str], services: NamedDependency[Services]) -> Collection:
    """Count, size, and what embedded it."""
    store = await services.store.get()
    return await _shown(await store.info(name), store, services)


async def _shown(info: CollectionInfo, store: VectorStore, services: Services) -> Collection:
    return Collection(
        name=info.name,
        passages=info.passages,
        bytes=await store.bytes_on_disk(info.name),
        embedder=info.spec.embedder,
        vector_size=info.spec.dimension,
        distance=info.spec.distance,
        status="ready" if info.spec.embedder == services.embedder.fingerprint else "other embedder",
    )
