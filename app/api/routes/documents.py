"""/documents."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Annotated, Any, NamedTuple
from urllib.parse import unquote, urlencode

import msgspec
from litestar import MediaType, Request, Response, delete, get, post
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import Operation
from litestar.params import FromPath, FromQuery, QueryParameter

from app.api.authentication import tokens_of
from app.api.multipart import Upload, read_upload, request_body
from app.api.openapi import problems
from app.api.problem_details import on_error
from app.api.request import BodyRequest, Injected, caller_of, while_connected
from app.config.settings import Settings
from app.errors import NotAuthenticated
from app.services import document_views as views
from app.services.document_views import DocumentDetails, DocumentList
from app.services.documents import Documents, document_not_found
from app.services.jobs import Job, Jobs
from indexing.documents import Audience, Passage, page_at
from indexing.pipeline.ingest import DocumentResult
from indexing.pipeline.manifest import DocumentRecord

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


_TO_THE_PAGE = ResponseSpec(None, description="A browser without a key: to the page, which asks for one.")

WAIT_S = 3.0
"""What is expected to take longer than this becomes a job."""


class Indexed(msgspec.Struct, frozen=True, kw_only=True):
    """One result per document, in order; a file of records gives several. All but failed ones can be searched now."""

    collection: str
    created: int
    updated: int
    unchanged: int
    failed: int
    results: list[DocumentResult]


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
        **problems(400, 401, 403, 409, 413, 415, 429, 503, 507),
    },
    opt={"scope": "write"},
)
async def put_documents(
    request: BodyRequest,
    documents: Injected[Documents],
    jobs: Injected[Jobs],
    settings: Injected[Settings],
    wait: FromQuery[bool | None] = None,
) -> Response[Indexed]:
    """Creates or replaces each document; a document with the same id and content is `unchanged` and costs nothing.

    One bad document never fails the rest. What is expected to take more than 3 seconds, by the number of passages and
    the measured speed, is answered with 202 and a job, whose URL is in `Location`; with `wait=false` everything is,
    with `wait=true` nothing. A client that disconnects while it waits ends its request; what was written stays.
    """
    with documents.receiving() as count:
        async with jobs.incoming() as incoming:
            upload = await read_upload(request, settings.service, count, incoming)
            audience = caller_of(request).audience
            await documents.admit(upload.collection, audience)
            indexed = await while_connected(request, index_upload(upload, audience, documents, jobs, wait))
    reply: Response[Any] = Response(indexed)
    if isinstance(indexed, Job):
        reply = Response(indexed, status_code=202, headers={"Location": f"/jobs/{indexed.id}"})
    return reply


async def index_upload(
    upload: Upload, audience: Audience, documents: Documents, jobs: Jobs, wait: bool | None
) -> Indexed | Job:
    """Index it, or queue what is expected to take long; with `wait` true never, with false always."""
    time, submissions = documents.indexing_time, upload.submissions
    if wait is False or (wait is None and time.estimate(submissions) > WAIT_S):
        # A job reads its files by itself, later.
        kept = submissions if upload.has_files else await documents.read(submissions)
        return await jobs.submit(upload.collection, kept, upload.size, audience)
    with documents.uploading():
        if wait:
            results: list[DocumentResult] = []
            async with aclosing(documents.read_in_pieces(submissions, slowly=True)) as pieces:
                async for piece in pieces:  # of a large file some megabytes at a time
                    results += await documents.index_at_once(upload.collection, piece, upload.size, jobs.overtake)
            return _indexed(upload.collection, results)
        examined = await documents.read(submissions)
        if time.estimate(examined) <= WAIT_S:
            results = await documents.index_at_once(upload.collection, examined, upload.size, jobs.overtake)
            return _indexed(upload.collection, results)
    return await jobs.submit(upload.collection, examined, upload.size, audience)


@get(
    "/documents",
    operation_id="documents",
    summary="The documents of a collection",
    responses=problems(400, 401, 403, 404, 429, 503),
    opt={"scope": "search"},
)
async def list_documents(
    request: BodyRequest,
    documents: Injected[Documents],
    collection: FromQuery[str] = "default",
    cursor: FromQuery[str] = "",
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
) -> DocumentList:
    """Page by page: `cursor` is the `next_cursor` of the page before."""
    return await views.list_documents(documents, collection, cursor, limit, caller_of(request).audience)


def _is_a_browser(request: Request[Any, Any, Any]) -> bool:
    return request.accept.best_match(["application/json", "text/html"]) == "text/html"


def _without_a_key(request: Request[Any, Any, Any], exc: Exception) -> Response[Any]:
    """A browser that follows a citation's link sends no key: the page asks for one, and shows the document there."""
    if not _is_a_browser(request) or any(tokens_of(request.scope["headers"])):
        return on_error(request, exc)
    given = request.query_params
    named = {name: given[name] for name in ("collection", "tenant", "quote") if name in given}
    place = urlencode({"document": _full_id(request), **named})
    up = "../" * (request.scope["raw_path"].count(b"/") - 1)  # a proxy may have put us below a path of its own
    return Response(None, status_code=303, headers={"Location": f"{up}#/documents?{place}", "Vary": "Accept"})


@get(
    "/documents/{document_id:path}",
    exception_handlers={NotAuthenticated: _without_a_key},
    operation_id="document",
    operation_class=DocumentOperation,
    summary="One document",
    responses={303: _TO_THE_PAGE, **problems(400, 401, 403, 404, 429, 503)},
    raises=[],
    opt={"scope": "search"},
)
async def show_document(
    request: BodyRequest,
    document_id: FromPath[str],
    documents: Injected[Documents],
    collection: FromQuery[str] = "default",
    include_text: FromQuery[bool] = True,
    tenant: FromQuery[str | None] = None,
    quote: Annotated[str, QueryParameter(pattern=r"^[0-9]{1,12},[0-9]{1,12}$")] = "0,0",
) -> Response[DocumentDetails]:
    """With its text, its metadata and the ranges of its passages; `include_text=false` leaves out the text.

    A browser gets a page on which [start, end) of the text, given as `quote`, is marked; where a key is needed it is
    sent to the page at `/`, which asks for one and shows the same. `tenant` says to a key without
    one whose document it is.
    """
    full_id, audience = _full_id(request), caller_of(request).audience
    if _is_a_browser(request):
        return _to_read(*await documents.document(collection, full_id, audience, tenant), quote)
    details = await views.show_document(
        documents, collection, full_id, include_text=include_text, audience=audience, tenant=tenant
    )
    return Response(details, headers={"Vary": "Accept"})


@delete(
    "/documents/{document_id:path}",
    status_code=204,
    operation_id="delete_document",
    operation_class=DocumentOperation,
    summary="Remove a document",
    responses=problems(400, 401, 403, 404, 429, 503, 507),
    raises=[],
    opt={"scope": "write"},
)
async def delete_document(
    request: BodyRequest,
    document_id: FromPath[str],
    documents: Injected[Documents],
    jobs: Injected[Jobs],
    collection: FromQuery[str] = "default",
    tenant: FromQuery[str | None] = None,
) -> None:
    """Its passages are not in the next search. `tenant` says to a key without one whose document it is."""
    full_id = _full_id(request)
    if not await documents.delete(collection, full_id, jobs.overtake, caller_of(request).audience, tenant):
        raise document_not_found(collection, full_id)


def _to_read(record: DocumentRecord, passages: Sequence[Passage], quote: str) -> Response[Any]:
    start, _, end = quote.partition(",")
    title = record.title or record.source or record.document_id
    page = page_of(title, record.source, passages, (int(start), int(end)))
    return Response(page, media_type=MediaType.HTML, headers={"Vary": "Accept"})


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


def _full_id(request: Request[Any, Any, Any]) -> str:
    """From the path as it was sent: Litestar's has lost doubled and trailing slashes, as in "https://host/"."""
    raw: bytes = request.scope["raw_path"]
    return unquote(raw.partition(b"/documents/")[2].decode("ascii", "replace"), errors="replace")
