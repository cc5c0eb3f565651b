"""The shapes that pass through the pipeline, and the payload codec.

Offsets are Unicode code points (Python `str` indices) into `Document.text`, end exclusive, everywhere.
"""

import hashlib
import re
import uuid
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, Literal

import msgspec

from indexing.errors import CollectionNotFound

_UNPRINTABLE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?)?"  # what terminals obey: colours, titles, the cursor
    r"|[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)


def printable(name: str) -> str:
    """A title or a source without escape sequences, control characters and changes of the writing direction.

    They are printed on terminals and in logs. White space among them becomes a space.
    """
    return _UNPRINTABLE.sub(lambda match: " " if match[0].isspace() else "", name)


BlockKind = Literal["heading", "paragraph", "list_item", "table_row", "code", "quote"]


class Span(msgspec.Struct, frozen=True, array_like=True):
    """A half-open range [start, end) of code points."""

    start: int
    end: int


class Block(msgspec.Struct, frozen=True):
    """One structural unit of a document's text.

    Blocks come in order, do not overlap, and only white space lies between them.
    `level` is 1..6 for headings, 0 otherwise. A table is a run of `table_row` blocks; its first row is the header row
    when `header` is true.
    """

    kind: BlockKind
    start: int
    end: int
    level: int = 0
    header: bool = False


class PageStart(msgspec.Struct, frozen=True):
    """Page `number` (1-based; a slide or a sheet counts as a page) begins at offset `start`."""

    start: int
    number: int


def page_at(pages: Sequence[PageStart], offset: int, before: int | None = None) -> int | None:
    """The page of the character at `offset`; `before` if none of `pages` (in order) has begun by then."""
    begun = bisect_right(pages, offset, key=attrgetter("start"))
    return pages[begun - 1].number if begun else before


POSITION = "#"
"""First character of a `Document.key` that is a record's place in its source instead of an id of its own."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A document as text with its structure.

    `key` tells records of one source apart: a record's own id, or its place as "#17"; "" for a source that is one
    document. For formats that are text already (txt, md, json, csv ...) `text` is the decoded file itself, unchanged,
    so that offsets are valid in the file; for the others it is what the reader extracted. `allowed` are the groups that
    may see it, if not all of its tenant may. `warnings` say, in a sentence each, what of its file is not in the text.
    """

    text: str
    title: str = ""
    key: str = ""
    media_type: str = "text/plain"
    blocks: tuple[Block, ...] = ()
    pages: tuple[PageStart, ...] = ()
    metadata: Mapping[str, Any] = {}
    allowed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def content_hash(self) -> str:
        """32 hex digits over everything that a passage is made from."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.text, self.title, self.media_type):
            digest.update(part.encode("utf-8", "surrogatepass"))
            digest.update(b"\0")
        digest.update(msgspec.json.encode((self.blocks, self.pages, self.metadata), order="sorted"))
        if self.allowed:
            digest.update(msgspec.json.encode(self.allowed))
        return digest.hexdigest()


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a file that cannot become a document: a record, or a file in it.

    `part` names it, to be read after the file's name: "#17" or "#id" for a record, "/inner.pdf" for a file.
    `reason` and `detail` are those of `UnreadableDocument`.
    """

    part: str
    reason: str
    detail: str


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """A picture, as bytes. `media_type` is one of image/png, image/jpeg, image/webp."""

    data: bytes
    media_type: str


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A passage: `text == document.text[start:end]`, with its place in the document.

    `heading` is the path of headings above it, outermost first. `page` is the page on which it starts, if there are
    pages, and `later_pages` those that begin after its first character. `lead` is the text right before it (white space
    between them included) that is embedded with it, not stored.
    """

    ordinal: int
    start: int
    end: int
    text: str
    page: int | None = None
    later_pages: tuple[PageStart, ...] = ()
    heading: tuple[str, ...] = ()
    lead: str = ""


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk as the store keeps it, with the fields of its document.

    `version` is the content hash of the document that it was cut from. It belongs to `tenant` ("": to none), of which
    only the groups `allowed` may see it, if any are named (`Audience`).
    """

    id: str
    document_id: str
    version: str
    ordinal: int
    start: int
    end: int
    text: str
    source: str = ""
    title: str = ""
    page: int | None = None
    later_pages: tuple[PageStart, ...] = ()
    heading: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = {}
    tenant: str = ""
    allowed: tuple[str, ...] = ()

    @property
    def page_end(self) -> int | None:
        """The page on which it ends, if there are pages."""
        return self.later_pages[-1].number if self.later_pages else self.page

    @property
    def key(self) -> str:
        """The `document_key` of its document."""
        return document_key(self.tenant, self.document_id)


class Candidate(msgspec.Struct, frozen=True):
    """A passage that a search found, with its evidence.

    From a store, `score` is that of one side: cosine similarity, or BM25 with the collection's idf. A larger score is
    nearer with every distance: Euclidean distances are negated. After fusion it is the evidence over its maximum, in
    [0,1], and `dense`, `sparse` and `fused` say where it comes from; a side that did not find the passage is None.
    """

    passage: Passage
    score: float
    dense: float | None = None
    sparse: float | None = None
    fused: float | None = None


class Audience(msgspec.Struct, frozen=True, kw_only=True):
    """Who reads or writes: what of the index it may see, and so what it may write, replace and delete.

    `tenant` "": the documents that belong to no tenant. Of the documents that name groups only those are seen that name
    one of `groups`. `collections` None: all; any other collection does not exist. `unrestricted`: an operator, to whom
    the documents of all tenants and groups are open.
    """

    tenant: str = ""
    groups: tuple[str, ...] = ()
    collections: tuple[str, ...] | None = None
    unrestricted: bool = False

    def sees(self, tenant: str, allowed: Sequence[str]) -> bool:
        """Whether a document of this tenant that only the groups `allowed` (none: all of the tenant) may see is seen.

        `indexing.store.payload.restricted` says the same to a store.
        """
        if self.unrestricted:
            return True
        return tenant == self.tenant and (not allowed or not set(allowed).isdisjoint(self.groups))

    def admits(self, collection: str) -> bool:
        """Whether this collection is one that may exist for it."""
        return self.collections is None or collection in self.collections

    def check(self, collection: str) -> None:
        """Raises CollectionNotFound for a collection that does not exist for it."""
        if not self.admits(collection):
            raise CollectionNotFound(collection)


EVERYTHING = Audience(unrestricted=True)
"""The operator of the service."""

_OF_TENANT = "\x1f"


def document_key(tenant: str, document_id: str) -> str:
    """What tells documents of a collection apart: the id, after the tenant if the document belongs to one.

    So two tenants can use one id. The separator cannot be in an id, where it would name another tenant. Files are told
    apart in the same way: with their absolute paths in place of ids.
    """
    document_id = document_id.replace(_OF_TENANT, "\N{REPLACEMENT CHARACTER}")
    return f"{tenant}{_OF_TENANT}{document_id}" if tenant else document_id


def split_key(key: str) -> tuple[str, str]:
    """(tenant, id) of a `document_key`; the tenant is "" where there is none."""
    tenant, separator, document_id = key.partition(_OF_TENANT)
    return (tenant, document_id) if separator else ("", key)


_PASSAGE_NAMESPACE = uuid.UUID("6f6a7e0e-6d0c-5d0e-9a5c-77696e6e6f77")


def passage_id(key: str, version: str, ordinal: int) -> str:
    """A UUID (version 5) that is the same on every machine for the same content; `key` is a `document_key`."""
    return str(uuid.uuid5(_PASSAGE_NAMESPACE, f"{key}\0{version}\0{ordinal}"))


def to_payload(passage: Passage) -> dict[str, Any]:
    """The passage as a store keeps it, without its id. Empty optional fields are left out."""
    payload: dict[str, Any] = {
        "document_id": passage.document_id,
        "version": passage.version,
        "ordinal": passage.ordinal,
        "start": passage.start,
        "end": passage.end,
        "text": passage.text,
    }
    if passage.source:
        payload["source"] = passage.source
    if passage.title:
        payload["title"] = passage.title
    if passage.page is not None:
        payload["page"] = passage.page
    if passage.later_pages:
        payload["later_pages"] = [[page.start, page.number] for page in passage.later_pages]
    if passage.heading:
        payload["heading"] = list(passage.heading)
    if passage.metadata:
        payload["metadata"] = dict(passage.metadata)
    if passage.tenant:
        payload["tenant"] = passage.tenant
    if passage.allowed:
        payload["allowed"] = list(passage.allowed)
    return payload


def from_payload(point_id: str, payload: Mapping[str, Any]) -> Passage:
    """The inverse of `to_payload`."""
    return Passage(
        id=point_id,
        document_id=payload["document_id"],
        version=payload["version"],
        ordinal=payload["ordinal"],
        start=payload["start"],
        end=payload["end"],
        text=payload["text"],
        source=payload.get("source", ""),
        title=payload.get("title", ""),
        page=payload.get("page"),
        later_pages=tuple(PageStart(*page) for page in payload.get("later_pages", ())),
        heading=tuple(payload.get("heading", ())),
        metadata=payload.get("metadata", {}),
        tenant=payload.get("tenant") or "",
        allowed=tuple(payload.get("allowed") or ()),
    )
