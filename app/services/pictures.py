"""The pictures of a request: from URLs, bodies and uploads, as models take them.

URLs go through the one fetcher. Decoding is left to child processes (`indexing.readers.sandbox`): a decoder that
crashes or eats memory ends with its process, and the service goes on.
"""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from app.domain import Image, PictureSource
from app.errors import InvalidRequest, Overloaded, pointing_at
from app.services.fetch import Fetcher
from indexing.concurrency import together
from indexing.readers import ReadLimits
from indexing.readers.sandbox.pool import ReaderPool

MEDIA_TYPES = ("image/png", "image/jpeg", "image/jpg", "image/webp", "image/gif", "application/pdf")
"""What servers may call them."""

MAX_PICTURES = 20
"""Of a request, the pages of PDFs among them."""

MAX_BYTES_SENT = 20_000_000
"""Of all pictures of a request: what Gemini takes with a request."""

DECODED_AT_ONCE = 2
"""Of all requests together: a decoded picture may take 160 MB."""

_LIMITS = ReadLimits(max_seconds=20, max_memory_bytes=2 * 2**30)
_WAIT_S, _RETRY_AFTER_S = 20.0, 5.0
"""How long a picture waits for its turn, and when those that would wait longer may come back."""


class Pictures:
    """Fetches and decodes. Close it."""

    def __init__(self, fetcher: Fetcher, readers: ReaderPool | None = None, wait_s: float = _WAIT_S) -> None:
        self._fetcher, self._wait_s = fetcher, wait_s
        self._readers = readers or ReaderPool(_LIMITS, DECODED_AT_ONCE)
        self._free = asyncio.Semaphore(DECODED_AT_ONCE)

    async def images(self, sources: Sequence[PictureSource]) -> tuple[tuple[Image, ...], ...]:
        """The pictures of each source: one, or those of a PDF's pages. Raises InvalidRequest pointing at a source, and
        Overloaded where many wait to be decoded.
        """
        if len(sources) > MAX_PICTURES:
            raise pointing_at(sources[MAX_PICTURES].pointer, f"at most {MAX_PICTURES} pictures are shown; send fewer")
        images = tuple(await together(self._of(source) for source in sources))
        every = [image for some in images for image in some]
        if len(every) > MAX_PICTURES:
            raise pointing_at(
                sources[0].pointer, f"these are {len(every)} pictures with the pages of PDFs; at most {MAX_PICTURES}"
            )
        if sum(len(image.data) for image in every) > MAX_BYTES_SENT:
            raise pointing_at(
                sources[0].pointer, f"the pictures have more than {MAX_BYTES_SENT} bytes together; send fewer"
            )
        return images

    async def close(self) -> None:
        """End the child processes."""
        await self._readers.close()

    async def _of(self, source: PictureSource) -> tuple[Image, ...]:
        data = await self._bytes(source)
        try:
            async with self._turn():
                return tuple(await self._readers.pictures(data, source.pages, MAX_PICTURES))
        except InvalidRequest as exc:
            raise pointing_at(source.pointer, str(exc)) from exc

    async def _bytes(self, source: PictureSource) -> bytes:
        content = source.content
        if isinstance(content, bytes):
            return content
        if ":" in content[:100] and not content.startswith("data:"):  # base64 has no colon
            return await self._fetcher.fetch(content, MEDIA_TYPES, source.pointer)
        try:
            return from_base64(content)
        except InvalidRequest as exc:
            raise pointing_at(source.pointer, str(exc)) from exc

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._wait_s):
                await self._free.acquire()
        except TimeoutError as exc:
            raise Overloaded("too many pictures wait to be decoded; try again later", _RETRY_AFTER_S) from exc
        try:
            yield
        finally:
            self._free.release()


def from_base64(text: str) -> bytes:
    """The bytes of base64 or of a `data:` URL. Raises InvalidRequest."""
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise InvalidRequest("send a data: URL as data:image/png;base64,…")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidRequest("not valid base64; give a URL, base64, or a data: URL") from exc
