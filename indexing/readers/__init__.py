"""Bytes -> documents, for every format that is read.

`read` runs where it is called; `indexing.readers.sandbox.pool.ReaderPool` runs it in a process that may be killed.
Importing this package imports no format library.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import msgspec

from indexing.documents import POSITION, Document, Refused
from indexing.errors import UnreadableDocument
from indexing.readers.builder import stem
from indexing.readers.limits import REASONS, ReadLimits, too_large
from indexing.readers.registry import FORMATS, detect, reads_in_pieces

__all__ = ["FORMATS", "REASONS", "ReadLimits", "read", "read_pieces"]

_METADATA_CHARACTERS = 2000
_WHOLE = 8 * 2**20
"""Bytes up to which a file of records is read as a whole."""
_PIECE = 2**20
"""Bytes of the file that make a piece."""

Parts = list[Document | Refused]


def read(data: bytes, name: str, limits: ReadLimits, media_type: str | None = None) -> list[Document | Refused]:
    """The documents in a file: one, or one per record of a file of records; and the parts that are none. Never nothing.

    Raises UnreadableDocument, and nothing else, whatever the bytes are.
    """
    with _translated():
        return _checked(parse(data, name, limits, media_type), name)


def read_pieces(
    file: BinaryIO, name: str, limits: ReadLimits, media_type: str | None = None
) -> Iterator[tuple[Parts, int]]:
    """What `read` returns for a file, and how many of its bytes it was made from: in pieces of about a megabyte where
    it is a large file of records, and at once otherwise. Raises UnreadableDocument, after some pieces too.
    """
    with _translated():
        size = os.fstat(file.fileno()).st_size
        streamed = _streamed(file, name, limits) if size > _WHOLE and reads_in_pieces(name) else None
        if streamed is None:
            if size > limits.max_bytes:
                raise too_large(size, limits)
            file.seek(0)
            yield read(file.read(), name, limits, media_type), size
            return
        parts, begun, any_text = Parts(), 0, False
        for part in streamed:
            parts.append(part if isinstance(part, Refused) else _document(part, name))
            any_text |= isinstance(parts[-1], Document)
            if (position := file.tell()) - begun >= _PIECE:
                yield parts, position - begun
                parts, begun = Parts(), position
        if not any_text and all(isinstance(part, Refused) and part.reason == "empty" for part in parts):
            raise UnreadableDocument("empty", "It contains no text.")
        yield parts, size - begun


def _streamed(file: BinaryIO, name: str, limits: ReadLimits) -> Iterator[Document | Refused] | None:
    streamer = detect(file.read(2**16), name).load_streamer()
    file.seek(0)
    return streamer(file, name, limits) if streamer else None


@contextmanager
def _translated() -> Iterator[None]:
    """The one seam to a dozen parsers, which raise anything on hostile bytes: UnreadableDocument, and nothing else."""
    try:
        yield
    except UnreadableDocument:
        raise
    except MemoryError as exc:
        raise UnreadableDocument("memory", "Reading it takes more memory than allowed.") from exc
    except RecursionError as exc:
        raise UnreadableDocument("corrupt", "The file is damaged: its parts are nested too deeply.") from exc
    except Exception as exc:
        raise UnreadableDocument("corrupt", f"The file is damaged or incomplete ({type(exc).__name__}).") from exc
    except BaseException as exc:
        # What a library in Rust panics with is no Exception, and would end the process.
        if type(exc).__name__ != "PanicException":
            raise
        raise UnreadableDocument("corrupt", "The file is damaged or incomplete.") from exc


def parse(data: bytes, name: str, limits: ReadLimits, media_type: str | None = None) -> Sequence[Document | Refused]:
    """What the format's reader returns; errors of its libraries pass through."""
    if len(data) > limits.max_bytes:
        raise too_large(len(data), limits)
    if not data.strip(b"\0 \t\r\n"):
        raise UnreadableDocument("empty", "The file is empty.")
    return detect(data, name, media_type).load()(data, name, limits)


def _checked(parts: Sequence[Document | Refused], name: str) -> list[Document | Refused]:
    """The documents that have text, with a title, and metadata that any store can keep; the others are refused."""
    checked = [part if isinstance(part, Refused) else _document(part, name) for part in parts]
    if all(isinstance(part, Refused) and part.reason == "empty" for part in checked):
        raise UnreadableDocument("empty", "It contains no text.")
    return checked


def _document(document: Document, name: str) -> Document | Refused:
    if not document.text.strip():
        return Refused(part=f"#{document.key.removeprefix(POSITION)}", reason="empty", detail="It contains no text.")
    return msgspec.structs.replace(
        document,
        title=(document.title or ("" if document.key else stem(name)))[:500],
        metadata=_storable(dict(document.metadata)),
    )


def _storable(value: Any) -> Any:
    """Texts of a bounded length; integers of more than 64 bits, which no store can hold, as texts."""
    match value:
        case str():
            return value[:_METADATA_CHARACTERS]
        case int() if not -(2**63) <= value < 2**63:
            return str(value)[:_METADATA_CHARACTERS]
        case dict():
            return {str(key): _storable(item) for key, item in value.items()}
        case list() | tuple():
            return [_storable(item) for item in value]
    return value
