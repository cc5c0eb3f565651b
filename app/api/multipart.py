"""multipart/form-data, read part by part within limits.

Litestar's own reading keeps parts in temporary files, which a form that breaks off leaves open, and answers 500 to a
field in an unknown charset.
"""

import msgspec
from multipart import MultipartSegment, ParserLimitReached, PushMultipartParser

from app.api.json_body import BodyRequest
from app.errors import InvalidRequest, TooLarge

MEDIA_TYPE = "multipart/form-data"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A field of a form; a file if it has a `filename`."""

    name: str
    filename: str | None
    media_type: str | None
    charset: str
    data: bytes

    def text(self) -> str:
        """Raises InvalidRequest."""
        try:
            return self.data.decode(self.charset)
        except (UnicodeError, LookupError) as exc:
            raise InvalidRequest(f"the field {self.name} is no text in {self.charset}") from exc


async def read_form(request: BodyRequest, max_bytes: int, max_parts: int) -> list[Part]:
    """The parts in order. Raises InvalidRequest, TooLarge."""
    boundary = request.content_type[1].get("boundary", "")
    collected = _Parts()
    size = 0
    try:
        with PushMultipartParser(boundary.encode(), max_segment_count=max_parts) as parser:
            async for piece in request.stream():
                size += len(piece)
                if size > max_bytes:
                    raise TooLarge(f"a form may have {max_bytes} bytes; send the files in several requests")
                for event in parser.parse(piece):
                    collected.take(event)
    except ParserLimitReached as exc:
        raise InvalidRequest(f"a form may have {max_parts} parts with short headers: {exc}") from exc
    except ValueError as exc:  # the parser's own errors, and header bytes that are no text
        raise InvalidRequest(f"the body is no {MEDIA_TYPE} that can be read: {exc}") from exc
    return collected.parts


class _Parts:
    """The parser's events, put together."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self._head: MultipartSegment | None = None
        self._data = bytearray()

    def take(self, event: MultipartSegment | bytearray | None) -> None:
        """A head, then its data in pieces, then None."""
        if isinstance(event, MultipartSegment):
            self._head, self._data = event, bytearray()
        elif event is not None:
            self._data += event
        elif self._head is not None:
            head, self._head = self._head, None
            self.parts.append(
                Part(
                    name=head.name or "",
                    filename=head.filename,
                    media_type=head.content_type,
                    charset=head.charset or "utf-8",
                    data=bytes(self._data),
                )
            )
            self._data = bytearray()
