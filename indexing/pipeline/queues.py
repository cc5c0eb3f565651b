"""Who waits for whom: writers of the same document, of a collection that is being replaced, and bulk work at the model.

Nothing is held while a model computes, but for the documents in hand.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import numpy as np

from indexing.concurrency import finish
from indexing.embedding.batching import check_finite
from indexing.embedding.model import Embedder, Lane, Vectors

SMALL_WRITE = 16
"""Texts. A write of at most so many is embedded in the lane of callers' texts, not behind whole files."""

_SLICE_S = 0.4
"""For about so long a slice of bulk work has the model: others wait for it, and nothing can stop it."""
_FIRST_SLICE = 16
_LARGEST_SLICE = 512


class LineageRetired(Exception):
    """The filling of the collection that a step was for has been dropped or replaced: look the collection up again."""


class _Waiters:
    """A lock, and how many hold it or wait for it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.count = 0


class DocumentLocks:
    """One writer at a time for each document of a lineage; the others follow in the order in which they came."""

    def __init__(self) -> None:
        self._waiters: dict[tuple[str, str], _Waiters] = {}

    @asynccontextmanager
    async def holding(self, lineage: str, document_ids: Iterable[str]) -> AsyncIterator[None]:
        """Hold all of these until the block ends. Sorted, so that no two writers wait for each other."""
        async with AsyncExitStack() as held:
            for document_id in sorted(set(document_ids)):
                await held.enter_async_context(self._hold((lineage, document_id)))
            yield

    @asynccontextmanager
    async def _hold(self, key: tuple[str, str]) -> AsyncIterator[None]:
        waiters = self._waiters.setdefault(key, _Waiters())
        waiters.count += 1
        try:
            async with waiters.lock:
                yield
        finally:
            waiters.count -= 1
            if not waiters.count:
                del self._waiters[key]


class Gate:
    """Before a lineage: short steps of many writers side by side, or one who drops or replaces it, alone."""

    def __init__(self) -> None:
        self._retired = False
        self._alone = asyncio.Lock()
        self._steps = 0
        self._idle = asyncio.Event()

    @asynccontextmanager
    async def step(self) -> AsyncIterator[None]:
        """A step of a writer: some calls of the store and the manifest. Raises LineageRetired."""
        async with self._alone:
            if self._retired:
                raise LineageRetired
            self._steps += 1
        try:
            yield
        finally:
            self._steps -= 1
            self._idle.set()

    async def retire(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work that drops or replaces the lineage, while no step is under way; then none begins any more.

        Raises LineageRetired if somebody else did.
        """
        async with self._alone:
            while self._steps:
                self._idle.clear()
                await self._idle.wait()
            if self._retired:
                raise LineageRetired
            await finish(self._retire(work))

    async def _retire(self, work: Callable[[], Awaitable[None]]) -> None:
        await work()
        self._retired = True


class Turns:
    """The embedding of documents. Bulk work is cut into slices of about `_SLICE_S`, which take turns among writers in
    the order in which they asked; small writes have a lane and a queue of their own.
    """

    def __init__(self) -> None:
        self._lanes: dict[Lane, asyncio.Lock] = {"texts": asyncio.Lock(), "bulk": asyncio.Lock()}
        self._characters_per_s = 0.0

    async def embed(
        self, embedder: Embedder, texts: Sequence[str], advanced: Callable[[int], None] = lambda _: None
    ) -> Vectors:
        """Vectors of `texts`. Equal ones are embedded once (boilerplate repeats), those of about one length together.

        `advanced` hears after each slice how many are done. Raises EmbedderUnavailable if the model returns values
        that are not finite.
        """
        distinct = sorted(set(texts), key=lambda text: (-len(text), text))
        lane: Lane = "texts" if len(distinct) <= SMALL_WRITE else "bulk"
        parts: list[Vectors] = []
        done = 0
        while done < len(distinct):
            async with self._lanes[lane]:
                part = distinct[done : done + self._slice(distinct, done)]
                begun = time.perf_counter()
                parts.append(await finish(asyncio.to_thread(embedder.embed_documents, part, lane)))
                if lane == "bulk":
                    self._measured(part, time.perf_counter() - begun)
            done += len(part)
            advanced(done)
        vectors = np.concatenate(parts)
        check_finite(vectors, embedder.model_id)
        row = {text: i for i, text in enumerate(distinct)}
        return np.asarray(vectors[[row[text] for text in texts]], dtype=np.float32)

    def _slice(self, texts: Sequence[str], start: int) -> int:
        """How many texts from `start` on make a slice."""
        if not self._characters_per_s:
            return _FIRST_SLICE
        room, size = self._characters_per_s * _SLICE_S, 0
        for text in texts[start : start + _LARGEST_SLICE]:
            room -= len(text)
            if room < 0:
                break
            size += 1
        return max(size // 8 * 8, 8)

    def _measured(self, part: Sequence[str], seconds: float) -> None:
        """Half of the rate comes from the last slice: it changes with the texts and with what else is computed."""
        rate = sum(map(len, part)) / max(seconds, 1e-6)
        self._characters_per_s = (self._characters_per_s + rate) / 2 if self._characters_per_s else rate
