"""An e-mail (eml) -> text: its body, with who wrote it to whom in the metadata."""

import email
import email.policy
import email.utils
from email.message import EmailMessage
from typing import Any

from indexing.documents import Document
from indexing.errors import UnreadableDocument
from indexing.readers.builder import TextWriter, one_line
from indexing.readers.limits import ReadLimits
from indexing.readers.text.encoding import decode, refuse_binary
from indexing.readers.text.html import write_html

_PARTS = 1000


def read_mail(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """One document; the subject is its title, attachments are named below the text and in the metadata."""
    refuse_binary(data)
    message = email.message_from_bytes(data.lstrip(b"\r\n\t "), policy=email.policy.default)
    writer = TextWriter()
    for part in _bodies(message):
        _write_part(part, writer)
    # To be found by their names, and asked for. A mail without a text stays empty.
    if (names := _attachments(message)) and not writer.is_empty:
        writer.add("paragraph", f"{'Attachment' if len(names) == 1 else 'Attachments'}: {', '.join(names)}")
    return [
        writer.document(title=_header(message, "subject"), media_type="message/rfc822", metadata=_metadata(message))
    ]


def _bodies(message: EmailMessage) -> list[EmailMessage]:
    """The parts to read: plain text rather than HTML where the message offers both."""
    leaves = [part for part in message.walk() if not part.is_multipart()]
    if len(leaves) > _PARTS:
        raise UnreadableDocument("too_many_pages", f"It has {len(leaves)} parts; at most {_PARTS} are read.")
    shown = [part for part in leaves if part.get_content_disposition() != "attachment"]
    plain = [part for part in shown if part.get_content_type() == "text/plain" and part.get_payload(decode=True)]
    return plain or [part for part in shown if part.get_content_type() == "text/html"]


def _write_part(part: EmailMessage, writer: TextWriter) -> None:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes) or not payload.strip():
        return
    text = decode(payload, part.get_content_charset())
    if part.get_content_type() == "text/html":
        write_html(text, writer)
        return
    for paragraph in text.replace("\r\n", "\n").split("\n\n"):
        quoted = all(line.startswith(">") for line in paragraph.strip().split("\n"))
        writer.add("quote" if quoted else "paragraph", paragraph)


def _header(message: EmailMessage, name: str) -> str:
    """A header's decoded text; "" when it is missing or beyond repair."""
    try:
        return one_line(str(message.get(name, "")))
    except (ValueError, IndexError, TypeError, AttributeError, LookupError):
        return ""


def _attachments(message: EmailMessage) -> list[str]:
    """The names of files beside the body, without pictures that are shown in it."""
    parts = (part for part in message.walk() if part.get_content_disposition() != "inline")
    return [name for part in parts if (name := one_line(part.get_filename() or ""))]


def _metadata(message: EmailMessage) -> dict[str, Any]:
    attachments = [one_line(part.get_filename() or "") for part in message.walk() if part.get_filename()]
    return {
        "from": _header(message, "from"),
        "to": _header(message, "to"),
        "cc": _header(message, "cc"),
        "subject": _header(message, "subject"),
        "date": _date(_header(message, "date")),
        "attachments": attachments,
    }


def _date(text: str) -> str:
    """ISO 8601 if the header can be parsed; else the header unchanged."""
    try:
        return email.utils.parsedate_to_datetime(text).isoformat()
    except (ValueError, TypeError, IndexError):
        return text
