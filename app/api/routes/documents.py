"""/documents and /jobs."""

import base64
import binascii
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import unquote

import msgspec
from litestar import MediaType, Response, delete, get, post
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import Operation
from litestar.params import FromPath, FromQuery, QueryParameter

from app.api.multipart import Upload, read_upload, request_body
from app.api.openapi import problems
from app.api.request import BodyRequest, Injected
from app.config.settings import Settings
from app.errors import InvalidRequest
from app.services.documents import Documents, document_not_found
from app.services.jobs import Job, Jobs, Progress
from indexing.documents import Passage, page_at
from indexing.pipeline.ingest import DocumentResult
from indexing.pipeline.manifest import DocumentRecord

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept",
    "X-Content-Type-Options": "nosniff",
}
"""The page shows text that nobody has reviewed: a script that slipped through the escaping would not run."""

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.6 system-ui, sans-serif; max-width: 45rem; margin: 2rem auto; padding: 0 1rem; }
main { white-space: pre-wrap; overflow-wrap: anywhere; }
mark { scroll-margin: 30vh; }
header p, h2 { color: #888; font-size: .9rem; font-weight: normal; }
h2 { border-top: 1px solid #8886; }
"""


class Piece(NamedTuple):
    """What a passage adds to the text before it, from `start` of the document; `page` is set where a page begins."""

    start: int
    text: str
    page: int | None


def page_of(title: str, source: str, passages: Sequence[Passage], quote: tuple[int, int]) -> str:
    """The document's text with [start, end) of it marked, as the element "char=START,END"."""
    return "".join(_page(title, source, passages, quote))


def _page(title: str, source: str, passages: Sequence[Passage], quote: tuple[int, int]) -> Iterator[str]:
    yield f'<!doctype html><html><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    yield '<meta name="viewport" content="width=device-width">'
    yield f'<body dir="auto"><header><h1>{escape(title)}</h1><p>{escape(source)}</p></header><main>'
    yield from _marked(_pieces(passages), quote)
    yield "</main></body></html>"


def _pieces(passages: Iterable[Passage]) -> Iterator[Piece]:
    """The document's text again: passages overlap, and the blanks between them are missing."""
    end_so_far, page = 0, None
    for passage in passages:
        for start, text, number in _by_page(passage, max(end_so_far, passage.start)):
            begins = None if number == page else number
            gap = "\n\n" if 0 < end_so_far < start and begins is None else ""
            yield Piece(start - len(gap), gap + text, begins)
            end_so_far, page = start + len(text), number


def _by_page(passage: Passage, start: int) -> Iterator[Piece]:
    """The passage's text from `start` on, a piece for each page, without the blanks at the end of a page."""
    turns = (page.start for page in passage.later_pages if page.start > start)
    for begin, end in pairwise((start, *turns, passage.end)):
        if begin < end:
            text = passage.text[begin - passage.start : end - passage.start]
            page = page_at(passage.later_pages, begin, passage.page)
            yield Piece(begin, text if end == passage.end else text.rstrip(), page)


def _marked(pieces: Iterable[Piece], quote: tuple[int, int]) -> Iterator[str]:
    named = f' id="char={quote[0]},{quote[1]}"'
    for start, text, page in pieces:
        if page is not None:
            yield f"<h2>p. {page}</h2>"
        begin, end = (min(max(place - start, 0), len(text)) for place in quote)
        yield escape(text[:begin])
        if begin < end:
            yield f"<mark{named}>{escape(text[begin:end])}</mark>"
            named = ""
        yield escape(text[max(begin, end) :])


@get(
    "/jobs/{job_id:str}",
    operation_id="job",
    summary="The state of a large upload",
    responses=problems(403, 404),
    raises=[],
)
async def show_job(job_id: FromPath[str], jobs: Injected[Jobs]) -> Job:
    """Its progress. The last 1000 jobs are remembered; a restart of the service forgets all of them."""
    return jobs.find(job_id)


LARGE_BYTES = 5_000_000
LARGE_COUNT = 200

Origin = Literal["file", "api"]


class Indexed(msgspec.Struct, frozen=True, kw_only=True):
    """One result per document, in order; a file of records gives several. All but failed ones can be searched now."""

    collection: str
    created: int
    updated: int
    unchanged: int
    failed: int
    results: list[DocumentResult]


class DocumentEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A document. `passages` counts them. `origin` "file": `winnow index` read it from a file and keeps it current."""

    id: str
    title: str
    source: str
    passages: int
    indexed_at: datetime
    origin: Origin


class DocumentList(msgspec.Struct, frozen=True, kw_only=True):
    """Documents by id. `next_cursor` is null at the end."""

    collection: str
    documents: list[DocumentEntry]
    next_cursor: str | None


class PassageRange(msgspec.Struct, frozen=True, kw_only=True):
    """A passage: [start, end) of the document's text, the page on which it starts, the headings above it."""

    id: str
    start: int
    end: int
    page: int | None
    heading: tuple[str, ...]
    text: str | None


class DocumentDetails(DocumentEntry, frozen=True, kw_only=True):
    """A document with its metadata, and its passages in order."""

    metadata: dict[str, Any]
    ranges: list[PassageRange]


@dataclass
class UploadOperation(Operation):
    """The body has two forms, and there is no handler argument that Litestar could describe."""

    def __post_init__(self) -> None:
        self.request_body = request_body()


@dataclass
class DocumentOperation(Operation):
    """An id may contain slashes, which are encoded in the path."""

    def __post_init__(self) -> None:
        for parameter in self.parameters or ():
            if getattr(parameter, "name", "") == "document_id":
                parameter.description = "URL-encoded, slashes too (%2F)."


@post(
    "/documents",
    status_code=200,
    operation_id="put_documents",
    operation_class=UploadOperation,
    summary="Index documents",
    request_max_body_size=None,  # `read_upload` has a limit for each form
    responses={
        202: ResponseSpec(Job, description="A job has been queued", generate_examples=False),
        **problems(400, 403, 409, 413, 415, 503, 507),
    },
)
async def put_documents(
    request: BodyRequest,
    documents: Injected[Documents],
    jobs: Injected[Jobs],
    settings: Injected[Settings],
    wait: FromQuery[bool] = True,
) -> Response[Indexed]:
    """Creates or replaces each document; a document with the same id and content is `unchanged` and costs nothing.

    One bad document never fails the rest. For more than 5 MB or 200 documents, or with `wait=false`, the response is
    202 with a job, whose URL is in `Location`. A client that disconnects stops neither.
    """
    with documents.uploading():
        upload = await read_upload(request, settings.service.max_body_bytes)
        await documents.admit(upload.collection)
        if not wait or upload.size > LARGE_BYTES or len(upload.submissions) > LARGE_COUNT:
            return _accepted(upload, documents, jobs)
        examined = await documents.read(upload.submissions)
        if len(examined) > LARGE_COUNT:
            return _accepted(msgspec.structs.replace(upload, submissions=examined), documents, jobs)
        return Response(_indexed(upload.collection, await documents.index(upload.collection, examined)))


@get(
    "/documents",
    operation_id="documents",
    summary="The documents of a collection",
    responses=problems(400, 403, 404, 503),
)
async def list_documents(
    documents: Injected[Documents],
    collection: FromQuery[str] = "default",
    cursor: FromQuery[str] = "",
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
) -> DocumentList:
    """Page by page: `cursor` is the `next_cursor` of the page before."""
    records, more = await documents.page(collection, after=_after(cursor), limit=limit)
    next_cursor = base64.urlsafe_b64encode(records[-1].id.encode()).decode() if more else None
    entries = [DocumentEntry(**_entry(record)) for record in records]
    return DocumentList(collection=collection, documents=entries, next_cursor=next_cursor)


@get(
    "/documents/{document_id:path}",
    operation_id="document",
    operation_class=DocumentOperation,
    summary="One document",
    responses=problems(400, 403, 404, 503),
    raises=[],
)
async def show_document(
    request: BodyRequest,
    document_id: FromPath[str],
    documents: Injected[Documents],
    collection: FromQuery[str] = "default",
    include_text: FromQuery[bool] = False,
    quote: Annotated[str, QueryParameter(pattern=r"^[0-9]{1,12},[0-9]{1,12}$")] = "0,0",
) -> Response[DocumentDetails]:
    """With its metadata and the ranges of its passages; with `include_text`, also their text.

    A browser gets a page on which [start, end) of the text, given as `quote`, is marked.
    """
    record, passages = await documents.document(collection, _full_id(request))
    if request.accept.best_match(["application/json", "text/html"]) == "text/html":
        return _to_read(record, passages, quote)
    metadata = dict(passages[0].metadata) if passages else {}
    details = DocumentDetails(**_entry(record), metadata=metadata, ranges=_ranges(passages, include_text=include_text))
    return Response(details, headers={"Vary": "Accept"})


@delete(
    "/documents/{document_id:path}",
    status_code=204,
    operation_id="delete_document",
    operation_class=DocumentOperation,
    summary="Remove a document",
    responses=problems(400, 403, 404, 503, 507),
    raises=[],
)
async def delete_document(
    request: BodyRequest,
    document_id: FromPath[str],
    documents: Injected[Documents],
    collection: FromQuery[str] = "default",
) -> None:
    """Its passages are not in the next search."""
    full_id = _full_id(request)
    if not await documents.delete(collection, full_id):
        raise document_not_found(collection, full_id)


def _to_read(record: DocumentRecord, passages: Sequence[Passage], quote: str) -> Response[Any]:
    start, _, end = quote.partition(",")
    title = record.title or record.source or record.id
    page = page_of(title, record.source, passages, (int(start), int(end)))
    return Response(page, media_type=MediaType.HTML, headers=HEADERS)


def _accepted(upload: Upload, documents: Documents, jobs: Jobs) -> Response[Any]:
    # Not all of `upload`: a job keeps what it refers to.
    collection, submissions = upload.collection, upload.submissions

    async def work(progress: Progress) -> None:
        examined = await documents.read(submissions)
        progress.total(len(examined))
        await documents.index(collection, examined, progress.add)

    job = jobs.submit(collection, work, upload.size)
    return Response(job, status_code=202, headers={"Location": f"/jobs/{job.id}"})


def _indexed(collection: str, results: list[DocumentResult]) -> Indexed:
    statuses = [result.status for result in results]
    return Indexed(
        collection=collection,
        created=statuses.count("created"),
        updated=statuses.count("updated"),
        unchanged=statuses.count("unchanged"),
        failed=statuses.count("failed"),
        results=results,
    )


def _entry(record: DocumentRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "title": record.title,
        "source": record.source,
        "passages": record.passages,
        "indexed_at": datetime.fromtimestamp(record.indexed_at, UTC),
        "origin": "api" if record.path is None else "file",
    }


def _ranges(passages: Sequence[Passage], *, include_text: bool) -> list[PassageRange]:
    return [
        PassageRange(
            id=passage.id,
            start=passage.start,
            end=passage.end,
            page=passage.page,
            heading=passage.heading,
            text=passage.text if include_text else None,
        )
        for passage in passages
    ]


def _full_id(request: BodyRequest) -> str:
    """From the path as it was sent: Litestar's has lost doubled and trailing slashes, as in "https://host/"."""
    raw: bytes = request.scope["raw_path"]
    return unquote(raw.partition(b"/documents/")[2].decode("ascii", "replace"), errors="replace")


def _after(cursor: str) -> str:
    try:
        return base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError) as exc:
        raise InvalidRequest("invalid cursor: send the next_cursor of the page before") from exc
