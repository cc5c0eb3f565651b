"""Documents that are handed over instead of lying in files: put, delete, drop."""

import asyncio
from collections.abc import Sequence
from typing import Literal

import msgspec

from indexing.collections import Target, Workbench, ensure_collection, forget_lost_lineages, live_target
from indexing.documents import Document
from indexing.manifest import DocumentRecord
from indexing.planning import file_document_id
from indexing.writing import Writer, prepare


class Handed(msgspec.Struct, frozen=True, kw_only=True):
    """A document to index. Without an `id` its source names it, or else its content."""

    document: Document
    id: str = ""
    source: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a document; `reason` (a stable code) and `detail` when it failed."""

    id: str
    status: Literal["created", "updated", "unchanged", "failed"]
    passages: int = 0
    reason: str | None = None
    detail: str | None = None


class Intake:
    """Takes documents into the collections of a workbench."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def put(self, collection: str, handed: Sequence[Handed]) -> list[Outcome]:
        """Index these documents; searchable on return. One outcome each, in order; a failed one stops nothing."""
        bench = self._bench
        embedder = await bench.embedder.get()
        target = live_target(await ensure_collection(bench, collection))
        writer = Writer(bench, embedder, target)
        outcomes = [await self._put(writer, target, item) for item in handed]
        await writer.flush()
        return outcomes

    async def delete(self, collection: str, document_id: str) -> bool:
        """Remove a document with its passages; False when there is none of that id."""
        bench = self._bench
        target = live_target(await bench.store.info(collection))
        if bench.manifest.document(target.lineage, document_id) is None:
            return False
        await bench.store.delete_documents(target.name, [document_id])
        bench.manifest.forget(target.lineage, [document_id])
        return True

    async def drop(self, collection: str) -> None:
        """Delete a collection and all that is known of it. Raises CollectionNotFound."""
        await self._bench.store.drop(collection)
        await forget_lost_lineages(self._bench)

    async def _put(self, writer: Writer, target: Target, item: Handed) -> Outcome:
        version = item.document.content_hash()
        document_id = item.id or file_document_id(item.source or version, item.document.key)
        earlier = self._bench.manifest.document(target.lineage, document_id)
        if earlier is not None and earlier.path is not None:
            detail = f"the id is taken by a document of the file {earlier.source}"
            return Outcome(id=document_id, status="failed", reason="duplicate_id", detail=detail)
        if earlier is not None and earlier.version == version:
            return Outcome(id=document_id, status="unchanged", passages=earlier.passages)
        record = DocumentRecord(
            id=document_id,
            path=None,
            source=item.source,
            title=item.document.title,
            version=version,
            passages=0,
            body=item.document,
        )
        prepared = await asyncio.to_thread(prepare, item.document, record, writer.embedder)
        if not prepared.passages:
            return Outcome(id=document_id, status="failed", reason="empty", detail="there is no text in it")
        await writer.add(prepared)
        return Outcome(id=document_id, status="updated" if earlier else "created", passages=len(prepared.passages))
