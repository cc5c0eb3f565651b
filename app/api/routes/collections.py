"""PUT, GET and DELETE /collections/{name}, GET /collections."""

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from litestar import Response, delete, get, put
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import Operation, RequestBody
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from app.api.openapi import problems
from app.api.request import OptionalJSON
from app.services.documents import Shape
from app.wiring import Services
from indexing.store.base import CollectionInfo, Distance, VectorStore


class CollectionRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape that is expected; what is left out is as the configured embedding model has it."""

    embedding_model: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    vector_size: Annotated[int, Meta(ge=1, le=65536)] | None = None
    distance: Distance | None = None


class Collection(msgspec.Struct, frozen=True, kw_only=True):
    """A collection as users see it.

    `embedder` is the fingerprint of the model that made its vectors. `status` "other embedder" means that searches need
    `winnow index --rebuild` first. `bytes` is null where the store does not tell.
    """

    name: str
    documents: int
    passages: int
    bytes: int | None
    embedder: str
    vector_size: int
    distance: Distance
    status: Literal["ready", "other embedder"]


class CollectionList(msgspec.Struct, frozen=True, kw_only=True):
    """All collections by name."""

    collections: list[Collection]


@dataclass
class OptionalBodyOperation(Operation):
    """Litestar takes every body for required."""

    def __post_init__(self) -> None:
        if isinstance(self.request_body, RequestBody):
            self.request_body.required = False


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
    """Counts, size, and what embedded it."""
    store = await services.store.get()
    return await _shown(await store.info(name), store, services)


@put(
    "/collections/{name:str}",
    dto=OptionalJSON[CollectionRequest],
    return_dto=None,
    status_code=201,
    operation_id="create_collection",
    operation_class=OptionalBodyOperation,
    summary="Create a collection",
    responses={
        200: ResponseSpec(Collection, description="It was there already", generate_examples=False),
        **problems(400, 403, 409, 413, 415, 503),
    },
)
async def create_collection(
    name: FromPath[str], data: JSONBody[CollectionRequest], services: NamedDependency[Services]
) -> Response[Collection]:
    """Does nothing where one of the same shape exists. Documents create their collection too.

    The configured embedding model gives the shape; asking for another is a conflict.
    """
    shape = Shape(embedding_model=data.embedding_model, vector_size=data.vector_size, distance=data.distance)
    info, new = await services.library.create(name, shape, services.settings.embedding.model)
    shown = await _shown(info, await services.store.get(), services)
    return Response(shown, status_code=201 if new else 200)


@delete(
    "/collections/{name:str}",
    status_code=204,
    operation_id="delete_collection",
    summary="Delete a collection",
    responses=problems(403, 404, 503),
    raises=[],
)
async def delete_collection(name: FromPath[str], services: NamedDependency[Services]) -> None:
    """With all of its documents; the next search no longer knows it. Nothing brings it back."""
    await services.library.drop(name)


async def _shown(info: CollectionInfo, store: VectorStore, services: Services) -> Collection:
    return Collection(
        name=info.name,
        documents=await services.catalogue.count(info.spec.lineage),
        passages=info.passages,
        bytes=await store.bytes_on_disk(info.name),
        embedder=info.spec.embedder,
        vector_size=info.spec.dimension,
        distance=info.spec.distance,
        status="ready" if info.spec.embedder == services.embedder.fingerprint else "other embedder",
    )
