"""What the embedded store does about damaged files: one collection's fault is that collection's."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from indexing.documents import EVERYTHING
from indexing.errors import CollectionDamaged, CollectionNotFound, Conflict, StoreUnavailable
from indexing.store.base import CollectionSpec, Retrieval, SparseVector
from indexing.store.directory import CollectionsDirectory
from indexing.store.embedded import EmbeddedStore
from indexing.store.seal import inspect
from tests.fakes.points import SPEC, point, vector

pytestmark = pytest.mark.anyio

LINEAGE = CollectionSpec(dimension=4, embedder="model-a", lineage="first")
NEAREST = Retrieval(dense=vector(1.0), sparse=SparseVector([1], [1.0]), limit=1000)


async def closed(root: Path) -> Path:
    """Two collections of 40 passages; the directory of the first one's shard."""
    store = EmbeddedStore(root)
    for name in ("hurt", "well"):
        await store.create(name, LINEAGE)
        points = [point(f"d{i}", sparse={1: 1.0}, metadata={"n": i}, text=f"text {i} " * 50) for i in range(40)]
        await store.upsert(name, points)
    await store.close()
    (shard,) = (path for path in (root / "collections" / "hurt").iterdir() if path.is_dir())
    return shard


async def passages(store: EmbeddedStore, name: str) -> int:
    retrieved = await store.retrieve(name, NEAREST, EVERYTHING)
    assert len(retrieved.dense) == len(retrieved.sparse)
    return len(retrieved.dense)


def file_names(root: Path) -> set[str]:
    return {path.name for path in root.rglob("*") if path.is_file()}


async def assert_isolated(root: Path) -> None:
    """The hurt collection says so and how to mend it, the other serves, and no file of either is gone."""
    files = file_names(root)
    store = EmbeddedStore(root)
    assert [info.name for info in await store.collections()] == ["well"]
    assert [one.name for one in await store.damaged()] == ["hurt"]
    for refused in (
        store.info("hurt"),
        store.retrieve("hurt", NEAREST, EVERYTHING),
        store.upsert("hurt", [point("d1")]),
    ):
        with pytest.raises(CollectionDamaged, match="winnow index --rebuild --collection hurt"):
            await refused
    with pytest.raises(CollectionDamaged):
        await store.create("hurt", SPEC)  # documents handed over now would hide what is there
    assert await passages(store, "well") == 40
    await store.upsert("well", [point("d1", sparse={1: 1.0})])
    assert await passages(store, "well") == 40
    assert files - {"in-use", "tracker_journal.dat"} <= file_names(root)
    await store.close()


async def assert_a_rebuild_mends(root: Path) -> None:
    """It needs nothing of the damaged shard, and leaves it in quarantine."""
    store = EmbeddedStore(root)
    generation = await store.begin_rebuild("hurt", SPEC)
    await store.upsert(generation, [point("new", sparse={1: 1.0})])
    await store.finish_rebuild("hurt", generation)
    assert (await passages(store, "hurt"), await store.damaged()) == (1, [])
    await store.close()
    store = EmbeddedStore(root)
    assert (await passages(store, "hurt"), await store.damaged()) == (1, [])
    await store.close()
    (quarantined,) = (root / "quarantine").iterdir()
    assert list(quarantined.rglob("edge_config.json"))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def scrambled(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(b"\xff" * 4096 + content[4096:])


DAMAGES: list[tuple[str, Callable[[Path], object]]] = [
    ("segments/*/version.info", Path.unlink),  # the engine would delete the segment
    ("segments/*/segment.json", Path.unlink),
    ("segments/*/mutable_id_tracker.mappings", Path.unlink),  # the engine would take it for an empty one
    ("segments/*/mutable_id_tracker.mappings", scrambled),
    ("segments/*/mutable_id_tracker.versions", emptied),
    ("segments/*/payload_storage/page_0.dat", scrambled),
    ("segments/*/payload_storage/config.json", scrambled),
    ("segments/*/payload_index/config.json", scrambled),
    ("segments/*/payload_index/*/tracker.dat", scrambled),  # the engine would panic
    ("segments/*/vector_storage-dense/vectors/status.dat", emptied),
    ("segments/*/vector_storage-dense/vectors/chunk_0.mmap", Path.unlink),
    ("segments/*/vector_storage-sparse/store/page_0.dat", scrambled),
    ("segments/*/vector_storage-sparse/store/page_0.dat", zeroed),  # the engine would find nothing by words
    ("segments", shutil.rmtree),
    ("wal/open-1", scrambled),
    ("wal", shutil.rmtree),
    ("edge_config.json", emptied),
]


@pytest.mark.slow
@pytest.mark.parametrize(("files", "damage"), DAMAGES)
async def test_a_damaged_shard_is_told_and_mended_by_a_rebuild(
    tmp_path: Path, files: str, damage: Callable[[Path], object]
) -> None:
    """The other collection serves on, and nothing is deleted."""
    shard = await closed(tmp_path)
    for path in sorted(shard.glob(files)):
        damage(path)
    if files.startswith("wal/"):  # which is read at the start alone
        (shard / "in-use").touch()
    await assert_isolated(tmp_path)
    await assert_a_rebuild_mends(tmp_path)


@pytest.mark.parametrize("pointer", ["", '{"generation": "ab', '{"generation": "0123456789ab", "spec": {}}', None])
async def test_a_lost_pointer_is_written_again(
    tmp_path: Path, pointer: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Where only one generation has been live, it is the one."""
    shard = await closed(tmp_path)
    path = shard.parent / "current.json"
    path.write_text(pointer) if pointer is not None else path.unlink()
    for _ in range(2):
        store = EmbeddedStore(tmp_path)
        assert (await passages(store, "hurt"), await passages(store, "well")) == (40, 40)
        assert (await store.info("hurt")).spec == LINEAGE
        await store.close()
    assert caplog.text.count("no readable current.json") == 1


async def test_a_directory_in_the_place_of_the_pointer_is_put_away(tmp_path: Path) -> None:
    """And the pointer is written again."""
    shard = await closed(tmp_path)
    pointer = shard.parent / "current.json"
    pointer.unlink()
    pointer.mkdir()
    (pointer / "notes.txt").write_text("Mine.")
    for _ in range(2):
        store = EmbeddedStore(tmp_path)
        assert (await passages(store, "hurt"), await store.damaged()) == (40, [])
        await store.close()
    assert [path.read_text() for path in (tmp_path / "quarantine").rglob("notes.txt")] == ["Mine."]


async def test_damage_that_only_reading_shows_is_told_and_kept(tmp_path: Path) -> None:
    """The files are of the size and the time of before. Until then it serves, and a rebuild puts it in quarantine."""
    shard = await closed(tmp_path)
    (payloads,) = shard.glob("segments/*/payload_storage/page_0.dat")
    before = payloads.stat()
    scrambled(payloads)
    os.utime(payloads, ns=(before.st_atime_ns, before.st_mtime_ns))
    store = EmbeddedStore(tmp_path)
    assert await store.damaged() == []
    with pytest.raises(CollectionDamaged):
        await store.retrieve("hurt", NEAREST, EVERYTHING)
    assert [one.name for one in await store.damaged()] == ["hurt"]
    assert [info.name for info in await store.collections()] == ["well"]
    await store.close()
    await assert_isolated(tmp_path)
    await assert_a_rebuild_mends(tmp_path)


async def test_reading_and_a_kill_damage_nothing(tmp_path: Path) -> None:
    """The engine removes its journals while a shard is only read; the seal of before holds."""
    shard = await closed(tmp_path / "index")
    store = EmbeddedStore(tmp_path / "index")
    assert await passages(store, "hurt") == 40
    await store.optimize("hurt")
    shutil.copytree(tmp_path / "index", tmp_path / "killed")
    await store.close()
    for journal in (tmp_path / "killed" / "collections" / "hurt" / shard.name).rglob("tracker_journal.dat"):
        journal.unlink()
    store = EmbeddedStore(tmp_path / "killed")
    assert (await passages(store, "hurt"), await store.damaged()) == (40, [])
    await store.close()


async def test_a_disk_that_ignores_case_keeps_collections_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of a Mac: "Well" would be written over "well"."""
    exact = CollectionsDirectory.path

    def ignoring_case(files: CollectionsDirectory, name: str) -> Path:
        path = exact(files, name)
        return next((one for one in path.parent.iterdir() if one.name.casefold() == name.casefold()), path)

    monkeypatch.setattr(CollectionsDirectory, "path", ignoring_case)
    await closed(tmp_path)
    for change in (EmbeddedStore.create, EmbeddedStore.begin_rebuild):
        store = EmbeddedStore(tmp_path)
        with pytest.raises(Conflict, match=r"'Well'.*'well'"):
            await change(store, "Well", SPEC)
        await store.close()
        store = EmbeddedStore(tmp_path)
        assert [info.name for info in await store.collections()] == ["hurt", "well"]
        assert await passages(store, "well") == 40
        await store.close()


async def test_a_creation_that_was_killed_leaves_nothing(tmp_path: Path) -> None:
    """Nothing had been put there: it is no damaged collection, and can be created again."""
    shard = await closed(tmp_path)
    CollectionsDirectory(tmp_path).begin("hopeful")
    shutil.copytree(
        shard, tmp_path / "collections" / "hopeful" / shard.name, ignore=shutil.ignore_patterns("spec.json")
    )
    store = EmbeddedStore(tmp_path)
    assert [info.name for info in await store.collections()] == ["hurt", "well"]
    assert await store.damaged() == []
    await store.create("hopeful", SPEC)
    assert await passages(store, "hopeful") == 0
    await store.close()
    (tmp_path / "collections" / "hopeful" / "current.json").unlink()  # now it would be a loss
    store = EmbeddedStore(tmp_path)
    assert await passages(store, "hopeful") == 0
    await store.close()


async def test_a_collection_without_pointer_and_spec_goes_to_quarantine(tmp_path: Path) -> None:
    """Nothing of it is deleted; it stays damaged over restarts until it is rebuilt."""
    shard = await closed(tmp_path)
    (shard.parent / "current.json").unlink()
    (shard / "spec.json").unlink()
    await assert_isolated(tmp_path)
    await assert_isolated(tmp_path)
    assert list((tmp_path / "quarantine").glob("hurt-*/*/segments/*/version.info"))
    await assert_a_rebuild_mends(tmp_path)


async def test_a_damaged_collection_can_be_dropped(tmp_path: Path) -> None:
    """With what lies of it in quarantine; a new one may have its name."""
    shard = await closed(tmp_path)
    shutil.rmtree(shard / "segments")
    (shard.parent / "current.json").unlink()
    (shard / "spec.json").unlink()
    store = EmbeddedStore(tmp_path)
    await store.drop("hurt")
    with pytest.raises(CollectionNotFound):
        await store.info("hurt")
    await store.create("hurt", SPEC)
    assert await store.damaged() == []
    assert not list((tmp_path / "quarantine").iterdir())
    await store.close()


async def test_foreign_files_beside_the_collections_are_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are named in the log, and stay."""
    await closed(tmp_path)
    (tmp_path / "collections" / "README.txt").write_text("mine")
    (tmp_path / "collections" / "two words").mkdir()
    store = EmbeddedStore(tmp_path)
    assert [info.name for info in await store.collections()] == ["hurt", "well"]
    await store.close()
    assert caplog.text.count("is no collection") == 2
    assert (tmp_path / "collections" / "README.txt").exists()


async def test_what_a_killed_rebuild_left_goes_once_the_collection_opens(tmp_path: Path) -> None:
    """Not before: it may be all that is left."""
    shard = await closed(tmp_path)
    left_over = shard.with_name("0123456789ab")
    shutil.copytree(shard, left_over)
    (left_over / "spec.json").unlink()
    store = EmbeddedStore(tmp_path)
    assert left_over.exists()
    assert await passages(store, "hurt") == 40
    assert not left_over.exists()
    await store.close()


async def test_a_mended_shard_serves_without_a_restart(tmp_path: Path) -> None:
    """Its files are looked at again when they have changed."""
    shard = await closed(tmp_path)
    (version,) = shard.glob("segments/*/version.info")
    version.rename(shard / "aside")
    store = EmbeddedStore(tmp_path)
    with pytest.raises(CollectionDamaged):
        await store.info("hurt")
    (shard / "aside").rename(version)
    assert await passages(store, "hurt") == 40
    assert await store.damaged() == []
    await store.close()


@contextmanager
def files_left(count: int) -> Iterator[None]:
    """Inside, this process can open so many more files."""
    import resource  # not in Windows

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (max(int(file.name) for file in Path("/dev/fd").iterdir()) + 1, limits[1])
    )
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(taken[0]))
        for _ in range(count):
            os.close(taken.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for file in taken:
            os.close(file)


@pytest.mark.skipif(os.name == "nt", reason="has no limit of files")
@pytest.mark.parametrize("left", range(2))
async def test_a_process_that_may_open_no_more_files_damages_nothing(tmp_path: Path, left: int) -> None:
    """Its collections need not be made anew, and serve once there are files again."""
    await closed(tmp_path)
    store = EmbeddedStore(tmp_path)
    assert await passages(store, "well") == 40
    for refused in (lambda: passages(store, "hurt"), lambda: store.create("new", LINEAGE)):
        with files_left(left), pytest.raises(StoreUnavailable, match="open") as raised:
            await refused()
        assert not isinstance(raised.value, CollectionDamaged)
    assert await passages(store, "hurt") == 40
    await store.create("new", LINEAGE)
    assert await store.damaged() == []
    await store.close()


async def test_errors_name_no_files_of_ours(tmp_path: Path) -> None:
    """What the engine says goes to the log."""
    shard = await closed(tmp_path)
    (shard / "edge_config.json").write_text("")
    store = EmbeddedStore(tmp_path)
    with pytest.raises(CollectionDamaged) as raised:
        await store.info("hurt")
    assert str(tmp_path) not in str(raised.value)
    assert raised.value.lineage == "first"
    await store.close()


@pytest.fixture(autouse=True)
def _log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


async def test_a_kill_of_a_process_that_only_read_is_no_damage(tmp_path: Path) -> None:
    """The engine changes files as it opens a shard, before anything is written to it."""
    shard = await closed(tmp_path)
    store = EmbeddedStore(tmp_path)
    assert await passages(store, "hurt") == 40
    assert inspect(shard).trouble == ""  # what the next process would find after a kill
    await store.close()
