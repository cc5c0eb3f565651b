"""How much of a server's reply is read: one that sends without end, or that unpacks to it, must not fill the memory."""

from collections.abc import AsyncGenerator

import httpx2

MAX_REPLY_BYTES = 64 * 2**20
"""Several times the longest stream, and any batch of prompts with its log-probabilities."""


async def bound(response: httpx2.Response) -> None:
    """An event hook for responses: whoever reads more of one, unpacked, gets DecodingError, as of a damaged one."""
    read = response.aiter_bytes

    async def bounded(chunk_size: int | None = None) -> AsyncGenerator[bytes, None]:
        left = MAX_REPLY_BYTES
        async for piece in read(chunk_size):
            left -= len(piece)
            if left < 0:
                raise httpx2.DecodingError(f"a reply of over {MAX_REPLY_BYTES:,} bytes", request=response.request)
            yield piece

    response.aiter_bytes = bounded  # type: ignore[method-assign] # all ways of reading come through it
