"""Queries on their way to the embedding model: remembered, shared, batched, and never on the event loop."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from indexing.embedding import Embedder, Vectors
from indexing.errors import EmbedderBusy, EmbedderUnavailable
from indexing.store.base import Vector


class QueryEmbedder:
    """Embeds queries for many callers at once.

    A text asked for before is answered from memory, and one that is just being embedded is not embedded twice. What
    arrives while the model is busy goes to it together in the next call; when it is idle nothing waits.

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
        self._cache, self._batch, self._queue, self._parallel = cache, batch, queue, threads
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="embed-query")
        self._remembered: OrderedDict[str, Vector] = OrderedDict()
        self._underway: dict[str, asyncio.Future[Vector]] = {}
        self._waiting: list[str] = []
        self._together = 0
        self._calls: set[asyncio.Task[None]] = set()

    async def embed(self, text: str) -> Vector:
        """A unit vector, shape (dimension,); do not write to it. Raises EmbedderUnavailable, EmbedderBusy."""
        if (vector := self._remembered.get(text)) is not None:
            self._remembered.move_to_end(text)
            return vector
        await self._embedder()
        return await asyncio.shield(self._underway.get(text) or self._enqueue(text))

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
        await asyncio.gather(*self._calls, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _enqueue(self, text: str) -> asyncio.Future[Vector]:
        if len(self._waiting) >= self._queue:
            raise EmbedderBusy(f"{len(self._waiting)} queries are waiting for the embedding model; try again shortly")
        self._underway[text] = future = asyncio.get_running_loop().create_future()
        # A caller that went away leaves nobody to hear of a failure.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._waiting.append(text)
        self._dispatch()
        return future

    def _dispatch(self) -> None:
        if self._waiting and len(self._calls) < self._parallel:
            size = self._batch
            batch, self._waiting = self._waiting[:size], self._waiting[size:]
            call = asyncio.ensure_future(self._call(batch))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            call.add_done_callback(lambda _: self._dispatch())

    async def _call(self, batch: list[str]) -> None:
        try:
            vectors = await self._in_thread(batch)
        except Exception as exc:  # noqa: BLE001 - a background task: whatever it is belongs to those who wait
            for text in batch:
                self._underway.pop(text).set_exception(exc)
            return
        for text, vector in zip(batch, vectors, strict=True):
            self._remember(text, vector)
            self._underway.pop(text).set_result(vector)

    async def _in_thread(self, texts: Sequence[str]) -> Vectors:
        embedder = await self._embedder()
        work = asyncio.get_running_loop().run_in_executor(self._threads, embedder.embed_queries, texts)
        return _checked(await work, embedder.model_id)

    def _remember(self, text: str, vector: Vector) -> None:
        if self._cache:
            self._remembered[text] = vector
            if len(self._remembered) > self._cache:
                self._remembered.popitem(last=False)


def _checked(vectors: Vectors, model_id: str) -> Vectors:
    """A vector that is not finite would make every score of its search meaningless."""
    if not np.isfinite(vectors).all():
        raise EmbedderUnavailable(f"the embedding model {model_id} returned values that are not finite numbers")
    return vectors
