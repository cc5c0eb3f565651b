"""Many callers, one model: what they ask for is remembered, shared, and taken to the model together."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Generic, TypeVar

from indexing.errors import EmbedderBusy

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
        """In order. Raises EmbedderBusy, and what the work raises."""
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
            raise EmbedderBusy(f"{len(self._waiting)} texts are waiting for the embedding model; try again shortly")
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
