"""Use cases: look at what is indexed."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from app.errors import NotFound
from indexing.documents import Passage
from indexing.pipeline.context import Workbench
from indexing.pipeline.manifest import DocumentRecord


class Page(msgspec.Struct, frozen=True):
    """A part of a list; `more` says whether something follows."""

    records: list[DocumentRecord]
    more: bool


class Catalogue:
    """What collections hold. The workbench is asked for with each call, so that it can be opened late."""

    def __init__(self, bench: Callable[[], Awaitable[Workbench]]) -> None:
        self._bench = bench

    async def count(self, lineage: str) -> int:
        """The documents of a filling of a collection."""
        bench = await self._bench()
        return await asyncio.to_thread(bench.manifest.count, lineage)

    async def page(self, collection: str, *, after: str, limit: int) -> Page:
        """Documents by id, those after `after`. Raises CollectionNotFound."""
        bench = await self._bench()
        lineage = (await bench.store.info(collection)).spec.lineage
        records = await asyncio.to_thread(bench.manifest.documents, lineage, after=after, limit=limit + 1)
        return Page(records[:limit], len(records) > limit)

    async def document(self, collection: str, document_id: str) -> tuple[DocumentRecord, list[Passage]]:
        """A document and its passages in order. Raises CollectionNotFound, NotFound."""
        bench = await self._bench()
        lineage = (await bench.store.info(collection)).spec.lineage
        record = await asyncio.to_thread(bench.manifest.document, lineage, document_id)
        if record is None or record.version is None:
            raise NotFound(no_document(collection, document_id))
        return record, await bench.store.passages(collection, document_id)


def no_document(collection: str, document_id: str) -> str:
    """The sentence for it."""
    return f"there is no document {document_id!r} in the collection {collection!r}"
