"""/v1/vector_stores, as OpenAI offers them: collections, their documents, and searching them. Reading only."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import unquote

import msgspec
from litestar import get, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from app.api.compat.errors import openai_store_failure, retry_hints, shaped
from app.api.compat.inputs import MAX_QUERY_CHARACTERS, LenientJSON, file_of, search_for, within
from app.api.compat.openai.models import CREATED
from app.api.request import BodyRequest, Injected, caller_of
from app.api.schemas import MAX_CANDIDATES
from app.backends.client import BackendClient
from app.domain import ExpandQuery, Hit, Query
from app.errors import InvalidRequest, pointing_at
from app.services.collection_views import Collection
from app.services.document_views import show_document
from app.services.documents import Documents
from app.services.model_ids import ModelNames, split_backend
from app.services.search import Searcher
from indexing.documents import Audience, document_key, split_key
from indexing.errors import InvalidFilter
from indexing.filters import BOUNDS, MAX_DEPTH, NEGATIONS, Filter, field_name, parse_filter
from indexing.pipeline.manifest import DocumentRecord

MAX_QUERIES = 5
NUM_RESULTS = 10
"""The default number of results."""

_COMPARISONS = ("eq", "in", *NEGATIONS, *BOUNDS)
_ABOVE = re.compile(r"(?:/(?:and|or)/\d+)*")
"""The groups around a condition, in a pointer into a filter of ours."""

_PLACE = ("id", "title", "source", "page", "heading", "start", "end", "scores", "ranked_by", "flags", "tenant")
"""What a result says of a passage under `winnow`."""

Limit = Annotated[int, QueryParameter(ge=1, le=100)]


class RankingOptionsBody(msgspec.Struct, frozen=True, kw_only=True):
    """`ranker` "auto" and OpenAI's own names mean the default backend, "none" none; else as `model` of /v1/rerank."""

    ranker: str | None = None
    score_threshold: float | None = None

    def names_ranker(self) -> bool:
        """Whether it is for us to look up: "auto" and "default-2024-11-15" are OpenAI's."""
        return bool(self.ranker) and self.ranker != "auto" and not str(self.ranker).startswith("default")


class SearchBody(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a search that are read. Several queries are searched together, and ranked by the first."""

    query: str | list[str]
    filters: Any = None
    max_num_results: int | None = None
    ranking_options: RankingOptionsBody | None = None
    rewrite_query: bool | None = None

    def to_query(self, collection: str, backend: str | None) -> Query:
        """Raises InvalidRequest. A longer query is cut; numbers out of their range are brought into it."""
        texts = [self.query] if isinstance(self.query, str) else self.query
        if not 1 <= len(texts) <= MAX_QUERIES or not all(text.strip() for text in texts):
            raise pointing_at("/query", f"expected a text, or 1 to {MAX_QUERIES} of them, none blank")
        limit = within(1, NUM_RESULTS if self.max_num_results is None else self.max_num_results, MAX_CANDIDATES)
        options = self.ranking_options or RankingOptionsBody()
        expand: ExpandQuery = "multi" if self.rewrite_query else "none"
        return Query(
            text=texts[0][:MAX_QUERY_CHARACTERS],
            phrasings=tuple(text[:MAX_QUERY_CHARACTERS] for text in texts[1:]),
            collection=collection,
            backend=backend,
            limit=limit,
            candidates=max(limit, Query(text="").candidates),
            filter=filter_of(self.filters),
            expand_query=expand,
            min_score=within(0.0, options.score_threshold or 0.0, 1.0),
        )


def filter_of(raw: Any) -> Filter | None:
    """A comparison or compound filter of OpenAI's as one of ours. Raises InvalidRequest pointing at the bad part."""
    try:
        return parse_filter(_ours(raw, "/filters")) if raw else None
    except InvalidFilter as exc:
        above = _ABOVE.match(exc.pointer)
        groups = re.sub("/(?:and|or)/", "/filters/", above[0]) if above else ""
        raise pointing_at(f"/filters{groups}", exc.detail) from exc


def _ours(raw: Any, pointer: str) -> dict[str, Any]:
    """In the grammar of `indexing.filters`, whose parser judges keys and values."""
    if not isinstance(raw, Mapping):
        raise pointing_at(pointer, "a filter is a JSON object with a type")
    kind, parts = raw.get("type"), raw.get("filters")
    if kind in ("and", "or"):
        if not isinstance(parts, list) or not parts:
            raise pointing_at(f"{pointer}/filters", f"{kind!r} takes a list of at least one filter")
        if pointer.count("/filters") > MAX_DEPTH:
            raise pointing_at(pointer, f"filters may be nested at most {MAX_DEPTH} deep")
        return {kind: [_ours(part, f"{pointer}/filters/{index}") for index, part in enumerate(parts)]}
    if kind not in _COMPARISONS:
        raise pointing_at(f"{pointer}/type", f"known types are {', '.join(_COMPARISONS)}, and, or")
    if not isinstance(raw.get("key"), str):
        raise pointing_at(f"{pointer}/key", "expected the name of an attribute")
    if "value" not in raw:
        raise pointing_at(f"{pointer}/value", "this field is required")
    value = raw["value"]
    return {raw["key"]: value if kind in ("eq", "in") else {kind: value}}


@post(
    "/v1/vector_stores/{store:str}/search",
    dto=LenientJSON[SearchBody],
    return_dto=None,
    status_code=200,
    exception_handlers=shaped(openai_store_failure, retry_hints),
    opt={"scope": "search"},
)
async def search_vector_store(
    request: BodyRequest,
    store: FromPath[str],
    data: JSONBody[SearchBody],
    searcher: Injected[Searcher],
    names: Injected[ModelNames],
    clients: Injected[Mapping[str, BackendClient]],
) -> dict[str, Any]:
    """The results of /search, a passage each. `winnow` has what OpenAI's format has no words for."""
    caller = caller_of(request)
    collection, backend = split_backend(store)
    warning = ""
    if (options := data.ranking_options) and options.names_ranker():
        ranker = options.ranker or ""
        backend, warning = ("none", "") if ranker == "none" else names.ranking_backend(ranker, clients.values(), caller)
    result = await search_for(request, searcher, data.to_query(collection, backend))
    return {
        "search_query": [result.query] if result.queries is msgspec.UNSET else result.queries,
        "data": [_found(hit, caller.audience) for hit in result.results],
        "has_more": False,
        "next_page": None,
        "winnow": {
            "backend": result.backend,
            "degraded": result.degraded,
            "warnings": [*filter(None, [warning]), *result.warnings],
            "usage": result.usage,
            "timings_ms": result.timings_ms,
        },
        "object": "vector_store.search_results.page",
    }


@get("/v1/vector_stores", exception_handlers=shaped(openai_store_failure), opt={"scope": "search"})
async def list_vector_stores(
    request: BodyRequest,
    documents: Injected[Documents],
    after: FromQuery[str] = "",
    limit: Limit = 20,
    before: FromQuery[str] = "",
    order: FromQuery[Literal["asc", "desc"]] = "asc",
) -> dict[str, Any]:
    """Collections by name, those after `after`."""
    _check_order(before, order)
    collections = [one for one in await documents.collections(caller_of(request).audience) if one.name > after]
    return _list([_store(one) for one in collections[:limit]], more=len(collections) > limit)


@get("/v1/vector_stores/{store:str}", exception_handlers=shaped(openai_store_failure), opt={"scope": "search"})
async def show_vector_store(
    request: BodyRequest, store: FromPath[str], documents: Injected[Documents]
) -> dict[str, Any]:
    """One collection, under the id that was asked for: it may name a backend."""
    collection = await documents.collection(split_backend(store)[0], caller_of(request).audience)
    return _store(collection) | {"id": store}


@get("/v1/vector_stores/{store:str}/files", exception_handlers=shaped(openai_store_failure), opt={"scope": "search"})
async def list_vector_store_files(
    request: BodyRequest,
    store: FromPath[str],
    documents: Injected[Documents],
    after: FromQuery[str] = "",
    limit: Limit = 20,
    before: FromQuery[str] = "",
    order: FromQuery[Literal["asc", "desc"]] = "asc",
    filter: FromQuery[Literal["in_progress", "completed", "failed", "cancelled"]] = "completed",
) -> dict[str, Any]:
    """Documents by id, those after `after`. All are "completed": jobs tell of the others."""
    _check_order(before, order)
    audience, collection = caller_of(request).audience, split_backend(store)[0]
    tenant, document_id = split_key(after)
    key = document_key(tenant if audience.unrestricted else audience.tenant, document_id) if after else ""
    records, more = await documents.page(collection, audience, after=key, limit=limit)
    if filter != "completed":
        return _list([], more=False)
    return _list([_file(_id_of(record, audience), store, record.indexed_at) for record in records], more=more)


@get(
    "/v1/vector_stores/{store:str}/files/{rest:path}",
    exception_handlers=shaped(openai_store_failure),
    opt={"scope": "search"},
)
async def show_vector_store_file(
    request: BodyRequest, store: FromPath[str], documents: Injected[Documents]
) -> dict[str, Any]:
    """A document, or its text if "/content" follows. The slashes of an id are encoded, as the SDK does it."""
    raw: bytes = request.scope["raw_path"]
    rest = raw.partition(b"/files/")[2].decode("ascii", "replace")
    wants_text = rest.endswith("/content")
    file_id = unquote(rest.removesuffix("/content"), errors="replace")
    tenant, document_id = split_key(file_id)
    details = await show_document(
        documents,
        split_backend(store)[0],
        document_id,
        audience=caller_of(request).audience,
        include_text=wants_text,
        tenant=tenant or None,
    )
    if wants_text:
        page = [{"type": "text", "text": details.text or ""}]
        return {"data": page, "has_more": False, "next_page": None, "object": "vector_store.file_content.page"}
    return _file(file_id, store, details.indexed_at.timestamp()) | {"attributes": attributes_of(details.metadata)}


def attributes_of(metadata: Mapping[str, Any]) -> dict[str, str | float | bool]:
    """Metadata as attributes, which are texts, numbers and booleans, by the keys that filters take.

    A list becomes its JSON; what is null is left out.
    """
    return dict(_attributes(metadata, ()))


def _attributes(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[str, str | float | bool]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _attributes(part, (*keys, key))
    elif isinstance(value, str | int | float):
        yield field_name(keys), value
    elif value is not None:
        yield field_name(keys), msgspec.json.encode(value).decode()


def _found(hit: Hit, audience: Audience) -> dict[str, Any]:
    place = {name: value for name in _PLACE if (value := getattr(hit, name)) is not msgspec.UNSET}
    owner = hit.tenant or "" if audience.unrestricted else ""
    return {
        "file_id": document_key(owner, hit.document_id),
        "filename": file_of(hit),
        "score": hit.score,
        "attributes": attributes_of(hit.metadata),
        "content": [{"type": "text", "text": hit.text or ""}],
        "winnow": place,
    }


def _check_order(before: str, order: str) -> None:
    """An order that is not kept would pass for the one that was asked for."""
    if before:
        raise InvalidRequest("`before` is not supported: lists are read forward, by `after`")
    if order == "desc":
        raise InvalidRequest('`order` "desc" is not supported: lists are in the order of their ids')


def _list(items: Sequence[dict[str, Any]], *, more: bool) -> dict[str, Any]:
    first, last = (items[0]["id"], items[-1]["id"]) if items else (None, None)
    return {"data": items, "first_id": first, "last_id": last, "has_more": more, "object": "list"}


def _store(collection: Collection) -> dict[str, Any]:
    """It is "expired" while it cannot be searched by meaning; `metadata` says why."""
    usable = collection.status in ("ready", "incomplete")
    counts = {"in_progress": 0, "completed": collection.documents, "failed": 0, "cancelled": 0}
    about = {"status": collection.status, "detail": collection.detail, "passages": str(collection.passages)}
    return {
        "id": collection.name,
        "name": collection.name,
        "status": "completed" if usable else "expired",
        "file_counts": {**counts, "total": collection.documents},
        "usage_bytes": collection.bytes or 0,
        "created_at": CREATED,
        "last_active_at": None,
        "metadata": {key: value for key, value in about.items() if value},
        "object": "vector_store",
    }


def _id_of(record: DocumentRecord, audience: Audience) -> str:
    """The operator sees the documents of all tenants, whose ids may be the same: theirs has the tenant before it."""
    return record.id if audience.unrestricted else record.document_id


def _file(file_id: str, store: str, indexed_at: float) -> dict[str, Any]:
    """`usage_bytes` is 0: what a document takes is not counted."""
    return {
        "id": file_id,
        "vector_store_id": store,
        "status": "completed",
        "created_at": int(indexed_at),
        "usage_bytes": 0,
        "last_error": None,
        "attributes": None,
        "chunking_strategy": {"type": "other"},
        "object": "vector_store.file",
    }
