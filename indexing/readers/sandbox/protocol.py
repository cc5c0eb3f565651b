"""What the parent and its reader process say to each other over two pipes: length, then MessagePack."""

import struct

import msgspec

from indexing.documents import Document
from indexing.readers.limits import ReadLimits

LENGTH = struct.Struct(">Q")


class Request(msgspec.Struct, frozen=True):
    """Read `data`, or the file at `path` (bytes, as file names are) when there is none."""

    name: str
    media_type: str | None
    path: bytes | None = None
    data: bytes | None = None


class Reply(msgspec.Struct, frozen=True):
    """The documents, or why there are none."""

    documents: list[Document] = []
    reason: str = ""
    detail: str = ""


class Greeting(msgspec.Struct, frozen=True):
    """First frame to the child: its limits."""

    limits: ReadLimits


def framed(message: Request | Reply | Greeting) -> bytes:
    """The bytes of one message."""
    body = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(body)) + body
