"""Documents as agents name and read them: a URI each, and a part of a long text at a time."""

import re
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from app.api.compat.citations import Links, is_web
from app.domain import Citation, Hit
from app.errors import NotFound
from app.services import document_views as views
from app.services.document_views import DocumentEntry
from app.services.documents import Documents
from indexing.documents import Audience

SCHEME = "winnow://"
TEMPLATE = f"{SCHEME}{{collection}}/{{+document}}"

PART_CHARACTERS = 20_000
"""Of a document's text that are given at once: about 5,000 tokens."""

LEAD_CHARACTERS = 1_000
"""Of the text before a passage, where reading begins with it."""

PAGE = 100
"""Documents on a page of their list."""

_URI = re.compile(
    rf"{re.escape(SCHEME)}(?P<collection>[^/?#]+)/(?P<document>[^?#]+)(\?tenant=(?P<tenant>[^#]+))?"
    r"(#char=(?P<start>[0-9]{1,12}))?"
)
_RESERVED = re.compile(r"[%?#\s]")
_ASCII = "".join(map(chr, range(33, 127)))


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A document, and where in its text reading begins. `tenant`: whose it is, where it belongs to one."""

    collection: str
    document_id: str
    tenant: str = ""
    start: int = 0

    def id(self) -> str:
        """What agents call it. Letters of all scripts stay as they are: a model must repeat it."""
        parts = [f"{SCHEME}{quote(self.collection, safe='')}/{_escaped(self.document_id)}"]
        parts += [f"?tenant={_escaped(self.tenant)}"] if self.tenant else []
        parts += [f"#char={self.start}"] if self.start else []
        return "".join(parts)

    def uri(self) -> str:
        """The same in ASCII, as a URI has to be."""
        return quote(self.id(), safe=_ASCII)


def place_of(uri: str) -> Place:
    """The place that an id or a URI names. Raises NotFound."""
    match = _URI.fullmatch(uri)
    if match is None:
        raise NotFound(f"{uri[:200]!r} is no id of a document; send one of a result of search, such as {SCHEME}...")
    return Place(
        collection=unquote(match["collection"]),
        document_id=unquote(match["document"]),
        tenant=unquote(match["tenant"] or ""),
        start=int(match["start"] or 0),
    )


def place_before(collection: str, found: Hit | Citation, tenant: str) -> Place:
    """Where to read on from a passage or a quote of this tenant's document: a little before it."""
    start = max(0, found.start - LEAD_CHARACTERS)
    return Place(collection=collection, document_id=found.document_id, tenant=tenant, start=start)


def url_of(base: str, place: Place, source: str, start: int, end: int) -> str:
    """Where people read it: the source if it is a web page, else its page in this service with [start, end) marked."""
    links = Links(base, place.collection)
    return source if is_web(source) else links.document(place.document_id, start, end, place.tenant)


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A document's text, or [start, end) of its `characters`. `next` is the id under which it goes on."""

    place: Place
    title: str
    source: str
    text: str
    start: int
    end: int
    characters: int
    next: str | None
    metadata: Mapping[str, Any]


async def read_part(documents: Documents, place: Place, audience: Audience) -> Part:
    """The text from the place on; all of it if it is short enough. Raises CollectionNotFound, NotFound."""
    details = await views.show_document(
        documents,
        place.collection,
        place.document_id,
        audience=audience,
        include_text=True,
        tenant=place.tenant or None,
    )
    text = details.text or ""
    start = min(place.start, len(text)) if len(text) > PART_CHARACTERS else 0
    end = min(start + PART_CHARACTERS, len(text))
    following = msgspec.structs.replace(place, start=end).id() if end < len(text) else None
    return Part(
        place=place,
        title=details.title or details.source or details.id,
        source=details.source,
        text=text[start:end],
        start=start,
        end=end,
        characters=len(text),
        next=following,
        metadata=details.metadata,
    )


async def list_page(
    documents: Documents, cursor: str, audience: Audience
) -> tuple[list[tuple[Place, DocumentEntry]], str | None]:
    """Some documents of all collections of the audience, and the cursor of the next ones; "" begins.

    Raises InvalidRequest.
    """
    collection, _, inner = cursor.partition("/")
    names = sorted(name for name in await documents.names(audience) if name >= collection)
    entries: list[tuple[Place, DocumentEntry]] = []
    for name, following in zip_longest(names, names[1:]):
        left = PAGE - len(entries)
        page = await views.list_documents(documents, name, inner if name == collection else "", left, audience)
        entries += [
            (Place(collection=name, document_id=entry.id, tenant=entry.tenant), entry) for entry in page.documents
        ]
        if page.next_cursor:
            return entries, f"{name}/{page.next_cursor}"
        if len(entries) == PAGE and following:
            return entries, f"{following}/"
    return entries, None


def _escaped(text: str) -> str:
    return _RESERVED.sub(lambda match: quote(match[0], safe=""), text)
