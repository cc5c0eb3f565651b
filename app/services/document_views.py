"""Documents as they are shown: their lists, their details, and their text."""

import base64
import binascii
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from app.errors import InvalidRequest
from app.services.documents import Documents
from indexing.documents import Audience, document_key
from indexing.pipeline.manifest import DocumentRecord
from indexing.pipeline.recovery import document_of

Origin = Literal["file", "api"]


class DocumentEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A document. `passages` counts them. `origin` "file": `winnow index` read it from a file and keeps it current.

    It belongs to `tenant` ("": to none), of which only the groups `allowed` may see it, if any are named.
    """

    id: str
    title: str
    source: str
    passages: int
    indexed_at: datetime
    origin: Origin
    tenant: str = ""
    allowed: tuple[str, ...] = ()


class DocumentList(msgspec.Struct, frozen=True, kw_only=True):
    """Documents by id. `next_cursor` is null at the end."""

    collection: str
    documents: list[DocumentEntry]
    next_cursor: str | None


class PassageRange(msgspec.Struct, frozen=True, kw_only=True):
    """A passage: [start, end) of the document's text, the pages on which it begins and ends, the headings above it."""

    id: str
    start: int
    end: int
    page: int | None
    page_end: int | None
    heading: tuple[str, ...]


class DocumentDetails(DocumentEntry, frozen=True, kw_only=True):
    """A document with its metadata, its passages in order, and its text.

    `text_complete` false: the text is put together from the passages, with line feeds for the white space between them.
    The ranges hold in either. Both are null where the text was left out.
    """

    metadata: dict[str, Any]
    ranges: list[PassageRange]
    text: str | None
    text_complete: bool | None


async def list_documents(
    documents: Documents, collection: str, cursor: str, limit: int, audience: Audience
) -> DocumentList:
    """Up to `limit` documents after those of the page whose `next_cursor` is given; "" begins.

    Raises InvalidRequest, CollectionNotFound.
    """
    after = _after(cursor)
    # Of a tenant's documents the cursor has the id alone: one that names another tenant names nothing.
    after = document_key(audience.tenant, after) if after and audience.tenant else after
    records, more = await documents.page(collection, audience, after=after, limit=limit)
    last = (records[-1].document_id if audience.tenant else records[-1].id) if more else ""
    next_cursor = base64.urlsafe_b64encode(last.encode()).decode() if more else None
    entries = [DocumentEntry(**_entry(record)) for record in records]
    return DocumentList(collection=collection, documents=entries, next_cursor=next_cursor)


async def show_document(
    documents: Documents,
    collection: str,
    document_id: str,
    *,
    audience: Audience,
    include_text: bool,
    tenant: str | None = None,
) -> DocumentDetails:
    """One document; `tenant` as of `Documents.document`. Raises CollectionNotFound, NotFound."""
    record, passages = await documents.document(collection, document_id, audience, tenant)
    submitted = await documents.submitted_text(collection, record) if include_text else None
    text = submitted if submitted is not None else document_of(passages).text if passages else ""
    return DocumentDetails(
        **_entry(record),
        metadata=dict(passages[0].metadata) if passages else {},
        ranges=[
            PassageRange(
                id=passage.id,
                start=passage.start,
                end=passage.end,
                page=passage.page,
                page_end=passage.page_end,
                heading=passage.heading,
            )
            for passage in passages
        ],
        text=text if include_text else None,
        text_complete=submitted is not None if include_text else None,
    )


def _entry(record: DocumentRecord) -> dict[str, Any]:
    return {
        "id": record.document_id,
        "title": record.title,
        "source": record.source,
        "passages": record.passages,
        "indexed_at": datetime.fromtimestamp(record.indexed_at, UTC),
        "origin": "api" if record.path is None else "file",
        "tenant": record.tenant,
        "allowed": record.allowed,
    }


def _after(cursor: str) -> str:
    try:
        return base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError) as exc:
        raise InvalidRequest("invalid cursor: send the next_cursor of the page before") from exc
