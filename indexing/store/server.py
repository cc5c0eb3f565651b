"""The store on a Qdrant server or cluster, through qdrant-client.

    <name>                    an alias: what readers see
    <name>--<generation>      a collection of the server: one filling, live or under construction

A rebuild fills a new collection and then moves the alias, which the server does atomically. The same class also drives
the client's own emulation in memory (for tests): it blocks, supports one caller at a time and has no payload indexes.
"""

import asyncio
import json
import logging
import math
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import grpc
import msgspec
import numpy as np
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from indexing.documents import EVERYTHING, Audience, Candidate, Passage, document_key, from_payload
from indexing.errors import CollectionDamaged, CollectionNotFound, Conflict, StoreBusy, StoreUnavailable, WinnowError
from indexing.filters import DateRange, Filter, NumberRange, OfDocuments
from indexing.settings import StoreSettings
from indexing.store.base import (
    CollectionInfo,
    CollectionSpec,
    Damaged,
    Point,
    Retrieval,
    Retrieved,
    SparseVector,
    check_name,
    generation_name,
    new_generation,
    split_generation,
)
from indexing.store.payload import (
    BUILT_IN_INDEXES,
    MAX_INDEXES,
    MIRRORS,
    TENANCY,
    TENANT,
    IndexKind,
    declared_paths,
    encode,
    filtered_paths,
    restricted,
    translate,
    wanted_indexes,
)

R = TypeVar("R")

log = logging.getLogger(__name__)

DENSE, SPARSE = "dense", "sparse"

_METADATA = "winnow"
_WITHOUT_MIRRORS = models.PayloadSelectorExclude(exclude=MIRRORS)
_PAGE = 512
_LOOKED_AT = 20
"""Passages found whose metadata show what kind of values a field has."""
_DOCUMENTS_PER_DELETE = 1000
_BATCH_POINTS = 512
_BATCH_BYTES = 8 * 2**20
"""Far below the 32 MB that a server takes in one request, because the estimate is rough."""


_BUSY_S = 1.0
"""Until a busy server that names no time is asked again."""

_DISTANCES = {"cosine": models.Distance.COSINE, "dot": models.Distance.DOT, "euclid": models.Distance.EUCLID}
_KINDS: dict[IndexKind, models.PayloadSchemaType | models.KeywordIndexParams] = {
    "keyword": models.PayloadSchemaType.KEYWORD,
    "tenant": models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
    "integer": models.PayloadSchemaType.INTEGER,
    "number": models.PayloadSchemaType.FLOAT,
    "flag": models.PayloadSchemaType.BOOL,
    "date": models.PayloadSchemaType.DATETIME,
}


class ServerStore:
    """A `VectorStore` on a server."""

    def __init__(
        self, client: AsyncQdrantClient, settings: StoreSettings, *, local: bool = False, declared: Iterable[str] = ()
    ) -> None:
        """Owns the client: `close` closes it. `local` says that it is the client's own emulation.

        The metadata fields `declared` are indexed from the first value on, the others when a filter first asks for
        them.
        """
        self._client = client
        self._settings = settings
        self._local = asyncio.Lock() if local else None
        self._creating = asyncio.Lock()
        self._declared = declared_paths(declared)
        self._indexed: dict[str, set[str]] = {}
        self._indexing: dict[str, asyncio.Task[None]] = {}
        self._signs: dict[str, float] = {}
        self._damaged: list[Damaged] = []
        self._closed = False

    @classmethod
    def connect(cls, settings: StoreSettings, *, declared: Iterable[str] = ()) -> "ServerStore":
        """The server at `settings.url`. Opens nothing yet: the first call does."""
        client = AsyncQdrantClient(
            url=settings.url,
            api_key=settings.api_key,
            grpc_port=settings.grpc_port,
            prefer_grpc=settings.grpc_port != 0,
            timeout=math.ceil(settings.timeout_s),  # whole seconds, for every single call
            check_compatibility=False,  # would call the server, blocking, before anything can catch its errors
        )
        return cls(client, settings, declared=declared)

    @classmethod
    def in_memory(cls) -> "ServerStore":
        """The client's emulation: for tests."""
        return cls(AsyncQdrantClient(location=":memory:"), StoreSettings(), local=True)

    async def create(self, name: str, spec: CollectionSpec) -> CollectionInfo:
        check_name(name)
        async with self._creating:  # else two calls at once could each see no alias, and create a collection each
            if name not in await self._aliases():
                physical = await self._create_generation(name, spec)
                await self._point_alias(name, physical)
        info = await self.info(name)
        if (info.spec.dimension, info.spec.distance) != (spec.dimension, spec.distance):
            raise Conflict(
                f"collection {name!r} holds vectors of {info.spec.dimension} dimensions by {info.spec.distance}, "
                f"not of {spec.dimension} by {spec.distance}"
            )
        return info

    async def info(self, name: str) -> CollectionInfo:
        return await self._describe(name, await self._physical(name))

    async def bytes_on_disk(self, name: str) -> int | None:
        """None: servers do not report it."""
        await self._physical(name)
        return None

    async def drop(self, name: str) -> None:
        if name not in await self._aliases():
            raise CollectionNotFound(name)
        await self._discard_generations(name, but=None)

    async def begin_rebuild(self, name: str, spec: CollectionSpec) -> str:
        check_name(name)
        await self._discard_generations(name, but=(await self._aliases()).get(name))
        return await self._create_generation(name, spec)

    async def finish_rebuild(self, name: str, generation: str) -> None:
        if (split_generation(generation) or ("",))[0] != name or generation not in await self._generations(name):
            raise CollectionNotFound(generation)
        await self._point_alias(name, generation)
        await self._discard_generations(name, but=generation)

    async def upsert(self, name: str, points: Sequence[Point]) -> None:
        for batch in batches(points):
            rows = [row for row, _ in batch]
            await self._call(name, self._client.upsert(name, points=rows, wait=True))
            payloads = [payload for _, payload in batch]
            wanted = self._declared | {path for path in TENANCY if any(path in payload for payload in payloads)}
            if wanted:
                await self._index(name, wanted_indexes(wanted, payloads))

    async def delete_documents(self, name: str, keys: Sequence[str]) -> None:
        for condition in _by_documents(keys, EVERYTHING):
            selector = models.FilterSelector(filter=condition)
            await self._call(name, self._client.delete(name, points_selector=selector, wait=True))

    async def delete_stale(self, name: str, versions: dict[str, str]) -> None:
        for condition in _by_documents(list(versions), EVERYTHING):
            stale = [
                record.id
                async for record in self._scroll(name, condition, ["document_id", "version", TENANT])
                if record.payload and versions[_key(record.payload)] != record.payload["version"]
            ]
            if stale:
                selector = models.PointIdsList(points=stale)
                await self._call(name, self._client.delete(name, points_selector=selector, wait=True))

    async def retrieve(self, name: str, retrieval: Retrieval, audience: Audience) -> Retrieved:
        """Both sides with their payloads in one round trip."""
        queries = sides(retrieval, audience)
        if not queries:
            await self._physical(name)
            return Retrieved()
        responses = await self._call(name, self._client.query_batch_points(name, requests=list(queries.values())))
        signs = {DENSE: await self._dense_sign(name), SPARSE: 1.0}
        ranked = {side: _rank(response.points, signs[side]) for side, response in zip(queries, responses, strict=True)}
        count = await self._count(name, audience)
        retrieved = Retrieved(dense=ranked.get(DENSE, []), sparse=ranked.get(SPARSE, []), passages=count)
        self._index_soon(name, restricted(retrieval.filter, audience), retrieved)
        return retrieved

    async def passages(self, name: str, key: str, audience: Audience) -> list[Passage]:
        (condition,) = _by_documents([key], audience)
        passages = [_passage(record) async for record in self._scroll(name, condition)]
        return sorted(passages, key=lambda passage: passage.ordinal)

    async def points(self, name: str, keys: Sequence[str], audience: Audience) -> list[Point]:
        points: list[Point] = []
        for condition in _by_documents(keys, audience):
            points += [_point(record) async for record in self._scroll(name, condition, vectors=True)]
        return points

    async def page(
        self, name: str, after: str | None, limit: int, audience: Audience
    ) -> tuple[list[Passage], str | None]:
        condition = _filter(restricted(None, audience))
        scrolling = self._client.scroll(
            name, scroll_filter=condition, limit=limit, offset=after, with_payload=_WITHOUT_MIRRORS
        )
        records, following = await self._call(name, scrolling)
        return [_passage(record) for record in records], None if following is None else str(following)

    async def optimize(self, name: str) -> None:
        """Servers build graphs themselves, in the background."""
        await self._physical(name)

    async def collections(self) -> list[CollectionInfo]:
        aliases = await self._aliases()
        found, self._damaged = [], []
        for name in sorted(aliases):
            try:
                found.append(await self._describe(name, aliases[name]))
            except CollectionDamaged as exc:
                self._damaged.append(Damaged(name=name, detail=exc.why))
        return found

    async def damaged(self) -> list[Damaged]:
        """As `collections` found them."""
        return list(self._damaged)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await asyncio.gather(*self._indexing.values())
            await self._client.close()

    async def _create_generation(self, name: str, spec: CollectionSpec) -> str:
        physical = generation_name(name, new_generation())
        params = models.VectorParams(size=spec.dimension, distance=_DISTANCES[spec.distance])
        creating = self._client.create_collection(
            physical,
            vectors_config={DENSE: params},
            sparse_vectors_config={SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)},
            shard_number=self._settings.shard_number,
            replication_factor=self._settings.replication_factor,
            write_consistency_factor=self._settings.write_consistency_factor,
            metadata=_metadata(spec),
        )
        await self._call(physical, creating)
        await self._index(physical, BUILT_IN_INDEXES)
        return physical

    async def _point_alias(self, name: str, physical: str) -> None:
        alias = models.CreateAlias(collection_name=physical, alias_name=name)
        change = models.CreateAliasOperation(create_alias=alias)
        await self._call(name, self._client.update_collection_aliases([change]))
        self._forget(name)

    async def _discard_generations(self, name: str, but: str | None) -> None:
        for physical in await self._generations(name):
            if physical != but:
                await self._call(physical, self._client.delete_collection(physical))
                self._forget(physical)
        if but is None:
            self._forget(name)

    async def _generations(self, name: str) -> tuple[str, ...]:
        response = await self._call(name, self._client.get_collections())
        names = [collection.name for collection in response.collections]
        return tuple(physical for physical in names if (split_generation(physical) or ("",))[0] == name)

    async def _aliases(self) -> dict[str, str]:
        """Collections -> their live generations. Aliases that other programs made are left out."""
        response = await self._call("", self._client.get_aliases())
        pairs = [(alias.alias_name, alias.collection_name) for alias in response.aliases]
        return {name: physical for name, physical in pairs if (split_generation(physical) or ("",))[0] == name}

    async def _physical(self, name: str) -> str:
        """The generation that a name stands for: itself, or the live one."""
        split = split_generation(name)
        generations = await self._generations(split[0]) if split else ()
        physical = name if name in generations else (await self._aliases()).get(name)
        if physical is None:
            raise CollectionNotFound(name)
        return physical

    async def _describe(self, name: str, physical: str) -> CollectionInfo:
        _, generation = split_generation(physical) or ("", "")
        spec = await self._spec(physical)
        count = await self._call(name, self._client.count(physical, exact=True))
        return CollectionInfo(name=name, generation=generation, spec=spec, passages=count.count)

    async def _spec(self, physical: str) -> CollectionSpec:
        info = await self._call(physical, self._client.get_collection(physical))
        raw = (info.config.metadata or {}).get(_METADATA)
        if raw is None:
            name, _ = split_generation(physical) or (physical, "")
            raise CollectionDamaged(name, "it has no metadata of Winnow, which needs Qdrant 1.16 or later")
        return msgspec.json.decode(raw, type=CollectionSpec)

    async def _schema(self, name: str) -> dict[str, IndexKind]:
        """The payload indexes that exist, by path."""
        physical = await self._physical(name)
        info = await self._call(name, self._client.get_collection(physical))
        kinds = {kind: own for own, kind in _KINDS.items() if isinstance(kind, models.PayloadSchemaType)}
        return {path: kinds[index.data_type] for path, index in info.payload_schema.items() if index.data_type in kinds}

    async def _count(self, name: str, audience: Audience) -> int | None:
        """The passages that the audience may see; None for all of them."""
        if (condition := _filter(restricted(None, audience))) is None:
            return None
        return (await self._call(name, self._client.count(name, condition, exact=True))).count

    async def _dense_sign(self, name: str) -> float:
        """-1 where the server returns distances, so that a larger score is always nearer."""
        if name not in self._signs:
            spec = await self._spec(await self._physical(name))
            self._signs[name] = -1.0 if spec.distance == "euclid" else 1.0
        return self._signs[name]

    def _forget(self, name: str) -> None:
        self._indexed.pop(name, None)
        self._signs.pop(name, None)

    async def _index(self, name: str, fields: dict[str, IndexKind], *, wait: bool = True) -> None:
        """Create missing payload indexes on these fields: they make filters fast."""
        if self._local is not None:
            return
        if name not in self._indexed:
            self._indexed[name] = set(await self._schema(name))
        indexed = self._indexed[name]
        for path, kind in fields.items():
            if path not in indexed and len(indexed) < MAX_INDEXES:
                creating = self._client.create_payload_index(name, path, field_schema=_KINDS[kind], wait=wait)
                await self._call(name, creating)
                indexed.add(path)

    def _index_soon(self, name: str, condition: Filter | None, retrieved: Retrieved) -> None:
        """Have what this filter reads indexed for the next searches, as far as what was found shows its kinds."""
        paths = filtered_paths(condition) - self._indexed.get(name, set())
        candidates = [*retrieved.dense[:_LOOKED_AT], *retrieved.sparse[:_LOOKED_AT]]
        wanted = wanted_indexes(paths, [{"metadata": candidate.passage.metadata} for candidate in candidates])
        if wanted and self._local is None and not self._indexing.get(name) and not self._closed:
            self._indexing[name] = asyncio.create_task(self._index_or_log(name, wanted))
            self._indexing[name].add_done_callback(lambda _: self._indexing.pop(name))

    async def _index_or_log(self, name: str, wanted: dict[str, IndexKind]) -> None:
        try:
            await self._index(name, wanted, wait=False)
        except WinnowError:
            log.info("collection %r: not indexed: %s", name, ", ".join(wanted), exc_info=True)

    async def _scroll(
        self,
        name: str,
        condition: models.Filter | None,
        fields: Sequence[str] | None = None,
        *,
        vectors: bool = False,
    ) -> AsyncIterator[models.Record]:
        selector = _WITHOUT_MIRRORS if fields is None else models.PayloadSelectorInclude(include=[*fields])
        offset = None
        while True:
            scrolling = self._client.scroll(
                name,
                scroll_filter=condition,
                limit=_PAGE,
                offset=offset,
                with_payload=selector,
                with_vectors=vectors,
            )
            records, offset = await self._call(name, scrolling)
            for record in records:
                yield record
            if offset is None:
                return

    async def _call(self, name: str, call: Coroutine[Any, Any, R]) -> R:
        """The one seam for foreign errors. A missing collection is reported under `name`."""
        if self._closed:
            call.close()
            raise StoreUnavailable("the connection to the vector store has been closed")
        try:
            if self._local is None:
                return await call
            async with self._local:
                # The emulation's coroutines block: they run to their end on an event loop of their own, in a thread.
                return await asyncio.to_thread(asyncio.run, call)
        except (ApiException, QdrantException, grpc.RpcError) as exc:
            raise _translated(name, exc) from exc
        except json.JSONDecodeError as exc:
            raise StoreUnavailable(
                "the vector store does not answer in JSON; check that the address is that of a Qdrant server"
            ) from exc
        except ValueError as exc:
            if self._local is None or await self._client.collection_exists(name):
                raise
            raise CollectionNotFound(name) from exc


def _translated(name: str, exc: Exception) -> WinnowError:
    """The error to raise. What the server wrote goes to the log only: a proxy's page may hold anything."""
    if isinstance(exc, grpc.aio.AioRpcError):
        if exc.code() is grpc.StatusCode.NOT_FOUND:
            return CollectionNotFound(name)
        reason = f"failed: {exc.code().name}"
    elif isinstance(exc, QdrantException) or (isinstance(exc, UnexpectedResponse) and exc.status_code == 429):
        # qdrant-client has its exception for a 429 of which it could read the Retry-After.
        log.warning("the vector store is busy: %s", exc)
        return StoreBusy(
            "the vector store is busy: it takes no more requests for now; raise its rate limits if this goes on",
            retry_after=getattr(exc, "retry_after_s", _BUSY_S),
        )
    elif isinstance(exc, UnexpectedResponse):
        if exc.status_code == 404:
            return CollectionNotFound(name)
        reason = f"refuses: {exc.status_code}"
    else:
        # The source is what failed beneath qdrant-client: a connection, or a reply of another shape.
        reason = f"does not answer ({type(getattr(exc, 'source', exc)).__name__})"
    log.warning("the vector store %s: %s", reason, exc)
    return StoreUnavailable(f"the vector store {reason}")


def _metadata(spec: CollectionSpec) -> dict[str, str]:
    # As one string: a server would merge an object into the metadata that exists.
    return {_METADATA: msgspec.json.encode(spec).decode()}


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


def batches(points: Sequence[Point]) -> Iterator[list[tuple[models.PointStruct, dict[str, Any]]]]:
    """The points with their payloads, in parts that a server takes in one request."""
    batch: list[tuple[models.PointStruct, dict[str, Any]]] = []
    size = 0
    for point in points:
        payload = encode(point.passage)
        # About what it takes in a request, as JSON or gRPC: 12 bytes for a number, 24 for an index and its weight.
        weights = len(point.sparse.indices) if point.sparse else 0
        needed = len(msgspec.json.encode(payload)) + 12 * len(point.dense) + 24 * weights
        if batch and (len(batch) == _BATCH_POINTS or size + needed > _BATCH_BYTES):
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


def _point(record: models.Record) -> Point:
    vectors: Any = record.vector or {}
    sparse = vectors.get(SPARSE)
    return Point(
        passage=_passage(record),
        dense=np.asarray(vectors[DENSE], dtype=np.float32),
        sparse=None if sparse is None else SparseVector(list(sparse.indices), list(sparse.values)),
    )


def _by_documents(keys: Sequence[str], audience: Audience) -> Iterator[models.Filter]:
    for start in range(0, len(keys), _DOCUMENTS_PER_DELETE):
        condition = OfDocuments(tuple(keys[start : start + _DOCUMENTS_PER_DELETE]))
        yield models.Filter(must=[translate(restricted(condition, audience) or condition, _DIALECT)])


def _key(payload: dict[str, Any]) -> str:
    return document_key(payload.get(TENANT) or "", payload["document_id"])


def sides(retrieval: Retrieval, audience: Audience) -> dict[str, models.QueryRequest]:
    """A request for each side that is searched."""
    queries: dict[str, Any] = {}
    if retrieval.dense is not None:
        queries[DENSE] = retrieval.dense.tolist()
    if retrieval.sparse is not None:
        queries[SPARSE] = models.SparseVector(indices=retrieval.sparse.indices, values=retrieval.sparse.values)
    condition, corpus = _filter(restricted(retrieval.filter, audience)), _filter(restricted(None, audience))
    # Else what other tenants write would move the scores of this one. Servers before 1.19 leave it unread.
    own_idf = None if corpus is None else models.SearchParams(idf=models.IdfCorpusParams(corpus=corpus))
    return {
        side: models.QueryRequest(
            query=query,
            using=side,
            limit=retrieval.limit,
            filter=condition,
            params=own_idf if side == SPARSE else None,
            with_payload=_WITHOUT_MIRRORS,
        )
        for side, query in queries.items()
    }


def _filter(condition: Filter | None) -> models.Filter | None:
    return None if condition is None else models.Filter(must=[translate(condition, _DIALECT)])


def _rank(points: Sequence[models.ScoredPoint], sign: float) -> list[Candidate]:
    candidates = [Candidate(_passage(point), sign * point.score) for point in points]
    return sorted(candidates, key=lambda candidate: (-candidate.score, candidate.passage.id))


def _passage(point: models.ScoredPoint | models.Record) -> Passage:
    return from_payload(str(point.id), point.payload or {})


_DIALECT = ServerDialect()
