"""When a failed attempt is worth another, and how long to wait before it."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import TypeVar

from app.errors import Overloaded, Resting, UpstreamError, UpstreamRateLimited

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
