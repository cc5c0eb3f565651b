"""Many callers, one model: what they ask for is remembered, shared, and taken to the model together."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from indexing.errors import EmbedderBusy

V = TypeVar("V")


class Batches(Generic[V]):
    """Values of texts, by `work` on a batch of them: one value for each, in order.

    A text asked for before is answered from memory, and one that is under way is not worked on twice. What arrives
    while all `parallel` calls are taken goes together in the next one, up to `batch` texts; when one is free nothing
    waits. `cache` values are remembered (0: none), `queue` texts may wait.
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
        self._underway: dict[str, asyncio.Future[V]] = {}
        self._waiting: list[str] = []
        self._calls: set[asyncio.Task[None]] = set()

    def remembered(self, text: str) -> V | None:
        """The value, if it is in memory."""
        if (value := self._remembered.get(text)) is not None:
            self._remembered.move_to_end(text)
        return value

    def soon(self, text: str) -> "asyncio.Future[V]":
        """The value to come; others may be waiting for it too, so shield it. Raises EmbedderBusy."""
        return self._underway.get(text) or self._enqueue(text)

    async def close(self) -> None:
        """Wait for the calls under way."""
        await asyncio.gather(*self._calls, return_exceptions=True)

    def _enqueue(self, text: str) -> "asyncio.Future[V]":
        if len(self._waiting) >= self._queue:
            raise EmbedderBusy(f"{len(self._waiting)} texts are waiting for the embedding model; try again shortly")
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
            values = dict(zip(batch, await self._work(batch), strict=True))
        except Exception as exc:  # noqa: BLE001 - a background task: whatever it is belongs to those who wait
            for text in batch:
                self._underway.pop(text).set_exception(exc)
            return
        for text, value in values.items():
            self._remember(text, value)
            self._underway.pop(text).set_result(value)

    def _remember(self, text: str, value: V) -> None:
        if self._cache:
            self._remembered[text] = value
            if len(self._remembered) > self._cache:
                self._remembered.popitem(last=False)
