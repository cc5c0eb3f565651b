"""What is sent to a Qdrant server, and what is read from its replies. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from qdrant_client import models

from indexing.documents import Passage, from_payload
from indexing.filters import DateRange, Filter, NumberRange
from indexing.store.base import Candidate, Point, Retrieval
from indexing.store.conditions import translate
from indexing.store.payload import MIRRORS, encode

DENSE, SPARSE = "dense", "sparse"
WITHOUT_MIRRORS = models.PayloadSelectorExclude(exclude=MIRRORS)

_DOCUMENTS_PER_DELETE = 1000
_BATCH_POINTS = 512
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


_DIALECT = ServerDialect()


def batches(points: Sequence[Point]) -> Iterator[list[tuple[models.PointStruct, dict[str, Any]]]]:
    batch: list[tuple[models.PointStruct, dict[str, Any]]] = []
    size = 0
    for point in points:
        payload = encode(point.passage)
        needed = (
            len(msgspec.json.encode(payload))
            + 12 * len(point.dense)
            + 24 * len(point.sparse.indices if point.sparse else ())
        )
        if batch and (len(batch) == _BATCH_POINTS or size + needed > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((_row(point, payload), payload))
        size += needed
    if batch:
        yield batch


def _bytes(point: Point, payload: dict[str, Any]) -> int:
    """About what it takes in a request, as JSON or gRPC."""
    weights = len(point.sparse.indices) if point.sparse else 0
    return len(msgspec.json.encode(payload)) + 12 * len(point.dense) + 24 * weights


def _row(point: Point, payload: dict[str, Any]) -> models.PointStruct:
    vectors: dict[str, Any] = {DENSE: point.dense.tolist()}
    if point.sparse is not None:
        vectors[SPARSE] = models.SparseVector(indices=point.sparse.indices, values=point.sparse.values)
    return models.PointStruct(id=point.passage.id, vector=vectors, payload=payload)


def by_documents(document_ids: Sequence[str]) -> Iterator[models.Filter]:
    for start in range(0, len(document_ids), _DOCUMENTS_PER_DELETE):
        yield of_documents(document_ids[start : start + _DOCUMENTS_PER_DELETE])


def of_documents(document_ids: Sequence[str]) -> models.Filter:
    return models.Filter(must=[_DIALECT.any_string("document_id", list(document_ids))])


def sides(retrieval: Retrieval) -> dict[str, models.QueryRequest]:
    queries: dict[str, Any] = {}
    if retrieval.dense is not None:
        queries[DENSE] = retrieval.dense.tolist()
    if retrieval.sparse is not None:
        queries[SPARSE] = models.SparseVector(indices=retrieval.sparse.indices, values=retrieval.sparse.values)
    condition = _filter(retrieval.filter)
    return {
        side: models.QueryRequest(
            query=query, using=side, limit=retrieval.limit, filter=condition, with_payload=WITHOUT_MIRRORS
        )
        for side, query in queries.items()
    }


def _filter(condition: Filter | None) -> models.Filter | None:
    return None if condition is None else models.Filter(must=[translate(condition, _DIALECT)])


def rank(points: Sequence[models.ScoredPoint], sign: float) -> list[Candidate]:
    found = [Candidate(passage(point), sign * point.score) for point in points]
    return sorted(found, key=lambda candidate: (-candidate.score, candidate.passage.id))


def passage(point: models.ScoredPoint | models.Record) -> Passage:
    return from_payload(str(point.id), point.payload or {})
