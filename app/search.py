"""Use case: embed -> retrieve -> rank -> trim."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import islice

from app.backends.registry import Backends
from app.cleaning import clean
from app.domain import Hit, Mode, Query, Scores, SearchResult
from app.duplicates import collapse
from app.stopwatch import Stopwatch
from indexing.collections import check_embedder
from indexing.fusion import DEFAULT_DENSE_UNIT, REFERENCE_RANK, Fused, Scale, fuse, one_sided, sparse_bound
from indexing.lexical import Lexical
from indexing.query_embedding import QueryEmbedder
from indexing.store.base import CollectionInfo, Retrieval, Retrieved, SparseVector, Vector, VectorStore

NO_WORDS = "the query holds no word that the sparse side could look up"


class Searcher:
    """Finds passages. The store is asked for with each search, so that it can be opened late.

    `fingerprint` is that of the embedder behind `queries`, as collections carry it.
    """

    def __init__(
        self,
        store: Callable[[], Awaitable[VectorStore]],
        queries: QueryEmbedder,
        lexical: Lexical,
        backends: Backends,
        fingerprint: str,
    ) -> None:
        self._store = store
        self._queries = queries
        self._lexical = lexical
        self._backends = backends
        self._fingerprint = fingerprint

    async def search(self, query: Query) -> SearchResult:
        """Raises UnknownBackend, MissingCapability, CollectionNotFound, EmbedderMismatch and the store's errors."""
        backend = self._backends.for_ranking(query.backend)
        watch = Stopwatch()
        text = clean(query.text)
        store = await self._store()
        with watch.stage("retrieve"):
            collection = await store.info(query.collection)
        dense, sparse = await self._dense(query, text, collection, watch), self._sparse(query, text)
        with watch.stage("retrieve"):
            retrieved = await _retrieve(store, query, dense, sparse)
        cut = len(retrieved.sparse) >= _depth(query)
        ranking = _rank(query.mode, collapse(retrieved), _scale(collection, sparse, cut=cut))
        return SearchResult(
            query=text,
            collection=query.collection,
            results=tuple(_hit(found, query, backend.used) for found in _trim(ranking, query)),
            backend=backend,
            warnings=(NO_WORDS,) if query.mode == "sparse" and sparse is None else (),
            timings_ms=watch.timings_ms(),
        )

    async def _dense(self, query: Query, text: str, collection: CollectionInfo, watch: Stopwatch) -> Vector | None:
        if query.mode == "sparse":
            return None
        check_embedder(collection, self._fingerprint)
        with watch.stage("embed"):
            return await self._queries.embed(text)

    def _sparse(self, query: Query, text: str) -> SparseVector | None:
        return None if query.mode == "dense" else self._lexical.query(text)


async def _retrieve(store: VectorStore, query: Query, dense: Vector | None, sparse: SparseVector | None) -> Retrieved:
    if dense is None and sparse is None:
        return Retrieved()
    return await store.retrieve(
        query.collection, Retrieval(dense=dense, sparse=sparse, limit=_depth(query), filter=query.filter)
    )


def _depth(query: Query) -> int:
    """How many candidates each side is asked for; fusion needs to see as far as its reference."""
    return max(query.candidates, query.limit, REFERENCE_RANK)


def _scale(collection: CollectionInfo, sparse: SparseVector | None, *, cut: bool) -> Scale:
    return Scale(
        dense_unit=collection.spec.notes.get("dense_unit", DEFAULT_DENSE_UNIT),
        sparse_bound=sparse_bound(len(sparse.indices), collection.passages) if sparse else 0.0,
        sparse_cut=cut,
    )


def _rank(mode: Mode, retrieved: Retrieved, scale: Scale) -> list[Fused]:
    if mode == "hybrid":
        return fuse(retrieved, scale)
    return one_sided(getattr(retrieved, mode), side=mode, scale=scale)


def _trim(ranking: Iterable[Fused], query: Query) -> Iterator[Fused]:
    good = (found for found in ranking if found.score >= query.min_score)
    return islice(_best_of_each_document(good) if query.group_by_document else good, query.limit)


def _best_of_each_document(ranking: Iterable[Fused]) -> Iterator[Fused]:
    seen: set[str] = set()
    for found in ranking:
        if found.passage.document_id not in seen:
            seen.add(found.passage.document_id)
            yield found


def _hit(found: Fused, query: Query, ranked_by: str) -> Hit:
    passage = found.passage
    return Hit(
        id=passage.id,
        document_id=passage.document_id,
        score=found.score,
        text=passage.text if query.include_text else None,
        title=passage.title,
        source=passage.source,
        page=passage.page,
        heading=passage.heading,
        start=passage.start,
        end=passage.end,
        metadata=passage.metadata,
        scores=Scores(dense=found.dense, sparse=found.sparse, fused=found.fused),
        ranked_by=ranked_by,
    )
