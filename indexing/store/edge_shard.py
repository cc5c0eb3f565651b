"""A shard of Qdrant Edge: the engine's calls, and the one seam for its errors. Blocking.

The engine allows one handle on a directory (a second one fails on the lock of its write-ahead log), so everybody goes
through `indexing.store.generation`.
"""

from __future__ import annotations  # some of the engine's types exist in its stubs only

import logging
import math
import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import count as counting
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import numpy as np
import qdrant_edge as edge

from indexing.disk import sync_directory
from indexing.documents import EVERYTHING, Audience, Candidate, Passage, from_payload
from indexing.filters import DateRange, Filter, NumberRange
from indexing.settings import StoreSettings
from indexing.store.base import (
    CollectionSpec,
    Point,
    Retrieval,
    Retrieved,
    SparseVector,
    Vector,
    comparable,
)
from indexing.store.coverage import Coverage, Left, left_by_build, note_left
from indexing.store.edge_errors import engine_errors
from indexing.store.payload import (
    BUILT_IN_INDEXES,
    MAX_INDEXES,
    MIRRORS,
    TENANCY,
    TENANT,
    IndexKind,
    encode,
    filtered_paths,
    key_of,
    of_documents,
    restricted,
    translate,
    wanted_indexes,
)
from indexing.store.recent import RecentPassages
from indexing.store.seal import mark_in_use, seal

log = logging.getLogger(__name__)

DENSE, SPARSE = "dense", "sparse"

_LOG, _LOG_CLOSED = "wal", "closed-"
"""The directory of the engine's log, and how the parts of it begin that are full. The next flush may delete these."""
_PAGE = 512
_FLUSH_EVERY = 4096
"""Points written between two flushes: bounds what a start after a kill has to replay."""
_LOOKED_AT = 20
"""Passages found whose metadata show what kind of values a field has."""

_DISTANCES = {
    "cosine": edge.Distance.Cosine,
    "dot": edge.Distance.Dot,
    "euclid": edge.Distance.Euclid,
}
_KINDS: dict[IndexKind, edge.PayloadSchemaType] = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "tenant": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "number": edge.PayloadSchemaType.Float,
    "flag": edge.PayloadSchemaType.Bool,
    "date": edge.PayloadSchemaType.Datetime,
}
_IN_FILES = edge.Memory.Cached
"""Of a segment that is complete, what finds points by terms, fields and ids stays in mapped files, which the system can
take back: 94,000 passages had 53 MB of it in the process, and now have none, for .02 ms of a search by words.
"""
_EF, _EF_POINTS, _MOST_EF = 100, 100_000, 1000
_WITHOUT_MIRRORS = edge.PayloadSelector.Exclude(MIRRORS)
_RECENT = RecentPassages(16_000_000)
"""Of all shards of the process: some 8,000 passages of a thousand characters."""
_NUMBERS = counting()
_MOST_COUNTS = 1000
"""Audiences of a shard whose passages are counted once."""


class EdgeDialect:
    """Conditions in Edge's classes."""

    def any_string(self, path: str, values: list[str]) -> edge.ConditionType:
        return edge.FieldCondition(path, match=edge.MatchAny(values))

    def integer(self, path: str, value: int) -> edge.ConditionType:
        return edge.FieldCondition(path, match=edge.MatchValue(value))

    def flag(self, path: str, value: bool) -> edge.ConditionType:
        # The binding takes Python's True for the integer 1, and only NumPy's for a boolean.
        return edge.FieldCondition(path, match=edge.MatchValue(cast("bool", np.bool_(value))))

    def numbers(self, path: str, bounds: NumberRange) -> edge.ConditionType:
        within = edge.RangeFloat(gt=bounds.gt, gte=bounds.gte, lt=bounds.lt, lte=bounds.lte)
        return edge.FieldCondition(path, range=within)

    def dates(self, path: str, bounds: DateRange) -> edge.ConditionType:
        within = edge.RangeDateTime(gt=bounds.gt, gte=bounds.gte, lt=bounds.lt, lte=bounds.lte)
        return edge.FieldCondition(path, range=within)

    def empty(self, path: str) -> edge.ConditionType:
        return edge.IsEmptyCondition(path)

    def group(
        self,
        *,
        must: Sequence[edge.ConditionType] = (),
        should: Sequence[edge.ConditionType] = (),
        must_not: Sequence[edge.ConditionType] = (),
    ) -> edge.ConditionType:
        return edge.Filter(must=list(must) or None, should=list(should) or None, must_not=list(must_not) or None)


_DIALECT = EdgeDialect()


class EdgeShard:
    """An open shard. Reads may run in parallel; the caller ensures that there is one writer at a time."""

    def __init__(self, shard: edge.EdgeShard, directory: Path, spec: CollectionSpec) -> None:
        self._shard = shard
        self._directory = directory
        self._lineage = spec.lineage
        self._written = False
        # For "euclid" Edge returns distances, smaller for nearer; our scores are larger for nearer.
        self._sign = -1.0 if spec.distance == "euclid" else 1.0
        self._indexed = set(shard.info().payload_schema)
        self._unflushed = 0
        self._upserted, self._points_at_first = 0, self._points()
        """Rows written by this handle, and points before."""
        self._left = left_by_build(directory)
        self._may_flush = True
        self._number = next(_NUMBERS)
        """What `_RECENT` knows it by."""
        self._counts: tuple[int, dict[Audience, int]] = (0, {})
        """What audiences may see, since the shard changed so often."""
        self._noting = threading.Lock()
        self._changes: set[str] | None = None
        """Ids of the points that were written or deleted, while somebody wants to know."""

    @classmethod
    def create(cls, directory: Path, spec: CollectionSpec) -> EdgeShard:
        directory.mkdir(parents=True)
        with engine_errors(directory, spec.lineage):
            shard = cls(edge.EdgeShard.create(str(directory), _config(spec)), directory, spec)
            with shard._writing():
                shard._index(BUILT_IN_INDEXES)
            return shard

    @classmethod
    def load(cls, directory: Path, spec: CollectionSpec) -> EdgeShard:
        with engine_errors(directory, spec.lineage):
            return cls(edge.EdgeShard.load(str(directory)), directory, spec)

    def upsert(self, points: Sequence[Point], declared: Collection[str] = ()) -> None:
        """`declared` are the paths of metadata that get an index as soon as there is a value."""
        payloads = [encode(point.passage) for point in points]
        rows = [_row(point, payload) for point, payload in zip(points, payloads, strict=True)]
        with self._writing(), self._changing([point.passage.id for point in points]):
            self._shard.update(edge.UpdateOperation.upsert_points(rows))
            named = {path for path in TENANCY if any(path in payload for payload in payloads)}
            self._index(wanted_indexes({*declared, *named} - self._indexed, payloads))
            self._count_written(len(rows))

    def delete_documents(self, keys: Sequence[str]) -> None:
        for condition in _by_documents(keys, EVERYTHING):
            self._delete([point_id for point_id, _ in self._scroll(condition, False)])

    def delete_stale(self, versions: dict[str, str]) -> None:
        for condition in _by_documents(list(versions), EVERYTHING):
            records = self._scroll(condition, ["document_id", "version", TENANT])
            self._delete([one for one, payload in records if versions[key_of(payload)] != payload["version"]])

    def retrieve(self, retrieval: Retrieval, audience: Audience, settings: StoreSettings) -> Retrieved:
        """Ids and scores of both sides in one batch, then each payload once that was not read lately: reading them all
        costs more than the search.
        """
        sides = _sides(retrieval)
        if not sides:
            return Retrieved()
        condition, corpus = _filter(restricted(retrieval.filter, audience)), _filter(restricted(None, audience))
        # Else what other tenants write would move the scores of this one.
        params = {} if corpus is None else {SPARSE: edge.SearchParams(idf=edge.IdfParams(corpus))}
        if DENSE in sides:
            params[DENSE] = _dense_params(settings, self.count())
        requests = [
            edge.QueryRequest(limit=retrieval.limit, query=query, filter=condition, params=params.get(side))
            for side, query in sides.items()
        ]
        with self._reading():
            hits = [_scored(points) for points in self._shard.query_batch(edge.QueryBatchRequest(requests))]
            passages = self._read({key: point_id for side in hits for key, point_id, _ in side})
            count = None if corpus is None else self._seen_by(audience, corpus)
        signs = {DENSE: self._sign, SPARSE: 1.0}
        ranked = {side: _rank(points, passages, signs[side]) for side, points in zip(sides, hits, strict=True)}
        return Retrieved(dense=ranked.get(DENSE, []), sparse=ranked.get(SPARSE, []), passages=count)

    def missing_indexes(
        self, condition: Filter | None, audience: Audience, retrieved: Retrieved
    ) -> dict[str, IndexKind]:
        """The indexes that would have made this filter faster, as far as what it found shows their kinds."""
        paths = filtered_paths(restricted(condition, audience)) - self._indexed
        if not paths or len(self._indexed) >= MAX_INDEXES:
            return {}
        candidates = [*retrieved.dense[:_LOOKED_AT], *retrieved.sparse[:_LOOKED_AT]]
        return wanted_indexes(paths, [{"metadata": candidate.passage.metadata} for candidate in candidates])

    def create_indexes(self, wanted: dict[str, IndexKind]) -> None:
        """Those that are missing. Blocks every other thread while it reads all passages (0.2 s for 20k)."""
        if wanted.keys() - self._indexed:
            with self._writing():
                self._index(wanted)

    def indexes(self) -> dict[str, IndexKind]:
        """Those that there are."""
        kinds = {schema: kind for kind, schema in _KINDS.items()}
        with self._reading():
            return {path: kinds[index.data_type] for path, index in self._shard.info().payload_schema.items()}

    def note_changes(self) -> None:
        """Keep the ids of points that change from now on, for `take_changes`, and flush nothing."""
        self._changes = set()
        self._may_flush = False

    def resume_flushes(self) -> None:
        """Flush again, when enough has been written."""
        self._may_flush = True

    def take_changes(self) -> list[str]:
        """The ids of points that have changed since the last call, sorted."""
        with self._noting:
            taken, self._changes = self._changes or set(), set()
        return sorted(taken)

    def forget_changes(self) -> None:
        """Nobody wants to know any more."""
        self._changes = None

    def records(self, ids: Sequence[str]) -> list[edge.Record]:
        """The points with these ids that there are, whole, for `replace`."""
        with self._reading():
            return self._shard.retrieve([*ids], True, True)

    def replace(self, ids: Sequence[str], records: Sequence[edge.Record]) -> None:
        """Make the points with these ids what the records of another shard say: those without one are deleted."""
        rows = [edge.Point(record.id, cast("Any", record.vector), record.payload) for record in records]
        gone = {*ids} - {str(record.id) for record in records}
        with self._writing(), self._changing(ids):
            if rows:
                self._shard.update(edge.UpdateOperation.upsert_points(rows))
            if gone:
                self._shard.update(edge.UpdateOperation.delete_points([*gone]))
            self._count_written(len(rows))

    def passages(self, key: str, audience: Audience) -> list[Passage]:
        (condition,) = _by_documents([key], audience)
        passages = [from_payload(point_id, payload) for point_id, payload in self._scroll(condition)]
        return sorted(passages, key=lambda passage: passage.ordinal)

    def points(self, keys: Sequence[str], audience: Audience) -> list[Point]:
        """Every passage of these documents with its vectors."""
        points: list[Point] = []
        for condition in _by_documents(keys, audience):
            offset = None
            while True:
                records, offset = self._page(offset, _PAGE, condition, vectors=True)
                points += map(_point, records)
                if offset is None:
                    break
        return points

    def page(self, after: str | None, limit: int, audience: Audience) -> tuple[list[Passage], str | None]:
        """Passages by id from the one with the id `after` on, and the id of the first that follows."""
        records, following = self._page(after, limit, _filter(restricted(None, audience)))
        return [from_payload(str(record.id), record.payload or {}) for record in records], following

    def count(self) -> int:
        """All points: the same number as an exact count, which reads every one of them (11 ms at 122k)."""
        with self._reading():
            return self._points()

    def coverage(self) -> Coverage:
        """What there is to do for a build, beside what the last one has left."""
        with_sparse = edge.Filter(must=[edge.HasVectorCondition(SPARSE)])
        with self._reading():
            info = self._shard.info()
            # Edge counts a sparse vector as indexed from the start, and still when its point is gone.
            indexed = info.indexed_vectors_count - self._shard.count(edge.CountRequest(filter=with_sparse))
        points = info.points_count
        since = max(0, self._upserted - (points - self._points_at_first))
        gone = max(since, indexed - points)  # the latter says something of earlier handles
        unindexed = max(0, points - indexed + gone)
        replaced = max(since, gone - self._left.replaced)
        return Coverage(points=points, unindexed=max(0, unindexed - self._left.unindexed), replaced=replaced)

    def note_build(self) -> None:
        """It is fresh from a build: what that has left makes no other one worth it, after a restart neither."""
        self._left = Left()
        coverage = self.coverage()
        self._left = Left(unindexed=coverage.unindexed, replaced=coverage.replaced)
        note_left(self._directory, self._left)

    def flush(self) -> None:
        with self._reading():
            self._shard.flush()
        self._unflushed = 0

    def sync_log(self) -> None:
        """Have the disk take the engine's log, of which a start makes what was not flushed. Raises OSError.

        A flush waits for the disk a hundred times and lets no other thread of the process run meanwhile.
        """
        for path in (self._directory / _LOG).iterdir():
            with suppress(FileNotFoundError), path.open("r+b") as file:  # the engine renames them
                os.fsync(file.fileno())
        sync_directory(self._directory / _LOG)

    def close(self) -> None:
        _RECENT.forget(self._number)
        with self._reading():
            self._shard.close()

    def close_and_seal(self) -> None:
        """Close, and note that the files are whole; on a full disk they are checked at the next start instead."""
        points = self.count()
        self.close()
        try:
            seal(self._directory, points)
        except OSError as exc:
            log.warning("%s cannot be sealed: %s", self._directory, exc.strerror)

    def _reading(self) -> AbstractContextManager[None]:
        return engine_errors(self._directory, self._lineage)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        if not self._written:
            mark_in_use(self._directory)
            self._written = True
        with engine_errors(self._directory, self._lineage):
            yield

    @contextmanager
    def _changing(self, ids: Sequence[str]) -> Iterator[None]:
        """Notes the ids once the change is over: whoever takes them then reads what it made of them."""
        with _RECENT.changing(self._number, [UUID(point_id).int for point_id in ids]):
            try:
                yield
            finally:
                with self._noting:
                    if self._changes is not None:
                        self._changes.update(ids)

    def _index(self, fields: dict[str, IndexKind]) -> None:
        """Create missing indexes. Without one a filter reads every payload (67 ms at 20k points, 0.4 with it)."""
        for path, kind in fields.items():
            if path not in self._indexed and len(self._indexed) < MAX_INDEXES:
                self._shard.update(edge.UpdateOperation.create_field_index(path, _index_params(kind)))
                self._indexed.add(path)

    def _seen_by(self, audience: Audience, corpus: edge.Filter) -> int:
        """How many passages that is: counted once until the shard changes, since it takes .1 to .2 µs for each."""
        changes = _RECENT.changes(self._number)
        if self._counts[0] != changes or len(self._counts[1]) >= _MOST_COUNTS:
            self._counts = changes, {}
        counts = self._counts[1]
        if (count := counts.get(audience)) is None:
            count = counts[audience] = self._shard.count(edge.CountRequest(filter=corpus, exact=True))
        return count

    def _points(self) -> int:
        return self._shard.info().points_count

    def _count_written(self, points: int) -> None:
        self._upserted += points
        self._unflushed += points
        if self._unflushed >= _FLUSH_EVERY and self._may_flush:
            self.flush()

    def _delete(self, ids: Sequence[str]) -> None:
        """By ids and not by a filter, since nobody may find them among the recent ones any more."""
        if ids:
            with self._writing(), self._changing(ids):
                self._shard.update(edge.UpdateOperation.delete_points([*ids]))

    def _read(self, ids: Mapping[int, UUID]) -> dict[int, Passage]:
        """By the numbers that the ids are."""
        changes = _RECENT.changes(self._number)
        passages = _RECENT.known(self._number, ids.keys())
        if missing := [point_id for number, point_id in ids.items() if number not in passages]:
            records = self._shard.retrieve([*missing], _WITHOUT_MIRRORS, False)
            found = [(cast("UUID", record.id), record.payload or {}) for record in records]
            read = {point_id.int: from_payload(str(point_id), payload) for point_id, payload in found}
            _RECENT.add(self._number, read, changes)
            passages |= read
        return passages

    def _scroll(
        self, condition: edge.Filter | None, fields: edge.WithPayloadType = _WITHOUT_MIRRORS
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Ids and payloads of every point that meets the condition."""
        offset = None
        while True:
            records, offset = self._page(offset, _PAGE, condition, fields)
            yield from ((str(record.id), record.payload or {}) for record in records)
            if offset is None:
                return

    def _page(
        self,
        offset: str | None,
        limit: int,
        condition: edge.Filter | None,
        fields: edge.WithPayloadType = _WITHOUT_MIRRORS,
        *,
        vectors: bool = False,
    ) -> tuple[list[edge.Record], str | None]:
        request = edge.ScrollRequest(
            limit=limit, offset=offset, filter=condition, with_payload=fields, with_vector=vectors
        )
        with self._reading():
            records, following = self._shard.scroll(request)
        return records, None if following is None else str(following)


def is_log_in_use(path: Path) -> bool:
    """Whether a file of a shard is a part of the log that writes may change."""
    return path.parent.name == _LOG and not path.name.startswith(_LOG_CLOSED)


def _config(spec: CollectionSpec) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors={DENSE: edge.EdgeVectorParams(size=spec.dimension, distance=_DISTANCES[spec.distance])},
        sparse_vectors={SPARSE: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf, memory=_IN_FILES)},
        id_tracker_memory=_IN_FILES,
    )


def _index_params(kind: IndexKind) -> edge.PayloadSchemaParams:
    match kind:
        case "integer":
            return edge.IntegerIndexParams(memory=_IN_FILES)
        case "number":
            return edge.FloatIndexParams(memory=_IN_FILES)
        case "flag":
            return edge.BoolIndexParams(memory=_IN_FILES)
        case "date":
            return edge.DatetimeIndexParams(memory=_IN_FILES)
    return edge.KeywordIndexParams(memory=_IN_FILES)


def search_width(points: int) -> int | None:
    """How many candidates a search of the graph keeps (ef of HNSW); None: as many as the engine keeps by itself, 100.

    From 100,000 points on it grows with their square root. Of a million, quantized and of 384 numbers, 100 found .947
    of the ten nearest, 200 .969, and 300 .974 in 1.0 instead of .4 ms.
    """
    if points <= _EF_POINTS:
        return None
    return min(_MOST_EF, round(_EF * math.sqrt(points / _EF_POINTS)))


def _dense_params(settings: StoreSettings, points: int) -> edge.SearchParams:
    """What quantized vectors found is scored again by the whole ones; without such vectors that says nothing."""
    oversampling = settings.oversampling if settings.rescore else None
    quantization = edge.QuantizationSearchParams(False, settings.rescore, oversampling)
    return edge.SearchParams(hnsw_ef=search_width(points), quantization=quantization)


def _row(point: Point, payload: dict[str, Any]) -> edge.Point:
    vectors: dict[str, Any] = {DENSE: _floats(point.dense)}
    if point.sparse is not None:
        vectors[SPARSE] = _sparse(point.sparse)
    return edge.Point(point.passage.id, vectors, payload)


def _point(record: edge.Record) -> Point:
    vectors = cast("dict[str, Any]", record.vector)
    sparse = vectors.get(SPARSE)
    return Point(
        passage=from_payload(str(record.id), record.payload or {}),
        dense=np.asarray(vectors[DENSE], dtype=np.float32),
        sparse=None if sparse is None else SparseVector(list(sparse.indices), list(sparse.values)),
    )


def _floats(vector: Vector) -> list[float]:
    return cast("list[float]", vector.tolist())


def _sparse(vector: SparseVector) -> edge.SparseVector:
    return edge.SparseVector(vector.indices, vector.values)


def _sides(retrieval: Retrieval) -> dict[str, edge.Query]:
    sides = {}
    if retrieval.dense is not None:
        sides[DENSE] = edge.Query.Nearest(_floats(retrieval.dense), using=DENSE)
    if retrieval.sparse is not None:
        sides[SPARSE] = edge.Query.Nearest(_sparse(retrieval.sparse), using=SPARSE)
    return sides


def _filter(condition: Filter | None) -> edge.Filter | None:
    return None if condition is None else edge.Filter(must=[translate(condition, _DIALECT)])


def _by_documents(keys: Sequence[str], audience: Audience) -> Iterator[edge.Filter]:
    return (edge.Filter(must=[translate(one, _DIALECT)]) for one in of_documents(keys, audience))


def _scored(points: Sequence[edge.ScoredPoint]) -> list[tuple[int, UUID, float]]:
    """Each id as a number and as it is, and the comparable score. The engine makes a new UUID whenever it is asked for
    an id, and hashing and comparing these takes longer than all else here.
    """
    ids = [cast("UUID", point.id) for point in points]
    scores = comparable([point.score for point in points])
    return [(point_id.int, point_id, score) for point_id, score in zip(ids, scores, strict=True)]


def _rank(points: Sequence[tuple[int, UUID, float]], passages: dict[int, Passage], sign: float) -> list[Candidate]:
    # A passage deleted between the search and the reading is not a candidate any more.
    candidates = [Candidate(passages[key], sign * score) for key, _, score in points if key in passages]
    return sorted(candidates, key=lambda candidate: (-candidate.score, candidate.passage.id))
