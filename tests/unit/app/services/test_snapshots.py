"""Snapshots as the commands ask for them."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.services.admission import Gates
from app.services.documents import Documents
from app.services.snapshots import Snapshots
from indexing.disk import DiskGuard
from indexing.documents import EVERYTHING, Document
from indexing.errors import CollectionNotFound, Conflict, InvalidName, NotFound, StoreUnavailable
from indexing.pipeline.context import PipelineContext
from indexing.pipeline.ingest import SubmittedDocument, put_documents
from indexing.pipeline.progress import RestoreRequest, SnapshotRequest, say_nothing
from indexing.store.embedded import EmbeddedStore
from tests.fakes.library import texts, workbench

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[PipelineContext]:
    """A collection `c` of two documents."""
    bench = workbench(EmbeddedStore(tmp_path / "index"), tmp_path)
    notes = [SubmittedDocument(writer=EVERYTHING, id=f"n{n}", document=Document(text=f"Note {n}.")) for n in range(2)]
    await put_documents(bench, "c", notes)
    yield bench
    await bench.manifest.close()
    await bench.store.close()


@pytest.fixture
def snapshots(bench: PipelineContext, tmp_path: Path) -> Snapshots:
    return over(bench, tmp_path)


def over(bench: PipelineContext, home: Path) -> Snapshots:
    async def get() -> PipelineContext:
        return bench

    return Snapshots(get, Documents(get, Gates(2)), DiskGuard(home / "snapshots", 0), "1.2.3")


async def created(snapshots: Snapshots, output: Path | str | None = None) -> Path:
    request = SnapshotRequest(collection="c", output=None if output is None else str(output))
    return Path((await snapshots.create(request, say_nothing)).path)


async def test_snapshots_are_listed_by_name(snapshots: Snapshots, tmp_path: Path) -> None:
    """Two of the same second have different names; a damaged one is listed with its problem, other files are not."""
    assert await snapshots.all() == []
    first, second = await created(snapshots), await created(snapshots)
    assert first.parent == second.parent == tmp_path / "snapshots"
    (tmp_path / "snapshots" / "broken.snapshot.zip").write_text("hello")
    (tmp_path / "snapshots" / "README.txt").write_text("hello")
    listed = await snapshots.all()
    assert {info.path for info in listed if not info.problem} == {str(first), str(second)}
    assert [Path(info.path).name for info in listed if info.problem] == ["broken.snapshot.zip"]


async def test_the_output_is_a_file_or_a_directory(snapshots: Snapshots, tmp_path: Path) -> None:
    """An existing directory, or a name that ends in a slash, gets a file named after the collection and the time."""
    assert await created(snapshots, tmp_path / "x.zip") == tmp_path / "x.zip"
    assert (await created(snapshots, tmp_path)).name.startswith("c-2")
    assert (await created(snapshots, f"{tmp_path}/new/")).parent == tmp_path / "new"
    with pytest.raises(Conflict):
        await created(snapshots, tmp_path / "x.zip")


async def test_an_existing_collection_is_not_overwritten(snapshots: Snapshots, bench: PipelineContext) -> None:
    """The error names both ways: another name, or force, which keeps what it replaces."""
    name = (await created(snapshots)).name
    await put_documents(bench, "c", [SubmittedDocument(writer=EVERYTHING, id="n2", document=Document(text="Note 2."))])
    with pytest.raises(Conflict, match=r"--as NEWNAME .* --force"):
        await snapshots.restore(RestoreRequest(snapshot=name), say_nothing)
    beside = await snapshots.restore(RestoreRequest(snapshot=name, name="d"), say_nothing)
    assert (beside.collection, beside.documents, beside.replaced, beside.kept) == ("d", 2, False, None)
    replaced = await snapshots.restore(RestoreRequest(snapshot=name, force=True), say_nothing)
    assert (replaced.replaced, await texts(bench, "c")) == (True, ["Note 0.", "Note 1."])
    assert replaced.kept is not None
    await snapshots.restore(RestoreRequest(snapshot=replaced.kept, force=True), say_nothing)
    assert await texts(bench, "c") == ["Note 0.", "Note 1.", "Note 2."]


async def test_a_snapshot_is_found_by_path_name_or_stem(snapshots: Snapshots, bench: PipelineContext) -> None:
    """In the home by name with or without its extension, elsewhere by path; a name that nothing has is said."""
    path = await created(snapshots)
    for n, spelling in enumerate((str(path), path.name, path.name.removesuffix(".snapshot.zip"))):
        await snapshots.restore(RestoreRequest(snapshot=spelling, name=f"d{n}"), say_nothing)
    with pytest.raises(NotFound, match="winnow snapshot list"):
        await snapshots.restore(RestoreRequest(snapshot="nothing"), say_nothing)


async def test_wishes_that_contradict_are_refused(snapshots: Snapshots, bench: PipelineContext) -> None:
    """Another collection than the one named, a name that none may have, a damaged file: before anything changes."""
    path = await created(snapshots)
    with pytest.raises(Conflict, match="'c'"):
        await snapshots.restore(RestoreRequest(snapshot=str(path), collection="d"), say_nothing)
    with pytest.raises(InvalidName):
        await snapshots.restore(RestoreRequest(snapshot=str(path), name="../x"), say_nothing)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(StoreUnavailable):
        await snapshots.restore(RestoreRequest(snapshot=str(path), force=True), say_nothing)
    with pytest.raises(CollectionNotFound):
        await snapshots.create(SnapshotRequest(collection="none"), say_nothing)
    assert [info.name for info in await bench.store.collections()] == ["c"]


async def test_another_embedder_is_a_warning(snapshots: Snapshots, bench: PipelineContext, tmp_path: Path) -> None:
    """What it holds is restored all the same; the warning names the rebuild."""
    path = await created(snapshots)
    (tmp_path / "other").mkdir()
    other = workbench(EmbeddedStore(tmp_path / "other" / "index"), tmp_path / "other", fingerprint="another")
    try:
        restored = await over(other, tmp_path / "other").restore(RestoreRequest(snapshot=str(path)), say_nothing)
        assert "--rebuild --collection c" in restored.warnings[0]
        assert await texts(other, "c") == ["Note 0.", "Note 1."]
    finally:
        await other.manifest.close()
        await other.store.close()


async def test_a_home_that_lost_its_collections_is_restored(tmp_path: Path) -> None:
    """Neither the shard nor the manifest of before is needed."""
    bench = workbench(EmbeddedStore(tmp_path / "index"), tmp_path)
    await put_documents(bench, "c", [SubmittedDocument(writer=EVERYTHING, id="n", document=Document(text="Note."))])
    path = await created(over(bench, tmp_path))
    await bench.manifest.close()
    await bench.store.close()
    shutil.rmtree(tmp_path / "index" / "collections")
    (tmp_path / "manifest.sqlite3").unlink()
    bench = workbench(EmbeddedStore(tmp_path / "index"), tmp_path)
    try:
        await over(bench, tmp_path).restore(RestoreRequest(snapshot=path.name), say_nothing)
        assert await texts(bench, "c") == ["Note."]
    finally:
        await bench.manifest.close()
        await bench.store.close()


async def test_a_damaged_collection_is_replaced_without_force(tmp_path: Path) -> None:
    """That is what the snapshot is for; the damaged files go to quarantine."""
    bench = workbench(EmbeddedStore(tmp_path / "index"), tmp_path)
    await put_documents(bench, "c", [SubmittedDocument(writer=EVERYTHING, id="n", document=Document(text="Note."))])
    path = await created(over(bench, tmp_path))
    await bench.store.close()
    await bench.manifest.close()
    for segments in (tmp_path / "index" / "collections" / "c").glob("*/segments"):
        shutil.rmtree(segments)
    bench = workbench(EmbeddedStore(tmp_path / "index"), tmp_path)
    try:
        restored = await over(bench, tmp_path).restore(RestoreRequest(snapshot=path.name), say_nothing)
        assert (restored.replaced, restored.kept, restored.warnings) == (True, None, ())
        assert await texts(bench, "c") == ["Note."]
        assert list((tmp_path / "index" / "quarantine").iterdir())
    finally:
        await bench.manifest.close()
        await bench.store.close()
