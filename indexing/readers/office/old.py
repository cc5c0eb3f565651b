"""Word and PowerPoint from before 2007 (doc, ppt) -> text, by xberg, which the extra `office` brings.

Their container is that of Outlook's messages too: a small file system in a file (MS-CFB).
"""

import asyncio
import importlib.util
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import olefile

from indexing.documents import Document
from indexing.errors import UnreadableDocument
from indexing.readers.builder import TextWriter
from indexing.readers.limits import OFFICE_MISSING, ReadLimits
from indexing.readers.zip_xml import corrupt


@contextmanager
def opened_ole(data: bytes) -> Iterator[olefile.OleFileIO]:
    """The file, open for reading. Raises UnreadableDocument; errors inside the block are translated too."""
    try:
        with olefile.OleFileIO(io.BytesIO(data)) as file:
            yield file
    except (OSError, ValueError, IndexError) as exc:  # olefile's own errors are OSErrors
        raise corrupt("Its container is truncated or damaged.") from exc


_WORD, _POWERPOINT = "application/msword", "application/vnd.ms-powerpoint"
_ENCRYPTED_WORD = 0x0100
_ENCRYPTED_SLIDES = (0xF3D1C4DF).to_bytes(4, "little")
_ROW_END = re.compile(r"\t\t+")


def read_doc(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """One document: paragraphs, the rows of tables, notes; no headings and no pages."""
    with opened_ole(data) as file:
        _refuse_encrypted(_head(file, "WordDocument", 12)[10:12], _ENCRYPTED_WORD)
    return [_read(data, _WORD, "doc")]


def read_ppt(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """One document: the texts of its slides, without pages."""
    with opened_ole(data) as file:
        encrypted = _head(file, "Current User", 16)[12:16] == _ENCRYPTED_SLIDES or file.exists("EncryptedSummary")
    _refuse_encrypted(b"\x01" if encrypted else b"", 1)
    return [_read(data, _POWERPOINT, "ppt")]


def _head(file: olefile.OleFileIO, stream: str, size: int) -> bytes:
    if not file.exists(stream):
        raise corrupt(f"Its part {stream!r} is missing.")
    with file.openstream(stream) as opened:
        head: bytes = opened.read(size)
    return head


def _refuse_encrypted(flags: bytes, flag: int) -> None:
    if int.from_bytes(flags, "little") & flag:
        raise UnreadableDocument("password", "It is encrypted; save it without a password and index it again.")


def _read(data: bytes, media_type: str, extension: str) -> Document:
    if importlib.util.find_spec("xberg") is None:
        raise UnreadableDocument(
            "unsupported", f"Reading {extension} files takes more: {OFFICE_MISSING}; or save it as {extension}x."
        )
    extracted = _extracted(data, media_type)
    writer = TextWriter()
    for paragraph in extracted.content.split("\n"):
        rows = [row.split("\t") for row in _ROW_END.split(paragraph.strip())]
        if max(map(len, rows)) > 1:
            writer.add_table(rows, header=len(rows) > 1)
        else:
            writer.add("paragraph", paragraph)
    about = extracted.metadata
    title = "" if about.title in (None, "PowerPoint Presentation") or "\ufffd" in about.title else about.title
    return writer.document(title=title, media_type=media_type, metadata={"author": ", ".join(about.authors or ())})


def _extracted(data: bytes, media_type: str) -> Any:
    import xberg  # 160 MB that only these files need

    given = xberg.ExtractInput(kind=xberg.ExtractInputKind.BYTES, bytes=data, mime_type=media_type)
    alone = xberg.ExtractionConfig(use_cache=False, disable_ocr=True)
    try:
        (extracted,) = asyncio.run(xberg.extract(given, alone)).results
    except (RuntimeError, ValueError, xberg.XbergError) as exc:
        raise corrupt("Its text cannot be found.") from exc
    return extracted
