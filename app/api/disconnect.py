"""Work for a client that hung up is not worth finishing."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from litestar import Request

from app.api.problem_details import ClientGone

T = TypeVar("T")


async def while_connected(request: Request[Any, Any, Any], work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client goes away (ClientGone) or this call is cancelled.

    Litestar does not cancel a handler on disconnect. The body must have been read: after it, `receive` has nothing but
    the disconnect to tell.
    """
    job = asyncio.ensure_future(work)
    hang_up = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((job, hang_up), return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            return job.result()
        raise ClientGone
    finally:
        job.cancel()
        hang_up.cancel()
        await asyncio.gather(job, hang_up, return_exceptions=True)


async def _disconnected(request: Request[Any, Any, Any]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
