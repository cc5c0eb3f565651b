"""JSON bodies of foreign clients: unknown fields are ignored, and "3" and "true" are a number and a truth."""

from typing import TypeVar

import msgspec

from app.api.bodies import StrictJSON, decode, require_json

T = TypeVar("T", bound=msgspec.Struct)


class LenientJSON(StrictJSON[T]):
    """`dto=LenientJSON[Body]`. A body that is empty is said to be so first: probes come without a type."""

    def decode_bytes(self, value: bytes) -> T:
        if value.strip():
            require_json(self.asgi_connection.headers.get("content-type"))
        return decode(value, self.model_type, strict=False)
