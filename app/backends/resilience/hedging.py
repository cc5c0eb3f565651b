"""A second try beside a slow first one."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from app.errors import WinnowError
from indexing.concurrency import finish

T = TypeVar("T")


async def hedged(
    first: Coroutine[Any, Any, T],
    spare: Callable[[], Coroutine[Any, Any, T]],
    after_s: float,
    discard: Callable[[T], Awaitable[None]],
) -> T:
    """The result of `first`; or, if that takes longer than `after_s`, of whichever of it and `spare` succeeds first.

    The other one is cancelled, and its result, if there is one all the same, discarded; if the caller is cancelled, so
    are both (`discard` may be called twice). A failure of the spare does not count; one of the first does, unless it is
    retryable and the spare is still running.
    """
    tasks = [asyncio.ensure_future(first)]
    try:
        done, _ = await asyncio.wait(tasks, timeout=after_s)
        if not done:
            tasks.append(asyncio.ensure_future(spare()))
        winner = await _winner(tasks)
        await finish(_abandon([task for task in tasks if task is not winner], discard))
    except BaseException:
        await finish(_abandon(tasks, discard))
        raise
    return winner.result()


async def _winner(tasks: Sequence[asyncio.Future[T]]) -> asyncio.Future[T]:
    """The first that succeeded, or the very first if that has failed for good."""
    first = tasks[0]
    pending = set(tasks)
    while True:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if (winner := next((task for task in tasks if task in done and not _failed(task)), None)) is not None:
            return winner
        if first.done() and (not pending or not _may_be_saved(first)):
            return first


async def _abandon(tasks: Sequence[asyncio.Future[T]], discard: Callable[[T], Awaitable[None]]) -> None:
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if not isinstance(result, BaseException):
            await discard(result)


def _failed(task: "asyncio.Future[T]") -> bool:
    return task.cancelled() or task.exception() is not None


def _may_be_saved(task: "asyncio.Future[T]") -> bool:
    failure = None if task.cancelled() else task.exception()
    return isinstance(failure, WinnowError) and failure.retryable
