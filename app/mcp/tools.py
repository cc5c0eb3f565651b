"""The tools: what agents may call, with which arguments, and what they get. Short: an agent pays for what it reads."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from app.api.bodies import decode
from app.api.multipart import DocumentBody, Upload
from app.api.request import permit_backends
from app.api.routes.documents import index_upload
from app.api.schemas import AnswerRequest, Fraction, Name, QueryText, SearchRequest
from app.domain import AbstainReason, BackendUse, Caller, Citation, Hit, Scope, UnsupportedSpan, Usage
from app.errors import InvalidRequest
from app.mcp.documents import Place, place_before, place_of, read_part, url_of
from app.services.document_validation import owned
from app.services.jobs import Job
from app.wiring import Services

SNIPPET_CHARACTERS = 300


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls a tool, and of what. `base` is the service's address for links; `collection` is used where the
    arguments name none.
    """

    services: Services
    caller: Caller
    base: str
    collection: str


CONTEXT = "mcp_context"
"""In the state of a request: its `Context`."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool gives: `content` to the model, `meta` to the program around it."""

    content: msgspec.Struct
    meta: Mapping[str, Any] = {}
    timings_ms: Mapping[str, float] = {}


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """`call` takes the arguments as an object of `arguments` and gives one of `result`. The key needs `scope`.

    Of several replicas, the one that writes to the index alone can serve those `of_the_writer`.
    """

    name: str
    title: str
    description: str
    scope: Scope
    arguments: type[msgspec.Struct]
    result: type[msgspec.Struct]
    call: Callable[[Context, Any], Awaitable[Outcome]]
    reads: bool = True
    of_the_writer: bool = False


Collection = Annotated[Name, Meta(description="Its name, as list_collections has it.")]
Backend = Annotated[Name, Meta(description='The language model: a configured name, "auto", or "none".')]
Filter = Annotated[
    dict[str, Any], Meta(description='Conditions on metadata, as in {"lang": "en", "year": {"gte": 2020}}.')
]


class SearchArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments of `search`. Only `query` is required."""

    query: QueryText
    collection: Collection | None = None
    limit: Annotated[int, Meta(ge=1, le=50, description="Results; default 8.")] | None = None
    filter: Filter | None = None
    backend: Backend | None = None
    min_score: Fraction | None = None
    whole_passages: (
        Annotated[bool, Meta(description="Give the passages whole, in the place of their beginnings.")] | None
    ) = None


class FoundPassage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A passage. `id` is for `fetch`; `flags` tell of text that seems to instruct the model that reads it."""

    id: str
    title: str
    url: str
    text: str
    score: float
    page: int | None = None
    flags: tuple[str, ...] = ()


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The best passages, the best first."""

    results: list[FoundPassage]


async def search(context: Context, arguments: SearchArguments) -> Outcome:
    """As POST /search, with the beginnings of the passages."""
    permit_backends(context.caller, arguments)
    collection = arguments.collection or context.collection
    query = SearchRequest(
        query=arguments.query,
        collection=collection,
        limit=arguments.limit or 8,
        filter=arguments.filter,
        backend=arguments.backend,
        min_score=arguments.min_score or 0.0,
    ).to_query()
    result = await context.services.searcher.search(query, context.caller)
    found = [_found(context.base, collection, hit, whole=bool(arguments.whole_passages)) for hit in result.results]
    meta = {
        "collection": collection,
        "backend": result.backend,
        "degraded": result.degraded,
        "warnings": result.warnings,
        "usage": result.usage,
        "timings_ms": result.timings_ms,
    }
    return Outcome(content=Found(results=found), meta=meta, timings_ms=result.timings_ms)


def _found(base: str, collection: str, hit: Hit, *, whole: bool) -> FoundPassage:
    place = place_before(collection, hit, hit.tenant or "")
    text = hit.text or ""
    return FoundPassage(
        id=place.id(),
        title=hit.title or hit.source or hit.document_id,
        url=url_of(base, place, hit.source, hit.start, hit.end),
        text=text if whole else _snippet(text),
        score=round(hit.score, 4),
        page=hit.page,
        flags=hit.flags,
    )


def _snippet(text: str) -> str:
    """The beginning, up to the end of a word."""
    words = " ".join(text.split())
    if len(words) <= SNIPPET_CHARACTERS:
        return words
    return f"{words[: SNIPPET_CHARACTERS - 1].rpartition(' ')[0] or words[: SNIPPET_CHARACTERS - 1]}…"


class FetchArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments of `fetch`."""

    id: Annotated[str, Meta(min_length=1, max_length=8192, description="Of a result of search, or a citation.")]


class FetchedMetadata(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the text is from: [start, end) of the document's `characters`. `next` is the id of what follows, left out
    at the end; `document` has the document's own metadata.
    """

    collection: str
    document_id: str
    source: str
    start: int
    end: int
    characters: int
    next: str | None = None
    document: Mapping[str, Any] = {}


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """A document, or the part of a long one that begins where the id says."""

    id: str
    title: str
    text: str
    url: str
    metadata: FetchedMetadata


async def fetch(context: Context, arguments: FetchArguments) -> Outcome:
    """As GET /documents/{id}, at most `app.mcp.documents.PART_CHARACTERS` at once."""
    part = await read_part(context.services.documents, place_of(arguments.id), context.caller.audience)
    place = part.place
    fetched = Fetched(
        id=arguments.id,
        title=part.title,
        text=part.text,
        url=url_of(context.base, place, part.source, part.start, part.end),
        metadata=FetchedMetadata(
            collection=place.collection,
            document_id=place.document_id,
            source=part.source,
            start=part.start,
            end=part.end,
            characters=part.characters,
            next=part.next,
            document=part.metadata,
        ),
    )
    return Outcome(content=fetched)


class AnswerArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments of `answer`. Only `query`, the question, is required."""

    query: QueryText
    collection: Collection | None = None
    filter: Filter | None = None
    backend: Backend | None = None
    language: Annotated[str, Meta(min_length=2, max_length=35, description="Default: the question's.")] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=8192)] | None = None


class CitedPassage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a marker such as [1] in the answer stands for. `quote` is word for word; `id` is for `fetch`."""

    marker: int
    id: str
    title: str
    url: str
    quote: str
    page: int | None = None


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of all model calls, and what they cost in US dollars."""

    input_tokens: int
    output_tokens: int
    cost_usd: float


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """An answer with verified citations; or, `answerable` false, a sentence that says that there is none.

    `unsupported`: the parts [start, end) of the answer that no citation supports.
    """

    answer: str
    answerable: bool
    abstain_reason: AbstainReason | None
    citations: list[CitedPassage]
    unsupported: tuple[UnsupportedSpan, ...]
    backend: str
    model: str | None
    degraded: tuple[str, ...]
    warnings: tuple[str, ...]
    usage: Spent
    timings_ms: Mapping[str, float]


async def answer(context: Context, arguments: AnswerArguments) -> Outcome:
    """As POST /answer, without the passages."""
    permit_backends(context.caller, arguments)
    collection = arguments.collection or context.collection
    question = AnswerRequest(
        query=arguments.query,
        collection=collection,
        filter=arguments.filter,
        backend=arguments.backend,
        language=arguments.language,
        max_output_tokens=arguments.max_output_tokens or 1024,
    ).to_question()
    result = await context.services.answerer.answer(question, context.caller)
    hits = {hit.id: hit for hit in result.results}
    by: BackendUse = result.answer_backend
    answered = Answered(
        answer=result.answer,
        answerable=result.answerable,
        abstain_reason=result.abstain_reason,
        citations=[_cited(context.base, collection, one, hits.get(one.result_id)) for one in result.citations],
        unsupported=result.unsupported,
        backend=by.used,
        model=by.model,
        degraded=result.degraded,
        warnings=result.warnings,
        usage=_spent(result.usage),
        timings_ms=result.timings_ms,
    )
    meta = {"collection": collection, "backend": result.backend, "answer_backend": by, "usage": result.usage}
    return Outcome(content=answered, meta=meta, timings_ms=result.timings_ms)


def _cited(base: str, collection: str, citation: Citation, hit: Hit | None) -> CitedPassage:
    place = place_before(collection, citation, (hit and hit.tenant) or "")
    return CitedPassage(
        marker=citation.marker,
        id=place.id(),
        title=(hit.title if hit else "") or citation.source or citation.document_id,
        url=url_of(base, place, citation.source, citation.start, citation.end),
        quote=citation.quote,
        page=citation.page,
    )


def _spent(usage: Usage) -> Spent:
    return Spent(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cost_usd=usage.cost_usd)


class NoArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """None."""


class CollectionEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A collection; the counts are of what the key may see. `status`: anything but "ready" needs the operator."""

    name: str
    documents: int
    passages: int
    status: str


class CollectionEntries(msgspec.Struct, frozen=True, kw_only=True):
    """By name. `default` is the one that the other tools use where none is named."""

    collections: list[CollectionEntry]
    default: str


async def list_collections(context: Context, _: NoArguments) -> Outcome:
    """As GET /collections."""
    listed = await context.services.documents.collections(context.caller.audience)
    entries = [
        CollectionEntry(name=one.name, documents=one.documents, passages=one.passages, status=one.status)
        for one in listed
    ]
    return Outcome(content=CollectionEntries(collections=entries, default=context.collection))


class DocumentArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments of `add_document`. Only `text` is required."""

    text: Annotated[str, Meta(min_length=1, pattern=r"\S", description="Plain text or Markdown.")]
    title: Annotated[str, Meta(max_length=500)] | None = None
    id: Annotated[str, Meta(min_length=1, max_length=512, description="A document of this id is replaced.")] | None = (
        None
    )
    source: Annotated[str, Meta(max_length=2048, description="Where it is from, such as a URL.")] | None = None
    metadata: Annotated[dict[str, Any], Meta(description="What filters see.")] | None = None
    collection: Annotated[Name, Meta(description="Created if it does not exist.")] | None = None


class Added(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`id` is for `fetch`. `status` "queued": the document is long, and found once the job of this id is done."""

    status: str
    collection: str
    id: str | None = None
    passages: int | None = None
    job: str | None = None


async def add_document(context: Context, arguments: DocumentArguments) -> Outcome:
    """As POST /documents with one document, which fails as a whole. Raises InvalidRequest, and what that raises."""
    services, audience = context.services, context.caller.audience
    collection = arguments.collection or context.collection
    fields = msgspec.structs.asdict(arguments)
    del fields["collection"]
    submissions = owned([DocumentBody(**fields).to_document(audience)])
    size = len(arguments.text.encode())
    upload = Upload(collection=collection, submissions=submissions, size=size)
    with services.documents.receiving() as count:
        count(size)
        await services.documents.admit(collection, audience)
        indexed = await index_upload(upload, audience, services.documents, services.jobs, None)
    if isinstance(indexed, Job):
        return Outcome(content=Added(status="queued", collection=collection, job=indexed.id))
    [result] = indexed.results
    if result.status == "failed":
        raise InvalidRequest(f"the document was not indexed ({result.reason}): {result.detail}")
    place = Place(collection=collection, document_id=result.id or "")
    return Outcome(content=Added(status=result.status, collection=collection, id=place.id(), passages=result.passages))


TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            name="search",
            title="Search the documents",
            description="Find the passages of the documents that are relevant to a query. Gives their beginnings and "
            "ids; fetch reads on from an id.",
            scope="search",
            arguments=SearchArguments,
            result=Found,
            call=search,
        ),
        Tool(
            name="fetch",
            title="Read a document",
            description="Read a document, or the part of a long one that begins at the passage, by an id that search "
            "or answer gave. metadata.next is the id of the part that follows.",
            scope="search",
            arguments=FetchArguments,
            result=Fetched,
            call=fetch,
            of_the_writer=True,
        ),
        Tool(
            name="answer",
            title="Answer from the documents",
            description="Answer a question from the documents alone, with citations verified word for word, or "
            "say that they hold no answer. Better than answering from the results of search.",
            scope="answer",
            arguments=AnswerArguments,
            result=Answered,
            call=answer,
        ),
        Tool(
            name="list_collections",
            title="List the collections",
            description="The collections of documents that can be searched, with their sizes.",
            scope="search",
            arguments=NoArguments,
            result=CollectionEntries,
            call=list_collections,
            of_the_writer=True,
        ),
        Tool(
            name="add_document",
            title="Add a document",
            description="Index a text, so that it can be searched; a document of the same id is replaced.",
            scope="write",
            arguments=DocumentArguments,
            result=Added,
            call=add_document,
            reads=False,
            of_the_writer=True,
        ),
    )
}


def tools_of(caller: Caller) -> list[Tool]:
    """Those that the caller's key may call."""
    return [tool for tool in TOOLS.values() if tool.scope in caller.scopes]


def read_arguments(tool: Tool, arguments: Mapping[str, Any] | None) -> msgspec.Struct:
    """The arguments as the tool takes them. Raises InvalidRequest, with the field."""
    return decode(msgspec.json.encode(arguments or {}), tool.arguments)


def schema_of(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Its JSON Schema without references, which some agents' libraries do not follow, and without the names of our
    structs, which each agent would pay for.
    """
    schema = msgspec.json.schema(kind)
    definitions = schema.get("$defs", {})

    def inlined(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return inlined(definitions[value["$ref"].rpartition("/")[2]])
            return {key: inlined(item) for key, item in value.items() if (key, type(item)) != ("title", str)}
        return [inlined(item) for item in value] if isinstance(value, list) else value

    whole: dict[str, Any] = inlined({"$ref": schema["$ref"]})
    return whole
