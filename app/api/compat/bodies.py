"""JSON bodies as other products' clients send them: unknown fields are ignored, "true" is true and "3" is 3."""

from typing import TypeVar

import msgspec

from app.api.bodies import StrictJSON, decode, require_json

T = TypeVar("T", bound=msgspec.Struct)


class LenientJSON(StrictJSON[T]):
    """`dto=LenientJSON[RerankBody]` gives the handler its `data`.

    A body that is empty is said to be so first: Dify's probe comes without a type, and wants a 400.
    """

    def decode_bytes(self, value: bytes) -> T:
        if value.strip():
            require_json(self.asgi_connection.headers.get("content-type"))
        return decode(value, self.model_type, strict=False)
