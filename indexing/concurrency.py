"""Work side by side, in the background, or to its end; pauses between attempts, and things that are opened once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, Generic, TypeVar

T = TypeVar("T")


async def together(works: Iterable[Awaitable[T]]) -> list[T]:
    """Results in order; if one fails or this is cancelled, all are cancelled.

    Raises the first error as it is, when all have ended.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def finish(work: Awaitable[T]) -> T:
    """Do `work` to its end even if the caller is cancelled meanwhile; the cancellation goes on afterwards.

    For what must not be left half done, such as booking a call, or goes on unnoticed anyway, such as a thread.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        raise cancelled from (None if task.cancelled() else task.exception())
    return task.result()


class BackgroundTasks:
    """Tasks that go on without whoever started them. They are held here, as a loop does not hold its tasks."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Future[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """As a task, which no one needs to await."""
        task = asyncio.create_task(work)
        self.keep(task)
        return task

    def keep(self, task: "asyncio.Future[Any]") -> None:
        """One that runs already."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def cancel(self) -> None:
        """Cancel all of them; return when they have ended, however that was."""
        for task in self._tasks:
            task.cancel()
        await self.ended()

    async def ended(self) -> None:
        """Return when those that run now have ended, however that was."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def in_threads(block: AbstractContextManager[T]) -> AsyncIterator[T]:
    """A `with` block whose beginning and end take time: each is in a thread, and no cancellation stops it."""
    value = await finish(asyncio.to_thread(block.__enter__))
    try:
        yield value
    except BaseException as exc:
        await finish(asyncio.to_thread(block.__exit__, type(exc), exc, exc.__traceback__))
        raise
    await finish(asyncio.to_thread(block.__exit__, None, None, None))


def pauses(first_s: float, longest_s: float) -> Iterator[float]:
    """Seconds to wait before each further attempt, without end: doubled each time, up to the longest."""
    pause_s = first_s
    while True:
        yield pause_s
        pause_s = min(2 * pause_s, longest_s)


class Resource(Generic[T]):
    """Something that is opened once, by whoever needs it first. After a failure the next one tries again."""

    def __init__(self, open_it: Callable[[], Awaitable[T]]) -> None:
        self._open = open_it
        self._opening: asyncio.Future[T] | None = None

    async def get(self) -> T:
        """Raises what opening raises."""
        if self._opening is None or (self._opening.done() and _failed(self._opening)):
            self._opening = asyncio.ensure_future(self._open())
        return await asyncio.shield(self._opening)

    @property
    def opened(self) -> T | None:
        """The value, if it has been opened already."""
        opening = self._opening
        return None if opening is None or not opening.done() or _failed(opening) else opening.result()

    async def settled(self) -> T | None:
        """The value, after an opening that is under way has ended; None if nobody asked for it, or it failed."""
        if self._opening is None:
            return None
        await asyncio.wait((self._opening,))
        return None if _failed(self._opening) else self._opening.result()


def _failed(future: "asyncio.Future[T]") -> bool:
    return future.cancelled() or future.exception() is not None
