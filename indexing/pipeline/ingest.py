"""Documents that are handed over instead of lying in files: put, delete, drop."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from indexing.documents import Document
from indexing.pipeline.context import Claim, Workbench, ensure_collection, live_target
from indexing.pipeline.manifest import DocumentRecord
from indexing.pipeline.planning import file_document_id
from indexing.pipeline.write_stage import Writer, delete, prepare


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
        async with bench.handing:
            target = live_target(await ensure_collection(bench, collection))
            writer = Writer(bench, target)
            with bench.claims.of(target.lineage) as claim:
                outcomes = [await self._put(writer, claim, item) for item in handed]
                await writer.flush()
        return outcomes

    async def delete(self, collection: str, document_id: str) -> bool:
        """Remove a document with its passages; False when there is none of that id.

        One that came from a file comes back with the next run over that file.
        """
        bench = self._bench
        async with bench.handing:
            target = live_target(await bench.store.info(collection))
            if bench.manifest.document(target.lineage, document_id) is None:
                return False
            await delete(bench, target, [document_id])
        return True

    async def drop(self, collection: str) -> None:
        """Delete a collection and all that is known of it. Raises CollectionNotFound."""
        bench = self._bench
        async with bench.handing:
            lineage = (await bench.store.info(collection)).spec.lineage
            await bench.store.drop(collection)
            bench.manifest.forget_lineage(lineage)

    async def _put(self, writer: Writer, claim: Claim, item: Handed) -> Outcome:
        manifest, lineage = self._bench.manifest, writer.target.lineage
        record = _record(item)
        if writer.holds(record.id):  # the same id twice: the later one counts
            await writer.flush()
        earlier = manifest.document(lineage, record.id)
        if (owner := claim(record.id, "")) or (earlier is not None and earlier.path is not None):
            return _taken(record.id, Path(owner).name if owner else earlier.source if earlier else "")
        if earlier is not None and earlier.version == record.version:
            return Outcome(id=record.id, status="unchanged", passages=earlier.passages)
        embedder = await self._bench.embedder.get()
        prepared = await asyncio.to_thread(prepare, item.document, record, embedder)
        if not prepared.passages:
            return Outcome(id=record.id, status="failed", reason="empty", detail="there is no text in it")
        await writer.add(prepared)
        return Outcome(id=record.id, status="updated" if earlier else "created", passages=len(prepared.passages))


def handed_id(item: Handed) -> str:
    """Its own id; else one that its source and key give it, or its content where it has no source."""
    return item.id or file_document_id(item.source or item.document.content_hash(), item.document.key)


def _record(item: Handed) -> DocumentRecord:
    version = item.document.content_hash()
    return DocumentRecord(
        id=handed_id(item),
        path=None,
        source=item.source,
        title=item.document.title,
        version=version,
        passages=0,
        body=item.document,
    )


def _taken(document_id: str, source: str) -> Outcome:
    detail = f"the id is taken by a document of the file {source}"
    return Outcome(id=document_id, status="failed", reason="duplicate_id", detail=detail)
