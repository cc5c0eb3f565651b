"""Use case: search."""

import math
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from app.backends.router import NONE, Route
from app.domain import NOBODY, BackendUse, Caller, Conditions, Found, Hit, Mode, Query, Scores, SearchResult
from app.observability.timing import Stopwatch
from app.ranking.models import Candidate, Ranked
from app.retrieval.conditions import all_of, meets, narrowing
from app.services.ranking import Ordered, Rankers
from app.text.fencing import clean
from indexing.documents import Passage
from indexing.embedding.batching import QueryEmbedder, check_embedder
from indexing.retrieval.bm25 import Lexical
from indexing.retrieval.fusion import DEFAULT_DENSE_UNIT, REFERENCE_RANK, Fused, Scale, fuse, one_sided, sparse_bound
from indexing.store.base import CollectionInfo, Retrieval, Retrieved, ScoredPassage, SparseVector, Vector, VectorStore


def collapse(retrieved: Retrieved) -> Retrieved:
    """Both sides with one candidate for each text, under its best score, the order kept.

    Both sides show the same passage for a text, so that their evidence meets: the one that stands highest on the dense
    side, else on the sparse side, ties by document and place in it: a text that a document repeats is shown where it
    stands first. Scores that are not finite are dropped with their candidates.
    """
    dense, sparse = _finite(retrieved.dense), _finite(retrieved.sparse)
    keepers: dict[str, Passage] = {}
    for side in (dense, sparse):
        for candidate in _best_first(side):
            keepers.setdefault(candidate.passage.text, candidate.passage)
    return Retrieved(dense=_one_each(dense, keepers), sparse=_one_each(sparse, keepers))


def _finite(side: Iterable[ScoredPassage]) -> list[ScoredPassage]:
    return [candidate for candidate in side if math.isfinite(candidate.score)]


def _best_first(side: list[ScoredPassage]) -> list[ScoredPassage]:
    return sorted(side, key=lambda c: (-c.score, c.passage.document_id, c.passage.ordinal))


def _one_each(side: list[ScoredPassage], keepers: dict[str, Passage]) -> list[ScoredPassage]:
    seen: set[str] = set()
    kept = []
    for candidate in side:
        text = candidate.passage.text
        if text not in seen:
            seen.add(text)
            kept.append(ScoredPassage(keepers[text], candidate.score))
    return kept


NO_WORDS = "the query holds no word that the sparse side could look up"


MAX_LOOKED_THROUGH = 1000
"""Passages of each side that are held against conditions which the store cannot check."""

NOT_ALL_LOOKED_THROUGH = (
    f"only the {MAX_LOOKED_THROUGH} best passages of each side were held against the conditions; "
    "there may be more that meet them"
)


class Catch(NamedTuple):
    """What retrieval found and the conditions let through.

    `cut`: the sparse side had more to give. `short`: a side had more to give, and too little of it was let through.
    """

    kept: Retrieved
    cut: bool = False
    short: bool = False


class Place(NamedTuple):
    """A passage that was found, its final score, and what a model's ranking says of it."""

    found: Fused
    score: float
    ranked: Ranked | None = None


class Searcher:
    """Finds passages. The store is asked for with each search, so that it can be opened late.

    `fingerprint` is that of the embedder behind `queries`, as collections carry it.
    """

    def __init__(
        self,
        store: Callable[[], Awaitable[VectorStore]],
        queries: QueryEmbedder,
        lexical: Lexical,
        rankers: Rankers,
        fingerprint: str,
    ) -> None:
        self._store = store
        self._queries = queries
        self._lexical = lexical
        self._rankers = rankers
        self._fingerprint = fingerprint

    async def check(self, query: Query) -> None:
        """Raises what `search` would raise before any work."""
        await self._rankers.who(query.backend)
        await (await self._store()).info(query.collection)

    async def search(self, query: Query, caller: Caller = NOBODY) -> SearchResult:
        """The result that `find` finds; raises what it raises."""
        return (await self.find(query, caller)).result

    async def find(self, query: Query, caller: Caller = NOBODY) -> Found:
        """Raises UnknownBackend, MissingCapability, CollectionNotFound, EmbedderMismatch and the store's errors.

        With `on_failure` "fail", also what calls of models raise.
        """
        who = await self._rankers.who(query.backend)
        watch = Stopwatch()
        text = clean(query.text)
        store = await self._store()
        with watch.stage("retrieve"):
            collection = await store.info(query.collection)
        dense, sparse = await self._dense(query, text, collection, watch), self._sparse(query, text)
        with watch.stage("retrieve"):
            catch = await _look(store, query, dense, sparse)
        found = _fuse(query.mode, collapse(catch.kept), _scale(collection, sparse, cut=catch.cut))
        ordered = await self._order(who, text, found, query, caller, watch)
        places = list(_trim(_placed(found, ordered), query))
        result = SearchResult(
            query=text,
            collection=query.collection,
            results=tuple(_hit(place, query, ordered.use.used) for place in places),
            backend=ordered.use,
            degraded=ordered.degraded,
            warnings=tuple(_warnings(query, sparse, catch)),
            usage=ordered.usage,
            timings_ms=watch.timings_ms(),
        )
        passages = (place.found.passage for place in places)
        return Found(result=result, later_pages={one.id: one.later_pages for one in passages if one.later_pages})

    async def _dense(self, query: Query, text: str, collection: CollectionInfo, watch: Stopwatch) -> Vector | None:
        if query.mode == "sparse":
            return None
        check_embedder(collection, self._fingerprint)
        with watch.stage("embed"):
            return await self._queries.embed(text)

    async def _order(
        self, who: Route | BackendUse, text: str, found: list[Fused], query: Query, caller: Caller, watch: Stopwatch
    ) -> Ordered:
        if isinstance(who, BackendUse):
            return Ordered(use=who)
        with watch.stage("rank"):
            candidates = [_candidate(one) for one in found[: query.candidates]]
            return await self._rankers.rank(who, text, candidates, query.limit, query.ranking, caller)

    def _sparse(self, query: Query, text: str) -> SparseVector | None:
        return None if query.mode == "dense" else self._lexical.query(text)


async def _look(store: VectorStore, query: Query, dense: Vector | None, sparse: SparseVector | None) -> Catch:
    """Further down where too few passages meet the conditions."""
    catch = Catch(Retrieved())
    if dense is None and sparse is None:
        return catch
    wanted = _depth(query)
    condition = query.filter
    if query.conditions is not None:
        condition = all_of((query.filter, narrowing(query.conditions)))
    for limit in dict.fromkeys((wanted, MAX_LOOKED_THROUGH)):
        asked = Retrieval(dense=dense, sparse=sparse, limit=limit, filter=condition)
        catch = _sift(await store.retrieve(query.collection, asked), query.conditions, wanted, limit)
        if not catch.short:
            break
    return catch


def _sift(found: Retrieved, conditions: Conditions | None, wanted: int, limit: int) -> Catch:
    cut = len(found.sparse) >= limit
    if conditions is None:
        return Catch(found, cut=cut)
    kept = Retrieved(
        dense=[one for one in found.dense if meets(conditions, one.passage)],
        sparse=[one for one in found.sparse if meets(conditions, one.passage)],
    )
    sides = ((found.dense, kept.dense), (found.sparse, kept.sparse))
    short = any(len(side) >= limit and len(left) < wanted for side, left in sides)
    return Catch(kept, cut=cut, short=short)


def _warnings(query: Query, sparse: SparseVector | None, catch: Catch) -> Iterator[str]:
    if query.mode == "sparse" and sparse is None:
        yield NO_WORDS
    if catch.short:
        yield NOT_ALL_LOOKED_THROUGH


def _depth(query: Query) -> int:
    """How many candidates each side is asked for; fusion needs to see as far as its reference."""
    return max(query.candidates, query.limit, REFERENCE_RANK)


def _scale(collection: CollectionInfo, sparse: SparseVector | None, *, cut: bool) -> Scale:
    return Scale(
        dense_unit=collection.spec.notes.get("dense_unit", DEFAULT_DENSE_UNIT),
        sparse_bound=sparse_bound(len(sparse.indices), collection.passages) if sparse else 0.0,
        sparse_cut=cut,
    )


def _fuse(mode: Mode, retrieved: Retrieved, scale: Scale) -> list[Fused]:
    if mode == "hybrid":
        return fuse(retrieved, scale)
    return one_sided(getattr(retrieved, mode), side=mode, scale=scale)


def _candidate(found: Fused) -> Candidate:
    passage = found.passage
    return Candidate(id=passage.id, text=passage.text, title=passage.title, prior=found.score)


def _placed(found: list[Fused], ordered: Ordered) -> Iterator[Place]:
    """In the order of the model, or else of retrieval."""
    if ordered.ranking is None:
        return (Place(one, one.score) for one in found)
    by_id = {one.passage.id: one for one in found}
    return (Place(by_id[ranked.id], ranked.score, ranked) for ranked in ordered.ranking.order)


def _trim(places: Iterable[Place], query: Query) -> Iterator[Place]:
    good = (place for place in places if place.score >= query.min_score)
    return islice(_best_of_each_document(good) if query.group_by_document else good, query.limit)


def _best_of_each_document(places: Iterable[Place]) -> Iterator[Place]:
    seen: set[str] = set()
    for place in places:
        if place.found.passage.document_id not in seen:
            seen.add(place.found.passage.document_id)
            yield place


def _hit(place: Place, query: Query, used: str) -> Hit:
    found, ranked = place.found, place.ranked
    passage = found.passage
    return Hit(
        id=passage.id,
        document_id=passage.document_id,
        score=place.score,
        text=passage.text if query.include_text else None,
        title=passage.title,
        source=passage.source,
        page=passage.page,
        heading=passage.heading,
        start=passage.start,
        end=passage.end,
        metadata=passage.metadata,
        scores=Scores(
            dense=found.dense, sparse=found.sparse, fused=found.fused, grade=ranked.grade if ranked else None
        ),
        ranked_by=used if ranked and ranked.read else NONE.name,
        flags=ranked.flags if ranked else (),
    )
