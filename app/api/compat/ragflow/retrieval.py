"""RAGFlow: POST /api/v1/retrieval, and its endpoint for Dify."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from litestar import get, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import Meta

from app.api.compat.dify import DifyRequest, RetrievalSetting, find_records
from app.api.compat.errors import ragflow_dify_error, ragflow_error, shaped
from app.api.compat.inputs import MAX_QUERY_CHARACTERS, LenientJSON, file_of, log_notes, within
from app.api.compat.metadata_conditions import MetadataCondition, conditions_of
from app.api.request import BodyRequest, Injected, caller_of, while_connected
from app.api.schemas import MAX_CANDIDATES
from app.backends.client import BackendClient
from app.domain import Hit, Mode, Query, RankingOptions, SearchResult
from app.errors import InvalidRequest, pointing_at
from app.services.model_ids import ModelNames, split_backend
from app.services.search import Searcher
from app.text.languages import detect_language
from app.text.terms import content_terms, occurrences, terms
from indexing.concurrency import together
from indexing.filters import Filter, OneOf


def terms_of(question: str) -> frozenset[str]:
    """The content terms of a question; all of its terms if it has only function words."""
    return frozenset(content_terms(question, detect_language(question))) or terms(question)


def share(question_terms: Collection[str], text: str) -> float:
    """The share of the terms that a text has, in [0,1]; 0 for no terms."""
    return len(terms(text).intersection(question_terms)) / len(question_terms) if question_terms else 0.0


def highlighted(question_terms: Collection[str], text: str) -> str:
    """The text with <em> around the words that have one of the terms."""
    pieces, at = [], 0
    for start, end in occurrences(text, question_terms):
        pieces += [text[at:start], "<em>", text[start:end], "</em>"]
        at = end
    return "".join((*pieces, text[at:]))


def chunk_of(hit: Hit, collection: str, question_terms: frozenset[str], *, mark: bool = False) -> dict[str, Any]:
    """A passage as RAGFlow's chunk. `term_similarity` counts `question_terms`, and `mark` puts <em> around them.

    `similarity` is the score of /search, `vector_similarity` what a model gave it, or its cosine, and `term_similarity`
    the share of the question's content words that it has.
    """
    text = hit.text or ""
    meaning = hit.scores.grade if hit.scores.grade is not None else hit.scores.dense
    name = file_of(hit)
    pages = {} if hit.page is None else {"page": hit.page, "page_end": hit.page_end}
    return {
        "id": hit.id,
        "content": text,
        "document_id": hit.document_id,
        "document_keyword": name,
        "document_name": name,
        "dataset_id": collection,
        "kb_id": collection,
        "similarity": hit.score,
        "vector_similarity": within(0.0, meaning or 0.0, 1.0),
        "term_similarity": share(question_terms, text),
        "document_metadata": {**hit.metadata, **pages},
        **({"highlight": highlighted(question_terms, text)} if mark else {}),
        # What RAGFlow's clients read and nothing here fills.
        "positions": [],
        "content_ltks": "",
        "image_id": "",
        "important_keywords": [],
        "tag_kwd": [],
        "doc_type": "",
        "doc_type_kwd": "",
        "mom_id": "",
        "url": "",
        "row_id": None,
    }


POOL = 200
"""At least this many passages of each collection are ranked and counted in `total`; more if a later page needs them.
RAGFlow's 1024 take seven times as long to retrieve (120 ms instead of 17 over 20,000 passages)."""

MAX_DATASETS = 32
MAX_DOCUMENT_IDS = 1024


class RetrievalRequest(msgspec.Struct, frozen=True, kw_only=True):
    """POST /api/v1/retrieval. `dataset_ids` are collections' names, or `collection@backend`.

    `rerank_id` names the backend that ranks all of them, as `model` of /v1/rerank does.

    `vector_similarity_weight` 0 searches by words alone and 1 by meaning alone; in between, both are fused as /search
    does it. `keyword`, `cross_languages`, `use_kg` and `toc_enhance` are ignored like every field that is not known.
    """

    question: str | None = None
    dataset_ids: list[str] | None = None
    document_ids: Annotated[list[str], Meta(max_length=MAX_DOCUMENT_IDS)] | None = None
    page: int | None = None
    page_size: int | None = None
    similarity_threshold: float | None = None
    vector_similarity_weight: float | None = None
    top_k: int | None = None
    rerank_id: str | None = None
    highlight: bool | None = None
    metadata_condition: MetadataCondition | None = None

    def queries(self, ranker: str | None) -> list[Query]:
        """One query per collection; `ranker` overrides the backend named with a collection. Raises InvalidRequest."""
        top_k = 1024 if self.top_k is None else self.top_k
        if top_k < 1:
            raise InvalidRequest("`top_k` must be greater than 0")
        pool = min(top_k, MAX_CANDIDATES, max(POOL, self.window()[1]))
        threshold = 0.2 if self.similarity_threshold is None else self.similarity_threshold
        shared = Query(
            text=(self.question or "").strip()[:MAX_QUERY_CHARACTERS],
            limit=pool,
            candidates=pool,
            mode=_mode(self.vector_similarity_weight),
            filter=_documents(self.document_ids),
            conditions=conditions_of(self.metadata_condition),
            min_score=within(0.0, threshold, 1.0),
        )
        targets: dict[str, str | None] = {}
        for collection, backend in map(split_backend, self._datasets()):
            targets.setdefault(collection, backend)
        return [
            msgspec.structs.replace(shared, collection=collection, backend=ranker or backend)
            for collection, backend in targets.items()
        ]

    def window(self) -> tuple[int, int]:
        """[start, end) of the hits on the page."""
        page = max(1, 1 if self.page is None else self.page)
        size = within(1, 30 if self.page_size is None else self.page_size, MAX_CANDIDATES)
        return (page - 1) * size, page * size

    def _datasets(self) -> list[str]:
        if not self.dataset_ids:
            raise InvalidRequest("`dataset_ids` is required.")
        if len(self.dataset_ids) > MAX_DATASETS:
            raise InvalidRequest(f"at most {MAX_DATASETS} `dataset_ids` can be searched at once")
        return self.dataset_ids


class DatasetSearch(RetrievalRequest, frozen=True, kw_only=True):
    """POST /api/v1/datasets/search, which RAGFlow's server in Go has in the place of /api/v1/retrieval.

    Of `meta_data_filter` the conditions of the method "manual" are applied; the others have a model choose them.
    """

    size: int | None = None
    doc_ids: Annotated[list[str], Meta(max_length=MAX_DOCUMENT_IDS)] | None = None
    meta_data_filter: dict[str, Any] | None = None

    def to_request(self, dataset: str | None = None) -> RetrievalRequest:
        """In the words of /api/v1/retrieval. Raises InvalidRequest."""
        given = {name: getattr(self, name) for name in RetrievalRequest.__struct_fields__}
        condition = self.metadata_condition or _manual(self.meta_data_filter or {})
        return RetrievalRequest(
            **{
                **given,
                "dataset_ids": self.dataset_ids if dataset is None else [dataset],
                "document_ids": self.document_ids or self.doc_ids,
                "page_size": self.size if self.page_size is None else self.page_size,
                "metadata_condition": condition,
            }
        )


def _manual(chosen: Mapping[str, Any]) -> MetadataCondition | None:
    if chosen.get("method") != "manual":
        return None
    parts = [
        {"name": part.get("key"), "comparison_operator": part.get("op"), "value": part.get("value")}
        for part in chosen.get("manual") or []
        if isinstance(part, Mapping)
    ]
    try:
        return msgspec.convert({"conditions": parts, "logic": chosen.get("logic")}, MetadataCondition)
    except msgspec.ValidationError as exc:
        raise pointing_at("/meta_data_filter/manual", "expected a list of objects with key, op and value") from exc


@post(
    "/api/v1/retrieval",
    dto=LenientJSON[RetrievalRequest],
    return_dto=None,
    status_code=200,
    exception_handlers=shaped(ragflow_error),
    opt={"scope": "search"},
)
async def ragflow_retrieval(
    request: BodyRequest,
    data: JSONBody[RetrievalRequest],
    searcher: Injected[Searcher],
    names: Injected[ModelNames],
    clients: Injected[Mapping[str, BackendClient]],
) -> dict[str, Any]:
    """Several collections are searched side by side, and their passages merged by score.

    `message` is there if something did not go as requested.
    """
    return await _retrieve(request, data, searcher, names, clients)


@post(
    ["/api/v1/datasets/search", "/api/v1/datasets/{dataset_id:str}/search"],
    dto=LenientJSON[DatasetSearch],
    return_dto=None,
    status_code=200,
    exception_handlers=shaped(ragflow_error),
    opt={"scope": "search"},
)
async def ragflow_dataset_search(
    request: BodyRequest,
    data: JSONBody[DatasetSearch],
    searcher: Injected[Searcher],
    names: Injected[ModelNames],
    clients: Injected[Mapping[str, BackendClient]],
    dataset_id: FromPath[str | None] = None,
) -> dict[str, Any]:
    """The same, of one dataset or several, with the chunks' names that this call has; an empty question is refused."""
    if not (data.question or "").strip():
        raise InvalidRequest("question is required")
    reply = await _retrieve(request, data.to_request(dataset_id), searcher, names, clients)
    chunks = [
        {
            **chunk,
            "chunk_id": chunk["id"],
            "content_with_weight": chunk["content"],
            "doc_id": chunk["document_id"],
            "docnm_kwd": chunk["document_name"],
            "important_kwd": [],
        }
        for chunk in reply["data"]["chunks"]
    ]
    return {**reply, "data": {**reply["data"], "chunks": chunks, "labels": None}}


async def _retrieve(
    request: BodyRequest,
    data: RetrievalRequest,
    searcher: Searcher,
    names: ModelNames,
    clients: Mapping[str, BackendClient],
) -> dict[str, Any]:
    backend, warning = names.ranking_backend(data.rerank_id or "", clients.values(), caller_of(request))
    queries = data.queries(backend)
    if not queries[0].text:
        return {"data": {"total": 0, "chunks": [], "doc_aggs": {}}, "code": 0}
    caller = caller_of(request)
    results = await while_connected(request, together(searcher.search(query, caller) for query in queries))
    notes = log_notes(caller, warning, *(note for one in results for note in (*one.degraded, *one.warnings)))
    reply = {"data": _page(data, queries[0].text, results), "code": 0}
    return reply | {"message": "; ".join(notes)} if notes else reply


def _page(body: RetrievalRequest, question: str, results: Sequence[SearchResult]) -> dict[str, Any]:
    """A page of the hits of all collections, by descending score. `total` counts those above the threshold."""
    hits = [(result.collection, hit) for result in results for hit in result.results]
    hits.sort(key=lambda one: -one[1].score)
    question_terms = terms_of(question)
    start, end = body.window()
    chunks = [
        chunk_of(hit, collection, question_terms, mark=bool(body.highlight)) for collection, hit in hits[start:end]
    ]
    return {"total": len(hits), "chunks": chunks, "doc_aggs": _documents_of(hits)}


def _mode(weight: float | None) -> Mode:
    if weight is None or 0 < weight < 1:
        return "hybrid"
    return "dense" if weight >= 1 else "sparse"


def _documents(ids: Sequence[str] | None) -> Filter | None:
    return OneOf(field="document_id", values=tuple(ids)) if ids else None


def _documents_of(hits: Sequence[tuple[str, Hit]]) -> list[dict[str, Any]]:
    """How many of the passages each document has: by falling count, then in the order of their best passages.

    Documents of different collections or tenants may have the same id.
    """
    documents = [(collection, hit.tenant or "", hit.document_id) for collection, hit in hits]
    names = {one: file_of(hit) for one, (_, hit) in zip(reversed(documents), reversed(hits), strict=True)}
    return [{"doc_name": names[one], "doc_id": one[-1], "count": n} for one, n in Counter(documents).most_common()]


@post(
    "/api/v1/dify/retrieval",
    dto=LenientJSON[DifyRequest],
    return_dto=None,
    status_code=200,
    exception_handlers=shaped(ragflow_dify_error),
    opt={"scope": "search"},
)
async def ragflow_dify_retrieval(
    request: BodyRequest, data: JSONBody[DifyRequest], searcher: Injected[Searcher]
) -> dict[str, list[dict[str, Any]]]:
    """As POST /retrieval, with RAGFlow's errors, and all that it finds where `top_k` is not given."""
    return await find_records(request, searcher, data.to_query(MAX_CANDIDATES, RankingOptions()))


@get(
    "/api/v1/dify/retrieval",
    exception_handlers=shaped(ragflow_dify_error),
    opt={"scope": "search"},
)
async def ragflow_dify_retrieval_by_get(
    request: BodyRequest,
    searcher: Injected[Searcher],
    knowledge_id: FromQuery[str] = "",
    question: Annotated[str, QueryParameter(name="query")] = "",
    top_k: FromQuery[int | None] = None,
    score_threshold: FromQuery[float | None] = None,
) -> dict[str, list[dict[str, Any]]]:
    """The same with query parameters."""
    setting = RetrievalSetting(top_k=top_k, score_threshold=score_threshold)
    body = DifyRequest(knowledge_id=knowledge_id, query=question, retrieval_setting=setting)
    return await find_records(request, searcher, body.to_query(MAX_CANDIDATES, RankingOptions()))


@get(
    "/api/v1/dify/retrieval/health",
    opt={"scope": "any"},
)
async def ragflow_dify_health() -> dict[str, Any]:
    """Always well, as RAGFlow says it."""
    return {"code": 0, "message": "success", "data": True}
