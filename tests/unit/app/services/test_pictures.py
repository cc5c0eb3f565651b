"""The pictures of a request: bounded, decoded in another process, and each refusal with its place."""

import asyncio
import base64

import pytest

from app.config.settings import FetchSettings
from app.domain import PictureSource
from app.errors import InvalidRequest, Overloaded
from app.services.fetch import Fetcher
from app.services.pictures import DECODED_AT_ONCE, MAX_PICTURES, Pictures, from_base64
from indexing.readers import ReadLimits
from indexing.readers.sandbox.pool import ReaderPool
from tests.unit.indexing.readers.making import pdf
from tests.unit.indexing.readers.test_pictures import saved, solid

pytestmark = pytest.mark.anyio

PNG = saved(solid(), "PNG")
MISBEHAVING = "tests.fakes.misbehaving_reader"


def pictures(readers: ReaderPool | None = None) -> Pictures:
    return Pictures(Fetcher(FetchSettings()), readers)


async def refusal(pictures: Pictures, *contents: str | bytes) -> str:
    sources = [PictureSource(f"/images/{place}", content) for place, content in enumerate(contents)]
    try:
        with pytest.raises(InvalidRequest) as caught:
            await pictures.images(sources)
    finally:
        await pictures.close()
    return str(caught.value)


async def test_each_source_gives_its_pictures() -> None:
    """Bytes and base64 alike; a PDF gives its pages."""
    shown = pictures()
    document = pdf([(72, 100, "one")], [(72, 100, "two")])
    sources = [
        PictureSource("/a", PNG),
        PictureSource("/b", document),
        PictureSource("/c", base64.b64encode(PNG).decode()),
    ]
    first, pages, second = await shown.images(sources)
    assert (first, [page.media_type for page in pages]) == (second, ["image/jpeg"] * 2)
    await shown.close()


async def test_too_many_pictures_are_refused() -> None:
    """Before anything is decoded where their number tells it, and with the pages of PDFs."""
    assert f"/images/{MAX_PICTURES}: at most" in await refusal(pictures(), *["?"] * (MAX_PICTURES + 1))
    document = pdf(*[[(72, 100, "page")]] * (MAX_PICTURES // 2 + 1))
    assert "with the pages of PDFs" in await refusal(pictures(), document, document)


@pytest.mark.parametrize("kind", ["crash", "exit", "hang", "eat"])
async def test_a_decoder_that_breaks_spoils_its_picture_only(kind: str) -> None:
    """The picture is pointed at, and the next one is decoded."""
    readers = ReaderPool(ReadLimits(max_seconds=1 if kind == "hang" else 60, max_memory_bytes=2**30), 1, MISBEHAVING)
    shown = pictures(readers)
    with pytest.raises(InvalidRequest, match="/images/0: "):
        await shown.images([PictureSource("/images/0", kind.encode())])
    assert await shown.images([PictureSource("/images/0", b"behave")]) == ((),)
    await shown.close()


async def test_a_long_line_is_refused() -> None:
    """Whoever would wait for long is told to come back."""
    shown = Pictures(Fetcher(FetchSettings()), ReaderPool(ReadLimits(), 1, MISBEHAVING), wait_s=0.05)
    sources = [PictureSource("/image", b"hang")] * DECODED_AT_ONCE
    busy = asyncio.ensure_future(shown.images(sources))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await shown.images([PictureSource("/image", PNG)])
    busy.cancel()
    await asyncio.gather(busy, return_exceptions=True)
    await shown.close()


def test_base64_is_read_with_and_without_a_data_url() -> None:
    """Line breaks are allowed, other characters and other encodings are not."""
    assert from_base64("aGVs\nbG8=") == from_base64("data:image/png;base64,aGVsbG8=") == b"hello"
    for bad in ("aGVsbG8", "?", "data:image/png,hello", "ü"):
        with pytest.raises(InvalidRequest, match="base64"):
            from_base64(bad)
