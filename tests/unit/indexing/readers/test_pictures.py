"""Pictures and pages as models get them."""

import struct
import zlib
from io import BytesIO
from typing import Any

import pytest
from PIL import Image as Pillow
from PIL import ImageOps
from reportlab.pdfgen.canvas import Canvas

from indexing.documents import Image
from indexing.errors import UnreadableDocument
from indexing.readers import ReadLimits
from indexing.readers.pictures import MAX_SCANS, MAX_SIDE, pictures_of, prepared
from tests.unit.indexing.readers.making import encrypted, pdf


def saved(picture: Pillow.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def solid(mode: str = "RGB", size: tuple[int, int] = (40, 20)) -> Pillow.Image:
    return Pillow.new(mode, size, "red" if mode == "RGB" else None)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_plain_picture_is_unchanged(kind: str) -> None:
    """PNG, JPEG and WebP go along byte by byte, with the type that their first bytes tell."""
    data = saved(solid(), kind)
    image = prepared(data)
    assert (image.data, image.media_type) == (data, f"image/{kind.lower()}")


def _animated(kind: str) -> bytes:
    return saved(solid(), kind, save_all=True, append_images=[Pillow.new("RGB", (40, 20), "blue")])


def _turned() -> bytes:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    return saved(solid(), "JPEG", exif=exif)


@pytest.mark.parametrize(
    ("data", "media_type", "size"),
    [
        (_turned(), "image/jpeg", (20, 40)),
        (saved(solid("CMYK"), "JPEG"), "image/jpeg", (40, 20)),
        (_animated("GIF"), "image/png", (40, 20)),
        (_animated("WEBP"), "image/png", (40, 20)),
        (saved(solid(size=(2 * MAX_SIDE, 100)), "PNG"), "image/png", (MAX_SIDE, 50)),
    ],
    ids=["turned", "cmyk", "gif", "webp", "wide"],
)
def test_what_models_may_not_read_is_made_anew(data: bytes, media_type: str, size: tuple[int, int]) -> None:
    """Upright, RGB, the first frame, and within the largest side."""
    image = prepared(data)
    assert image.media_type == media_type
    with Pillow.open(BytesIO(image.data)) as picture:
        assert (picture.size, picture.mode, getattr(picture, "n_frames", 1)) == (size, "RGB", 1)


def _bomb(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (_bomb(10_000, 10_000), "10000 x 10000 pixels"),
        (_bomb(2**31 - 1, 2**31 - 1), "pixels"),
        (_bomb(100, 100_000_000), "pixels"),
        (saved(solid(), "JPEG")[:-40], "damaged"),
        (saved(solid(), "PNG")[:60], "damaged"),
        (saved(solid(), "WEBP")[:40], "damaged"),
        (saved(solid(), "GIF")[:20], "damaged"),
        (b"\xff\xd8\xff<html>", "damaged"),
        (b"GIF89a=1;alert(1)", "damaged"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not a PNG"),
        (b"%PDF-1.7", "not a complete PDF"),
        (saved(solid(), "BMP"), "not a PNG"),
        (saved(solid(), "TIFF"), "not a PNG"),
        (b"", "not a PNG"),
    ],
)
def test_bombs_damage_and_other_types_are_refused(data: bytes, reason: str) -> None:
    """Before anything is decoded where the header tells it."""
    with pytest.raises(UnreadableDocument, match=reason):
        pictures_of(data, ReadLimits())


def _scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again, which changes no pixel."""
    data = saved(Pillow.linear_gradient("L"), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (count - data.count(b"\xff\xda")) + data[-2:]


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    """Each scan passes over all pixels: a few bytes would cost a second."""
    assert prepared(_scans(MAX_SCANS)).data == _scans(MAX_SCANS)
    with pytest.raises(UnreadableDocument, match="100 scans"):
        prepared(_scans(MAX_SCANS + 1))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_every_turn_is_undone(orientation: int) -> None:
    """As Pillow undoes it."""
    original = Pillow.linear_gradient("L").crop((0, 64, 40, 84)).convert("RGB")
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    data = saved(original, "PNG", exif=exif)
    with Pillow.open(BytesIO(data)) as turned, Pillow.open(BytesIO(prepared(data).data)) as upright:
        expected = ImageOps.exif_transpose(turned)
        assert (upright.size, upright.tobytes()) == (expected.size, expected.tobytes())


def test_a_turned_picture_with_damaged_exif_is_taken() -> None:
    """Only the turn is read of it."""
    entries = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack("<HHII", 0x8000 + 0x0769, 2, 4, 0x41414141)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + entries + bytes(4)
    with Pillow.open(BytesIO(prepared(saved(solid(), "JPEG", exif=exif)).data)) as picture:
        assert picture.size == (20, 40)


@pytest.mark.parametrize("width", [40, 2 * MAX_SIDE])
def test_grey_of_16_bits_stays_grey(width: int) -> None:
    """Pillow alone would make it white."""
    image = prepared(saved(Pillow.new("I;16", (width, 20), 128 * 257), "PNG"))
    with Pillow.open(BytesIO(image.data)) as picture:
        assert (picture.mode, picture.getpixel((10, 5))) == ("RGB", (128, 128, 128))


def _sizes(images: list[Image]) -> list[tuple[int, int]]:
    return [Pillow.open(BytesIO(image.data)).size for image in images]


THREE = pdf([(72, 100, "one")], [(72, 100, "two")], [(72, 100, "three")])


def test_pages_are_rendered() -> None:
    """All of them, or those that are named, in that order, as JPEGs of 150 dots per inch."""
    images = pictures_of(THREE, ReadLimits(), most=3)
    assert [image.media_type for image in images] == ["image/jpeg"] * 3
    assert set(_sizes(images)) == {(1241, 1754)}
    last_first = pictures_of(THREE, ReadLimits(), (3, 1), most=3)
    assert [image.data for image in last_first] == [images[2].data, images[0].data]
    assert images[0].data != images[1].data


@pytest.mark.parametrize(
    ("data", "pages", "most", "reason"),
    [
        (THREE, None, 2, "3 pages; choose up to 2 of them"),
        (THREE, (1, 4), 3, "has 3 pages, and no page 4"),
        (encrypted(THREE, "secret"), None, 3, "without a password"),
        (THREE[:200], None, 3, "not a complete PDF"),
    ],
)
def test_pages_that_cannot_be_shown(data: bytes, pages: tuple[int, ...] | None, most: int, reason: str) -> None:
    """Each refusal says why."""
    with pytest.raises(UnreadableDocument, match=reason):
        pictures_of(data, ReadLimits(), pages, most)


def test_a_page_of_any_size_is_a_picture_of_a_bounded_size() -> None:
    """A page may be a kilometre long, or next to nothing."""
    file = BytesIO()
    canvas = Canvas(file)
    for size in ((14_400, 14_400), (1, 14_400), (1, 1)):
        canvas.setPageSize(size)
        canvas.showPage()
    canvas.save()
    sizes = _sizes(pictures_of(file.getvalue(), ReadLimits(), most=3))
    assert all(1 <= side <= MAX_SIDE + 1 for size in sizes for side in size), sizes


def test_a_file_beyond_the_limit_is_not_looked_at() -> None:
    """Its bytes are counted first."""
    with pytest.raises(UnreadableDocument, match="MiB"):
        pictures_of(THREE, ReadLimits(max_bytes=100), most=3)
