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
import warnings
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import grpc
import msgspec
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException

from indexing.documents import EVERYTHING, Audience, Passage
from indexing.errors import CollectionDamaged, CollectionNotFound, Conflict, StoreUnavailable, WinnowError
from indexing.filters import Filter
from indexing.settings import StoreSettings
from indexing.store.base import (
    CollectionInfo,
    CollectionSpec,
    Damaged,
    Point,
    Retrieval,
    Retrieved,
    check_name,
    generation_name,
    new_generation,
    split_generation,
)
from indexing.store.payload import (
    BUILT_IN_INDEXES,
    MAX_INDEXES,
    TENANCY,
    TENANT,
    IndexKind,
    declared_paths,
    filtered_paths,
    key_of,
    restricted,
    wanted_indexes,
)
from indexing.store.server_errors import translated
from indexing.store.server_layout import (
    DENSE,
    SPARSE,
    Layout,
    Wanted,
    change,
    creation,
    dense_params,
    differences,
    layout_of,
)
from indexing.store.server_requests import (
    BATCH_POINTS,
    WITHOUT_MIRRORS,
    batches,
    by_documents,
    in_dialect,
    rank,
    read_indexes,
    read_passage,
    read_point,
    sides,
)

R = TypeVar("R")

log = logging.getLogger(__name__)

_METADATA = "winnow"
_PAGE = 512
_LOOKED_AT = 20
"""Passages found whose metadata show what kind of values a field has."""
_FIRST = "0" * 12
"""The generation that `create` makes. Of several services that create one collection at once the server lets one have
it; else each would make its own, and what was written to all but the last would be lost."""
_PATIENCE_S, _LOOK_S = 1.0, 0.1
"""For so long a first generation may be without an alias before whoever made it is taken for dead."""
_CHANNEL = {
    # gRPC would wait for up to two minutes before it looks whether a server is back, and 20 s for each look.
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.min_reconnect_backoff_ms": 5000,
    "grpc.max_reconnect_backoff_ms": 2000,
}
_KINDS: dict[IndexKind, models.PayloadSchemaType | models.KeywordIndexParams] = {
    "keyword": models.PayloadSchemaType.KEYWORD,
    "tenant": models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
    "integer": models.PayloadSchemaType.INTEGER,
    "number": models.PayloadSchemaType.FLOAT,
    "flag": models.PayloadSchemaType.BOOL,
    "date": models.PayloadSchemaType.DATETIME,
}
_INDEXES: dict[str, IndexKind] = {**BUILT_IN_INDEXES, "version": "keyword"}
"""Of every new collection: all that we filter by ourselves, since servers may refuse filters without an index."""


_TOO_OLD = "it has no metadata of Winnow, which needs Qdrant 1.16 or later"


class _Taken(Conflict):
    """Another service has created this generation."""


class _Known:
    """What a collection was like when it was last looked at: `physical` is the generation that its name stood for."""

    def __init__(self, physical: str, spec: CollectionSpec, info: models.CollectionInfo) -> None:
        self.physical = physical
        self.spec = spec
        self.layout = layout_of(info)
        self.indexed = set(info.payload_schema)
        strict = info.config.strict_mode_config
        limits = strict if strict is not None and strict.enabled else models.StrictModeConfigOutput()
        self.most_found = limits.max_query_limit
        self.page = min(_PAGE, limits.max_query_limit or _PAGE)
        self.batch = min(BATCH_POINTS, limits.upsert_max_batchsize or BATCH_POINTS)
        self.counts_exactly = limits.search_allow_exact is not False
        self.needs_indexes = limits.unindexed_filtering_retrieve is False


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
        self._known: dict[str, _Known] = {}
        self._indexing: dict[str, asyncio.Task[None]] = {}
        self._refused: dict[str, set[str]] = {}
        """Paths by collection of which the server made no index, for which it is not asked again."""
        self._damaged: list[Damaged] = []
        self._closed = False

    @classmethod
    def connect(cls, settings: StoreSettings, *, declared: Iterable[str] = ()) -> "ServerStore":
        """The server at `settings.url`. Opens nothing yet: the first call does."""
        with warnings.catch_warnings():
            # `winnow doctor` says where a key travels unencrypted, which it may within one network.
            warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
            client = AsyncQdrantClient(
                url=settings.url,
                api_key=settings.api_key,
                grpc_port=settings.grpc_port,
                prefer_grpc=settings.grpc_port != 0,
                grpc_options=dict(_CHANNEL),
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
        async with self._creating:  # else two calls at once would wait for each other as services do
            if name not in await self._aliases():
                await self._create_first(name, spec)
        info = await self.info(name)
        if (info.spec.dimension, info.spec.distance) != (spec.dimension, spec.distance):
            raise Conflict(
                f"collection {name!r} holds vectors of {info.spec.dimension} dimensions by {info.spec.distance}, "
                f"not of {spec.dimension} by {spec.distance}"
            )
        return info

    async def info(self, name: str) -> CollectionInfo:
        try:
            return await self._describe(name, await self._physical(name))
        except CollectionNotFound:  # or a rebuild has put another generation in its place meanwhile
            return await self._describe(name, await self._physical(name))

    async def layout(self, name: str) -> tuple[Layout, list[Wanted]]:
        """How the collection lies on the server, and what the settings ask for beyond. Raises CollectionNotFound."""
        layout = (await self._look(name, await self._physical(name))).layout
        return layout, differences(self._settings, layout)

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
        physical = generation_name(name, new_generation())
        await self._create_generation(name, physical, spec)
        return physical

    async def finish_rebuild(self, name: str, generation: str) -> None:
        if (split_generation(generation) or ("",))[0] != name or generation not in await self._generations(name):
            raise CollectionNotFound(generation)
        await self._point_alias(name, generation)
        await self._discard_generations(name, but=generation)

    async def upsert(self, name: str, points: Sequence[Point]) -> None:
        for batch in batches(points, (await self._knowledge(name)).batch):
            rows = [row for row, _ in batch]
            await self._call(name, self._client.upsert(name, points=rows, wait=True))
            payloads = [payload for _, payload in batch]
            wanted = self._declared | {path for path in TENANCY if any(path in payload for payload in payloads)}
            if wanted:
                await self._index_or_log(name, wanted_indexes(wanted, payloads))

    async def delete_documents(self, name: str, keys: Sequence[str]) -> None:
        for condition in by_documents(keys, EVERYTHING):
            selector = models.FilterSelector(filter=condition)
            await self._call(name, self._client.delete(name, points_selector=selector, wait=True))

    async def delete_stale(self, name: str, versions: dict[str, str]) -> None:
        for condition in by_documents(list(versions), EVERYTHING):
            stale = [
                record.id
                async for record in self._scroll(name, condition, ["document_id", "version", TENANT])
                if record.payload and versions[key_of(record.payload)] != record.payload["version"]
            ]
            if stale:
                selector = models.PointIdsList(points=stale)
                await self._call(name, self._client.delete(name, points_selector=selector, wait=True))

    async def retrieve(self, name: str, retrieval: Retrieval, audience: Audience) -> Retrieved:
        """Both sides with their payloads in one round trip."""
        known = await self._knowledge(name)
        condition = restricted(retrieval.filter, audience)
        queries = sides(retrieval, audience, dense_params(self._settings, known.layout), known.most_found)
        if not queries:
            await self._physical(name)
            return Retrieved()
        if known.needs_indexes:
            await self._index_or_log(name, read_indexes(condition))
        responses = await self._call(name, self._client.query_batch_points(name, requests=list(queries.values())))
        # For "euclid" servers return distances, smaller for nearer; our scores are larger for nearer.
        signs = {DENSE: -1.0 if known.spec.distance == "euclid" else 1.0, SPARSE: 1.0}
        ranked = {side: rank(response.points, signs[side]) for side, response in zip(queries, responses, strict=True)}
        seen = in_dialect(restricted(None, audience))
        count = None if seen is None else await self._count(name, known, seen)
        retrieved = Retrieved(dense=ranked.get(DENSE, []), sparse=ranked.get(SPARSE, []), passages=count)
        self._index_soon(name, condition, retrieved)
        return retrieved

    async def passages(self, name: str, key: str, audience: Audience) -> list[Passage]:
        (condition,) = by_documents([key], audience)
        passages = [read_passage(record) async for record in self._scroll(name, condition)]
        return sorted(passages, key=lambda passage: passage.ordinal)

    async def points(self, name: str, keys: Sequence[str], audience: Audience) -> list[Point]:
        points: list[Point] = []
        for condition in by_documents(keys, audience):
            points += [read_point(record) async for record in self._scroll(name, condition, vectors=True)]
        return points

    async def page(
        self, name: str, after: str | None, limit: int, audience: Audience
    ) -> tuple[list[Passage], str | None]:
        scrolling = self._client.scroll(
            name,
            scroll_filter=in_dialect(restricted(None, audience)),
            limit=min(limit, (await self._knowledge(name)).most_found or limit),
            offset=after,
            with_payload=WITHOUT_MIRRORS,
        )
        records, following = await self._call(name, scrolling)
        return [read_passage(record) for record in records], None if following is None else str(following)

    async def room(self, name: str) -> None:
        """A server has memory of its own."""

    async def optimize(self, name: str) -> None:
        """Servers build graphs themselves, in the background. What the settings say now is applied to a collection that
        was made before, as far as a server can.
        """
        known = await self._look(name, await self._physical(name))
        if arguments := change(self._settings, differences(self._settings, known.layout)):
            try:
                await self._call(name, self._client.update_collection(known.physical, **arguments))
            except WinnowError as exc:
                log.warning("collection %r: the settings of [store] are not applied: %s", name, exc)

    async def collections(self) -> list[CollectionInfo]:
        aliases = await self._aliases()
        found, damaged = [], []
        for name in sorted(aliases):
            with suppress(CollectionNotFound):  # dropped since
                try:
                    found.append(await self._describe(name, aliases[name]))
                except CollectionDamaged as exc:
                    damaged.append(Damaged(name=name, detail=exc.why))
                except CollectionNotFound:
                    found.append(await self.info(name))
        self._damaged = damaged
        return found

    async def damaged(self) -> list[Damaged]:
        """As `collections` found them."""
        return list(self._damaged)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await asyncio.gather(*self._indexing.values())
            await self._client.close()

    async def _create_first(self, name: str, spec: CollectionSpec) -> None:
        physical = generation_name(name, _FIRST)
        if physical in await self._generations(name):
            for _ in range(math.ceil(_PATIENCE_S / _LOOK_S)):
                await asyncio.sleep(_LOOK_S)
                if name in await self._aliases():
                    return
            await self._call(physical, self._client.delete_collection(physical))
        try:
            await self._create_generation(name, physical, spec)
            await self._point_alias(name, physical)
        except _Taken:
            await self._create_first(name, spec)

    async def _create_generation(self, name: str, physical: str, spec: CollectionSpec) -> None:
        if name in await self._names():
            raise Conflict(f"the Qdrant server has a collection {name!r} that is not Winnow's; choose another name")
        creating = self._client.create_collection(
            physical, **creation(spec, self._settings), metadata={_METADATA: msgspec.json.encode(spec).decode()}
        )
        try:
            await self._call(physical, creating)
        except Conflict as exc:
            raise _Taken(str(exc)) from exc
        try:
            await self._look(physical, physical)
            await self._index(physical, _INDEXES, wait=True)
        except WinnowError as exc:
            with suppress(WinnowError):
                await self._call(physical, self._client.delete_collection(physical))
            if isinstance(exc, CollectionDamaged):
                raise StoreUnavailable(f"the Qdrant server is too old: {_TOO_OLD}; upgrade it") from exc
            raise

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
        names = await self._names()
        return tuple(physical for physical in names if (split_generation(physical) or ("",))[0] == name)

    async def _names(self) -> list[str]:
        """Of all collections of the server, aliases not among them."""
        response = await self._call("", self._client.get_collections())
        return [collection.name for collection in response.collections]

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
        known = await self._look(name, physical)
        count = await self._count(physical, known, None, called=name)
        return CollectionInfo(name=name, generation=generation, spec=known.spec, passages=count)

    async def _knowledge(self, name: str) -> _Known:
        """As it was when last looked at: `info`, of which every search begins, looks anew."""
        return self._known.get(name) or await self._look(name, await self._physical(name))

    async def _look(self, name: str, physical: str) -> _Known:
        info = await self._call(name, self._client.get_collection(physical))
        raw = (info.config.metadata or {}).get(_METADATA)
        if raw is None:
            raise CollectionDamaged(name, _TOO_OLD)
        before = self._known.get(name)
        if before is not None and before.physical != physical:  # another service has rebuilt it
            self._forget(name)
        # As one string: a server would merge an object into the metadata that exists.
        known = self._known[name] = _Known(physical, msgspec.json.decode(raw, type=CollectionSpec), info)
        return known

    async def _count(self, physical: str, known: _Known, condition: models.Filter | None, called: str = "") -> int:
        counting = self._client.count(physical, condition, exact=known.counts_exactly)
        return (await self._call(called or physical, counting)).count

    def _forget(self, name: str) -> None:
        self._known.pop(name, None)
        self._refused.pop(name, None)

    async def _index(self, name: str, fields: dict[str, IndexKind], *, wait: bool = False) -> None:
        """Create missing payload indexes on these fields: they make filters fast. A server works at them by itself."""
        if self._local is not None:
            return
        indexed = (await self._knowledge(name)).indexed
        refused = self._refused.get(name, set())
        for path, kind in fields.items():
            if path not in indexed | refused and len(indexed) < MAX_INDEXES:
                creating = self._client.create_payload_index(name, path, field_schema=_KINDS[kind], wait=wait)
                await self._call(name, creating)
                indexed.add(path)

    def _index_soon(self, name: str, condition: Filter | None, retrieved: Retrieved) -> None:
        """Have what this filter reads indexed for the next searches, as far as what was found shows its kinds."""
        known = self._known.get(name)
        paths = filtered_paths(condition) - (known.indexed if known else set()) - self._refused.get(name, set())
        candidates = [*retrieved.dense[:_LOOKED_AT], *retrieved.sparse[:_LOOKED_AT]]
        wanted = wanted_indexes(paths, [{"metadata": candidate.passage.metadata} for candidate in candidates])
        if wanted and self._local is None and not self._indexing.get(name) and not self._closed:
            self._indexing[name] = asyncio.create_task(self._index_or_log(name, wanted))
            self._indexing[name].add_done_callback(lambda _: self._indexing.pop(name))

    async def _index_or_log(self, name: str, wanted: dict[str, IndexKind]) -> None:
        """Searching and writing go on without."""
        try:
            await self._index(name, wanted)
        except WinnowError as exc:
            log.info("collection %r: not indexed: %s: %s", name, ", ".join(wanted), exc)
            if not exc.retryable and not isinstance(exc, CollectionNotFound):
                self._refused.setdefault(name, set()).update(wanted)

    async def _scroll(
        self,
        name: str,
        condition: models.Filter | None,
        fields: Sequence[str] | None = None,
        *,
        vectors: bool = False,
    ) -> AsyncIterator[models.Record]:
        most = (await self._knowledge(name)).page
        selector = WITHOUT_MIRRORS if fields is None else models.PayloadSelectorInclude(include=[*fields])
        offset = None
        while True:
            scrolling = self._client.scroll(
                name,
                scroll_filter=condition,
                limit=most,
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
            error = translated(name, exc)
            if isinstance(error, CollectionNotFound):
                self._forget(name)
            raise error from exc
        except json.JSONDecodeError as exc:
            raise StoreUnavailable(
                "the vector store does not answer in JSON; check that the address is that of a Qdrant server"
            ) from exc
        except ValueError as exc:
            if self._local is None or await self._client.collection_exists(name):
                raise
            raise CollectionNotFound(name) from exc
