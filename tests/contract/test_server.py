"""The store on a Qdrant server where it differs from Edge: other services, failures, keys, limits, versions, layouts.

Over both protocols of the fake: each of these is done to a server or by its operator.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
from qdrant_client import models

from indexing.documents import EVERYTHING, Audience
from indexing.errors import (
    CollectionNotFound,
    Conflict,
    DiskFull,
    InvalidRequest,
    StoreBusy,
    StoreUnavailable,
    WinnowError,
)
from indexing.filters import OfVersions, parse_filter
from indexing.settings import StoreSettings
from indexing.store.base import CollectionSpec, Retrieval, SparseVector
from indexing.store.server import ServerStore
from tests.fakes.points import SPEC, point, vector
from tests.fakes.qdrant_server.refusals import Kind, Refusal
from tests.fakes.qdrant_server.server import QdrantServer, running

pytestmark = pytest.mark.anyio

NEAREST = Retrieval(dense=vector(1.0), limit=1000)
Connect = Callable[..., ServerStore]


class Service:
    """A server, and as many clients of it as a test wants; all over one protocol."""

    def __init__(self, server: QdrantServer, over_grpc: bool, stack: AsyncExitStack) -> None:
        self.server = server
        self._over_grpc = over_grpc
        self._stack = stack

    def connect(self, **settings: Any) -> ServerStore:
        grpc_port = self.server.grpc_port if self._over_grpc else 0
        store = ServerStore.connect(StoreSettings(url=self.server.url, grpc_port=grpc_port, **settings))
        self._stack.push_async_callback(store.close)
        return store

    def physical(self) -> list[str]:
        return self.server.collections.names()

    def limit(self, name: str, **limits: Any) -> None:
        """What an operator does who turns strict mode on."""
        strict = models.StrictModeConfig(enabled=True, **limits)
        self.server.collections.change(name, models.UpdateCollection(strict_mode_config=strict))


@pytest.fixture(params=["grpc", "rest"])
async def service(request: pytest.FixtureRequest) -> AsyncIterator[Service]:
    with running() as server:
        async with AsyncExitStack() as stack:
            yield Service(server, request.param == "grpc", stack)


async def found(store: ServerStore, raw: dict[str, Any] | None = None) -> set[str]:
    retrieval = msgspec.structs.replace(NEAREST, filter=parse_filter(raw) if raw else None)
    return {hit.passage.document_id for hit in (await store.retrieve("docs", retrieval, EVERYTHING)).dense}


async def until(attempt: Callable[[], Awaitable[object]]) -> int:
    """Attempts that failed until one did not: as many as it takes."""
    for failed in range(10_000):
        try:
            await attempt()
        except StoreUnavailable:
            await asyncio.sleep(0.02)
        else:
            return failed
    raise AssertionError("it never succeeded")


class TestOtherServices:
    async def test_created_by_several_at_once_nothing_is_lost(self, service: Service) -> None:
        """Whoever creates it, all write to one collection, and every passage is in it."""

        async def work(number: int) -> str:
            store = service.connect()
            info = await store.create("docs", msgspec.structs.replace(SPEC, lineage=f"lineage {number}"))
            await store.upsert("docs", [point(f"d{number}")])
            return info.spec.lineage

        lineages = await asyncio.gather(*(work(number) for number in range(6)))
        assert len(set(lineages)) == 1
        assert await found(service.connect()) == {f"d{number}" for number in range(6)}
        assert len(service.physical()) == 1

    async def test_what_a_killed_creator_left_is_replaced(self, service: Service) -> None:
        """A generation that never got its alias is in nobody's way."""
        left = models.CreateCollection(vectors={"dense": models.VectorParams(size=9, distance=models.Distance.DOT)})
        service.server.collections.create("docs--000000000000", left)
        store = service.connect()
        assert (await store.create("docs", SPEC)).spec == SPEC
        await store.upsert("docs", [point("d1")])
        assert await found(store) == {"d1"}

    async def test_a_rebuild_elsewhere_is_followed(self, service: Service) -> None:
        """After another service has rebuilt the collection with another distance, scores are of the new one."""
        ours, theirs = service.connect(), service.connect()
        await ours.create("docs", SPEC)
        await ours.upsert("docs", [point("old")])
        assert await found(ours) == {"old"}
        generation = await theirs.begin_rebuild("docs", msgspec.structs.replace(SPEC, distance="euclid"))
        await theirs.upsert(generation, [point("near", dense=vector(2.0)), point("far", dense=vector(9.0))])
        await theirs.finish_rebuild("docs", generation)
        assert (await ours.info("docs")).spec.distance == "euclid"
        hits = (await ours.retrieve("docs", Retrieval(dense=vector(1.0)), EVERYTHING)).dense
        assert [(hit.passage.document_id, hit.score) for hit in hits] == [("near", -1.0), ("far", -8.0)]

    async def test_readers_never_miss_a_collection_that_others_rebuild(self, service: Service) -> None:
        """However often it is switched: it is always there, and listed."""
        ours, theirs = service.connect(), service.connect()
        await theirs.create("docs", SPEC)
        done = asyncio.Event()

        async def rebuild() -> None:
            for _ in range(5):
                await theirs.finish_rebuild("docs", await theirs.begin_rebuild("docs", SPEC))
            done.set()

        async def read() -> None:
            while not done.is_set():
                assert (await ours.info("docs")).name == "docs"
                assert [info.name for info in await ours.collections()] == ["docs"]

        await asyncio.gather(rebuild(), read())

    async def test_dropped_elsewhere(self, service: Service) -> None:
        """It is not found, and may be made anew in another shape."""
        ours, theirs = service.connect(), service.connect()
        await ours.create("docs", SPEC)
        assert await found(ours) == set()
        await theirs.drop("docs")
        for call in (ours.info("docs"), found(ours), ours.upsert("docs", [point("d1")])):
            with pytest.raises(CollectionNotFound, match="'docs'"):
                await call
        assert await ours.collections() == []
        await ours.create("docs", CollectionSpec(dimension=4, embedder="b", distance="dot"))
        await ours.upsert("docs", [point("d1", dense=vector(3.0))])
        assert (await ours.retrieve("docs", NEAREST, EVERYTHING)).dense[0].score == 3.0

    async def test_deleted_at_the_server(self, service: Service) -> None:
        """Somebody who deletes the collection behind the name takes the name with it."""
        store = service.connect()
        await store.create("docs", SPEC)
        service.server.collections.delete(service.physical()[0])
        with pytest.raises(CollectionNotFound):
            await found(store)
        assert await store.collections() == []

    async def test_a_name_that_another_program_has(self, service: Service) -> None:
        """It is refused with a reason, by both ways to make a collection, and nothing is left."""
        theirs = models.CreateCollection(vectors={"v": models.VectorParams(size=9, distance=models.Distance.DOT)})
        service.server.collections.create("docs", theirs)
        store = service.connect()
        for call in (store.create("docs", SPEC), store.begin_rebuild("docs", SPEC)):
            with pytest.raises(Conflict, match="not Winnow's"):
                await call
        assert service.physical() == ["docs"]
        assert await store.collections() == []


class TestFailures:
    async def test_connection_lost_and_back(self, service: Service) -> None:
        """While the server is away every call says so and when to ask again; then it has what was written."""
        store = service.connect(timeout_s=5)
        await store.create("docs", SPEC)
        await store.upsert("docs", [point("d1")])
        service.server.stop()
        for call in (found(store), store.collections(), store.upsert("docs", [point("d2")])):
            with pytest.raises(StoreUnavailable, match="does not answer") as caught:
                await call
            assert (caught.value.retryable, caught.value.retry_after) == (True, 5)
        service.server.start()
        await until(lambda: store.upsert("docs", [point("d3")]))
        assert await found(store) == {"d1", "d3"}

    async def test_a_server_that_starts_later(self, service: Service) -> None:
        """Whoever connected before is served once it listens."""
        service.server.stop()
        store = service.connect(timeout_s=5)
        with pytest.raises(StoreUnavailable):
            await store.collections()
        service.server.start()
        await until(lambda: store.create("docs", SPEC))
        assert await found(store) == set()

    async def test_a_slow_server(self, service: Service) -> None:
        """What takes longer than it may is told with the setting."""
        store = service.connect(timeout_s=1)
        service.server.guard.slow_s = 3.0
        with pytest.raises(StoreUnavailable) as caught:
            await store.collections()
        service.server.guard.slow_s = 0.0
        assert caught.value.retryable

    @pytest.mark.parametrize(
        ("refusal", "error", "text", "retry_after"),
        [
            (Refusal(Kind.RATE_LIMIT, "SECRET", 7), StoreBusy, "rate limits", 7),
            (Refusal(Kind.RATE_LIMIT, "SECRET"), StoreBusy, "rate limits", 1),
            (Refusal(Kind.INSUFFICIENT_STORAGE, "SECRET"), DiskFull, "no more room", None),
            (Refusal(Kind.INTERNAL, "No space left on device: WAL SECRET"), DiskFull, "no more room", None),
            (Refusal(Kind.INTERNAL, "SECRET"), StoreUnavailable, "refuses: 500", 5),
            (Refusal(Kind.UNAVAILABLE, "SECRET"), StoreUnavailable, "does not answer", 5),
            (Refusal(Kind.TIMEOUT, "SECRET"), StoreUnavailable, "timeout_s", 5),
            (Refusal(Kind.BAD_REQUEST, "SECRET"), StoreUnavailable, "refuses: 400", None),
        ],
    )
    async def test_refusals(
        self, service: Service, refusal: Refusal, error: type[WinnowError], text: str, retry_after: float | None
    ) -> None:
        """Reading and writing get the same error, with the time to wait; what the server wrote is not told."""
        store = service.connect()
        await store.create("docs", SPEC)
        await store.upsert("docs", [point("d1")])
        service.server.guard.failing = refusal
        for call in (found(store), store.upsert("docs", [point("d2")]), store.delete_documents("docs", ["d1"])):
            with pytest.raises(error, match=text) as caught:
                await call
            assert getattr(caught.value, "retry_after", None) == retry_after
            assert "SECRET" not in str(caught.value)
        service.server.guard.failing = None
        assert await found(store) == {"d1"}


class TestKeys:
    @pytest.fixture(autouse=True)
    def locked(self, service: Service) -> None:
        service.server.guard.api_key, service.server.guard.read_only_key = "master", "reader"

    @pytest.mark.parametrize("key", [None, "wrong"])
    async def test_without_the_key(self, service: Service, key: str | None) -> None:
        """The error names the setting, and nobody is told to wait."""
        store = service.connect(api_key=key)
        for call in (store.collections(), store.create("docs", SPEC)):
            with pytest.raises(StoreUnavailable, match="correct QDRANT_API_KEY") as caught:
                await call
            assert not caught.value.retryable

    async def test_a_key_that_may_only_read(self, service: Service) -> None:
        """It searches, also by fields without an index; whatever writes is refused with a reason."""
        writer, reader = service.connect(api_key="master"), service.connect(api_key="reader")
        await writer.create("docs", SPEC)
        await writer.upsert("docs", [point("d1", metadata={"lang": "en"}), point("d2", metadata={"lang": "de"})])
        assert await found(reader, {"lang": "de"}) == {"d2"}
        await asyncio.gather(*reader._indexing.values())
        assert await found(reader, {"lang": "en"}) == {"d1"}
        assert reader._indexing == {}
        writes = [
            reader.create("new", SPEC),
            reader.begin_rebuild("docs", SPEC),
            reader.upsert("docs", [point("d3")]),
            reader.delete_documents("docs", ["d1"]),
            reader.drop("docs"),
        ]
        for write in writes:
            with pytest.raises(StoreUnavailable, match="read and write"):
                await write
        assert await found(writer) == {"d1", "d2"}


class TestLimits:
    FIELDS: tuple[tuple[dict[str, Any], set[str]], ...] = (
        ({"lang": "de"}, {"d1"}),
        ({"lang": {"ne": "de"}}, {"d0", "d2"}),
        ({"year": {"gte": 2021}}, {"d1", "d2"}),
        ({"year": 2020}, {"d0"}),
        ({"ok": True}, {"d0", "d2"}),
        ({"when": {"lt": "2024-02-02"}}, {"d0"}),
        ({"note": {"text": "number one"}}, {"d1"}),
        ({"big": 2**60 + 1}, {"d1"}),
        ({"missing": {"exists": True}}, set()),
        ({"or": [{"lang": "de"}, {"not": {"year": {"lt": 2022}}}]}, {"d1", "d2"}),
    )

    async def fill(self, service: Service) -> ServerStore:
        store = service.connect()
        await store.create("docs", SPEC)
        numbered = enumerate(("en", "de", "fr"))
        metadata = [
            {
                "lang": lang,
                "year": 2020 + n,
                "ok": n != 1,
                "when": f"2024-02-0{n + 1}",
                "note": f"number {('zero', 'one', 'two')[n]}",
                "big": 2**60 + n,
            }
            for n, lang in numbered
        ]
        points = [
            point(f"d{n}", sparse={1: 1.0}, metadata=one, tenant="t" if n else "") for n, one in enumerate(metadata)
        ]
        await store.upsert("docs", points)
        return store

    async def test_filters_where_each_needs_an_index(self, service: Service) -> None:
        """By any field, from the first search on; so are tenants, versions and deletions."""
        store = await self.fill(service)
        service.limit("docs", unindexed_filtering_retrieve=False, unindexed_filtering_update=False)
        await store.info("docs")  # as every search does
        for raw, expected in self.FIELDS:
            assert await found(store, raw) == expected, raw
        own = await store.retrieve("docs", msgspec.structs.replace(NEAREST), Audience(tenant="t", groups=("g",)))
        assert ({hit.passage.document_id for hit in own.dense}, own.passages) == ({"d1", "d2"}, 2)
        versions = OfVersions(keys=("d0",), versions=("v9",))
        hidden = await store.retrieve("docs", msgspec.structs.replace(NEAREST, filter=versions), EVERYTHING)
        assert {hit.passage.document_id for hit in hidden.dense} == {"d1", "d2"}
        await store.delete_documents("docs", ["d0"])
        assert await found(store) == {"d1", "d2"}

    async def test_a_field_of_two_kinds(self, service: Service) -> None:
        """Where the server wants an index for each kind, which no field can have, the field is named."""
        store = await self.fill(service)
        service.limit("docs", unindexed_filtering_retrieve=False)
        await store.info("docs")
        with pytest.raises(InvalidRequest, match=r"'metadata\.year' has no index"):
            await found(store, {"year": ["2020", 2020]})

    async def test_small_requests_and_no_exact_counts(self, service: Service) -> None:
        """What the operator allows at once is what is asked for at once, and counts need not be exact."""
        store = await self.fill(service)
        service.limit("docs", max_query_limit=2, upsert_max_batchsize=2, search_allow_exact=False)
        assert (await store.info("docs")).passages == 3
        await store.upsert("docs", [point("long", ordinal=n) for n in range(5)])
        assert len(await store.passages("docs", "long", EVERYTHING)) == 5
        assert len(await store.points("docs", ["long"], EVERYTHING)) == 5
        first, after = await store.page("docs", None, 10, EVERYTHING)
        assert (len(first), after is None) == (2, False)
        retrieved = await store.retrieve("docs", NEAREST, EVERYTHING)
        assert len(retrieved.dense) == 2
        await store.delete_stale("docs", {"long": "v2"})
        assert await store.passages("docs", "long", EVERYTHING) == []

    async def test_a_limit_that_cannot_be_kept(self, service: Service) -> None:
        """Which one it is, and what it allows, is told."""
        store = await self.fill(service)
        service.limit("docs", search_max_batchsize=1)
        both = Retrieval(dense=vector(1.0), sparse=SparseVector([1], [1.0]))
        with pytest.raises(StoreUnavailable, match="allows 1 at most for 'search batch size'"):
            await store.retrieve("docs", both, EVERYTHING)


@pytest.mark.parametrize("over_grpc", [True, False])
async def test_a_server_that_is_too_old(over_grpc: bool) -> None:
    """One that keeps no metadata of collections is refused by the version that does, and nothing is left in it."""
    with running(version="1.15.4") as server:
        async with AsyncExitStack() as stack:
            store = Service(server, over_grpc, stack).connect()
            for call in (store.create("docs", SPEC), store.begin_rebuild("docs", SPEC)):
                with pytest.raises(StoreUnavailable, match=r"too old: .* Qdrant 1\.16 or later"):
                    await call
            assert server.collections.names() == []


class TestLayouts:
    ALL: dict[str, Any] = {  # noqa: RUF012
        "shard_number": 3,
        "replication_factor": 2,
        "write_consistency_factor": 2,
        "quantization": "scalar",
        "vectors_on_disk": True,
        "payload_on_disk": False,
        "hnsw_on_disk": True,
    }

    async def test_a_new_collection_has_what_the_settings_say(self, service: Service) -> None:
        """So do its rebuilds; what is not set is the server's own."""
        store = service.connect(**self.ALL)
        await store.create("docs", SPEC)
        await store.finish_rebuild("docs", await store.begin_rebuild("docs", SPEC))
        layout, wanted = await store.layout("docs")
        assert {field: getattr(layout, field) for field in self.ALL} == self.ALL
        assert wanted == []
        assert layout.text() == (
            "3 shards, 2 replicas, 2 of which confirm a write, scalar quantization in RAM, vectors and graphs on disk"
        )
        plain = service.connect()
        await plain.create("plain", SPEC)
        layout, wanted = await plain.layout("plain")
        assert (layout.text(), wanted) == ("1 shard, 1 replica, payloads on disk", [])

    @pytest.mark.parametrize("kind", ["scalar", "binary", "turbo", "none"])
    async def test_changed_settings_are_applied_as_far_as_a_server_can(self, service: Service, kind: str) -> None:
        """All but the number of shards, when an indexing run ends; searching goes on as before."""
        before = service.connect(quantization="binary" if kind == "none" else None)
        await before.create("docs", SPEC)
        await before.upsert("docs", [point("d1"), point("d2", dense=vector(0.0, 1.0))])
        after = service.connect(**{**self.ALL, "quantization": kind})
        asked = {one.field: one.fixed for one in (await after.layout("docs"))[1]}
        assert asked == dict.fromkeys(self.ALL, False) | {"shard_number": True}
        await after.optimize("docs")
        layout, wanted = await after.layout("docs")
        assert [one.text() for one in wanted] == ["shard_number is 1, and [store] says 3"]
        assert layout.quantization == (None if kind == "none" else kind)
        assert await found(after) == {"d1", "d2"}
        await after.optimize("docs")

    async def test_quantized_vectors_are_scored_again(self, service: Service) -> None:
        """Of those that coarse vectors cannot tell apart the nearest comes first, with its exact score."""
        store = service.connect(quantization="binary", oversampling=4)
        await store.create("docs", SPEC)
        near = {f"d{n}": vector(1.0, n / 10, n / 20, 0.1) for n in range(1, 9)}
        await store.upsert("docs", [point(name, dense=dense) for name, dense in near.items()])
        hits = (await store.retrieve("docs", Retrieval(dense=near["d1"], limit=2), EVERYTHING)).dense
        assert [hit.passage.document_id for hit in hits] == ["d1", "d2"]
        assert hits[0].score == pytest.approx(1.0, abs=1e-5)
