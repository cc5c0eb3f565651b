"""What a reader may spend on one file, and the codes with which it refuses."""

from typing import Annotated

import msgspec
from msgspec import Meta

REASONS = {
    "not_found": "there is no such file",
    "permission": "the file may not be opened",
    "not_a_file": "it is no regular file",
    "too_large": "the file has more bytes than allowed",
    "too_many_pages": "it has more pages, slides or sheets than allowed",
    "zip_bomb": "it unpacks to far more than it weighs",
    "timeout": "reading took longer than allowed",
    "memory": "reading took more memory than allowed",
    "crashed": "a library fell over while reading it",
    "password": "it is encrypted",
    "no_text_layer": "it holds pictures of text, but no text",
    "empty": "it holds no text at all",
    "binary": "it is no text and no known document format",
    "unsupported": "it is a known format that is not read here",
    "corrupt": "it is cut short or damaged",
}


Count = Annotated[int, Meta(ge=1)]
Amount = Annotated[float, Meta(gt=0)]


class ReadLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds for one file: bytes, pages (slides, sheets), seconds. `max_ratio`: unpacked over packed bytes of a zip."""

    max_bytes: Count = 100 * 2**20
    max_pages: Count = 5000
    max_seconds: Amount = 120.0
    max_expanded_bytes: Count = 2**30
    max_ratio: Amount = 200.0
    max_memory_bytes: Count = 4 * 2**30
