"""Pictures for models: told by their first bytes, bounded before they are decoded, and checked by decoding."""

import base64
import binascii
from io import BytesIO
from typing import Literal

from PIL import Image as Pillow

from app.domain import Image
from app.errors import InvalidRequest

MEDIA_TYPES = ("image/png", "image/jpeg", "image/jpg", "image/webp", "image/gif")
"""What servers may call them."""

MAX_PIXELS = 40_000_000
MAX_SIDE = 3072
"""Larger ones are scaled down: models see no more of them."""

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
    SVG, for one of more than MAX_PIXELS or MAX_SCANS, and for one that is damaged.
    """
    kind = _format(data)
    if kind is None:
        raise InvalidRequest("not a PNG, JPEG, WebP or GIF picture, by its first bytes; convert it to one")
    if kind == "JPEG" and data.count(_SCAN) > MAX_SCANS:
        raise InvalidRequest(f"the picture has more than {MAX_SCANS} scans; save it as a plain JPEG")
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
