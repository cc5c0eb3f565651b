"""Pictures, and the pages of PDFs, for models that see: told by their first bytes, bounded before they are decoded.

Decoders are attacked with damaged files: `indexing.readers.sandbox` runs them in a process that may die.
"""

import contextlib
from collections.abc import Sequence
from io import BytesIO
from typing import Any, Literal

from PIL import Image as Pillow

from indexing.documents import Image
from indexing.errors import UnreadableDocument
from indexing.readers.limits import ReadLimits, too_large
from indexing.readers.pdf.reader import open_pdf

MAX_PIXELS = 40_000_000
MAX_SIDE = 3072
"""Larger ones are scaled down: models see no more of them."""

DOTS_PER_INCH = 150
"""Of a page that is rendered: the small print of a letter can be read."""

MAX_SCANS = 100
"""Of a progressive JPEG. Cameras and editors write ten; each one passes over all pixels, and may be 60 bytes."""

Format = Literal["PNG", "JPEG", "WEBP", "GIF"]

_ORIENTATION = 0x0112  # of EXIF: a camera's turn
_UPRIGHT = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}
"""What undoes each turn."""

_SCAN = b"\xff\xda"
_PLAIN_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
_PDF, _PDF_WITHIN = b"%PDF-", 1024  # bytes: readers allow a preamble
_POINTS_PER_INCH = 72

# Pillow would warn and then refuse by the size in the header, at sizes of its own; `prepared` refuses earlier.
Pillow.MAX_IMAGE_PIXELS = None


def pictures_of(data: bytes, limits: ReadLimits, pages: Sequence[int] | None = None, most: int = 1) -> list[Image]:
    """A picture as models take it, or the pages of a PDF: all, or these (from 1), at most `most`. CPU-bound.

    Raises UnreadableDocument, and nothing else, whatever the bytes are.
    """
    if len(data) > limits.max_bytes:
        raise too_large(len(data), limits)
    try:
        if _format(data) is None and _PDF in data[:_PDF_WITHIN]:
            return _rendered(data, pages, most)
        return [prepared(data)]
    except UnreadableDocument:
        raise
    except MemoryError as exc:
        raise UnreadableDocument("memory", "decoding it takes more memory than allowed; shrink it") from exc
    except Exception as exc:  # Pillow's decoders and PDFium's binding raise anything
        raise UnreadableDocument("corrupt", "it is damaged or incomplete; save it anew") from exc


def prepared(data: bytes) -> Image:
    """The picture as models take it: a PNG, JPEG or WebP, upright, of at most MAX_SIDE pixels a side.

    Unchanged where it is one already; of an animation the first frame. Raises UnreadableDocument for anything else,
    such as SVG, and for one of more than MAX_PIXELS or MAX_SCANS; whatever the decoder raises for a damaged one.
    """
    kind = _format(data)
    if kind is None:
        raise UnreadableDocument(
            "unsupported", "not a PNG, JPEG, WebP or GIF picture, nor a PDF, by its first bytes; convert it to one"
        )
    if kind == "JPEG" and data.count(_SCAN) > MAX_SCANS:
        raise UnreadableDocument("too_large", f"the picture has more than {MAX_SCANS} scans; save it as a plain JPEG")
    with Pillow.open(BytesIO(data), formats=(kind,)) as picture:
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise UnreadableDocument(
                "too_large", f"the picture has {width} x {height} pixels; at most {MAX_PIXELS} are decoded: shrink it"
            )
        as_it_is = _is_plain(picture, kind)
        picture.load()
        return Image(data=data, media_type=f"image/{kind.lower()}") if as_it_is else _encoded(picture, kind)


def _rendered(data: bytes, pages: Sequence[int] | None, most: int) -> list[Image]:
    with contextlib.closing(open_pdf(data)) as pdf:
        count = len(pdf)
        if pages is None and count > most:
            raise UnreadableDocument(
                "too_many_pages", f'the PDF has {count} pages; choose up to {most} of them by pages, such as "1-3,7"'
            )
        chosen = range(1, count + 1) if pages is None else pages
        if beyond := [number for number in chosen if number > count]:
            raise UnreadableDocument("too_many_pages", f"the PDF has {count} pages, and no page {beyond[0]}")
        pdf.init_forms()  # or what is written into forms is not drawn
        return [_page(pdf, number - 1) for number in chosen]


def _page(pdf: Any, place: int) -> Image:
    with contextlib.closing(pdf[place]) as page:
        longest = max(page.get_size())
        # A page may be a kilometre long.
        scale = min(DOTS_PER_INCH / _POINTS_PER_INCH, MAX_SIDE / longest)
        file = BytesIO()
        page.render(scale=scale).to_pil().convert("RGB").save(file, "JPEG", quality=90, subsampling=0)
    return Image(data=file.getvalue(), media_type="image/jpeg")


def _format(data: bytes) -> Format | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    return "WEBP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def _is_plain(picture: Pillow.Image, kind: Format) -> bool:
    if kind == "GIF" or picture.mode not in _PLAIN_MODES or max(picture.size) > MAX_SIDE:
        return False
    # A JPEG with several frames has previews of the same picture behind the first one.
    animated = kind != "JPEG" and getattr(picture, "is_animated", False)
    return not animated and _turn(picture) is None


def _turn(picture: Pillow.Image) -> Pillow.Transpose | None:
    """What brings it upright, if anything must. Of EXIF only this is read: the rest of it is often damaged."""
    orientation = picture.getexif().get(_ORIENTATION)
    return _UPRIGHT.get(orientation) if isinstance(orientation, int) else None


def _encoded(picture: Pillow.Image, kind: Format) -> Image:
    turn = _turn(picture)
    upright = picture if turn is None else picture.transpose(turn)
    if max(upright.size) > MAX_SIDE:
        upright.thumbnail((MAX_SIDE, MAX_SIDE))
    if upright.mode.startswith("I"):  # 16 bits of grey, which Pillow's `convert` would cut off at 255, to white
        upright = upright.point(lambda grey: grey * (1 / 257)).convert("L")
    pixels, file = upright.convert("RGBA" if upright.has_transparency_data else "RGB"), BytesIO()
    # Without the profile: it may be of the colours before.
    if kind == "JPEG":
        pixels.save(file, "JPEG", quality=92, icc_profile=None)
        return Image(data=file.getvalue(), media_type="image/jpeg")
    pixels.save(file, "PNG", icc_profile=None)
    return Image(data=file.getvalue(), media_type="image/png")
