"""E-mail (eml), mailboxes (mbox) and saved web pages (mhtml) -> text; what is attached becomes documents of its own."""

import email
import email.policy
import email.utils
import re
from collections.abc import Iterable, Iterator
from email.message import MIMEPart
from typing import Any, BinaryIO

import msgspec

from indexing.documents import Document, Refused
from indexing.errors import UnreadableDocument
from indexing.readers.builder import TextWriter, one_line, tidy
from indexing.readers.limits import ReadLimits, too_large
from indexing.readers.members import MOST, distinct, key_inside, read_members
from indexing.readers.text.encoding import decode, decoded, looks_binary, refuse_binary
from indexing.readers.text.html import write_html

_PARTS = 1000
_DEPTH = 20
_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")
_BROKEN_FIELDS = 5
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_SEPARATOR = re.compile(rb"^From [^\r\n]*\d{4}[^\r\n]*\r?\n(?=[!-9;-~]+:)", re.MULTILINE)
_STUB = re.compile(
    r"(not|cannot|can't|unable to) (show|support|display|view|read)s? ?(the )?html|html[- ](mail|e-?mail|version)|"
    r"(view|read|see) (this|the) (e-?mail|message|newsletter) (online|in|on)|kein html|browser",
    re.IGNORECASE,
)
_CID = re.compile(rb"cid:([^\"'\s<>)]+)", re.IGNORECASE)
_BLOCK = 2**20
_LONGEST_LINE = 2**12
"""Of a separator and the field after it."""
_STUB_CHARACTERS = 300
_MUCH_MORE = 3


def read_mail(data: bytes, name: str, limits: ReadLimits) -> list[Document | Refused]:
    """The mail, with its subject as title; then the documents of its attachments, which name the mail."""
    if b"\0" in data[:200]:
        data = decode(data).encode()  # an editor saved it in UTF-16, with a mark or without
    refuse_binary(data)
    return list(_mail(_parsed(data), limits))


def read_message(message: MIMEPart, media_type: str, limits: ReadLimits) -> list[Document | Refused]:
    """As `read_mail`, of a message that came in another format."""
    return list(_mail(message, limits, media_type))


def read_mailbox(data: bytes, name: str, limits: ReadLimits) -> list[Document | Refused]:
    """Every mail of a mailbox, and what is attached to them."""
    refuse_binary(data)
    starts = [match.start() for match in _SEPARATOR.finditer(data)]
    if len(starts) > MOST:
        raise UnreadableDocument("too_many_pages", f"It holds {len(starts)} mails; at most {MOST} are read.")
    mails = (data[start:end] for start, end in zip(starts, [*starts[1:], len(data)], strict=True))
    return list(_numbered(mails, limits)) or list(_mail(_parsed(data), limits))


def stream_mailbox(file: BinaryIO, name: str, limits: ReadLimits) -> Iterator[Document | Refused] | None:
    """What `read_mailbox` finds, however many mails there are; None where none begins among the first bytes.

    A mail may have as many bytes as otherwise a file; a larger one is refused alone.
    """
    sample = file.read(_BLOCK)
    if looks_binary(sample) or not _SEPARATOR.search(sample):
        return None
    file.seek(0)
    return _numbered(_cut(file, limits), limits)


def _cut(file: BinaryIO, limits: ReadLimits) -> Iterator[bytes | UnreadableDocument]:
    """The mails in a mailbox, one after the other."""
    held, oversize, begun = b"", 0, False
    while True:
        block = file.read(max(_BLOCK, len(held)))  # what is held is searched again
        held += block
        certain = len(held) - _LONGEST_LINE if block else len(held)
        starts = [match.start() for match in _SEPARATOR.finditer(held) if match.start() < certain]
        position = 0
        for end in starts if block else [*starts, len(held)]:
            if begun and (end > position or oversize):
                size = oversize + end - position
                yield too_large(size, limits) if size > limits.max_bytes else held[position:end]
            begun, oversize, position = True, 0, end
        held = held[position:]
        if not block:
            return
        if len(held) > limits.max_bytes:
            oversize += len(held) - _LONGEST_LINE
            held = held[-_LONGEST_LINE:]


def _numbered(mails: Iterable[bytes | UnreadableDocument], limits: ReadLimits) -> Iterator[Document | Refused]:
    for number, mail in enumerate(mails, 1):
        if isinstance(mail, UnreadableDocument):
            yield Refused(part=f"#{number}", reason=mail.reason, detail=mail.detail)
            continue
        for part in _mail(_parsed(mail), limits):
            if isinstance(part, Refused):
                yield msgspec.structs.replace(part, part=f"#{number}{part.part}")
            else:
                yield msgspec.structs.replace(part, key=key_inside(str(number), part.key))


def read_web_archive(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """The page that a browser saved, without its pictures and styles."""
    message = _parsed(data)
    page = next((part for part in message.walk() if part.get_content_type() == "text/html"), None)
    if page is None:
        raise UnreadableDocument("empty", "It holds no web page.")
    writer = TextWriter()
    metadata = write_html(*_page(page)[:1], writer)
    metadata["url"] = _header(message, "snapshot-content-location") or _header(page, "content-location")
    title = str(metadata.pop("title", "")) or _header(message, "subject")
    return [writer.document(title=title, media_type="multipart/related", metadata=metadata)]


def _mail(message: MIMEPart, limits: ReadLimits, media_type: str = "message/rfc822") -> Iterator[Document | Refused]:
    writer = TextWriter()
    contents = _Contents(message)
    warnings: list[str] = []
    for part in contents.shown:
        warnings += _write_part(part, writer)
    names = list(
        distinct(one_line(part.get_filename() or "attachment").replace("/", "_") for part in contents.attached)
    )
    # To be found by their names, and asked for. A mail without a text stays empty.
    if names and not writer.is_empty:
        writer.add("paragraph", f"{'Attachment' if len(names) == 1 else 'Attachments'}: {', '.join(names)}")
    metadata = {**_metadata(message), "attachments": names}
    mail = writer.document(
        title=_header(message, "subject"), media_type=media_type, metadata=metadata, warnings=warnings
    )
    if mail.text or not names:
        yield mail
    about = {"mail": mail.title, "from": metadata["from"], "date": metadata["date"]}
    files = ((name, _payload(part)) for name, part in zip(names, contents.attached, strict=True))
    if names:
        yield from read_members(files, limits, {key: value for key, value in about.items() if value})


def _parsed(data: bytes) -> MIMEPart:
    """The message. A broken line among its headers is passed over; it would end them."""
    data = data.lstrip(b"\r\n\t ")
    end = _HEAD_END.search(data)
    lines = data[: end.start() if end else len(data)].splitlines()
    fields = [line for line in lines if _FIELD.match(line) or line[:1] in (b" ", b"\t")]
    if end and fields and lines[-1] in fields and len(lines) - len(fields) <= _BROKEN_FIELDS:
        head = decode(b"\n".join(fields))
        data = head.encode() + b"\n\n" + data[end.end() :]
    return email.message_from_bytes(data, policy=email.policy.default)


class _Contents:
    """The parts of a mail that are its text, and those that are files beside it."""

    def __init__(self, message: MIMEPart) -> None:
        self.shown: list[MIMEPart] = []
        self.attached: list[MIMEPart] = []
        self._seen = 0
        pages = (part for part in message.walk() if part.get_content_type() == "text/html")
        self._pictures = {found[1].decode("latin-1") for page in pages for found in _CID.finditer(_payload(page))}
        """The content ids of what pages show."""
        self._collect(message)

    def _collect(self, part: MIMEPart, depth: int = 0) -> None:
        """Of alternatives one is shown, of related parts the first; the text of a forwarded mail follows its own."""
        self._seen += 1
        if self._seen > _PARTS or depth > _DEPTH:
            raise UnreadableDocument(
                "too_many_pages", f"It has more than {_PARTS} parts, or they are nested too deeply."
            )
        kind = part.get_content_type()
        inner = [one for one in part.iter_parts()] if part.is_multipart() and kind != "message/rfc822" else []
        if kind == "message/rfc822" and part.is_multipart():
            self.shown.append(part)
            self._collect(_forwarded(part), depth + 1)
        elif kind == "multipart/alternative":
            self._collect_one(inner, depth + 1)
        elif inner:
            for one in inner:
                self._collect(one, depth + 1)
        elif part.get_content_disposition() == "attachment" or not kind.startswith("text/"):
            if part.get_filename() and not self._is_picture(part):
                self.attached.append(part)
        elif kind in ("text/plain", "text/html"):
            self.shown.append(part)

    def _is_picture(self, part: MIMEPart) -> bool:
        """Of a page. Mail programs give content ids to files, too, and show some of them in line."""
        inline = part.get_content_disposition() == "inline" and part.get_content_maintype() == "image"
        return inline or _header(part, "content-id").strip("<> ") in self._pictures

    def _collect_one(self, alternatives: list[MIMEPart], depth: int) -> None:
        """Plain text, unless it only says that there is a page, or is a fraction of it."""
        plain = next((one for one in alternatives if one.get_content_type() == "text/plain"), None)
        pages = [one for one in alternatives if one is not plain]
        if plain is not None and pages and not _is_stub(plain, pages[-1]):
            pages = [one for one in pages if one.is_multipart() and one.get_content_type() == "multipart/mixed"]
            self._collect(plain, depth)
        for one in pages[-1:] or ([] if plain in self.shown or plain is None else [plain]):
            self._collect(one, depth)


def _is_stub(plain: MIMEPart, page: MIMEPart) -> bool:
    text = tidy(_page(plain)[0])
    html = next((part for part in page.walk() if part.get_content_type() == "text/html"), None)
    if html is None:
        return False
    writer = TextWriter()
    write_html(_page(html)[0], writer)
    shown = writer.document(title="", media_type="", metadata={}).text
    excuse = len(text) < _STUB_CHARACTERS and bool(_STUB.search(text))
    return bool(shown) and (excuse or len(shown) > _MUCH_MORE * len(text))


def _forwarded(part: MIMEPart) -> MIMEPart:
    """The mail that a part is."""
    mail: Any = part.get_payload(0)
    return mail if isinstance(mail, MIMEPart) else MIMEPart()


def _payload(part: MIMEPart) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _page(part: MIMEPart) -> tuple[str, tuple[str, ...]]:
    """The text of a part, and what is doubtful about it."""
    return decoded(_payload(part), part.get_content_charset())


def _write_part(part: MIMEPart, writer: TextWriter) -> tuple[str, ...]:
    if part.get_content_type() == "message/rfc822":
        told = [_header(_forwarded(part), field) for field in ("subject", "from", "date")]
        writer.add("paragraph", f"Forwarded: {', '.join(filter(None, told))}")
        return ()
    text, warnings = _page(part)
    if part.get_content_type() == "text/html":
        write_html(text, writer)
        return warnings
    for paragraph in text.replace("\r\n", "\n").split("\n\n"):
        quoted = all(line.startswith(">") for line in paragraph.strip().split("\n"))
        writer.add("quote" if quoted else "paragraph", paragraph)
    return warnings


def _header(message: MIMEPart, name: str) -> str:
    """A header's decoded text; "" when it is missing or beyond repair."""
    try:
        return one_line(str(message.get(name, "")))
    except (ValueError, IndexError, TypeError, AttributeError, LookupError):
        return ""


def _metadata(message: MIMEPart) -> dict[str, Any]:
    fields = {name: _header(message, name) for name in ("from", "to", "cc", "subject")}
    return {**fields, "date": _date(_header(message, "date"))}


def _date(text: str) -> str:
    """ISO 8601 if the header can be parsed; else the header unchanged."""
    try:
        return email.utils.parsedate_to_datetime(text).isoformat()
    except (ValueError, TypeError, IndexError):
        return text
