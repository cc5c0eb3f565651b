"""When a failed attempt is worth another and how long to wait before it; and a second try beside a slow first one."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from random import Random
from typing import Any, TypeVar

from app.errors import Overloaded, Resting, UpstreamError, UpstreamRateLimited, WinnowError
from indexing.concurrency import finish

T = TypeVar("T")

FIRST_S, MAX_S = 0.25, 8.0

JITTER_S = 0.25
"""Added to a delay that the server named, so that not all come back in the same moment."""


def repeatable(failure: UpstreamError) -> bool:
    """Whether the same call may succeed soon. The quota of a day will not."""
    spent = isinstance(failure, UpstreamRateLimited) and failure.quota == "day"
    return failure.retryable and not spent and not isinstance(failure, Resting)


def pause_s(failure: UpstreamError, number: int, random: Random) -> float:
    """Seconds to wait after failure `number`, from 0: what the server said, else exponential with full jitter.

    The formula is that of Marc Brooker, "Exponential Backoff And Jitter", AWS 2015.
    """
    if failure.retry_after is not None:
        return failure.retry_after + random.uniform(0, JITTER_S)
    return random.uniform(0, min(FIRST_S * 2**number, MAX_S))


async def retrying(
    attempt: Callable[[], Awaitable[T]], retries: int, worth_waiting: Callable[[float], bool], random: Random
) -> T:
    """The first success of at most 1 + `retries` attempts. Raises the last attempt's error.

    `worth_waiting` says whether there is time to wait so many seconds; if not, the error is raised at once.
    """
    failure: UpstreamError | None = None
    number = 0
    while True:
        try:
            return await attempt()
        except (Resting, Overloaded) as exc:
            # The failure that led to the retry says more than the refusal of it.
            if failure is not None:
                raise failure from exc
            raise
        except UpstreamError as exc:
            failure = exc
        pause = pause_s(failure, number, random)
        if number == retries or not repeatable(failure) or not worth_waiting(pause):
            raise failure
        await asyncio.sleep(pause)
        number += 1


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
