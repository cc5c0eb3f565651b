"""Callers' texts on their way to the embedding model: bursts of single texts go to it together."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from indexing.embedding.batcher import Batches
from indexing.embedding.model import Embedder
from indexing.embedding.queries import finite
from indexing.store.base import Vector

LONGEST_TOKEN = 64
"""Characters. What a model cannot reach is not worth counting: a text may be megabytes long."""


class Embedded(NamedTuple):
    """A unit vector, shape (dimension,); how many tokens the model read; whether it left some out."""

    vector: Vector
    tokens: int
    truncated: bool


class TextEmbedder:
    """Embeds texts for many callers at once; see `Batches`. Blocks no event loop.

    A batch is larger than what the model computes at once, so that texts of one length are computed together.
    """

    def __init__(self, embedder: Callable[[], Awaitable[Embedder]], *, batch: int = 256, queue: int = 16_384) -> None:
        self._embedder = embedder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embed-text")
        self._documents: Batches[Embedded] = Batches(self._as_documents, cache=0, batch=batch, queue=queue)
        self._queries: Batches[Embedded] = Batches(self._as_queries, cache=0, batch=batch, queue=queue)

    async def embed(self, texts: Sequence[str], *, queries: bool = False) -> list[Embedded]:
        """One for each text, as documents or as `queries`. Raises EmbedderUnavailable, EmbedderBusy."""
        await self._embedder()
        return await (self._queries if queries else self._documents).values(texts)

    async def close(self) -> None:
        """Wait for the calls under way, then end the thread."""
        await self._documents.close()
        await self._queries.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _as_documents(self, texts: Sequence[str]) -> list[Embedded]:
        return await self._in_thread(texts, queries=False)

    async def _as_queries(self, texts: Sequence[str]) -> list[Embedded]:
        return await self._in_thread(texts, queries=True)

    async def _in_thread(self, texts: Sequence[str], *, queries: bool) -> list[Embedded]:
        embedder = await self._embedder()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, _embed, embedder, texts, queries)


def _embed(embedder: Embedder, texts: Sequence[str], queries: bool) -> list[Embedded]:
    most = embedder.max_tokens
    reached = [text[: most * LONGEST_TOKEN] for text in texts]
    vectors = (embedder.embed_queries if queries else embedder.embed_documents)(reached)
    counts = [len(embedder.token_spans(text)) for text in reached]
    return [
        Embedded(vector, min(count, most), count > most or len(seen) < len(text))
        for vector, count, seen, text in zip(finite(vectors, embedder.model_id), counts, reached, texts, strict=True)
    ]
