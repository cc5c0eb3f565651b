"""The writing half of the pipeline: documents -> passages -> vectors -> store, committed to the manifest in windows."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import msgspec

from indexing.chunking.chunker import ChunkOptions, chunk, embedding_text
from indexing.concurrency import finish
from indexing.documents import Document, Passage, passage_id
from indexing.embedding.model import Embedder, Vectors
from indexing.pipeline.context import PipelineContext
from indexing.pipeline.manifest import DocumentRecord, PendingRecord, SourceRecord
from indexing.pipeline.progress import Advanced, Report, say_nothing
from indexing.pipeline.queues import SMALL_WRITE
from indexing.retrieval.bm25 import Lexical
from indexing.store.base import Point

WINDOW = 512
"""Passages that are embedded together (sorted by length) and stored before the manifest is committed."""

_WINDOW_CHARACTERS = 4 * 2**20
"""A window that has so many is full before it has all of its passages: embedders of long texts make long passages."""

T = TypeVar("T")


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A document cut into passages. `texts` are what is embedded, one for each passage. `weight` is its share of the
    bytes of its source. `points` are its passages, where they have been embedded elsewhere.
    """

    record: DocumentRecord
    passages: list[Passage]
    texts: list[str]
    weight: float = 0.0
    points: list[Point] | None = None

    @property
    def characters(self) -> int:
        """Of its passages."""
        return sum(len(passage.text) for passage in self.passages)


def prepare(document: Document, record: DocumentRecord, embedder: Embedder, weight: float = 0.0) -> Prepared:
    """Cut a document into passages. Pure but for the tokeniser."""
    options = ChunkOptions(max_tokens=embedder.max_tokens)
    chunks = chunk(document, embedder.token_spans, options)
    passages = [
        Passage(
            id=passage_id(record.id, record.version, part.ordinal),
            document_id=record.document_id,
            version=record.version,
            ordinal=part.ordinal,
            start=part.start,
            end=part.end,
            text=part.text,
            source=record.source,
            title=record.title,
            page=part.page,
            later_pages=part.later_pages,
            heading=part.heading,
            metadata=document.metadata,
            tenant=record.tenant,
            allowed=document.allowed,
        )
        for part in chunks
    ]
    texts = [embedding_text(record.title, part) for part in chunks]
    return Prepared(record=record, passages=passages, texts=texts, weight=weight)


def points_of(passages: Sequence[tuple[Passage, str]], vectors: Vectors, lexical: Lexical) -> list[Point]:
    """The passages with the vectors of their texts. Pure; takes some .1 ms for each."""
    return [
        Point(passage=passage, dense=vector, sparse=lexical.document(text))
        for (passage, text), vector in zip(passages, vectors, strict=True)
    ]


class Writer:
    """Writes documents to one collection (or generation) `name`, recorded in the manifest under `lineage`, in windows.

    Nothing counts before all of its passages are in the store, and nothing reaches the store before the manifest has
    announced it. The counters are running totals. `on_commit` hears of documents that count. Not for use from two tasks
    at once.
    """

    def __init__(self, context: PipelineContext, name: str, lineage: str, report: Report = say_nothing) -> None:
        self.name = name
        self.lineage = lineage
        self.documents = self.passages = 0
        self.embed_seconds = 0.0
        self._context = context
        self._gate = context.gate(lineage)
        self._report = report
        self._bytes = 0.0
        self._bytes_per_passage = 0.0
        """Of the documents that are being written."""
        self.on_commit: Callable[[Iterable[str]], None] = lambda _: None
        self._waiting: list[Prepared] = []
        self._sources: list[SourceRecord] = []
        self._waiting_passages = self._waiting_characters = 0

    async def add(self, prepared: Prepared) -> None:
        """Take a document; writes when a window is full."""
        self._waiting.append(prepared)
        self._waiting_passages += len(prepared.passages)
        self._waiting_characters += prepared.characters
        if self._waiting_passages >= WINDOW or self._waiting_characters >= _WINDOW_CHARACTERS:
            await self.flush()

    def finish_source(self, source: SourceRecord) -> None:
        """Every document of this source has been added; it is committed with the last of them."""
        self._sources.append(source)

    async def flush(self) -> None:
        """Write and commit everything that has been taken, once there is room for more than a little of it."""
        if self._waiting_passages > SMALL_WRITE:
            await self._context.store.room(self.name)  # before the documents are held
        documents, sources = self._waiting, self._sources
        self._waiting, self._sources, self._waiting_passages, self._waiting_characters = [], [], 0, 0
        async with self._context.locks.holding(self.lineage, [d.record.id for d in documents]):
            await self.write(documents, sources)

    async def write(self, documents: Sequence[Prepared], sources: Sequence[SourceRecord] = ()) -> None:
        """Write and commit these. The caller holds the documents. Raises LineageRetired."""
        done = self._bytes + sum(d.weight for d in documents)
        if documents:
            async with self._gate.step():
                await finish(self._announce([d.record for d in documents]))
            self._bytes_per_passage = (done - self._bytes) / max(1, sum(len(d.passages) for d in documents))
            await self._write([p for d in documents if d.points is None for p in zip(d.passages, d.texts, strict=True)])
            await self._store([point for d in documents for point in d.points or ()])
        if documents or sources:
            records = [msgspec.structs.replace(d.record, passages=len(d.passages)) for d in documents]
            async with self._gate.step():
                await finish(self._commit(records, sources))
            self.on_commit([record.id for record in records])
        self.documents += len(documents)
        self._bytes = done
        self._report_totals()

    async def delete(self, document_ids: Sequence[str]) -> None:
        """Delete these documents from store and manifest; what a kill interrupts, the next run completes."""
        if document_ids:
            async with self._gate.step():
                await finish(self._delete(document_ids))

    async def settle(self, records: Sequence[PendingRecord]) -> None:
        """Leave of these documents what counts, and nothing of what was being written or deleted."""
        async with self._gate.step():
            await finish(self._settle(records))

    async def _settle(self, records: Sequence[PendingRecord]) -> None:
        if versions := {record.id: record.counts for record in records if record.counts is not None}:
            await self._keep(versions)
        if document_ids := [record.id for record in records if record.counts is None]:
            await self._clear(document_ids)

    async def _announce(self, records: Sequence[DocumentRecord]) -> None:
        self._context.disk.check()
        counting = await self._context.manifest.announce(self.lineage, records)
        self._context.visibility.show(self.lineage, counting)

    async def _commit(self, records: Sequence[DocumentRecord], sources: Sequence[SourceRecord]) -> None:
        await self._context.manifest.commit(self.lineage, records, sources, time.time())
        if records:
            await self._keep({record.id: record.version for record in records})

    async def _delete(self, document_ids: Sequence[str]) -> None:
        self._context.disk.check_deletion()
        await self._context.manifest.announce_deletion(self.lineage, document_ids)
        await self._clear(document_ids)

    async def _keep(self, versions: dict[str, str]) -> None:
        """These versions count: delete the others."""
        self._context.visibility.show(self.lineage, versions)
        await self._context.store.delete_stale(self.name, versions)
        await self._settled(list(versions))

    async def _clear(self, document_ids: Sequence[str]) -> None:
        """No version of these counts."""
        self._context.visibility.show(self.lineage, dict.fromkeys(document_ids))
        await self._context.store.delete_documents(self.name, document_ids)
        await self._settled(document_ids)

    async def _settled(self, document_ids: Sequence[str]) -> None:
        await self._context.manifest.settled(self.lineage, document_ids)
        self._context.visibility.settled(self.lineage, document_ids)

    async def _write(self, passages: Sequence[tuple[Passage, str]]) -> None:
        for start in range(0, len(passages), WINDOW):
            window = passages[start : start + WINDOW]
            begun = time.perf_counter()
            texts = [text for _, text in window]
            vectors = await self._context.turns.embed(await self._context.model(), texts, self._report_totals)
            self.embed_seconds += time.perf_counter() - begun
            await self._store(await asyncio.to_thread(points_of, window, vectors, self._context.lexical))
            if start + WINDOW < len(passages):
                self._report_totals()

    async def _store(self, points: Sequence[Point]) -> None:
        for start in range(0, len(points), WINDOW):
            window = points[start : start + WINDOW]
            async with self._gate.step():
                await finish(self._context.store.upsert(self.name, window))
            self.passages += len(window)
            self._bytes += self._bytes_per_passage * len(window)
            if start + WINDOW < len(points):
                self._report_totals()

    def _report_totals(self, embedded: int = 0) -> None:
        passages, done = self.passages + embedded, self._bytes + self._bytes_per_passage * embedded
        self._report(Advanced(bytes=round(done), documents=self.documents, passages=passages))
