"""GET /api/v1/datasets and their documents: how RAGFlow's clients come from names to ids. Reading only."""

import re
from collections.abc import AsyncIterator
from pathlib import PurePath
from typing import Annotated, Any
from unicodedata import normalize

from litestar import get
from litestar.params import FromPath, FromQuery, QueryParameter

from app.api.compat.errors import ragflow_error, shaped
from app.api.request import BodyRequest, Injected, caller_of
from app.errors import InvalidRequest, NotFound
from app.services.collection_views import Collection
from app.services.documents import Documents
from app.services.model_ids import public_name
from indexing.documents import Audience
from indexing.pipeline.manifest import DocumentRecord

_AT_ONCE = 1000
_DONE = {"3", "DONE"}
"""RAGFlow's words for a document that is ready."""

Page = Annotated[int, QueryParameter(ge=1)]
PageSize = Annotated[int, QueryParameter(ge=1, le=1000)]


@get(
    "/api/v1/datasets",
    exception_handlers=shaped(ragflow_error),
    opt={"scope": "search"},
)
async def ragflow_datasets(
    request: BodyRequest,
    documents: Injected[Documents],
    page: Page = 1,
    page_size: PageSize = 30,
    id: FromQuery[str] = "",
    name: FromQuery[str] = "",
) -> dict[str, Any]:
    """Collections by name, which is also the id. Asking for one that does not exist is an error, as in RAGFlow."""
    collections = await documents.collections(caller_of(request).audience)
    matching = [one for one in collections if id in ("", one.name) and name in ("", one.name)]
    if not matching and (id or name):
        raise NotFound(f"dataset {id or name!r} not found")
    page_items = matching[(page - 1) * page_size : page * page_size]
    return {"data": [_dataset(collection) for collection in page_items], "total_datasets": len(matching), "code": 0}


@get(
    "/api/v1/datasets/{dataset_id:str}/documents",
    exception_handlers=shaped(ragflow_error),
    opt={"scope": "search"},
)
async def ragflow_documents(
    request: BodyRequest,
    documents: Injected[Documents],
    dataset_id: FromPath[str],
    page: Page = 1,
    page_size: PageSize = 30,
    id: FromQuery[str] = "",
    name: FromQuery[str] = "",
    keywords: FromQuery[str] = "",
    suffix: FromQuery[list[str] | None] = None,
    run: FromQuery[list[str] | None] = None,
    create_time_from: FromQuery[int] = 0,
    create_time_to: FromQuery[int] = 0,
    metadata_condition: FromQuery[str] = "",
) -> dict[str, Any]:
    """Documents by id. An unsupported filter is refused: an unfiltered list would pass for the filtered one."""
    if metadata_condition:
        raise InvalidRequest("`metadata_condition` filters POST /api/v1/retrieval, not the list of documents")

    def is_meant(record: DocumentRecord) -> bool:
        own_name, created = _composed(_name(record)), _created(record)
        return (
            _composed(id) in ("", _composed(record.document_id))
            and _composed(name) in ("", own_name)
            and _composed(keywords).lower() in own_name.lower()
            and (not suffix or PurePath(own_name).suffix.lstrip(".") in suffix)
            and (not run or not _DONE.isdisjoint(run))
            and create_time_from <= created <= (create_time_to or created)
        )

    records = _records(documents, dataset_id, caller_of(request).audience)
    matching = [record async for record in records if is_meant(record)]
    page_items = matching[(page - 1) * page_size : page * page_size]
    docs = [_document(record, dataset_id) for record in page_items]
    return {"data": {"docs": docs, "total": len(matching)}, "code": 0}


def _dataset(collection: Collection) -> dict[str, Any]:
    return {
        "id": collection.name,
        "name": collection.name,
        "chunk_count": collection.passages,
        "document_count": collection.documents,
        "embedding_model": public_name(re.split("[,;] ", collection.embedder, maxsplit=1)[0]),
        # What RAGFlow's clients read and collections do not have.
        "avatar": "",
        "description": "",
        "permission": "me",
        "chunk_method": "naive",
        "language": "",
        "status": "1",
        "pagerank": 0,
        "parser_config": {},
    }


async def _records(documents: Documents, collection: str, audience: Audience) -> AsyncIterator[DocumentRecord]:
    """All of them: a collection has thousands of documents, not millions, where someone pages through it."""
    after, more = "", True
    while more:
        records, more = await documents.page(collection, audience, after=after, limit=_AT_ONCE)
        for record in records:
            yield record
        after = records[-1].id if records else ""


def _name(record: DocumentRecord) -> str:
    return record.source or record.title or record.document_id


def _composed(name: str) -> str:
    """In one of the spellings that Unicode has: names of files are kept as the file system has them."""
    return normalize("NFC", name)


def _created(record: DocumentRecord) -> int:
    """Milliseconds since 1970."""
    return round(1000 * record.indexed_at)


def _document(record: DocumentRecord, dataset_id: str) -> dict[str, Any]:
    """It can be searched: `run` is always "DONE"."""
    return {
        "id": record.document_id,
        "name": _name(record),
        "dataset_id": dataset_id,
        "chunk_count": record.passages,
        "create_time": _created(record),
        "run": "DONE",
        "status": "1",
        "progress": 1.0,
    }
