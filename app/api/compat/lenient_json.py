"""JSON bodies as other products' clients send them: unknown fields are ignored, "true" is true and "3" is 3."""

import re
from typing import TypeVar

import msgspec

from app.api.json_body import StrictJSON, decode
from app.errors import InvalidRequest

T = TypeVar("T", bound=msgspec.Struct)

MOST_ESCAPES = 100_000
"""Of the kind that halves are. More would hold up all other requests for a second."""

_SURROGATES = re.compile(
    rb"(?<!\\)(?P<before>(?:\\\\)*)\\u[dD]"
    rb"(?:(?P<pair>[89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|[89a-fA-F][0-9a-fA-F]{2})"
)


class LenientJSON(StrictJSON[T]):
    """`dto=LenientJSON[RerankBody]` gives the handler its `data`.

    A body that is empty is said to be so first: Dify's probe comes without a type, and wants a 400.
    """

    def decode_bytes(self, value: bytes) -> T:
        if value.strip():
            self.check_headers()
        try:
            return decode(value, self.model_type, strict=False)
        except InvalidRequest:
            if (mended := whole_characters(value)) == value:
                raise
            return decode(mended, self.model_type, strict=False)


def whole_characters(body: bytes) -> bytes:
    """JSON in which half of a surrogate pair is U+FFFD: JavaScript leaves one where it cuts a text within an emoji."""
    if body.count(rb"\ud") + body.count(rb"\uD") > MOST_ESCAPES:
        return body
    return _SURROGATES.sub(lambda found: found[0] if found["pair"] else rb"%b\ufffd" % found["before"], body)
