"""Queries on their way to the embedding model: remembered, shared, batched, and never on the event loop."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from indexing.embedding.batcher import Batches
from indexing.embedding.model import Embedder, Vectors
from indexing.errors import EmbedderBusy, EmbedderUnavailable
from indexing.store.base import Vector


class QueryEmbedder:
    """Embeds queries for many callers at once; see `Batches`.

    `embedder` gives the model, and may have to load it first. `cache` vectors are remembered (0: none). `threads` model
    calls run at once, each of up to `batch` queries; `queue` more may wait.
    """

    def __init__(
        self,
        embedder: Callable[[], Awaitable[Embedder]],
        *,
        cache: int = 10_000,
        batch: int = 32,
        queue: int = 1024,
        threads: int = 1,
    ) -> None:
        self._embedder = embedder
        self._queue = queue
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="embed-query")
        self._queries: Batches[Vector] = Batches(self._rows, cache=cache, batch=batch, queue=queue, parallel=threads)
        self._together = 0

    async def embed(self, text: str) -> Vector:
        """A unit vector, shape (dimension,); do not write to it. Raises EmbedderUnavailable, EmbedderBusy."""
        if (vector := self._queries.remembered(text)) is not None:
            return vector
        await self._embedder()
        (vector,) = await self._queries.values([text])
        return vector

    async def embed_together(self, texts: Sequence[str]) -> Vectors:
        """Texts to compare with one another, in one call, not remembered; one row each. Errors: as `embed`."""
        if self._together >= self._queue:
            raise EmbedderBusy(f"{self._together} requests are waiting for the embedding model; try again shortly")
        self._together += 1
        try:
            return await self._in_thread(texts)
        finally:
            self._together -= 1

    async def close(self) -> None:
        """Wait for the calls under way, then end the threads."""
        await self._queries.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _rows(self, texts: Sequence[str]) -> list[Vector]:
        return list(await self._in_thread(texts))

    async def _in_thread(self, texts: Sequence[str]) -> Vectors:
        embedder = await self._embedder()
        work = asyncio.get_running_loop().run_in_executor(self._threads, embedder.embed_queries, texts)
        return finite(await work, embedder.model_id)


def finite(vectors: Vectors, model_id: str) -> Vectors:
    """Them; a vector that is not finite would make every score that it takes part in meaningless.

    Raises EmbedderUnavailable.
    """
    if not np.isfinite(vectors).all():
        raise EmbedderUnavailable(f"the embedding model {model_id} returned values that are not finite numbers")
    return vectors
