"""What the embedded store promises beyond the contract: one process, a directory, kills."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import qdrant_edge as edge

from indexing.disk import DiskGuard
from indexing.documents import EVERYTHING
from indexing.errors import CollectionNotFound, DiskFull, IndexBusy
from indexing.filters import parse_filter
from indexing.settings import StoreSettings
from indexing.store.base import CollectionSpec, Point, Retrieval, SparseVector, Vector
from indexing.store.embedded import EmbeddedStore
from indexing.store.payload import BUILT_IN_INDEXES, MAX_INDEXES
from tests.fakes.points import SPEC, passage, point, vector

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
NEAREST = Retrieval(dense=vector(1.0), limit=1000)


async def documents(store: EmbeddedStore, name: str = "docs") -> set[str]:
    return {candidate.passage.document_id for candidate in (await store.retrieve(name, NEAREST, EVERYTHING)).dense}


def child(program: str, *arguments: str) -> subprocess.Popen[str]:
    """Python that prints a line when it has come to the interesting place."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True, env=environment
    )


def wait_for_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


async def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    """Passages, spec, notes, generation, filters and sparse side survive closing and opening again."""
    store = EmbeddedStore(tmp_path)
    await store.create("docs", CollectionSpec(dimension=4, embedder="model-a", notes={"n": 1}))
    await store.upsert("docs", [point("d1", sparse={1: 2.0}, metadata={"lang": "zh"}), point("d2")])
    before = await store.info("docs")
    await store.close()

    store = EmbeddedStore(tmp_path)
    after = await store.info("docs")
    assert (after.generation, after.spec, after.passages) == (before.generation, before.spec, 2)
    assert after.spec.notes == {"n": 1}
    condition = parse_filter({"lang": "zh"})
    retrieved = await store.retrieve("docs", Retrieval(dense=vector(1.0), filter=condition), EVERYTHING)
    assert [c.passage for c in retrieved.dense] == [passage("d1", metadata={"lang": "zh"})]
    assert len((await store.retrieve("docs", Retrieval(sparse=SparseVector([1], [1.0])), EVERYTHING)).sparse) == 1
    await store.close()


async def test_size_on_disk_is_told(tmp_path: Path) -> None:
    """It grows with what is written, and counts no holes of sparse files."""
    store = EmbeddedStore(tmp_path)
    await store.create("docs", SPEC)
    empty = await store.bytes_on_disk("docs")
    await store.upsert("docs", [point(f"d{i}", text="x" * 5000) for i in range(400)])
    full = await store.bytes_on_disk("docs")
    await store.close()
    assert empty is not None
    assert full is not None
    assert 0 < empty < full
    assert full - empty >= 400 * 5000 / 10  # the engine compresses
    assert full < 50_000_000


WRITER = """
import asyncio, sys
from pathlib import Path
from indexing.store.embedded import EmbeddedStore
from indexing.store.base import CollectionSpec
from tests.fakes.points import SPEC, point

async def main():
    store = EmbeddedStore(Path(sys.argv[1]))
    await store.create("docs", CollectionSpec(dimension=4, embedder="model-a", notes={"kept": True}))
    await store.upsert("docs", [point(f"d{i}", metadata={"n": i}) for i in range(300)])
    await store.delete_documents("docs", [f"d{i}" for i in range(100)])
    generation = await store.begin_rebuild("docs", SPEC)
    await store.upsert(generation, [point("half")])
    print("written", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.slow
async def test_writes_survive_a_kill(tmp_path: Path) -> None:
    """What a call has returned for is there after SIGKILL; the unfinished generation is gone, and its directory too."""
    process = child(WRITER, str(tmp_path))
    assert wait_for_line(process) == "written"
    kill(process)
    store = EmbeddedStore(tmp_path)
    assert await documents(store) == {f"d{i}" for i in range(100, 300)}
    assert (await store.info("docs")).spec.notes == {"kept": True}
    generation = (await store.info("docs")).generation
    assert [path.name for path in (tmp_path / "collections" / "docs").iterdir() if path.is_dir()] == [generation]
    condition = parse_filter({"n": {"gte": 290}})
    assert len((await store.retrieve("docs", Retrieval(dense=vector(1.0), filter=condition), EVERYTHING)).dense) == 10
    await store.close()


def inodes_synced(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """What the disk is made to take from now on."""
    synced, sync = set[int](), os.fsync

    def noted(file: int) -> None:
        synced.add(os.fstat(file).st_ino)
        sync(file)

    monkeypatch.setattr(os, "fsync", noted)
    return synced


def not_synced(built: Path, synced: set[int]) -> list[Path]:
    """The engine's files and directories among those of a generation."""
    parts = [part for name in ("segments", "wal") for part in (built / name, *(built / name).rglob("*"))]
    return [part for part in parts if part.stat().st_ino not in synced]


def inodes_of_the_log(root: Path) -> set[int]:
    return {part.stat().st_ino for part in root.glob("collections/docs/*/wal/open-*")}


async def test_a_write_is_on_the_disk_once_it_is_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut would take it away, while the manifest says that it is there."""
    store = EmbeddedStore(tmp_path)
    await store.create("docs", SPEC)
    synced = inodes_synced(monkeypatch)
    for write in (store.upsert("docs", [point("a"), point("b")]), store.delete_documents("docs", ["a"])):
        synced.clear()
        await write
        assert inodes_of_the_log(tmp_path) <= synced
    await store.close()


async def test_half_made_collection_is_forgotten(tmp_path: Path) -> None:
    """A directory without a single file, left by a kill, is no collection and stands in nobody's way."""
    (tmp_path / "collections" / "docs" / "0123456789ab" / "segments").mkdir(parents=True)
    store = EmbeddedStore(tmp_path)
    assert (await store.collections(), await store.damaged()) == ([], [])
    await store.create("docs", SPEC)
    await store.close()


@pytest.mark.slow
async def test_second_process_is_told_who_holds_the_index(tmp_path: Path) -> None:
    """While one process has the index open another gets IndexBusy with its number, and the index after its end."""
    process = child(WRITER, str(tmp_path))
    wait_for_line(process)
    try:
        with pytest.raises(IndexBusy, match=f"process {process.pid} holds the index"):
            EmbeddedStore(tmp_path)
        began = time.monotonic()
        with pytest.raises(IndexBusy, match=r"within 0\.3 s"):
            EmbeddedStore(tmp_path, wait=0.3)
        assert time.monotonic() - began >= 0.25
        waiting = asyncio.create_task(asyncio.to_thread(EmbeddedStore, tmp_path, wait=20))
        await asyncio.sleep(0.3)
        assert not waiting.done()
    finally:
        kill(process)
    await (await waiting).close()


async def test_closing_lets_go(tmp_path: Path) -> None:
    """A closed store holds the directory no longer, even in the same process."""
    for _ in range(2):
        store = EmbeddedStore(tmp_path)
        await store.create("docs", SPEC)
        with pytest.raises(IndexBusy):
            EmbeddedStore(tmp_path)
        await store.close()


async def test_a_full_disk_stops_writing_only(tmp_path: Path) -> None:
    """Creating, writing, rebuilding and optimising raise DiskFull before they touch anything; reading goes on."""
    disk = DiskGuard(tmp_path, 0)
    store = EmbeddedStore(tmp_path)  # which builds no graph of two points before the disk is full
    await store.create("docs", SPEC)
    await store.upsert("docs", [point("d1"), point("d2")])
    await store.close()
    store = EmbeddedStore(tmp_path, optimize_from=2, disk=disk)
    disk.reserve_bytes = 2 * disk.free()
    for refused in (
        store.create("more", SPEC),
        store.begin_rebuild("docs", SPEC),
        store.upsert("docs", [point("d3")]),
        store.optimize("docs"),
    ):
        with pytest.raises(DiskFull):
            await refused
    assert await documents(store) == {"d1", "d2"}
    assert [info.name for info in await store.collections()] == ["docs"]
    await store.delete_documents("docs", ["d1"])  # makes room
    disk.reserve_bytes = 0
    await store.upsert("docs", [point("d3")])
    assert await documents(store) == {"d2", "d3"}
    await store.close()


async def test_optimizing_switches_generations(tmp_path: Path) -> None:
    """With enough new points a graph is built in a new generation; without, nothing happens; reopening keeps it."""
    store = EmbeddedStore(tmp_path, optimize_from=200)
    await store.create("docs", SPEC)
    await store.upsert("docs", [point(f"d{i}") for i in range(199)])
    first = (await store.info("docs")).generation
    await store.optimize("docs")
    assert (await store.info("docs")).generation == first
    await store.upsert("docs", [point(f"d{i}") for i in range(199, 300)])
    await store.optimize("docs")
    second = await store.info("docs")
    assert second.generation != first
    assert [path.name for path in (tmp_path / "collections" / "docs").iterdir() if path.is_dir()] == [second.generation]
    await store.close()
    store = EmbeddedStore(tmp_path)
    assert (await store.info("docs")).generation == second.generation
    assert len(await documents(store)) == 300
    await store.close()


@pytest.mark.skipif(os.name == "nt", reason="a directory has no handle there")
async def test_a_build_is_on_the_disk_before_it_is_switched_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the names of its files: the shard that it replaces is deleted, and a power cut must not take both."""
    synced = inodes_synced(monkeypatch)
    store = EmbeddedStore(tmp_path, optimize_from=200)
    await store.create("docs", SPEC)
    await store.upsert("docs", [point(f"d{i}") for i in range(200)])
    synced.clear()
    await store.optimize("docs")
    built = tmp_path / "collections" / "docs" / (await store.info("docs")).generation
    assert not_synced(built, synced) == []
    await store.close()


async def test_a_rebuild_is_on_the_disk_before_it_is_switched_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All its files: what was there before is deleted."""
    store = EmbeddedStore(tmp_path)
    await store.create("docs", SPEC)
    fresh = await store.begin_rebuild("docs", SPEC)
    await store.upsert(fresh, [point("a")])
    synced = inodes_synced(monkeypatch)
    await store.finish_rebuild("docs", fresh)
    built = tmp_path / "collections" / "docs" / (await store.info("docs")).generation
    assert not_synced(built, synced) == []
    await store.close()


async def test_a_build_that_the_engine_found_needless_is_not_repeated(tmp_path: Path) -> None:
    """It makes no graph of few short vectors: only as many new ones make another try worth it, after a restart too."""
    store = EmbeddedStore(tmp_path, optimize_from=200)
    await store.create("docs", SPEC)
    await store.upsert("docs", [point(f"d{i}") for i in range(200)])
    await store.optimize("docs")
    built = (await store.info("docs")).generation
    await store.upsert("docs", [point(f"d{i}") for i in range(200, 399)])
    await store.optimize("docs")
    assert (await store.info("docs")).generation == built
    await store.close()
    store = EmbeddedStore(tmp_path, optimize_from=200)
    await store.optimize("docs")
    assert (await store.info("docs")).generation == built
    await store.upsert("docs", [point("d399")])
    await store.optimize("docs")
    assert (await store.info("docs")).generation != built
    await store.close()


async def test_who_writes_much_waits_for_the_graph(tmp_path: Path) -> None:
    """More than a fifth of what makes a build is written beside it by nobody who asks for room."""
    store = EmbeddedStore(tmp_path, optimize_from=200)
    await store.create("docs", SPEC)
    first = (await store.info("docs")).generation
    await store.upsert("docs", [point(f"d{i}") for i in range(200)])
    await store.upsert("docs", [point(f"late{i}") for i in range(60)])
    await store.room("docs")
    second = await store.info("docs")
    assert (second.generation != first, second.passages) == (True, 260)
    await store.room("unknown")
    await store.close()


async def test_who_rebuilds_waits_for_graphs_too(tmp_path: Path) -> None:
    """A generation under construction gets its graphs while it is written, so that what is in none stays bounded."""
    store = EmbeddedStore(tmp_path, optimize_from=200)
    await store.create("docs", SPEC)
    generation = await store.begin_rebuild("docs", SPEC)
    first = (await store.info(generation)).generation
    await store.upsert(generation, [point(f"d{i}") for i in range(200)])
    await store.upsert(generation, [point(f"late{i}") for i in range(60)])
    await store.room(generation)
    second = await store.info(generation)
    assert (second.generation != first, second.passages) == (True, 260)
    await store.finish_rebuild("docs", generation)
    await store.close()
    store = EmbeddedStore(tmp_path)
    assert await store.info("docs") == msgspec.structs.replace(second, name="docs")
    await store.close()


async def test_what_is_left_of_replaced_documents_is_removed(tmp_path: Path) -> None:
    """A small collection whose documents are written again and again is rewritten, and does not grow for ever."""
    store = EmbeddedStore(tmp_path, optimize_from=1000)
    await store.create("docs", SPEC)
    first = (await store.info("docs")).generation
    for version in range(12):
        await store.upsert("docs", [point(f"d{i}", version=f"v{version}") for i in range(20)])
        await store.delete_stale("docs", {f"d{i}": f"v{version}" for i in range(20)})
    await store.optimize("docs")
    second = await store.info("docs")
    assert (second.generation != first, second.passages) == (True, 20)
    await store.optimize("docs")
    assert await store.info("docs") == second
    await store.close()


async def test_a_graph_waits_for_memory(tmp_path: Path) -> None:
    """Where there is too little, the collection says so and serves without, and the build is tried again."""
    free: list[int | None] = [50_000_000]
    store = EmbeddedStore(tmp_path, optimize_from=200, free_memory=lambda: free[0], retry_s=0.01)
    await store.create("docs", SPEC)
    first = (await store.info("docs")).generation
    await store.upsert("docs", [point(f"d{i}") for i in range(200)])
    await store.optimize("docs")
    waiting = await store.info("docs")
    assert waiting.generation == first
    assert waiting.detail.startswith("building its graph needs 100 MB of memory, and 50 MB are free")
    assert len(await documents(store)) == 200
    free[0] = None
    while (await store.info("docs")).detail:  # noqa: ASYNC110 - a timer of the store begins it
        await asyncio.sleep(0.01)
    better = await store.info("docs")
    assert (better.generation != first, better.passages) == (True, 200)
    await store.close()


async def test_a_rebuilt_collection_still_gets_its_graph(tmp_path: Path) -> None:
    """A graph that found too little memory before the switch of a rebuild is told of, and tried again, after it."""
    free: list[int | None] = [50_000_000]
    store = EmbeddedStore(tmp_path, optimize_from=200, free_memory=lambda: free[0], retry_s=0.2)
    await store.create("docs", SPEC)
    building = await store.begin_rebuild("docs", SPEC)
    await store.upsert(building, [point(f"d{i}") for i in range(200)])
    await store.optimize(building)
    await store.finish_rebuild("docs", building)
    waiting = await store.info("docs")
    assert waiting.detail.startswith("building its graph needs 100 MB of memory")
    free[0] = None
    async with asyncio.timeout(30):
        while (await store.info("docs")).detail:  # noqa: ASYNC110 - a timer of the store begins it
            await asyncio.sleep(0.01)
    better = await store.info("docs")
    assert (better.generation != waiting.generation, better.passages) == (True, 200)
    await store.close()


async def test_another_collections_graph_is_not_waited_for(tmp_path: Path) -> None:
    """Builds take turns; who writes less than what makes one of its own goes on meanwhile."""
    store = EmbeddedStore(tmp_path, optimize_from=200)
    await store.create("small", SPEC)
    turn = threading.Event()
    store._builders.submit(turn.wait)
    try:
        await store.upsert("small", [point("first")])
        await store.upsert("small", [point(f"d{i}") for i in range(199)])
        await asyncio.wait_for(store.room("small"), 10)
        await store.upsert("small", [point("last")])
        waiting = asyncio.create_task(store.room("small"))
        await asyncio.sleep(0.1)
        assert not waiting.done()
    finally:
        turn.set()
    await waiting
    await store.close()


async def filled(root: Path) -> EmbeddedStore:
    """Enough for a graph that takes a second or two to build."""
    store = EmbeddedStore(root, optimize_from=1000)
    await store.create("docs", CollectionSpec(dimension=64, embedder="model-a"))
    rows = np.random.default_rng(3).standard_normal((12_000, 64)).astype(np.float32)
    for start in range(0, len(rows), 2000):
        batch = [point(f"d{start + i}", dense=row) for i, row in enumerate(rows[start : start + 2000])]
        await store.upsert("docs", batch)
    return store


@pytest.mark.slow
async def test_searches_and_writes_around_optimizing(tmp_path: Path) -> None:
    """While a graph is built searches find what there is, and writes and deletions count at once and afterwards."""
    store = await filled(tmp_path)
    query = Retrieval(dense=np.ones(64, dtype=np.float32), limit=5)
    optimizing = asyncio.create_task(store.optimize("docs"))
    written = 0
    while not optimizing.done():
        late = f"late{written}"
        await store.upsert("docs", [point(late, dense=query.dense)])
        if written:
            await store.delete_documents("docs", [f"late{written - 1}"])
        found = (await store.retrieve("docs", query, EVERYTHING)).dense
        assert (len(found), found[0].passage.document_id) == (5, late)
        written += 1
    await optimizing
    assert written > 5
    found = (await store.retrieve("docs", query, EVERYTHING)).dense
    assert [c.passage.document_id for c in found if c.passage.document_id.startswith("late")] == [late]
    assert (await store.info("docs")).passages == 12_001
    await store.close()


async def contents(store: EmbeddedStore) -> dict[str, Point]:
    """Everything of the collection, by passage id."""
    passages, after = await store.page("docs", None, 100_000, EVERYTHING)
    assert after is None
    points = await store.points("docs", sorted({passage.key for passage in passages}), EVERYTHING)
    assert len(points) == len(passages)
    return {point.passage.id: point for point in points}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
async def test_the_copy_has_every_change_made_meanwhile(tmp_path: Path, seed: int) -> None:
    """After builds amid replacing, deleting and inserting at random the collection holds what was written last."""
    rng, rows = random.Random(seed), np.random.default_rng(seed)
    store = EmbeddedStore(tmp_path, optimize_from=500)
    await store.create("docs", CollectionSpec(dimension=64, embedder="model-a"))
    expected: dict[str, Point] = {}
    generations = {(await store.info("docs")).generation}
    number = 0
    while len(generations) < 4:
        number += 1
        batch = []
        for key in sorted({rng.randrange(6000) for _ in range(200)}):
            dense = rows.standard_normal(64).astype(np.float32)
            sparse = {rng.randrange(1000): 1.0 + number} if rng.random() < 0.9 else None
            text = f"{key} as of {number} " + "x" * rng.randrange(3000)
            batch.append(point(f"d{key}", dense=dense, sparse=sparse, text=text, metadata={"n": number}))
        await store.upsert("docs", batch)
        expected |= {one.passage.id: one for one in batch}
        gone = [expected.pop(one) for one in rng.sample(sorted(expected), 20)]
        await store.delete_documents("docs", [one.passage.document_id for one in gone])
        generations.add((await store.info("docs")).generation)
    await store.optimize("docs")
    found = await contents(store)
    assert found.keys() == expected.keys()
    for one, written in expected.items():
        assert (found[one].passage, found[one].sparse) == (written.passage, written.sparse)
        assert np.allclose(found[one].dense, written.dense / np.linalg.norm(written.dense), atol=1e-5)
    await store.close()


BUILDER = """
import asyncio, sys
from pathlib import Path
import numpy as np
from indexing.store.embedded import EmbeddedStore
from indexing.store.base import CollectionSpec
from tests.fakes.points import point

async def main():
    store = EmbeddedStore(Path(sys.argv[1]), optimize_from=1000)
    await store.create("docs", CollectionSpec(dimension=64, embedder="model-a"))
    rows = np.random.default_rng(3).standard_normal((50, 64)).astype(np.float32)
    number = 0
    while True:
        await store.upsert("docs", [point(f"d{number}-{i}", dense=row) for i, row in enumerate(rows)])
        if number:
            await store.delete_documents("docs", [f"d{number - 1}-{i}" for i in range(10)])
        number += 1
        print(number, (await store.info("docs")).generation, flush=True)

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("lines", [25, 40, 60, 90])
async def test_a_kill_amid_a_build_loses_nothing(tmp_path: Path, lines: int) -> None:
    """Whenever it comes, every acknowledged write is there afterwards, in the one generation that is left."""
    process = child(BUILDER, str(tmp_path))
    for _ in range(lines):
        acknowledged = int(wait_for_line(process).split()[0])
    kill(process)
    store = EmbeddedStore(tmp_path)
    passages, _ = await store.page("docs", None, 100_000, EVERYTHING)
    ids = {passage.document_id for passage in passages}
    assert {f"d{number}-{i}" for number in range(acknowledged) for i in range(10, 50)} <= ids
    assert not {f"d{number}-{i}" for number in range(acknowledged - 1) for i in range(10)} & ids
    generation = (await store.info("docs")).generation
    assert [path.name for path in (tmp_path / "collections" / "docs").iterdir() if path.is_dir()] == [generation]
    await store.close()


async def test_a_graph_is_built_while_documents_come_in(tmp_path: Path) -> None:
    """Nobody has to ask for it: a collection that is only ever written to gets one beyond the threshold."""
    store = EmbeddedStore(tmp_path, optimize_from=300)
    await store.create("docs", SPEC)
    first = (await store.info("docs")).generation
    number = 0
    while (await store.info("docs")).generation == first:
        await store.upsert("docs", [point(f"d{number}-{i}") for i in range(50)])
        await asyncio.sleep(0.05)  # the builder needs the processor too
        number += 1
    assert number >= 6
    await store.optimize("docs")
    assert (await store.info("docs")).passages == 50 * number
    await store.close()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["drop", "close"])
async def test_optimizing_does_not_hold_up_the_end(tmp_path: Path, end: str) -> None:
    """Dropping or closing ends a running optimisation at once, which then raises nothing and leaves nothing."""
    store = await filled(tmp_path)
    optimizing = asyncio.create_task(store.optimize("docs"))
    await asyncio.sleep(0.5)
    began = time.monotonic()
    await (store.drop("docs") if end == "drop" else store.close())
    assert time.monotonic() - began < 60
    await optimizing
    await store.close()
    store = EmbeddedStore(tmp_path)
    assert [info.passages for info in await store.collections()] == ([] if end == "drop" else [12_000])
    await store.close()


async def test_dropping_waits_for_running_searches(tmp_path: Path) -> None:
    """Searches in flight when the collection is dropped answer, or find no collection; nothing else."""
    store = EmbeddedStore(tmp_path)
    await store.create("docs", SPEC)
    await store.upsert("docs", [point(f"d{i}") for i in range(1000)])
    searches = [asyncio.create_task(store.retrieve("docs", NEAREST, EVERYTHING)) for _ in range(20)]
    await asyncio.sleep(0)
    await store.drop("docs")
    outcomes = await asyncio.gather(*searches, return_exceptions=True)
    assert all(isinstance(outcome, CollectionNotFound) or len(outcome.dense) == 1000 for outcome in outcomes)  # type: ignore[union-attr]
    await store.close()


def engine(root: Path) -> edge.EdgeShard:
    """The one shard of a closed store, without us."""
    (shard,) = (path for path in (root / "collections" / "docs").iterdir() if path.is_dir())
    return edge.EdgeShard.load(str(shard))


def indexes(root: Path) -> set[str]:
    shard = engine(root)
    paths = set(shard.info().payload_schema)
    shard.close()
    return paths


async def test_a_field_is_indexed_once_a_filter_has_asked(tmp_path: Path) -> None:
    """Not when it is written; the first search reads every payload, and has the index made in the background."""
    store = EmbeddedStore(tmp_path, declared=["declared"])
    await store.create("docs", SPEC)
    metadata = {"code": "A Needle", "n": 3, "declared": "x", **{f"key{i}": "x" for i in range(50)}}
    await store.upsert("docs", [point("d1", metadata=metadata), point("d2", metadata={"code": "hay"})])
    for raw, expected in (({"code": {"text": "needle"}}, ["d1"]), ({"n": {"gte": 1}}, ["d1"]), ({"key1": "y"}, [])):
        for _ in range(2):
            retrieved = await store.retrieve("docs", Retrieval(dense=vector(1.0), filter=parse_filter(raw)), EVERYTHING)
            assert [candidate.passage.document_id for candidate in retrieved.dense] == expected
            await until_indexed(store)
    await store.close()
    made = {"words.metadata.code", "metadata.n", "metadata.declared", "words.metadata.declared"}
    assert indexes(tmp_path) == made | set(BUILT_IN_INDEXES)


async def until_indexed(store: EmbeddedStore) -> None:
    while store._indexing:  # noqa: ASYNC110 - nobody is told
        await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_indexes_are_limited_in_number(tmp_path: Path) -> None:
    """However many fields are filtered by; one without an index is found all the same."""
    store = EmbeddedStore(tmp_path)
    await store.create("docs", SPEC)
    fields = [f"key{number}" for number in range(MAX_INDEXES)]
    await store.upsert("docs", [point("d1", metadata=dict.fromkeys(fields, "x")), point("d2")])
    for field in fields:
        retrieved = await store.retrieve(
            "docs", Retrieval(dense=vector(1.0), filter=parse_filter({field: "x"})), EVERYTHING
        )
        assert [candidate.passage.document_id for candidate in retrieved.dense] == ["d1"]
        await until_indexed(store)
    await store.close()
    assert len(indexes(tmp_path)) == MAX_INDEXES


def clustered(vectors: np.random.Generator, count: int) -> Vector:
    """Unit vectors of 384 dimensions about 40 centres."""
    rows = np.random.default_rng(3).standard_normal((40, 384))[vectors.integers(40, size=count)]
    rows += vectors.standard_normal((count, 384))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.mark.slow
async def test_a_graph_built_amid_changes_finds_the_nearest(tmp_path: Path) -> None:
    """With as many vectors as the engine makes a graph of: what was written last, nothing deleted, by its own score."""
    rng, vectors = random.Random(7), np.random.default_rng(7)
    store = EmbeddedStore(tmp_path, optimize_from=8000)
    await store.create("docs", CollectionSpec(dimension=384, embedder="model-a"))
    rows = dict(enumerate(clustered(vectors, 9000)))
    await store.upsert("docs", [point(f"d{number}", dense=row) for number, row in rows.items()])
    optimizing = asyncio.create_task(store.optimize("docs"))
    for _ in range(25):  # no more, however slow the machine: of a graph most of whose points are gone little is left
        await asyncio.wait((optimizing,), timeout=0.05)
        changed = dict(zip(rng.sample(range(12_000), 60), clustered(vectors, 60), strict=True))
        await store.upsert("docs", [point(f"d{number}", dense=row) for number, row in changed.items()])
        rows |= changed
        gone = rng.sample(sorted(rows), 20)
        await store.delete_documents("docs", [f"d{number}" for number in gone])
        rows = {number: row for number, row in rows.items() if number not in gone}
    await optimizing
    assert await asyncio.to_thread(lambda: list(tmp_path.rglob("links*.bin")))
    numbers, matrix = np.asarray([*rows]), np.stack([*rows.values()])
    hits = 0
    for query in clustered(vectors, 50):
        cosines = dict(zip(numbers.tolist(), (matrix @ query).tolist(), strict=True))
        found = (await store.retrieve("docs", Retrieval(dense=query, limit=10), EVERYTHING)).dense
        for candidate in found:
            assert abs(cosines[int(candidate.passage.document_id[1:])] - candidate.score) < 1e-5
        hits += sum(candidate.score > np.partition(matrix @ query, -10)[-10] - 1e-5 for candidate in found)
    assert hits >= 480
    assert (await store.info("docs")).passages == len(rows)
    await store.close()


@pytest.mark.slow
async def test_quantized_vectors_find_the_nearest(tmp_path: Path) -> None:
    """A collection has them from its next graph on, which is built once; scores are those of the whole vectors."""
    store = EmbeddedStore(tmp_path, optimize_from=10_000)
    rows = clustered(np.random.default_rng(3), 8000)  # 12 MB: more than Edge leaves plain
    await store.create("docs", CollectionSpec(dimension=384, embedder="model-a"))
    await store.upsert("docs", [point(f"d{i}", dense=row) for i, row in enumerate(rows)])
    await store.close()
    settings = StoreSettings(quantization="scalar", vectors_on_disk=True)
    store = EmbeddedStore(tmp_path, optimize_from=1000, settings=settings)
    await store.optimize("docs")
    generation = (await store.info("docs")).generation
    assert await asyncio.to_thread(lambda: list(tmp_path.rglob("quantized.data")))
    await store.optimize("docs")
    assert (await store.info("docs")).generation == generation
    hits = 0
    for row in rows[:50]:
        cosines = rows @ row
        found = (await store.retrieve("docs", Retrieval(dense=row, limit=10), EVERYTHING)).dense
        numbers = [int(candidate.passage.document_id[1:]) for candidate in found]
        assert np.allclose([candidate.score for candidate in found], cosines[numbers], atol=1e-5)
        hits += len({*numbers} & {*np.argsort(-cosines)[:10].tolist()})
    assert hits >= 450
    await store.close()
