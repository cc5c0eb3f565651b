"""Work side by side, and work that no cancellation stops."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def together(works: Iterable[Awaitable[T]]) -> list[T]:
    """What comes of them, in their order. When one breaks or this is cancelled, none of them goes on.

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
