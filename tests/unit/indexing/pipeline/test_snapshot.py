import asyncio
import stat
import zipfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from indexing.disk import DiskGuard
from indexing.documents import EVERYTHING, Audience, Document
from indexing.errors import CollectionNotFound, Conflict, DiskFull, NotFound, StoreUnavailable
from indexing.pipeline import snapshot as module
from indexing.pipeline.context import PipelineContext
from indexing.pipeline.ingest import SubmittedDocument, delete_document, put_documents
from indexing.pipeline.progress import Copied, Event, say_nothing
from indexing.pipeline.snapshot import SnapshotFile, create_snapshot, file_errors, restore_snapshot
from indexing.store.base import Point, Retrieval
from indexing.store.embedded import EmbeddedStore
from indexing.store.server import ServerStore
from tests.fakes.embedder import HashEmbedder
from tests.fakes.library import index, passages, records, workbench

pytestmark = pytest.mark.anyio

Open = Callable[[str], PipelineContext]


@pytest.fixture
async def open_bench(tmp_path: Path) -> AsyncIterator[Open]:
    """Opens an empty home over a store of the kind that is named."""
    async with AsyncExitStack() as stack:

        def open_it(kind: str) -> PipelineContext:
            home = tmp_path / f"home {len(list(tmp_path.glob('home*')))}"
            home.mkdir()
            store = EmbeddedStore(home / "index") if kind == "edge" else ServerStore.in_memory()
            bench = workbench(store, home)
            stack.push_async_callback(bench.store.close)
            stack.push_async_callback(bench.manifest.close)
            return bench

        yield open_it


def plenty(directory: Path) -> DiskGuard:
    return DiskGuard(directory, 0)


async def written(bench: PipelineContext, path: Path, report: Callable[[Event], None] = say_nothing) -> SnapshotFile:
    await create_snapshot(bench, "default", path, plenty(path.parent), "9.9", report)
    return SnapshotFile(path)


async def filled(bench: PipelineContext, folder: Path) -> None:
    """Three files, one of them of many records, and five submitted documents."""
    files(folder)
    await index(bench, folder)
    documents = [Document(text=f"Note {n} 貘.", title=f"T{n}", metadata={"n": n}) for n in range(5)]
    await put_documents(
        bench,
        "default",
        [SubmittedDocument(writer=EVERYTHING, id=f"n{n}", document=d) for n, d in enumerate(documents)],
    )


def files(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.md").write_text("# Zebras\n\nZebras have stripes.")
    (folder / "b.txt").write_text("Tapirs have snouts.")
    (folder / "c.jsonl").write_text("".join(f'{{"id": "r{n}", "text": "Record {n}."}}\n' for n in range(40)))


@pytest.mark.parametrize(("kind", "other"), [("edge", "edge"), ("edge", "memory"), ("memory", "edge")])
async def test_a_collection_moves_to_another_home_and_store(
    open_bench: Open, tmp_path: Path, kind: str, other: str
) -> None:
    """Passages, vectors, documents with bodies and files are the same there; nothing is read again."""
    bench, there = open_bench(kind), open_bench(other)
    await filled(bench, tmp_path / "docs")
    snapshot = await written(bench, tmp_path / "x.zip")
    await snapshot.check(say_nothing)
    info = await restore_snapshot(there, snapshot, "default", say_nothing)
    assert await passages(there) == await passages(bench)
    assert await records(there) == await records(bench)
    assert info.spec.lineage != (await bench.store.info("default")).spec.lineage
    query = Retrieval(dense=HashEmbedder().embed_queries(["zebras stripes"])[0], limit=10)
    before, after = (
        await bench.store.retrieve("default", query, EVERYTHING),
        await there.store.retrieve("default", query, EVERYTHING),
    )
    assert before.dense[0].passage == after.dense[0].passage
    assert [c.score for c in before.dense] == pytest.approx([c.score for c in after.dense], abs=1e-5)
    whole = await there.manifest.document_with_body(info.spec.lineage, "n1")
    assert whole is not None
    assert whole.body == Document(text="Note 1 貘.", title="T1", metadata={"n": 1})
    summary = await index(there, tmp_path / "docs")
    assert (summary.created, summary.updated, summary.deleted, summary.unchanged) == (0, 0, 0, 47)
    assert (await index(there, tmp_path / "docs", rebuild=True)).total_documents == 47


async def test_a_snapshot_describes_itself(open_bench: Open, tmp_path: Path) -> None:
    """Counts, collection, time and version are in its head; only its owner may read it; no other file is left."""
    bench = open_bench("edge")
    await filled(bench, tmp_path / "docs")
    out = tmp_path / "out"
    out.mkdir()
    info = (await written(bench, out / "x.zip")).info()
    assert (info.collection, info.documents, info.files, info.winnow) == ("default", 47, 3, "9.9")
    assert info.passages == len(await passages(bench))
    assert info.created_at.endswith("Z")
    assert stat.S_IMODE((out / "x.zip").stat().st_mode) == 0o600
    assert [path.name for path in out.iterdir()] == ["x.zip"]


async def test_parts_hold_whole_documents(open_bench: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long collection is written in parts of bounded size, and its progress is told."""
    monkeypatch.setattr(module, "_PART", 10)
    bench = open_bench("edge")
    await filled(bench, tmp_path / "docs")
    events: list[Event] = []
    snapshot = await written(bench, tmp_path / "x.zip", events.append)
    assert snapshot.head.parts >= 4
    steps = [(event.step, event.done == event.total) for event in events if isinstance(event, Copied)]
    assert steps[-1] == ("checking", True)
    assert ("writing", True) in steps
    there = open_bench("edge")
    await restore_snapshot(there, snapshot, "default", say_nothing)
    assert await passages(there) == await passages(bench)


class BusyStore(EmbeddedStore):
    """Runs `meanwhile` after the manifest was read and before the points are."""

    async def points(self, name: str, keys: Sequence[str], audience: Audience) -> list[Point]:
        work, self.meanwhile = self.meanwhile, None
        if work is not None:
            await work()
        return await super().points(name, keys, audience)

    meanwhile: Callable[[], object] | None = None


async def test_what_changes_meanwhile_is_written_whole(tmp_path: Path) -> None:
    """A document that is replaced or deleted between the manifest and the store is never half in a snapshot."""
    store = BusyStore(tmp_path / "index")
    bench = workbench(store, tmp_path)
    try:
        await filled(bench, tmp_path / "docs")

        async def change() -> None:
            new = SubmittedDocument(writer=EVERYTHING, id="n1", document=Document(text="Quite another text."))
            await put_documents(bench, "default", [new])
            await delete_document(bench, "default", "n2", EVERYTHING)

        store.meanwhile = change
        snapshot = await written(bench, tmp_path / "x.zip")
        await snapshot.check(say_nothing)
        found = {p.passage.document_id: p.passage.text async for part in snapshot.parts() for p in part.points}
        assert found["n1"] == "Quite another text."
        assert "n2" not in found
        assert snapshot.head.documents == 46
    finally:
        await bench.manifest.close()
        await store.close()


async def test_a_rebuild_meanwhile_begins_the_snapshot_anew(tmp_path: Path) -> None:
    """Vectors of two fillings are never mixed."""
    store = BusyStore(tmp_path / "index")
    bench = workbench(store, tmp_path)
    try:
        await filled(bench, tmp_path / "docs")

        async def rebuild() -> None:
            await index(bench, tmp_path / "docs", rebuild=True)

        store.meanwhile = rebuild
        snapshot = await written(bench, tmp_path / "x.zip")
        assert snapshot.head.spec.lineage == (await store.info("default")).spec.lineage
        assert snapshot.head.documents == 47
    finally:
        await bench.manifest.close()
        await store.close()


async def test_documents_that_lack_passages_are_told(open_bench: Open, tmp_path: Path) -> None:
    """What is left of them is written, with a warning that names them."""
    bench = open_bench("edge")
    await filled(bench, tmp_path / "docs")
    await bench.store.delete_documents("default", ["n3"])
    info = await create_snapshot(bench, "default", tmp_path / "x.zip", plenty(tmp_path), "9.9", say_nothing)
    assert info.warnings == ("1 documents lack passages in the index: n3",)


async def test_a_snapshot_overwrites_nothing(open_bench: Open, tmp_path: Path) -> None:
    """A file that exists, a collection that does not, and a disk without room are refused; nothing is left behind."""
    bench = open_bench("edge")
    await filled(bench, tmp_path / "docs")
    out = tmp_path / "out"
    out.mkdir()
    (out / "x.zip").write_text("mine")
    with pytest.raises(Conflict):
        await written(bench, out / "x.zip")
    with pytest.raises(CollectionNotFound):
        await create_snapshot(bench, "none", out / "y.zip", plenty(out), "9.9", say_nothing)
    with pytest.raises(DiskFull):
        await create_snapshot(bench, "default", out / "y.zip", DiskGuard(out, 1 << 60), "9.9", say_nothing)
    with pytest.raises(NotFound):
        await written(bench, out / "missing" / "y.zip")
    assert [path.name for path in out.iterdir()] == ["x.zip"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_fills_while_it_is_written_is_told_as_full() -> None:
    """Not as a file that is damaged: the guard looks at what is free only before each part."""
    with pytest.raises(DiskFull, match="free some space"), file_errors(Path("/dev/full")):
        Path("/dev/full").write_bytes(b"x")


async def test_a_restore_replaces_at_once(open_bench: Open, tmp_path: Path) -> None:
    """Readers see the collection before or the one after, never half of it."""
    bench = open_bench("edge")
    await filled(bench, tmp_path / "docs")
    snapshot = await written(bench, tmp_path / "x.zip")
    for n in range(5):
        await delete_document(bench, "default", f"n{n}", EVERYTHING)
    seen: set[int] = set()

    async def count() -> None:
        while True:
            seen.add((await bench.store.info("default")).passages)
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await restore_snapshot(bench, snapshot, "default", say_nothing)
    counting.cancel()
    await asyncio.gather(counting, return_exceptions=True)
    assert seen <= {snapshot.head.passages, snapshot.head.passages - 5}
    assert len(await passages(bench)) == snapshot.head.passages


def damaged(path: Path, how: str) -> None:
    """Damage the snapshot at `path`."""
    content = path.read_bytes()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        at = content.index(b"dense/000000.float32") + 60
        path.write_bytes(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :])
    elif how == "no zip":
        path.write_text("hello")
    else:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        head = msgspec.json.decode(members["snapshot.json"])
        if how == "newer":
            members["snapshot.json"] = msgspec.json.encode({"format": 3, "whatever": 1})
        elif how == "fewer":
            del members["dense/000000.float32"]
        elif how == "counts":
            members["snapshot.json"] = msgspec.json.encode({**head, "documents": 1})
        else:
            lines = members["documents/000000.jsonl"].replace(b'"source":"b.txt"', b'"source":"z.txt"')
            members["documents/000000.jsonl"] = lines
        with zipfile.ZipFile(path, "w") as archive:
            for name, member in members.items():
                archive.writestr(name, member)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("truncated", "not a snapshot"),
        ("flipped", "damaged"),
        ("no zip", "not a snapshot"),
        ("newer", "newer Winnow"),
        ("fewer", "parts of it are missing"),
        ("counts", "counts"),
        ("edited", "content is not what was written"),
    ],
)
async def test_damage_is_found_before_anything_is_changed(
    open_bench: Open, tmp_path: Path, how: str, told: str
) -> None:
    """Every kind of damage is an error of one plain sentence."""
    bench = open_bench("edge")
    await filled(bench, tmp_path / "docs")
    await written(bench, tmp_path / "x.zip")
    damaged(tmp_path / "x.zip", how)
    with pytest.raises(StoreUnavailable, match=told):
        await SnapshotFile(tmp_path / "x.zip").check(say_nothing)
