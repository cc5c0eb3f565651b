"""Pictures for models: told by their first bytes, bounded before they are decoded, and checked by decoding."""

import base64
import binascii
from io import BytesIO
from typing import Literal

from PIL import Image as Pillow
from PIL import ImageOps

from app.domain import Image
from app.errors import InvalidRequest

MEDIA_TYPES = ("image/png", "image/jpeg", "image/jpg", "image/webp", "image/gif")
"""What servers may call them."""

MAX_PIXELS = 40_000_000
MAX_SIDE = 3072
"""Larger ones are scaled down: models see no more of them."""

Format = Literal["PNG", "JPEG", "WEBP", "GIF"]

_ORIENTATION = 0x0112  # of EXIF: a camera's turn

# Pillow would warn and then refuse by the size in the header, at sizes of its own; `prepared` refuses earlier.
Pillow.MAX_IMAGE_PIXELS = None


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


def prepared(data: bytes) -> Image:
    """The picture as models take it: a PNG, JPEG or WebP, upright, of at most MAX_SIDE pixels a side. CPU-bound.

    Unchanged where it is one already; of an animation the first frame. Raises InvalidRequest for anything else, such as
    SVG, for one of more than MAX_PIXELS, and for one that is damaged.
    """
    kind = _format(data)
    if kind is None:
        raise InvalidRequest("not a PNG, JPEG, WebP or GIF picture, by its first bytes; convert it to one")
    try:
        with Pillow.open(BytesIO(data), formats=(kind,)) as picture:
            width, height = picture.size
            if width * height <= MAX_PIXELS:
                as_it_is = _is_plain(picture, kind)
                picture.load()
                return Image(data=data, media_type=f"image/{kind.lower()}") if as_it_is else _encoded(picture, kind)
    except Exception as exc:  # Pillow's decoders raise anything
        raise InvalidRequest("the picture is damaged or incomplete; save it anew") from exc
    raise InvalidRequest(f"the picture has {width} x {height} pixels; at most {MAX_PIXELS} are decoded: shrink it")


def _format(data: bytes) -> Format | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    return "WEBP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def _is_plain(picture: Pillow.Image, kind: Format) -> bool:
    # A JPEG with several frames has previews of the same picture behind the first one.
    animated = kind != "JPEG" and getattr(picture, "n_frames", 1) > 1
    turned = picture.getexif().get(_ORIENTATION, 1) != 1
    return kind != "GIF" and not animated and not turned and picture.mode != "CMYK" and max(picture.size) <= MAX_SIDE


def _encoded(picture: Pillow.Image, kind: Format) -> Image:
    upright = ImageOps.exif_transpose(picture)
    if max(upright.size) > MAX_SIDE:
        upright.thumbnail((MAX_SIDE, MAX_SIDE))
    pixels, file = upright.convert("RGBA" if upright.has_transparency_data else "RGB"), BytesIO()
    # Without the profile: it may be of the colours before.
    if kind == "JPEG":
        pixels.save(file, "JPEG", quality=92, icc_profile=None)
        return Image(data=file.getvalue(), media_type="image/jpeg")
    pixels.save(file, "PNG", icc_profile=None)
    return Image(data=file.getvalue(), media_type="image/png")
