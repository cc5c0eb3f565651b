"""Requests to a Qdrant server in the classes of qdrant-client, and what comes back. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from qdrant_client import models

from indexing.documents import Audience, Candidate, Passage, from_payload
from indexing.filters import DateRange, Filter, NumberRange
from indexing.store.base import Point, Retrieval, SparseVector, comparable
from indexing.store.payload import MIRRORS, IndexKind, encode, of_documents, restricted, translate
from indexing.store.server_layout import DENSE, SPARSE

WITHOUT_MIRRORS = models.PayloadSelectorExclude(exclude=MIRRORS)
BATCH_POINTS = 512
_BATCH_BYTES = 8 * 2**20
"""Far below the 32 MB that a server takes in one request, because the estimate is rough."""


class ServerDialect:
    """Conditions in the classes of qdrant-client."""

    def any_string(self, path: str, values: list[str]) -> models.Condition:
        return models.FieldCondition(key=path, match=models.MatchAny(any=values))

    def integer(self, path: str, value: int) -> models.Condition:
        return models.FieldCondition(key=path, match=models.MatchValue(value=value))

    def flag(self, path: str, value: bool) -> models.Condition:
        return models.FieldCondition(key=path, match=models.MatchValue(value=value))

    def numbers(self, path: str, bounds: NumberRange) -> models.Condition:
        within = models.Range(gt=bounds.gt, gte=bounds.gte, lt=bounds.lt, lte=bounds.lte)
        return models.FieldCondition(key=path, range=within)

    def dates(self, path: str, bounds: DateRange) -> models.Condition:
        given = {side: getattr(bounds, side) for side in ("gt", "gte", "lt", "lte")}
        return models.FieldCondition(key=path, range=models.DatetimeRange.model_validate(given))

    def empty(self, path: str) -> models.Condition:
        return models.IsEmptyCondition(is_empty=models.PayloadField(key=path))

    def group(
        self,
        *,
        must: Sequence[models.Condition] = (),
        should: Sequence[models.Condition] = (),
        must_not: Sequence[models.Condition] = (),
    ) -> models.Condition:
        return models.Filter(must=list(must) or None, should=list(should) or None, must_not=list(must_not) or None)


def batches(
    points: Sequence[Point], most: int = BATCH_POINTS
) -> Iterator[list[tuple[models.PointStruct, dict[str, Any]]]]:
    """The points with their payloads, in parts that a server takes in one request: at most `most` of them."""
    batch: list[tuple[models.PointStruct, dict[str, Any]]] = []
    size = 0
    for point in points:
        payload = encode(point.passage)
        # About what it takes in a request, as JSON or gRPC: 12 bytes for a number, 24 for an index and its weight.
        weights = len(point.sparse.indices) if point.sparse else 0
        needed = len(msgspec.json.encode(payload)) + 12 * len(point.dense) + 24 * weights
        if batch and (len(batch) == most or size + needed > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((_row(point, payload), payload))
        size += needed
    if batch:
        yield batch


def _row(point: Point, payload: dict[str, Any]) -> models.PointStruct:
    vectors: dict[str, Any] = {DENSE: point.dense.tolist()}
    if point.sparse is not None:
        vectors[SPARSE] = models.SparseVector(indices=point.sparse.indices, values=point.sparse.values)
    return models.PointStruct(id=point.passage.id, vector=vectors, payload=payload)


def read_point(record: models.Record) -> Point:
    vectors: Any = record.vector or {}
    sparse = vectors.get(SPARSE)
    return Point(
        passage=read_passage(record),
        dense=np.asarray(vectors[DENSE], dtype=np.float32),
        sparse=None if sparse is None else SparseVector(list(sparse.indices), list(sparse.values)),
    )


def by_documents(keys: Sequence[str], audience: Audience) -> Iterator[models.Filter]:
    return (models.Filter(must=[translate(one, _DIALECT)]) for one in of_documents(keys, audience))


def sides(
    retrieval: Retrieval, audience: Audience, dense: models.SearchParams | None = None, most: int | None = None
) -> dict[str, models.QueryRequest]:
    """A request for each side that is searched, for at most `most` passages; `dense` are parameters of that side."""
    queries: dict[str, Any] = {}
    if retrieval.dense is not None:
        queries[DENSE] = retrieval.dense.tolist()
    if retrieval.sparse is not None:
        queries[SPARSE] = models.SparseVector(indices=retrieval.sparse.indices, values=retrieval.sparse.values)
    condition, corpus = in_dialect(restricted(retrieval.filter, audience)), in_dialect(restricted(None, audience))
    # Else what other tenants write would move the scores of this one. Servers before 1.19 leave it unread.
    own_idf = None if corpus is None else models.SearchParams(idf=models.IdfCorpusParams(corpus=corpus))
    return {
        side: models.QueryRequest(
            query=query,
            using=side,
            limit=retrieval.limit if most is None else min(retrieval.limit, most),
            filter=condition,
            params=own_idf if side == SPARSE else dense,
            with_payload=WITHOUT_MIRRORS,
        )
        for side, query in queries.items()
    }


def in_dialect(condition: Filter | None) -> models.Filter | None:
    return None if condition is None else models.Filter(must=[translate(condition, _DIALECT)])


def rank(points: Sequence[models.ScoredPoint], sign: float) -> list[Candidate]:
    scores = comparable([point.score for point in points])
    candidates = [Candidate(read_passage(point), sign * score) for point, score in zip(points, scores, strict=True)]
    return sorted(candidates, key=lambda candidate: (-candidate.score, candidate.passage.id))


def read_passage(point: models.ScoredPoint | models.Record) -> Passage:
    return from_payload(str(point.id), point.payload or {})


def read_indexes(condition: Filter | None) -> dict[str, IndexKind]:
    """The payload indexes that a filter needs where a server refuses to do without: the first kind for each field."""
    kinds: dict[str, IndexKind] = {}
    anything: dict[str, IndexKind] = {}
    for one in _leaves(in_dialect(condition)):
        if isinstance(one, models.IsEmptyCondition):
            anything[one.is_empty.key] = "keyword"
        elif (kind := _kind(one)) is not None:
            kinds.setdefault(one.key, kind)
    return anything | kinds


def _leaves(condition: models.Condition | None) -> Iterator[Any]:
    if not isinstance(condition, models.Filter):
        yield from () if condition is None else (condition,)
        return
    for part in (condition.must, condition.should, condition.must_not):
        for one in part if isinstance(part, list) else ():
            yield from _leaves(one)


def _kind(condition: models.FieldCondition) -> IndexKind | None:
    """None: the condition names no value at all."""
    match condition:
        case models.FieldCondition(match=models.MatchAny(any=values)):
            return "keyword" if values else None
        case models.FieldCondition(match=models.MatchValue(value=bool())):
            return "flag"
        case models.FieldCondition(match=models.MatchValue()):
            return "integer"
        case models.FieldCondition(range=models.DatetimeRange()):
            return "date"
    return "number"


_DIALECT = ServerDialect()
