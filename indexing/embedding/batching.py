"""Embeds what requests bring, queries and texts, in shared batches."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from indexing.embedding.model import Embedder, Vectors
from indexing.errors import EmbedderUnavailable, Overloaded
from indexing.store.base import Vector

V = TypeVar("V")


class _Wanted(Generic[V]):
    """A text that is waiting or being worked on, and how many callers want its value."""

    def __init__(self, text: str) -> None:
        self.text, self.callers = text, 0
        self.value: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        # A caller that went away leaves nobody to hear of a failure.
        self.value.add_done_callback(lambda done: done.cancelled() or done.exception())


class Batches(Generic[V]):
    """Values of texts, by `work` on a batch of them: one value for each, in order.

    A text asked for before is answered from memory, and one that is under way is not worked on twice. What arrives
    while all `parallel` calls are taken goes together in the next one, up to `batch` texts; when one is free nothing
    waits. `cache` values are remembered (0: none), `queue` texts may wait; one that nobody wants any more does not.
    """

    def __init__(
        self,
        work: Callable[[Sequence[str]], Awaitable[Sequence[V]]],
        *,
        cache: int,
        batch: int,
        queue: int,
        parallel: int = 1,
    ) -> None:
        self._work = work
        self._cache, self._batch, self._queue, self._parallel = cache, batch, queue, parallel
        self._remembered: OrderedDict[str, V] = OrderedDict()
        self._underway: dict[str, _Wanted[V]] = {}
        self._waiting: dict[str, _Wanted[V]] = {}
        self._calls: set[asyncio.Task[None]] = set()

    def remembered(self, text: str) -> V | None:
        """The value, if it is in memory."""
        if (value := self._remembered.get(text)) is not None:
            self._remembered.move_to_end(text)
        return value

    async def values(self, texts: Sequence[str]) -> list[V]:
        """In order. Raises Overloaded, and what the work raises."""
        joined: list[_Wanted[V]] = []
        try:
            for text in texts:
                joined.append(self._join(text))
            self._dispatch()
            # Not gathered: a thousand callers would make a thousand callbacks each.
            return [await asyncio.shield(wanted.value) for wanted in joined]
        finally:
            for wanted in joined:
                self._leave(wanted)

    async def close(self) -> None:
        """Wait for the calls under way."""
        await asyncio.gather(*self._calls, return_exceptions=True)

    def _join(self, text: str) -> _Wanted[V]:
        wanted = self._underway.get(text) or self._enqueue(text)
        wanted.callers += 1
        return wanted

    def _enqueue(self, text: str) -> _Wanted[V]:
        if len(self._waiting) >= self._queue:
            raise Overloaded(f"{len(self._waiting)} texts are waiting for the embedding model; try again shortly")
        wanted: _Wanted[V] = _Wanted(text)
        self._underway[text] = self._waiting[text] = wanted
        return wanted

    def _leave(self, wanted: _Wanted[V]) -> None:
        wanted.callers -= 1
        if not wanted.callers and self._waiting.get(wanted.text) is wanted:
            del self._waiting[wanted.text], self._underway[wanted.text]

    def _dispatch(self) -> None:
        if self._waiting and len(self._calls) < self._parallel:
            batch = list(islice(self._waiting, self._batch))
            for text in batch:
                del self._waiting[text]
            call = asyncio.ensure_future(self._call(batch))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            call.add_done_callback(lambda _: self._dispatch())

    async def _call(self, batch: list[str]) -> None:
        try:
            values = dict(zip(batch, await self._work(batch), strict=True))
        except Exception as exc:  # noqa: BLE001 - a background task: whatever it is belongs to those who wait
            for text in batch:
                self._underway.pop(text).value.set_exception(exc)
            return
        for text, value in values.items():
            self._remember(text, value)
            self._underway.pop(text).value.set_result(value)

    def _remember(self, text: str, value: V) -> None:
        if self._cache:
            self._remembered[text] = value
            if len(self._remembered) > self._cache:
                self._remembered.popitem(last=False)


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
        """A unit vector, shape (dimension,); do not write to it. Raises EmbedderUnavailable, Overloaded."""
        if (vector := self._queries.remembered(text)) is not None:
            return vector
        await self._embedder()
        (vector,) = await self._queries.values([text])
        return vector

    async def embed_together(self, texts: Sequence[str]) -> Vectors:
        """Texts to compare with one another, in one call, not remembered; one row each. Errors: as `embed`."""
        if self._together >= self._queue:
            raise Overloaded(f"{self._together} requests are waiting for the embedding model; try again shortly")
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
        """One for each text, as documents or as `queries`. Raises EmbedderUnavailable, Overloaded."""
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
