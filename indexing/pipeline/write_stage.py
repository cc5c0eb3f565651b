"""The writing half of the pipeline: documents -> passages -> vectors -> store, committed to the manifest in windows."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec
import numpy as np

from indexing.chunking.chunker import ChunkOptions, chunk, embedding_text
from indexing.documents import Document, Passage, passage_id
from indexing.embedding.model import Embedder, Vectors
from indexing.errors import EmbedderUnavailable
from indexing.pipeline.context import Target, Workbench
from indexing.pipeline.manifest import DocumentRecord, SourceRecord
from indexing.store.base import Point

WINDOW = 512
"""Passages that are embedded together (sorted by length) and stored before the manifest is committed."""

_AT_ONCE = 64
"""Texts in one call of the model: a run that is cancelled waits for no more than this."""

T = TypeVar("T")


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A document cut into passages. `texts` are what is embedded, one for each passage. `weight` is its share of
    bytes.
    """

    record: DocumentRecord
    passages: list[Passage]
    texts: list[str]
    weight: float = 0.0


class Written(msgspec.Struct, kw_only=True):
    """Running totals of a writer."""

    documents: int = 0
    passages: int = 0
    bytes: float = 0.0
    embed_seconds: float = 0.0


def prepare(document: Document, record: DocumentRecord, embedder: Embedder, weight: float = 0.0) -> Prepared:
    """Cut a document into passages. Pure but for the tokeniser. `record.version` must be set."""
    options = ChunkOptions(max_tokens=embedder.max_tokens)
    chunks = chunk(document, embedder.token_spans, options)
    version = record.version or document.content_hash()
    passages = [
        Passage(
            id=passage_id(record.id, version, part.ordinal),
            document_id=record.id,
            version=version,
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
        )
        for part in chunks
    ]
    texts = [embedding_text(record.title, part) for part in chunks]
    return Prepared(record=record, passages=passages, texts=texts, weight=weight)


class Writer:
    """Collects documents and writes them in windows. Not for use from two tasks at once.

    Nothing is committed to the manifest before all of its passages are in the store, and nothing reaches the store
    before the manifest knows that it is coming.
    """

    def __init__(
        self,
        bench: Workbench,
        target: Target,
        on_written: Callable[[Written], None] = lambda _: None,
    ) -> None:
        self._store = bench.store
        self._manifest = bench.manifest
        self._lexical = bench.lexical
        self._embedder = bench.embedder
        self.target = target
        self._on_written = on_written
        self._documents: list[Prepared] = []
        self._sources: list[SourceRecord] = []
        self._buffered = 0
        self.written = Written()

    async def add(self, prepared: Prepared) -> None:
        """Take a document; writes when a window is full."""
        self._documents.append(prepared)
        self._buffered += len(prepared.passages)
        if self._buffered >= WINDOW:
            await self.flush()

    def holds(self, document_id: str) -> bool:
        """Whether a document of this id waits to be written."""
        return any(prepared.record.id == document_id for prepared in self._documents)

    def finish_source(self, source: SourceRecord) -> None:
        """Every document of this source has been added; it is committed with the last of them."""
        self._sources.append(source)

    async def flush(self) -> None:
        """Write and commit everything that has been taken."""
        documents, sources = self._documents, self._sources
        self._documents, self._sources, self._buffered = [], [], 0
        if documents:
            await asyncio.to_thread(self._manifest.announce, self.target.lineage, [d.record for d in documents])
            await self._write([p for d in documents for p in zip(d.passages, d.texts, strict=True)])
            versions = {d.record.id: d.record.version or "" for d in documents}
            await finished(self._store.delete_stale(self.target.name, versions))
        if documents or sources:
            records = [msgspec.structs.replace(d.record, passages=len(d.passages)) for d in documents]
            await asyncio.to_thread(self._manifest.commit, self.target.lineage, records, sources, time.time())
        self.written.documents += len(documents)
        self.written.bytes += sum(d.weight for d in documents)
        self._on_written(self.written)

    async def _write(self, passages: Sequence[tuple[Passage, str]]) -> None:
        for start in range(0, len(passages), WINDOW):
            window = passages[start : start + WINDOW]
            begun = time.perf_counter()
            vectors = await embed_distinct(await self._embedder.get(), [text for _, text in window])
            self.written.embed_seconds += time.perf_counter() - begun
            points = await asyncio.to_thread(self._points, window, vectors)
            await finished(self._store.upsert(self.target.name, points))
            self.written.passages += len(window)
            if start + WINDOW < len(passages):
                self._on_written(self.written)

    def _points(self, window: Sequence[tuple[Passage, str]], vectors: Vectors) -> list[Point]:
        return [
            Point(passage=passage, dense=vector, sparse=self._lexical.document(text))
            for (passage, text), vector in zip(window, vectors, strict=True)
        ]


async def delete(bench: Workbench, target: Target, document_ids: Sequence[str]) -> None:
    """Delete these documents from the store and from the manifest; what a kill interrupts, the next run completes."""
    if document_ids:
        await asyncio.to_thread(bench.manifest.announce_deletion, target.lineage, document_ids)
        await finished(bench.store.delete_documents(target.name, document_ids))
        await asyncio.to_thread(bench.manifest.forget, target.lineage, document_ids)


async def embed_distinct(embedder: Embedder, texts: Sequence[str]) -> Vectors:
    """Vectors of `texts`, embedding equal texts once (boilerplate repeats), those of about the same length together.

    Raises EmbedderUnavailable when the model's numbers mean nothing.
    """
    distinct = sorted(set(texts), key=lambda text: (-len(text), text))
    slices = [distinct[start : start + _AT_ONCE] for start in range(0, len(distinct), _AT_ONCE)]
    vectors = np.concatenate([await finished(asyncio.to_thread(embedder.embed_documents, part)) for part in slices])
    if not np.isfinite(vectors).all():
        raise EmbedderUnavailable(
            f"the embedding model {embedder.model_id} returned values that are not finite numbers"
        )
    row = {text: i for i, text in enumerate(distinct)}
    return np.asarray(vectors[[row[text] for text in texts]], dtype=np.float32)


async def finished(work: Awaitable[T]) -> T:
    """Await work in a thread that cannot be stopped: when cancelled, still wait, so that nothing goes on behind us."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise
