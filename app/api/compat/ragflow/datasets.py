"""GET /api/v1/datasets and their documents: how RAGFlow's clients come from names to ids. Reading only."""

import re
from collections.abc import AsyncIterator, Sequence
from pathlib import PurePath
from typing import Annotated, Any

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter

from app.api.compat.errors import RagflowError, ragflow_error, shaped
from app.errors import InvalidRequest, NotFound
from app.services.model_ids import public_name
from app.wiring import Services
from indexing.pipeline.manifest import DocumentRecord
from indexing.store.base import CollectionInfo

_AT_ONCE = 1000
_DONE = {"3", "DONE"}
"""RAGFlow's words for a document that is ready."""

Page = Annotated[int, QueryParameter(ge=1)]
PageSize = Annotated[int, QueryParameter(ge=1, le=1000)]


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """A collection."""

    id: str
    name: str
    chunk_count: int
    document_count: int
    embedding_model: str
    avatar: str = ""
    description: str = ""
    permission: str = "me"
    chunk_method: str = "naive"
    language: str = ""
    status: str = "1"
    pagerank: int = 0
    parser_config: dict[str, Any] = {}


class DatasetsReply(msgspec.Struct, frozen=True, kw_only=True):
    """A page of collections by name, and how many there are."""

    data: list[Dataset]
    total_datasets: int
    code: int = 0


class DatasetDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A document. It can be searched: `run` is always "DONE"."""

    id: str
    name: str
    dataset_id: str
    chunk_count: int
    create_time: int
    run: str = "DONE"
    status: str = "1"
    progress: float = 1.0


class DocumentPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of documents by id, and how many there are."""

    docs: list[DatasetDocument]
    total: int


class DocumentsReply(msgspec.Struct, frozen=True, kw_only=True):
    """`code` 0, and the data."""

    data: DocumentPage
    code: int = 0


class _Wanted(msgspec.Struct, frozen=True):
    """Which documents; what is empty or 0 does not matter. Times are milliseconds since 1970."""

    id: str
    name: str
    keywords: str
    suffixes: Sequence[str]
    runs: Sequence[str]
    since: int
    until: int

    def meets(self, record: DocumentRecord) -> bool:
        """All of it."""
        name, created = _name(record), _created(record)
        return (
            self.id in ("", record.id)
            and self.name in ("", name)
            and self.keywords in name.lower()
            and (not self.suffixes or PurePath(name).suffix.lstrip(".") in self.suffixes)
            and (not self.runs or not _DONE.isdisjoint(self.runs))
            and self.since <= created <= (self.until or created)
        )


@get(
    "/api/v1/datasets",
    exception_handlers=shaped(ragflow_error),
)
async def ragflow_datasets(
    services: NamedDependency[Services],
    page: Page = 1,
    page_size: PageSize = 30,
    id: FromQuery[str] = "",
    name: FromQuery[str] = "",
) -> DatasetsReply | RagflowError:
    """A collection's name is also its id. One that is asked for and not there is an error, as in RAGFlow."""
    found = [info for info in await (await services.store.get()).collections() if _is_meant(info, id, name)]
    if not found and (id or name):
        raise NotFound(f"there is no dataset {id or name!r}")
    shown = found[(page - 1) * page_size : page * page_size]
    return DatasetsReply(data=[await _dataset(info, services) for info in shown], total_datasets=len(found))


@get(
    "/api/v1/datasets/{dataset_id:str}/documents",
    exception_handlers=shaped(ragflow_error),
)
async def ragflow_documents(
    services: NamedDependency[Services],
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
) -> DocumentsReply | RagflowError:
    """By id. What cannot be filtered by is refused: a list that is too long would be taken for what was asked for."""
    if metadata_condition:
        raise InvalidRequest("`metadata_condition` filters POST /api/v1/retrieval, not the list of documents")
    wanted = _Wanted(id, name, keywords.lower(), suffix or (), run or (), create_time_from, create_time_to)
    found = [record async for record in _records(services, dataset_id) if wanted.meets(record)]
    shown = found[(page - 1) * page_size : page * page_size]
    docs = [_document(record, dataset_id) for record in shown]
    return DocumentsReply(data=DocumentPage(docs=docs, total=len(found)))


def _is_meant(info: CollectionInfo, id: str, name: str) -> bool:
    return id in ("", info.name) and name in ("", info.name)


async def _dataset(info: CollectionInfo, services: Services) -> Dataset:
    return Dataset(
        id=info.name,
        name=info.name,
        chunk_count=info.passages,
        document_count=await services.catalogue.count(info.spec.lineage),
        embedding_model=public_name(re.split("[,;] ", info.spec.embedder, maxsplit=1)[0]),
    )


async def _records(services: Services, collection: str) -> AsyncIterator[DocumentRecord]:
    """All of them: a collection has thousands of documents, not millions, where someone pages through it."""
    after, more = "", True
    while more:
        page = await services.catalogue.page(collection, after=after, limit=_AT_ONCE)
        for record in page.records:
            yield record
        after, more = (page.records[-1].id if page.records else ""), page.more


def _name(record: DocumentRecord) -> str:
    return record.source or record.title or record.id


def _created(record: DocumentRecord) -> int:
    return round(1000 * record.indexed_at)


def _document(record: DocumentRecord, dataset_id: str) -> DatasetDocument:
    return DatasetDocument(
        id=record.id,
        name=_name(record),
        dataset_id=dataset_id,
        chunk_count=record.passages,
        create_time=_created(record),
    )
