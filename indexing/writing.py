"""The writing half of the pipeline: documents -> passages -> vectors -> store, committed to the manifest in windows."""

import asyncio
import time
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from indexing.chunking import ChunkOptions, chunk, embedding_text
from indexing.collections import Target, Workbench
from indexing.documents import Document, Passage, passage_id
from indexing.embedding import Embedder, Vectors
from indexing.manifest import DocumentRecord, SourceRecord
from indexing.store.base import Point

WINDOW = 512
"""Passages that are embedded together (sorted by length inside) and stored before the manifest is committed."""


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
        embedder: Embedder,
        target: Target,
        on_written: Callable[[Written], None] = lambda _: None,
    ) -> None:
        self._store = bench.store
        self._manifest = bench.manifest
        self._lexical = bench.lexical
        self.embedder = embedder
        self._target = target
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

    def finish_source(self, source: SourceRecord) -> None:
        """Every document of this source has been added; it is committed with the last of them."""
        self._sources.append(source)

    async def flush(self) -> None:
        """Write and commit everything that has been taken."""
        documents, sources = self._documents, self._sources
        self._documents, self._sources, self._buffered = [], [], 0
        if documents:
            await asyncio.to_thread(self._manifest.announce, self._target.lineage, [d.record for d in documents])
            await self._write([p for d in documents for p in zip(d.passages, d.texts, strict=True)])
            await self._store.delete_stale(self._target.name, {d.record.id: d.record.version or "" for d in documents})
        if documents or sources:
            records = [msgspec.structs.replace(d.record, passages=len(d.passages)) for d in documents]
            await asyncio.to_thread(self._manifest.commit, self._target.lineage, records, sources, time.time())
        self.written.documents += len(documents)
        self.written.bytes += sum(d.weight for d in documents)
        self._on_written(self.written)

    async def _write(self, passages: Sequence[tuple[Passage, str]]) -> None:
        for start in range(0, len(passages), WINDOW):
            window = passages[start : start + WINDOW]
            begun = time.perf_counter()
            points = await asyncio.to_thread(self._points, window)
            self.written.embed_seconds += time.perf_counter() - begun
            await self._store.upsert(self._target.name, points)
            self.written.passages += len(window)
            if start + WINDOW < len(passages):
                self._on_written(self.written)

    def _points(self, window: Sequence[tuple[Passage, str]]) -> list[Point]:
        vectors = embed_distinct(self.embedder, [text for _, text in window])
        return [
            Point(passage=passage, dense=vector, sparse=self._lexical.document(text))
            for (passage, text), vector in zip(window, vectors, strict=True)
        ]


def embed_distinct(embedder: Embedder, texts: Sequence[str]) -> Vectors:
    """Vectors of `texts`, embedding equal texts once (boilerplate repeats)."""
    distinct = list(dict.fromkeys(texts))
    vectors = embedder.embed_documents(distinct)
    if len(distinct) == len(texts):
        return vectors
    row = {text: i for i, text in enumerate(distinct)}
    return np.asarray(vectors[[row[text] for text in texts]], dtype=np.float32)
