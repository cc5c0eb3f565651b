"""Open WebUI: its document loader and web search."""

import re
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import unquote

import msgspec
from litestar import post, put
from litestar.params import FromQuery, JSONBody
from msgspec import Meta

from app.api.compat.citations import Links, base_of, is_web
from app.api.compat.errors import shaped
from app.api.compat.inputs import MAX_QUERY_CHARACTERS, LenientJSON, search_for, title_of, within
from app.api.multipart import MAX_SOURCE_CHARACTERS, MAX_UPLOAD_BYTES
from app.api.problem_details import Problem
from app.api.request import BodyRequest, Injected, caller_of, limited, while_connected
from app.config.settings import Settings
from app.domain import Hit, Query
from app.services.document_validation import SubmittedFile, Validated
from app.services.documents import Documents
from app.services.search import Searcher
from app.text.fencing import clean
from indexing.documents import Document
from indexing.errors import UnreadableDocument
from indexing.pipeline.ingest import SubmittedDocument

NOTHING = "No extractable text"
"""On this message Open WebUI tries its own readers."""

_OTHERS_MAY_READ = ("empty", "no_text_layer", "unsupported", "binary")
"""Reasons why its own readers may still succeed. It must not try a file that is hostile, too large or damaged."""

_STORED_ID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}_(?=.)")

MAX_COUNT = 100

TOO_LARGE = f"a file may have {MAX_UPLOAD_BYTES} bytes"


class WebSearchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """POST /openwebui/search."""

    query: Annotated[str, Meta(min_length=1, pattern=r"\S")]
    count: int | None = None


def openwebui_error(problem: Problem, exc: Exception) -> tuple[int, dict[str, str]]:
    """A file that its own readers may be able to read is reported to have no text."""
    if isinstance(exc, UnreadableDocument) and exc.reason in _OTHERS_MAY_READ:
        return 422, {"detail": f"{NOTHING}: {exc.detail}"}
    return problem.status, {"detail": problem.detail}


@put(
    "/process",
    status_code=200,
    request_max_body_size=None,  # `limited` has the limit of uploads
    exception_handlers=shaped(openwebui_error),
    opt={"scope": "write"},
)
async def openwebui_process(request: BodyRequest, documents: Injected[Documents]) -> list[dict[str, Any]]:
    """The text of the file in the body; its name is in `X-Filename` (URL-encoded), its type in `Content-Type`.

    One item for each page where there are pages, and for each record of a file of records. Nothing is indexed.
    """
    name = _file_name(request.headers.get("x-filename", ""))
    with documents.receiving() as count:
        submission = SubmittedFile(
            name=name,
            data=await limited(request, MAX_UPLOAD_BYTES, TOO_LARGE, count),
            media_type=request.headers.get("content-type"),
            writer=caller_of(request).audience,
        )
        with documents.uploading():
            read = await while_connected(request, documents.read([submission]))
    documents_alone = [one for one in read if isinstance(one, SubmittedDocument)]
    return [page for document in documents_alone or read for page in _pages_of(document, name)]


@post(
    "/openwebui/search",
    dto=LenientJSON[WebSearchRequest],
    return_dto=None,
    status_code=200,
    exception_handlers=shaped(openwebui_error),
    opt={"scope": "search"},
)
async def openwebui_search(
    request: BodyRequest,
    data: JSONBody[WebSearchRequest],
    searcher: Injected[Searcher],
    settings: Injected[Settings],
    collection: FromQuery[str] = "default",
    backend: FromQuery[str | None] = None,
) -> list[dict[str, str]]:
    """The passages of a collection. A document without a web address gets the link of its page in this service."""
    limit = within(1, Query(text="").limit if data.count is None else data.count, MAX_COUNT)
    query = Query(text=data.query[:MAX_QUERY_CHARACTERS], collection=collection, backend=backend, limit=limit)
    links = Links(base_of(request, settings), collection)
    result = await search_for(request, searcher, query)
    return [_web_result(hit, links) for hit in result.results]


def _file_name(sent: str) -> str:
    """The user's name of the file: Open WebUI prefixes it with the id under which it stores the file."""
    return _STORED_ID.sub("", clean(unquote(sent, errors="replace")))[:MAX_SOURCE_CHARACTERS]


def _pages_of(submission: Validated, name: str) -> Iterator[dict[str, Any]]:
    """The pages of a document, or all of it. `page` in the metadata counts from 0: Open WebUI adds one.

    Raises UnreadableDocument.
    """
    if not isinstance(submission, SubmittedDocument):
        raise UnreadableDocument(submission.reason or "", submission.detail or "")
    document = submission.document
    metadata = {**document.metadata, "source": name, "title": document.title}
    for start, end, page in _pages(document):
        place = {} if page is None else {"page": page - 1, "page_label": str(page)}
        if text := document.text[start:end].strip():
            yield {"page_content": text, "metadata": {**metadata, **place}}


def _pages(document: Document) -> Iterator[tuple[int, int, int | None]]:
    """[start, end) of each page and its number, from 1; the whole text where there are no pages."""
    starts: list[tuple[int, int | None]] = [(page.start, page.number) for page in document.pages]
    if not starts or starts[0][0] > 0:
        starts.insert(0, (0, None))
    ends = [start for start, _ in starts[1:]] + [len(document.text)]
    return ((start, end, page) for (start, page), end in zip(starts, ends, strict=True))


def _web_result(hit: Hit, links: Links) -> dict[str, str]:
    link = hit.source if is_web(hit.source) else links.document(hit.document_id, hit.start, hit.end, hit.tenant or "")
    return {"link": link, "title": title_of(hit), "snippet": hit.text or ""}
