"""PUT, GET and DELETE /collections/{name}, GET /collections."""

from typing import Annotated

import msgspec
from litestar import Response, delete, get, put
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from app.api.openapi import OptionalBodyOperation, problems
from app.api.request import BodyRequest, Injected, OptionalJSON, caller_of
from app.config.settings import Settings
from app.services.collection_views import Collection
from app.services.documents import Documents
from app.services.jobs import Jobs
from indexing.store.base import Distance


class CollectionRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The expected shape; what is left out is that of the configured embedding model."""

    embedding_model: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    vector_size: Annotated[int, Meta(ge=1, le=65536)] | None = None
    distance: Distance | None = None


class CollectionList(msgspec.Struct, frozen=True, kw_only=True):
    """All collections by name."""

    collections: list[Collection]


@get(
    "/collections",
    operation_id="collections",
    summary="All collections",
    responses=problems(401, 403, 429, 503),
    opt={"scope": "search"},
)
async def list_collections(request: BodyRequest, documents: Injected[Documents]) -> CollectionList:
    """With their counts, sizes and embedding models. A key of a tenant sees those in which it has documents."""
    return CollectionList(collections=await documents.collections(caller_of(request).audience))


@get(
    "/collections/{name:str}",
    operation_id="collection",
    summary="One collection",
    responses=problems(401, 403, 404, 429, 503),
    raises=[],
    opt={"scope": "search"},
)
async def show_collection(request: BodyRequest, name: FromPath[str], documents: Injected[Documents]) -> Collection:
    """With its counts, size and embedding model. A key of a tenant is told the counts of its own documents."""
    return await documents.collection(name, caller_of(request).audience)


@put(
    "/collections/{name:str}",
    dto=OptionalJSON[CollectionRequest],
    return_dto=None,
    status_code=201,
    operation_id="create_collection",
    operation_class=OptionalBodyOperation,
    summary="Create a collection",
    responses={
        200: ResponseSpec(Collection, description="It existed already", generate_examples=False),
        **problems(400, 401, 403, 409, 413, 415, 429, 503, 507),
    },
    opt={"scope": "write"},
)
async def create_collection(
    request: BodyRequest,
    name: FromPath[str],
    data: JSONBody[CollectionRequest],
    documents: Injected[Documents],
    settings: Injected[Settings],
) -> Response[Collection]:
    """Does nothing if one of the same shape exists. Indexing documents creates their collection, too.

    The shape is that of the configured embedding model; asking for another is a conflict.
    """
    collection, new = await documents.create(
        name,
        settings.embedding.model,
        caller_of(request).audience,
        embedding_model=data.embedding_model,
        vector_size=data.vector_size,
        distance=data.distance,
    )
    return Response(collection, status_code=201 if new else 200)


@delete(
    "/collections/{name:str}",
    status_code=204,
    operation_id="delete_collection",
    summary="Delete a collection",
    responses=problems(401, 403, 404, 429, 503),
    raises=[],
    opt={"scope": "admin"},
)
async def delete_collection(
    request: BodyRequest, name: FromPath[str], documents: Injected[Documents], jobs: Injected[Jobs]
) -> None:
    """Deletes its documents, too, at once and for good. Its jobs are cancelled."""
    audience = caller_of(request).audience
    audience.check(name)
    await jobs.cancel_all(name)
    await documents.drop(name, audience)
