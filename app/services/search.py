"""Use case: search."""

import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

import msgspec
import numpy as np

from app.backends.router import NONE
from app.domain import (
    BackendUse,
    Caller,
    Hit,
    LaterPages,
    Query,
    RankingOptions,
    Scores,
    SearchResult,
    Usage,
)
from app.observability.timing import Stopwatch
from app.observability.tracing import Attributes
from app.ranking.models import Ranked
from app.retrieval.conditions import all_of, meets, narrowing
from app.services.admission import Gate
from app.services.expansion import STAGE as EXPAND
from app.services.expansion import Expander
from app.services.ranking import Rankers, RankingOutcome
from app.text.fencing import clean
from indexing.concurrency import together
from indexing.documents import Candidate, Passage
from indexing.embedding.batching import QueryEmbedder, check_embedder
from indexing.pipeline.visibility import Visibility, retrieve_counting
from indexing.retrieval.bm25 import Lexical
from indexing.retrieval.fusion import (
    DEFAULT_DENSE_UNIT,
    REFERENCE_RANK,
    fuse,
    fuse_phrasings,
    score_dense,
    score_sparse,
    sparse_bound,
    spread_pages,
)
from indexing.store.base import CollectionInfo, Retrieval, Retrieved, SparseVector, Vector, VectorStore

EXPANSION_IGNORED = "`expand_query` was ignored: a passage that a model writes is searched by its vector alone"
NO_WORDS = "the query contains no terms for sparse (BM25) retrieval"

GIVEN_WEIGHT = 2.0
"""The caller's own words against 1 of each phrasing that a model wrote. With word-dropped phrasings in its place
the loss beside a full question is less so, and the gain beside a poor one about the same (benchmarks/README.md)."""

MAX_LOOKED_THROUGH = 1000
"""Passages of each retriever that are checked against conditions which the store cannot check."""

NOT_ALL_LOOKED_THROUGH = (
    f"only the top {MAX_LOOKED_THROUGH} passages of each retriever were checked against the conditions; "
    "more passages may meet them"
)


RETRIEVAL: Attributes = {"gen_ai.operation.name": "retrieval"}
EMBEDDING: Attributes = {"gen_ai.operation.name": "embeddings"}
"""In traces, by OpenTelemetry's conventions."""


class Searcher:
    """Finds passages. The store is opened when the first search needs it.

    `fingerprint` is that of the embedder behind `queries`, as collections carry it. What is done here passes `gate`.
    """

    def __init__(
        self,
        store: Callable[[], Awaitable[VectorStore]],
        queries: QueryEmbedder,
        lexical: Lexical,
        rankers: Rankers,
        expander: Expander,
        fingerprint: str,
        visibility: Callable[[], Awaitable[Visibility]],
        gate: Gate,
    ) -> None:
        self._store = store
        self._queries = queries
        self._lexical = lexical
        self._rankers = rankers
        self._expander = expander
        self._fingerprint = fingerprint
        self._visibility = visibility
        self._gate = gate

    async def check(self, query: Query, caller: Caller) -> None:
        """Raises what `search` would raise before any work."""
        await self._rankers.select(query.backend, query.ranking.cascade)
        if query.expands:
            await self._expander.select(query)
        await self._collection(query, caller)

    async def search(self, query: Query, caller: Caller) -> SearchResult:
        """The result of `find`; raises what it raises."""
        result, _ = await self.find(query, caller)
        return result

    async def find(self, query: Query, caller: Caller) -> tuple[SearchResult, LaterPages]:
        """What was found, and the pages that begin inside the hits; raises what `ranked` raises."""
        result, order = await self.ranked(query, caller)
        shown = {hit.id for hit in result.results}
        passages = (candidate.passage for candidate, _ in order if candidate.passage.id in shown)
        return result, {passage.id: passage.later_pages for passage in passages if passage.later_pages}

    async def ranked(self, query: Query, caller: Caller) -> tuple[SearchResult, list[tuple[Candidate, Ranked]]]:
        """What was found, and all candidates in order, of which it shows the best.

        Raises UnknownBackend, MissingCapability, Overloaded, CollectionNotFound, EmbedderMismatch and the store's
        errors; with `on_failure` "fail" also what the models' calls raise.
        """
        ranker = caller.shown(await self._rankers.select(query.backend, query.ranking.cascade))
        route = await self._expander.select(query) if query.expands else None
        watch = Stopwatch()
        written, spent, degraded = tuple[str, ...](), Usage(), tuple[str, ...]()
        if route is not None:
            await self._collection(query, caller)
            with watch.stage(EXPAND):
                written, spent, degraded = await self._expander.expand(query, route, caller)
                watch.degraded(EXPAND, degraded)
        phrasings, passages = ((), written) if query.expand_query == "hyde" else (written, ())
        texts = tuple(dict.fromkeys(map(clean, (query.text, *query.phrasings, *phrasings))))
        async with self._gate.visit(watch):
            candidates, warnings = await self._retrieve(query, texts, passages, caller, watch)
        if isinstance(ranker, BackendUse):
            outcome = RankingOutcome(use=ranker)
            warnings = [*warnings, *_ignored(query.ranking)]
        else:
            with watch.stage("rank"):
                best = candidates[: query.candidates]
                outcome = await self._rankers.rank(ranker, texts[0], best, query.limit, query.ranking, caller)
                watch.degraded("rank", outcome.degraded)
        order = list(_in_order(candidates, outcome))
        result = SearchResult(
            query=texts[0],
            collection=query.collection,
            results=tuple(_hit(candidate, place, query, outcome.use.used) for candidate, place in _trim(order, query)),
            backend=outcome.use,
            degraded=(*degraded, *outcome.degraded),
            warnings=tuple(warnings),
            usage=spent + outcome.usage,
            timings_ms=watch.timings_ms(),
            queries=(*texts, *passages) if len(texts) + len(passages) > 1 else msgspec.UNSET,
        )
        return result, order

    async def _retrieve(
        self, query: Query, texts: Sequence[str], passages: Sequence[str], caller: Caller, watch: Stopwatch
    ) -> tuple[list[Candidate], list[str]]:
        """The candidates for all phrasings, best first, and warnings."""
        store = await self._store()
        with watch.stage("retrieve"):
            collection = await self._collection(query, caller)
        dense = await self._dense(query, texts, passages, watch)
        sparse = [None if query.mode == "dense" else self._lexical.query(text) for text in texts]
        about = {**RETRIEVAL, "gen_ai.data_source.id": query.collection}
        with watch.stage("retrieve", about, lambda: {"gen_ai.retrieval.query.text": texts[0]}):
            visibility = await self._visibility()
            counting = partial(visibility.counting, collection.spec.lineage)
            read = partial(retrieve_counting, store, audience=caller.audience, counting=counting)
            sides = [_retrieve(read, query, *pair) for pair in zip(dense, sparse, strict=True)]
            retrieved, cut, incomplete = zip(*await together(sides), strict=True)
        rankings = list(map(partial(_fuse, query, collection), collapse(retrieved), sparse, cut))
        given = frozenset(map(clean, (query.text, *query.phrasings)))
        weights = [GIVEN_WEIGHT if text in given else 1.0 for text in texts]
        candidates = fuse_phrasings(rankings, [query.mode != "sparse" or one for one in cut], weights)
        if query.mode == "hybrid":
            candidates = spread_pages(candidates)
        warnings = {
            EXPANSION_IGNORED: query.expand_query != "none" and not query.expands,
            NO_WORDS: query.mode == "sparse" and all(terms is None for terms in sparse),
            NOT_ALL_LOOKED_THROUGH: any(incomplete),
        }
        return candidates, [warning for warning, holds in warnings.items() if holds]

    async def _collection(self, query: Query, caller: Caller) -> CollectionInfo:
        """The one to search. Raises CollectionNotFound, EmbedderMismatch."""
        caller.audience.check(query.collection)
        collection = await (await self._store()).info(query.collection)
        if query.mode != "sparse":
            check_embedder(collection, self._fingerprint)
        return collection

    async def _dense(
        self, query: Query, texts: Sequence[str], passages: Sequence[str], watch: Stopwatch
    ) -> Sequence[Vector | None]:
        """The vector of each text; that of the first one is averaged with those of hypothetical `passages`."""
        if query.mode == "sparse":
            return [None] * len(texts)
        with watch.stage("embed", EMBEDDING):
            vectors = await self._queries.embed(*texts, *passages)
        count = len(texts)
        return [_mean([vectors[0], *vectors[count:]]), *vectors[1:count]] if passages else vectors


def _mean(vectors: Sequence[Vector]) -> Vector:
    """The mean of unit vectors as a unit vector."""
    total: Vector = np.sum(vectors, axis=0)
    return total / np.float32(max(float(np.linalg.norm(total)), 1e-12))


def _ignored(ranking: RankingOptions) -> list[str]:
    """A sentence for each field that says how a model is to rank, where none does.

    `deadline_ms` and `on_failure` are promises that hold all the same.
    """
    given = [name for name in ("strategy", "depth", "cascade") if getattr(ranking, name) is not None]
    return [f"`ranking.{name}` was ignored: no model ranked" for name in given]


Read = Callable[[str, Retrieval], Awaitable[Retrieved]]
"""(collection, what is looked for) -> what counts of it, and its audience may see."""


async def _retrieve(
    read: Read,
    query: Query,
    dense: Vector | None,
    sparse: SparseVector | None,
) -> tuple[Retrieved, bool, bool]:
    """The candidates of both sides that meet the query's conditions, and what more there may be.

    First flag: the sparse side was cut. Second: a side was cut, and too few of its passages met the conditions, even
    after looking through MAX_LOOKED_THROUGH of them.
    """
    if dense is None and sparse is None:
        return Retrieved(), False, False
    # Fusion needs to see as far as its reference, whatever the query asks for.
    depth = max(query.candidates, query.limit, REFERENCE_RANK)
    conditions = query.conditions
    if conditions is None:
        retrieval = Retrieval(dense=dense, sparse=sparse, limit=depth, filter=query.filter)
        retrieved = await read(query.collection, retrieval)
        return retrieved, len(retrieved.sparse) >= depth, False
    condition = all_of((query.filter, narrowing(conditions)))
    for limit in dict.fromkeys((depth, MAX_LOOKED_THROUGH)):
        retrieval = Retrieval(dense=dense, sparse=sparse, limit=limit, filter=condition)
        retrieved = await read(query.collection, retrieval)
        kept = Retrieved(
            dense=[candidate for candidate in retrieved.dense if meets(conditions, candidate.passage)],
            sparse=[candidate for candidate in retrieved.sparse if meets(conditions, candidate.passage)],
            passages=retrieved.passages,
        )
        sides = ((retrieved.dense, kept.dense), (retrieved.sparse, kept.sparse))
        incomplete = any(len(side) >= limit and len(left) < depth for side, left in sides)
        if not incomplete:
            break
    return kept, len(retrieved.sparse) >= limit, incomplete


def collapse(retrieved: Sequence[Retrieved]) -> list[Retrieved]:
    """The sides of each phrasing with one candidate for each text, under its best score, the order kept.

    All sides show the same passage for a text, so that their evidence meets: the one that stands highest on the first
    side that found it (dense, sparse, and so on with the next phrasing), ties by document and place in it: a text that
    a document repeats is shown where it stands first. Candidates with a score that is not finite are dropped.
    """
    both = [side for one in retrieved for side in (one.dense, one.sparse)]
    kept = [[c for c in side if math.isfinite(c.score)] for side in both]
    found = {c.passage.id: c.passage.text for side in kept for c in side}
    if len({*found.values()}) < len(found):
        keepers: dict[str, Passage] = {}
        for side in kept:
            for candidate in sorted(side, key=lambda c: (-c.score, c.passage.document_id, c.passage.ordinal)):
                keepers.setdefault(candidate.passage.text, candidate.passage)
        kept = [_one_per_text(side, keepers) for side in kept]
    return [
        Retrieved(dense=dense, sparse=sparse, passages=one.passages)
        for one, dense, sparse in zip(retrieved, kept[::2], kept[1::2], strict=True)
    ]


def _one_per_text(side: Iterable[Candidate], keepers: dict[str, Passage]) -> list[Candidate]:
    best: dict[str, Candidate] = {}
    for candidate in side:
        text = candidate.passage.text
        if text not in best:
            best[text] = Candidate(keepers[text], candidate.score)
    return list(best.values())


def _fuse(
    query: Query, collection: CollectionInfo, retrieved: Retrieved, sparse: SparseVector | None, cut: bool
) -> list[Candidate]:
    passages = collection.passages if retrieved.passages is None else retrieved.passages
    bound = sparse_bound(math.fsum(sparse.values), passages) if sparse else 0.0
    if query.mode == "dense":
        return score_dense(retrieved.dense)
    if query.mode == "sparse":
        return score_sparse(retrieved.sparse, bound)
    unit = collection.spec.notes.get("dense_unit", DEFAULT_DENSE_UNIT)
    return fuse(retrieved, dense_unit=unit, bound=bound, sparse_cut=cut)


def _in_order(candidates: Sequence[Candidate], outcome: RankingOutcome) -> Iterator[tuple[Candidate, Ranked]]:
    """In the model's order, or else in that of retrieval."""
    if outcome.ranking is None:
        return ((one, Ranked(id=one.passage.id, prior=one.score, score=one.score)) for one in candidates)
    by_id = {candidate.passage.id: candidate for candidate in candidates}
    return ((by_id[ranked.id], ranked) for ranked in outcome.ranking.order)


def _trim(ranked: Iterable[tuple[Candidate, Ranked]], query: Query) -> Iterator[tuple[Candidate, Ranked]]:
    """Those with score enough, the best of each document if the query says so, at most `query.limit`."""
    good = (pair for pair in ranked if pair[1].score >= query.min_score)
    if query.group_by_document:
        best: dict[str, tuple[Candidate, Ranked]] = {}
        for candidate, place in good:
            best.setdefault(candidate.passage.key, (candidate, place))
        good = (pair for pair in best.values())
    return islice(good, query.limit)


def _hit(candidate: Candidate, ranked: Ranked, query: Query, used: str) -> Hit:
    passage = candidate.passage
    return Hit(
        id=passage.id,
        document_id=passage.document_id,
        tenant=passage.tenant or msgspec.UNSET,
        score=ranked.score,
        text=passage.text if query.include_text else None,
        title=passage.title,
        source=passage.source,
        page=passage.page,
        page_end=passage.page_end,
        heading=passage.heading,
        start=passage.start,
        end=passage.end,
        metadata=passage.metadata,
        scores=Scores(dense=candidate.dense, sparse=candidate.sparse, fused=candidate.fused, grade=ranked.grade),
        ranked_by=used if ranked.read else NONE.name,
        flags=ranked.flags,
    )
