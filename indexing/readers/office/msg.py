"""Outlook messages (msg), files with a stream for each property (MS-OXMSG), -> the mails that they are -> text."""

import datetime
import email.utils
import struct
from collections.abc import Iterator
from email.message import EmailMessage

import olefile

from indexing.documents import Document, Refused
from indexing.errors import UnreadableDocument
from indexing.readers.builder import one_line
from indexing.readers.limits import ReadLimits
from indexing.readers.office.old import opened_ole
from indexing.readers.text.eml import read_message
from indexing.readers.text.encoding import decode
from indexing.readers.text.html import declared_charset

_SUBJECT, _BODY, _PAGE, _TO, _CC = 0x0037, 0x1000, 0x1013, 0x0E04, 0x0E03
_SENDER, _SENDER_SMTP, _SENDER_ADDRESS = 0x0C1A, 0x5D01, 0x0C1F
_SENT, _RECEIVED = 0x0039, 0x0E06
_FILE, _LONG_NAME, _SHORT_NAME, _CONTENT_ID = 0x3701, 0x3707, 0x3704, 0x3712
_CODE_PAGES = (0x3FFD, 0x3FDE)
_EMBEDDED = "__substg1.0_3701000D"
_DEPTH = 10
_MOST = 1000
_EPOCH = datetime.datetime(1601, 1, 1, tzinfo=datetime.UTC)


def read_msg(data: bytes, name: str, limits: ReadLimits) -> list[Document | Refused]:
    """The mail, and the documents of its attachments, as of an eml."""
    with opened_ole(data) as file:
        message = _message(file, [], 0)
    return read_message(message, "application/vnd.ms-outlook", limits)


def _message(file: olefile.OleFileIO, folder: list[str], depth: int) -> EmailMessage:
    properties = _Properties(file, folder, 24 if folder else 32)
    message = EmailMessage()
    address = properties.text(_SENDER_SMTP) or properties.text(_SENDER_ADDRESS)
    name = properties.text(_SENDER)
    sender = email.utils.formataddr((name, address)) if "@" in address and address[0] != "/" else name
    fields = {
        "Subject": properties.text(_SUBJECT),
        "From": sender,
        "To": properties.text(_TO),
        "Cc": properties.text(_CC),
        "Date": properties.time(_SENT) or properties.time(_RECEIVED),
    }
    for field, value in fields.items():
        if line := one_line(value):
            message[field] = line
    body, page = properties.text(_BODY), properties.page()
    message.set_content(body, cte="base64")
    if page:
        message.add_alternative(page, subtype="html", cte="base64")
    for storage in _attachments(file, folder):
        _attach(file, storage, message, depth)
    return message


def _attachments(file: olefile.OleFileIO, folder: list[str]) -> list[list[str]]:
    names = {
        path[len(folder)]
        for path in file.listdir(streams=True, storages=False)
        if path[: len(folder)] == folder and len(path) > len(folder) and path[len(folder)].startswith("__attach_")
    }
    if len(names) > _MOST:
        raise UnreadableDocument("too_many_pages", f"It has more than {_MOST} attachments.")
    return [[*folder, name] for name in sorted(names)]


def _attach(file: olefile.OleFileIO, storage: list[str], message: EmailMessage, depth: int) -> None:
    if file.exists([*storage, _EMBEDDED, "__properties_version1.0"]):
        if depth < _DEPTH:
            message.add_attachment(_message(file, [*storage, _EMBEDDED], depth + 1))
        return
    properties = _Properties(file, storage, 8)
    name = one_line(properties.text(_LONG_NAME) or properties.text(_SHORT_NAME))
    data = properties.data(_FILE)
    if data is None:
        return
    content_id = one_line(properties.text(_CONTENT_ID))
    message.add_attachment(
        data,
        maintype="application",
        subtype="octet-stream",
        filename=name or "attachment",
        cid=f"<{content_id}>" if content_id else None,
    )


class _Properties:
    """Those of a message or an attachment: texts and files are streams, numbers and times rows of one stream."""

    def __init__(self, file: olefile.OleFileIO, folder: list[str], head: int) -> None:
        self._file, self._folder = file, folder
        table = self._stream("__properties_version1.0") or b""
        self._fixed = dict(_rows(table[head:]))
        code_pages = (int.from_bytes(self._fixed.get(one, b"")[:4], "little") for one in _CODE_PAGES)
        self._charset = next((_charset(page) for page in code_pages if page), None)

    def _stream(self, name: str) -> bytes | None:
        path = [*self._folder, name]
        if not self._file.exists(path):
            return None
        with self._file.openstream(path) as stream:
            data: bytes = stream.read()
        return data

    def data(self, number: int) -> bytes | None:
        """A property of bytes."""
        return self._stream(f"__substg1.0_{number:04X}0102")

    def text(self, number: int) -> str:
        """A property of text; "" without it."""
        wide = self._stream(f"__substg1.0_{number:04X}001F")
        if wide is not None:
            return wide.decode("utf-16-le", "replace").rstrip("\0")
        narrow = (self._stream(f"__substg1.0_{number:04X}001E") or b"").rstrip(b"\0")
        return decode(narrow, self._charset) if narrow else ""

    def page(self) -> str:
        """The body as a web page; "" without one."""
        data = self.data(_PAGE)
        return decode(data, declared_charset(data) or self._charset) if data else self.text(_PAGE)

    def time(self, number: int) -> str:
        """A property of time as a mail has it; "" without it, and for one beyond all calendars."""
        ticks = int.from_bytes(self._fixed.get(number, b""), "little")
        try:
            return email.utils.format_datetime(_EPOCH + datetime.timedelta(microseconds=ticks // 10)) if ticks else ""
        except OverflowError:
            return ""


def _rows(table: bytes) -> Iterator[tuple[int, bytes]]:
    """Number -> value of the properties whose values are of eight bytes or less."""
    for start in range(0, len(table) - 15, 16):
        yield struct.unpack_from("<H", table, start + 2)[0], table[start + 8 : start + 16]


def _charset(code_page: int) -> str:
    return {65001: "utf-8", 1200: "utf-16-le", 20127: "ascii", 20866: "koi8-r", 28591: "iso-8859-1"}.get(
        code_page, f"cp{code_page}"
    )
