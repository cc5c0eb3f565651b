"""Chooses the reader of a file: by its first bytes, then media type, then extension, then a look at the text."""

import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from typing import Any, BinaryIO, Literal

import msgspec

from indexing.documents import Document, Refused
from indexing.errors import UnreadableDocument
from indexing.readers.limits import ReadLimits

Reader = Callable[[bytes, str, ReadLimits], Sequence[Document | Refused]]
Streamer = Callable[[BinaryIO, str, ReadLimits], Iterator[Document | Refused] | None]
"""Reads a file record by record; None where it has to be read as a whole."""

_HTML_START = re.compile(
    rb"^\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_OFFICE = "EncryptedPackage".encode("utf-16-le")
_PICTURE_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*")
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")
_TAR_NAME = re.compile(r"\.(t(ar\.)?(gz|bz2|xz))$", re.IGNORECASE)
_RTF_START = re.compile(rb"\s*\{\\rtf")
SNAPSHOT = "It is a snapshot of a collection: winnow snapshot restore brings its documents back."
_SNAPSHOT_MEMBERS = (b"sources.jsonl", b"snapshot.json")
_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")


class Format(msgspec.Struct, frozen=True):
    """A format: its reader as "module:function", imported when first needed, and how its files are recognised."""

    name: str
    reader: str
    extensions: tuple[str, ...]
    media_types: tuple[str, ...]
    container: Literal["", "zip", "ole", "own"] = ""
    """What its files are packed in; "" for a text, whose size says how much there is to read."""
    streamer: str = ""
    """What reads large files of the format without holding them."""

    def load(self) -> Reader:
        """The reader. Format libraries are imported here, not before."""
        reader: Reader = _function(self.reader)
        return reader

    def load_streamer(self) -> Streamer | None:
        """What reads its large files, if anything does."""
        streamer: Streamer | None = _function(self.streamer) if self.streamer else None
        return streamer


def _function(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(f"indexing.readers.{module}"), name)


_OFFICE = "application/vnd.openxmlformats-officedocument"
_OPEN = "application/vnd.oasis.opendocument"
FORMATS = {
    entry.name: entry
    for entry in (
        Format("text", "text.plain:read_text", ("txt", "text", "log"), ("text/plain",)),
        Format("asciidoc", "text.plain:read_asciidoc", ("adoc", "asciidoc", "asc"), ("text/asciidoc",)),
        Format("rst", "text.plain:read_rst", ("rst",), ("text/x-rst",)),
        Format(
            "markdown", "text.markdown:read_markdown", ("md", "markdown", "mdown", "mkd", "mdx"), ("text/markdown",)
        ),
        Format("html", "text.html:read_html", ("html", "htm", "xhtml"), ("text/html", "application/xhtml+xml")),
        Format("csv", "text.csv:read_csv", ("csv",), ("text/csv",), streamer="text.csv:stream_csv"),
        Format(
            "tsv",
            "text.csv:read_tsv",
            ("tsv", "tab"),
            ("text/tab-separated-values",),
            streamer="text.csv:stream_tsv",
        ),
        Format("json", "text.json:read_json", ("json",), ("application/json",)),
        Format(
            "jsonl",
            "text.json:read_json_lines",
            ("jsonl", "ndjson"),
            ("application/x-ndjson", "application/jsonl", "application/jsonlines"),
            streamer="text.json:stream_json_lines",
        ),
        Format("xml", "text.markup:read_xml", ("xml", "nxml", "dbk"), ("application/xml", "text/xml")),
        Format("tex", "text.markup:read_tex", ("tex", "latex"), ("application/x-tex", "text/x-tex")),
        Format("notebook", "text.markup:read_notebook", ("ipynb",), ("application/x-ipynb+json",)),
        Format("subtitles", "text.markup:read_subtitles", ("srt", "vtt"), ("application/x-subrip", "text/vtt")),
        Format("rtf", "text.rtf:read_rtf", ("rtf",), ("application/rtf", "text/rtf")),
        Format("pdf", "pdf.reader:read_pdf", ("pdf",), ("application/pdf",), "own"),
        Format(
            "picture",
            "pdf.ocr:read_picture",
            ("png", "jpg", "jpeg", "webp", "tif", "tiff"),
            ("image/png", "image/jpeg", "image/webp", "image/tiff"),
            "own",
        ),
        Format("docx", "office.docx:read_docx", ("docx", "docm"), (f"{_OFFICE}.wordprocessingml.document",), "zip"),
        Format("pptx", "office.pptx:read_pptx", ("pptx", "pptm"), (f"{_OFFICE}.presentationml.presentation",), "zip"),
        Format("xlsx", "office.sheets:read_xlsx", ("xlsx", "xlsm"), (f"{_OFFICE}.spreadsheetml.sheet",), "zip"),
        Format(
            "sheets",
            "office.sheets:read_sheets",
            ("xlsb", "ods"),
            ("application/vnd.ms-excel.sheet.binary.macroenabled.12", f"{_OPEN}.spreadsheet"),
            "zip",
        ),
        Format("odt", "office.odt:read_odt", ("odt",), (f"{_OPEN}.text",), "zip"),
        Format("odp", "office.odt:read_odp", ("odp",), (f"{_OPEN}.presentation",), "zip"),
        Format("epub", "office.epub:read_epub", ("epub",), ("application/epub+zip",), "zip"),
        Format("doc", "office.old:read_doc", ("doc", "dot"), ("application/msword",), "ole"),
        Format("ppt", "office.old:read_ppt", ("ppt", "pps"), ("application/vnd.ms-powerpoint",), "ole"),
        Format("xls", "office.sheets:read_sheets", ("xls",), ("application/vnd.ms-excel",), "ole"),
        Format("msg", "office.msg:read_msg", ("msg",), ("application/vnd.ms-outlook",), "ole"),
        Format("eml", "text.eml:read_mail", ("eml",), ("message/rfc822",)),
        Format("mbox", "text.eml:read_mailbox", ("mbox",), ("application/mbox",), streamer="text.eml:stream_mailbox"),
        Format(
            "mhtml", "text.eml:read_web_archive", ("mhtml", "mht"), ("multipart/related", "application/x-mimearchive")
        ),
        Format("zip", "archives:read_zip", ("zip",), ("application/zip", "application/x-zip-compressed"), "zip"),
        Format(
            "tar",
            "archives:read_tar",
            ("tar", "tgz", "tbz2", "txz"),
            ("application/x-tar", "application/gzip", "application/x-gtar"),
            "own",
        ),
    )
}
_BY_EXTENSION = {extension: entry for entry in FORMATS.values() for extension in entry.extensions}
_BY_MEDIA_TYPE = {media_type: entry for entry in FORMATS.values() for media_type in entry.media_types}
_OLE_STREAMS = {
    "msg": "__properties_version1.0",
    "doc": "WordDocument",
    "ppt": "PowerPoint Document",
    "xls": "Workbook",
}
"""What is in the files of a format, the one that the others may be in first."""
# Formats that are recognised but not read -> the format to save them as.
_UNSUPPORTED = {
    "pages": "docx",
    "key": "pptx",
    "numbers": "xlsx",
    "mobi": "epub",
    "azw3": "epub",
}


def by_extension(name: str) -> Format | None:
    """The format that a file's name promises."""
    return _BY_EXTENSION.get(PurePath(name).suffix.lower().removeprefix("."))


def reads_in_pieces(name: str) -> bool:
    """Whether a file of this name may be of any size: it is read record by record if it is what its name says."""
    entry = by_extension(name)
    return entry is not None and bool(entry.streamer)


def detect(data: bytes, name: str, media_type: str | None = None) -> Format:
    """The format of the data. What the bytes say for certain takes precedence over the name.

    Raises UnreadableDocument: "unsupported", "password", "corrupt", "binary".
    """
    extension = PurePath(name).suffix.lower().removeprefix(".")
    if certain := _by_bytes(data, name, extension):
        return certain
    if extension in _UNSUPPORTED:
        raise _unsupported(extension)
    stated = _BY_MEDIA_TYPE.get((media_type or "").partition(";")[0].strip().lower())
    if stated in (None, FORMATS["text"]):
        stated = _BY_EXTENSION.get(extension) or stated
    if stated and stated.container == "ole" and _HTML_START.match(data[:2048]):
        return FORMATS["html"]  # so do many programs export
    if stated and stated.container:
        raise UnreadableDocument(
            "corrupt", f"The file is damaged or incomplete. It does not begin as a {stated.name} file does."
        )
    return stated or _sniffed(data)


def _by_bytes(data: bytes, name: str, extension: str) -> Format | None:
    """What begins as no other format does."""
    if data.startswith(_ZIP_STARTS):
        return _zip_format(data, extension)
    if data.startswith(_OLE):
        return _ole_format(data, extension)
    if data.startswith(_PICTURE_STARTS) or (data.startswith(b"RIFF") and data[8:12] == b"WEBP"):
        return FORMATS["picture"]
    if data[257:262] == b"ustar" or (data.startswith(_COMPRESSED) and _TAR_NAME.search(name)):
        return FORMATS["tar"]
    if b"%PDF-" in data[:1024]:
        return FORMATS["pdf"]
    return FORMATS["rtf"] if _RTF_START.match(data) else None


def _zip_format(data: bytes, extension: str) -> Format:
    # The central directory at the end and the first entries at the start carry the member names uncompressed.
    names = data[:4096] + data[-65536:]
    if extension in ("", "zip") and all(mark in names for mark in _SNAPSHOT_MEMBERS):
        raise UnreadableDocument("unsupported", SNAPSHOT)
    by_name = _BY_EXTENSION.get(extension)
    if by_name and by_name.container == "zip":
        return by_name
    for mark, format_name in (
        (b"word/document.xml", "docx"),
        (b"ppt/presentation.xml", "pptx"),
        (b"xl/workbook.xml", "xlsx"),
        (b"xl/workbook.bin", "sheets"),
        (b"application/vnd.oasis.opendocument.spreadsheet", "sheets"),
        (b"application/epub+zip", "epub"),
        (b"application/vnd.oasis.opendocument.textPK", "odt"),
        (b"application/vnd.oasis.opendocument.presentationPK", "odp"),
    ):
        if mark in names:
            return FORMATS[format_name]
    if extension in _UNSUPPORTED:
        raise _unsupported(extension)
    return FORMATS["zip"]


def _ole_format(data: bytes, extension: str) -> Format:
    """What is in it decides; a document may have others embedded, so that its name is asked first."""
    if _ENCRYPTED_OFFICE in data:
        raise UnreadableDocument("password", "It is encrypted; save it without a password and index it again.")
    by_name = _BY_EXTENSION.get(extension)
    first = (by_name.name,) if by_name and by_name.container == "ole" else ()
    for name in (*first, *_OLE_STREAMS):
        if _OLE_STREAMS[name].encode("utf-16-le") in data:
            return FORMATS[name]
    if first:
        return FORMATS[first[0]]
    if extension in _UNSUPPORTED:
        raise _unsupported(extension)
    raise UnreadableDocument("unsupported", "It is in a format of old programs; save it as docx, pptx or xlsx.")


def _unsupported(extension: str) -> UnreadableDocument:
    return UnreadableDocument(
        "unsupported", f"Files of type {extension} are not supported; save it as {_UNSUPPORTED[extension]}."
    )


def _sniffed(data: bytes) -> Format:
    """For names that say nothing: HTML and JSON are recognised, other text is plain text."""
    if _HTML_START.match(data[:2048]):
        return FORMATS["html"]
    if data.lstrip()[:1] in (b"{", b"["):
        try:
            msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return FORMATS["text"]
        return FORMATS["json"]
    # Whether it is text at all shows when it is decoded.
    return FORMATS["text"]
