"""Documents that are submitted over the API instead of read from files: put, delete, drop.

The manifest keeps a submitted document whole, so that a rebuild, or the run after a kill, can index it again.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from indexing.documents import Document
from indexing.errors import CollectionDamaged
from indexing.pipeline.context import Claim, PipelineContext, ensure_collection
from indexing.pipeline.manifest import DocumentRecord
from indexing.pipeline.planning import file_document_id
from indexing.pipeline.write_stage import Writer, prepare


class SubmittedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A document to index. Without an `id` its source names it, or else its content."""

    document: Document
    id: str = ""
    source: str = ""

    def document_id(self) -> str:
        """Its own id; else one made from its source and key, or from its content if it has no source."""
        return self.id or file_document_id(self.source or self.document.content_hash(), self.document.key)


class DocumentResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a document. `id` is null where none could be given. When it failed: `reason`, a stable code, and
    `detail`.
    """

    id: str | None
    source: str
    status: Literal["created", "updated", "unchanged", "failed"]
    passages: int = 0
    reason: str | None = None
    detail: str | None = None


async def put_documents(
    context: PipelineContext, collection: str, documents: Sequence[SubmittedDocument]
) -> list[DocumentResult]:
    """Index these documents; searchable on return. One result each, in order; one that fails stops no other."""
    async with context.submission_lock:
        info = await ensure_collection(context, collection)
        writer = Writer(context, info.name, info.spec.lineage)
        with context.claiming(writer.lineage) as claim:
            results = [await _put(context, writer, claim, document) for document in documents]
            await writer.flush()
    return results


async def delete_document(context: PipelineContext, collection: str, document_id: str) -> bool:
    """Remove a document with its passages; False if there is none with that id.

    One that came from a file comes back with the next run over that file.
    """
    async with context.submission_lock:
        info = await context.store.info(collection)
        if await context.manifest.document(info.spec.lineage, document_id) is None:
            return False
        await Writer(context, info.name, info.spec.lineage).delete([document_id])
    return True


async def drop_collection(context: PipelineContext, collection: str) -> None:
    """Delete a collection and everything recorded about it. Raises CollectionNotFound."""
    async with context.submission_lock:
        try:
            lineage = (await context.store.info(collection)).spec.lineage
        except CollectionDamaged as exc:
            lineage = exc.lineage
        await context.store.drop(collection)
        await context.manifest.forget_lineage(lineage)


async def _put(context: PipelineContext, writer: Writer, claim: Claim, submitted: SubmittedDocument) -> DocumentResult:
    document = submitted.document
    record = DocumentRecord(
        id=submitted.document_id(),
        path=None,
        source=submitted.source,
        title=document.title,
        version=document.content_hash(),
        passages=0,
        body=document,
    )
    if writer.holds(record.id):  # the same id twice: the later one counts
        await writer.flush()
    owner = claim(record.id, "")  # before the look-up: nobody else may write this id in between
    earlier = await context.manifest.document(writer.lineage, record.id)
    if owner or (earlier is not None and earlier.path is not None):
        file = Path(owner).name if owner else earlier.source if earlier else ""
        return _failed(record, "duplicate_id", f"the id is taken by a document of the file {file}")
    if earlier is not None and earlier.version == record.version:
        return DocumentResult(id=record.id, source=record.source, status="unchanged", passages=earlier.passages)
    prepared = await asyncio.to_thread(prepare, document, record, await context.model())
    if not prepared.passages:
        return _failed(record, "empty", "the document contains no text")
    await writer.add(prepared)
    return DocumentResult(
        id=record.id,
        source=record.source,
        status="updated" if earlier else "created",
        passages=len(prepared.passages),
    )


def _failed(record: DocumentRecord, reason: str, detail: str) -> DocumentResult:
    return DocumentResult(id=record.id, source=record.source, status="failed", reason=reason, detail=detail)
