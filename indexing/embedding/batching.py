"""One embedding model for many requests: loaded when first needed, called with what waits, all of it together.

    LazyEmbedder                         loads the model, once
      Batches                            the queue before it: texts of many callers share a call
        QueryEmbedder                    queries of searches and sentences of answers, each with their memory
        TextEmbedder                     texts that callers want the vectors of, with their token counts

A call of the model with 32 texts costs far less than 32 calls, and blocks its thread: so each lane of the model has a
thread of its own, and what arrives while it is busy waits for the next call. Nobody waits for a batch to fill up.
"""

import asyncio
import functools
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from indexing.embedding.loading import load_embedder
from indexing.embedding.model import Embedder, Lane, Vectors
from indexing.errors import EmbedderMismatch, EmbedderUnavailable, Overloaded
from indexing.settings import EmbeddingSettings
from indexing.store.base import CollectionInfo, Vector

V = TypeVar("V")


class LazyEmbedder:
    """The configured embedding model, loaded in a thread when it is first needed, once.

    `fingerprint` says what the vectors of a collection depend on; it is known before the model is loaded.
    """

    def __init__(
        self,
        settings: EmbeddingSettings,
        fingerprint: str,
        load: Callable[[EmbeddingSettings], Embedder] = load_embedder,
    ) -> None:
        self.fingerprint = fingerprint
        self._settings = settings
        self._load = load
        self._loading = asyncio.Lock()
        self._embedder: Embedder | None = None

    async def get(self, before_loading: Callable[[str], None] = lambda _: None) -> Embedder:
        """The model; `before_loading` is told its name if it has to be loaded.

        Raises EmbedderUnavailable; a later call tries again.
        """
        async with self._loading:
            if self._embedder is None:
                before_loading(self._settings.model)
                self._embedder = await asyncio.to_thread(self._load, self._settings)
            return self._embedder


def check_embedder(info: CollectionInfo, fingerprint: str) -> None:
    """Raises EmbedderMismatch if the collection's vectors were not made by the configured embedder."""
    if info.spec.embedder != fingerprint:
        raise EmbedderMismatch(
            f"the collection {info.name!r} was indexed with [{info.spec.embedder}], but [{fingerprint}] is configured: "
            f"run {remedy(info.name, info.spec.embedder, fingerprint)}; "
            'searches of mode "sparse" work meanwhile'
        )


def remedy(collection: str, made: str, configured: str) -> str:
    """What makes a collection of another fingerprint fit: a rebuild, or the earlier model where the model differs."""
    rebuild = f"winnow index --rebuild --collection {collection}"
    if made.partition("; ")[0] == configured.partition("; ")[0]:
        return f"{rebuild}, as another version of Winnow cut or read its texts otherwise"
    return f"{rebuild}, or configure the earlier model again"


def check_finite(vectors: Vectors, model_id: str) -> None:
    """Raises EmbedderUnavailable for a vector that is not finite: every score it takes part in would be meaningless."""
    if not np.isfinite(vectors).all():
        raise EmbedderUnavailable(f"the embedding model {model_id} returned values that are not finite numbers")


class _Pending(Generic[V]):
    """A text that waits or is being worked on, and how many callers wait for its value."""

    def __init__(self, text: str) -> None:
        self.text, self.callers = text, 0
        self.value: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        # Reading the exception here keeps asyncio from logging "exception was never retrieved" when the callers of a
        # failed text have all gone away.
        self.value.add_done_callback(lambda done: done.cancelled() or done.exception())


class Batches(Generic[V]):
    """Values of texts, by `work` on a batch of them: one value for each, in order.

    A text seen before is answered from memory, and one that is under way is not worked on twice. What arrives during a
    call goes together in the next one, up to `batch` texts.
    `cache` values are remembered (0: none). `queue` texts may wait; one whose callers have all left is dropped.
    """

    def __init__(
        self,
        work: Callable[[Sequence[str]], Awaitable[Sequence[V]]],
        *,
        cache: int,
        batch: int,
        queue: int,
    ) -> None:
        self._work = work
        self._cache, self._batch, self._queue = cache, batch, queue
        self._remembered: OrderedDict[str, V] = OrderedDict()
        self._underway: dict[str, _Pending[V]] = {}
        self._waiting: dict[str, _Pending[V]] = {}
        self._running: asyncio.Task[None] | None = None
        self.hits = self.misses = 0
        """Texts whose values were in memory, and those that had to be worked on."""

    def remembered(self, text: str) -> V | None:
        """The value, if it is in memory."""
        if (value := self._remembered.get(text)) is not None:
            self._remembered.move_to_end(text)
        return value

    async def values(self, texts: Sequence[str]) -> list[V]:
        """In order. Raises Overloaded, and what the work raises."""
        known = {text: value for text in texts if (value := self.remembered(text)) is not None}
        joined: list[_Pending[V]] = []
        self.hits += len(known)
        self.misses += len(texts) - len(known)
        try:
            for text in texts:
                if text not in known:
                    joined.append(self._join(text))
            self._dispatch()
            # Not asyncio.gather: it adds a callback for each text, a million for a thousand callers of a thousand.
            known |= {pending.text: await asyncio.shield(pending.value) for pending in joined}
            return [known[text] for text in texts]
        finally:
            for pending in joined:
                self._leave(pending)

    async def close(self) -> None:
        """Wait for the call under way."""
        if self._running is not None:
            await asyncio.wait((self._running,))

    def _join(self, text: str) -> _Pending[V]:
        pending = self._underway.get(text) or self._enqueue(text)
        pending.callers += 1
        return pending

    def _enqueue(self, text: str) -> _Pending[V]:
        if len(self._waiting) >= self._queue:
            raise Overloaded(f"{len(self._waiting)} texts are waiting for the embedding model; try again shortly")
        pending: _Pending[V] = _Pending(text)
        self._underway[text] = self._waiting[text] = pending
        return pending

    def _leave(self, pending: _Pending[V]) -> None:
        pending.callers -= 1
        if not pending.callers and self._waiting.get(pending.text) is pending:
            del self._waiting[pending.text], self._underway[pending.text]

    def _dispatch(self) -> None:
        if self._waiting and self._running is None:
            batch = list(islice(self._waiting, self._batch))
            for text in batch:
                del self._waiting[text]
            self._running = asyncio.ensure_future(self._call(batch))
            self._running.add_done_callback(self._ended)

    def _ended(self, _: asyncio.Future[None]) -> None:
        self._running = None
        self._dispatch()

    async def _call(self, batch: list[str]) -> None:
        try:
            values = dict(zip(batch, await self._work(batch), strict=True))
        except Exception as exc:  # noqa: BLE001 - a background task: the callers that wait raise it
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
    """Embeds queries for many callers at once, and beside them the sentences of answers.

    `cache` queries and `sentences` sentences are remembered: a passage's sentences are the same for each question.
    `batch` and `queue` are those of `Batches`. `embedder` returns the model, and may have to load it first.
    """

    def __init__(
        self,
        embedder: Callable[[], Awaitable[Embedder]],
        *,
        cache: int = 10_000,
        sentences: int = 10_000,
        batch: int = 32,
        queue: int = 1024,
    ) -> None:
        self._embedder = embedder
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="embed-query")
        self.of_queries, self.of_sentences = (
            Batches[Vector](work, cache=size, batch=batch, queue=queue)
            for work, size in ((self._query_vectors, cache), (self._sentence_vectors, sentences))
        )

    async def embed(self, *texts: str) -> list[Vector]:
        """Unit vectors, shape (dimension,), of queries that come together; do not write to them.

        Raises EmbedderUnavailable, Overloaded.
        """
        if any(self.of_queries.remembered(text) is None for text in texts):
            await self._embedder()
        return await self.of_queries.values(texts)

    async def embed_sentences(self, texts: Sequence[str]) -> Vectors:
        """Of a question and the sentences to compare with it, one row each. Errors: as `embed`."""
        await self._embedder()
        known = {text: vector for text in texts if (vector := self.of_queries.remembered(text)) is not None}
        rest = [text for text in texts if text not in known]
        known |= zip(rest, await self.of_sentences.values(rest), strict=True)
        return np.stack([known[text] for text in texts])

    async def close(self) -> None:
        """Wait for the calls under way, then end the threads."""
        await self.of_queries.close()
        await self.of_sentences.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _query_vectors(self, texts: Sequence[str]) -> list[Vector]:
        return await self._in_thread(texts, "queries")

    async def _sentence_vectors(self, texts: Sequence[str]) -> list[Vector]:
        return await self._in_thread(texts, "sentences")

    async def _in_thread(self, texts: Sequence[str], lane: Lane) -> list[Vector]:
        embedder = await self._embedder()
        vectors = await asyncio.get_running_loop().run_in_executor(self._threads, embedder.embed_queries, texts, lane)
        check_finite(vectors, embedder.model_id)
        return [vector.copy() for vector in vectors]  # a row that is remembered would keep its whole batch


MAX_TOKEN_LENGTH = 64
"""Characters. Text beyond `max_tokens` tokens of this length is not even tokenised: it may be megabytes long."""


class Embedded(NamedTuple):
    """A unit vector, shape (dimension,); how many tokens the model read; whether it left some out."""

    vector: Vector
    tokens: int
    truncated: bool


class TextEmbedder:
    """Embeds texts for many callers at once, documents apart from queries; `batch` and `queue` are those of `Batches`.

    The texts of a caller go in slices of a batch, those of one length together, and callers take turns: thousands of
    texts do not hold up a few.
    """

    def __init__(self, embedder: Callable[[], Awaitable[Embedder]], *, batch: int = 32, queue: int = 16_384) -> None:
        self._embedder = embedder
        self._batch = batch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embed-text")
        self._documents, self._queries = (
            Batches[Embedded](functools.partial(self._in_thread, queries=queries), cache=0, batch=batch, queue=queue)
            for queries in (False, True)
        )

    async def embed(self, texts: Sequence[str], *, queries: bool = False) -> list[Embedded]:
        """One for each text, as documents or as `queries`. Raises EmbedderUnavailable, Overloaded."""
        await self._embedder()
        batches = self._queries if queries else self._documents
        distinct = sorted(set(texts), key=lambda text: (-len(text), text))
        embedded: dict[str, Embedded] = {}
        for start in range(0, len(distinct), self._batch):
            part = distinct[start : start + self._batch]
            embedded |= zip(part, await batches.values(part), strict=True)
        return [embedded[text] for text in texts]

    async def close(self) -> None:
        """Wait for the calls under way, then end the thread."""
        await self._documents.close()
        await self._queries.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, texts: Sequence[str], *, queries: bool) -> list[Embedded]:
        embedder = await self._embedder()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, _embed, embedder, texts, queries)


def _embed(embedder: Embedder, texts: Sequence[str], queries: bool) -> list[Embedded]:
    most = embedder.max_tokens
    reached = [text[: most * MAX_TOKEN_LENGTH] for text in texts]
    vectors = (embedder.embed_queries if queries else embedder.embed_documents)(reached, "texts")
    check_finite(vectors, embedder.model_id)
    counts = [len(embedder.token_spans(text)) for text in reached]
    return [
        Embedded(vector, min(count, most), count > most or len(seen) < len(text))
        for vector, count, seen, text in zip(vectors, counts, reached, texts, strict=True)
    ]
