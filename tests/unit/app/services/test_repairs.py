"""What the start of a service finds of collections whose manifest and store disagree."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from app.services.repairs import Repairs
from indexing.documents import EVERYTHING, Document
from indexing.errors import StoreUnavailable
from indexing.pipeline.context import PipelineContext
from indexing.pipeline.ingest import SubmittedDocument, put_documents
from indexing.pipeline.progress import say_nothing
from indexing.store.embedded import EmbeddedStore
from tests.fakes.corpus import fill
from tests.fakes.library import index, workbench

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[PipelineContext]:
    """Two collections of two documents."""
    bench = workbench(EmbeddedStore(tmp_path / "index"), tmp_path)
    for name in ("a", "b"):
        notes = [
            SubmittedDocument(writer=EVERYTHING, id=f"n{n}", document=Document(text=f"Note {n}.")) for n in range(2)
        ]
        await put_documents(bench, name, notes)
    yield bench
    await bench.manifest.close()
    await bench.store.close()


@pytest.fixture
def repairs(bench: PipelineContext) -> Repairs:
    async def get() -> PipelineContext:
        return bench

    return Repairs(get)


async def lineage(bench: PipelineContext, name: str) -> str:
    return (await bench.store.info(name)).spec.lineage


async def test_what_agrees_is_not_spoken_of(repairs: Repairs) -> None:
    """No warning, and nothing is changed."""
    await repairs.check()
    assert await repairs.warnings() == []


async def test_a_collection_that_the_manifest_lost_is_recovered(repairs: Repairs, bench: PipelineContext) -> None:
    """Without being asked; the warning says what is left to do, and of which collection."""
    await bench.manifest.forget_lineage(await lineage(bench, "a"))
    await repairs.check()
    (warning,) = await repairs.warnings()
    assert "collection 'a'" in warning
    assert "2 documents were recovered" in warning
    assert await bench.manifest.count(await lineage(bench, "a")) == 2


async def test_a_collection_of_another_model_is_in_the_log(
    repairs: Repairs, bench: PipelineContext, caplog: pytest.LogCaptureFixture
) -> None:
    """With the command that makes it anew: else the first search would tell."""
    await fill(bench.store, name="c", fingerprint="another model")
    await repairs.check()
    assert any("winnow index --rebuild --collection c" in record.getMessage() for record in caplog.records)


async def test_a_difference_is_told_until_it_is_mended(repairs: Repairs, bench: PipelineContext) -> None:
    """The warning has both counts and the command, whose work takes it away."""
    await bench.manifest.announce_deletion(await lineage(bench, "b"), ["n0"])
    await bench.manifest.settled(await lineage(bench, "b"), ["n0"])
    await repairs.check()
    assert await repairs.warnings() == [
        "collection 'b': the manifest counts 1 passages, the index 2; winnow collections repair b makes them agree"
    ]
    assert (await repairs.repair("b", say_nothing)).recovered == 1
    assert await repairs.warnings() == []
    await repairs.check()
    assert await repairs.warnings() == []


async def test_a_manifest_that_cannot_be_used_is_told() -> None:
    """Searching goes on without it, so that somebody must be told."""

    async def get() -> PipelineContext:
        raise StoreUnavailable("the manifest was written by a newer Winnow")

    repairs = Repairs(get)
    with pytest.raises(StoreUnavailable):
        await repairs.check()
    assert await repairs.warnings() == ["the manifest was written by a newer Winnow"]


async def test_a_recovered_collection_is_spoken_of_until_its_files_are_known(
    repairs: Repairs, bench: PipelineContext, tmp_path: Path
) -> None:
    """A run over a folder takes the warning away, without a restart."""
    await bench.manifest.forget_lineage(await lineage(bench, "a"))
    await repairs.check()
    assert len(await repairs.warnings()) == 1
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "note.md").write_text("A note of a file.", encoding="utf-8")
    await index(bench, tmp_path / "docs", collection="a")
    assert await repairs.warnings() == []


async def test_nothing_is_said_of_a_collection_that_is_gone(repairs: Repairs, bench: PipelineContext) -> None:
    """Nor of one that was made anew under its name."""
    for name in ("a", "b"):
        await bench.manifest.forget_lineage(await lineage(bench, name))
    await repairs.check()
    assert len(await repairs.warnings()) == 2
    await bench.store.drop("a")
    spec = (await bench.store.info("b")).spec
    await bench.store.drop("b")
    await bench.store.create("b", msgspec.structs.replace(spec, lineage="another"))
    assert await repairs.warnings() == []


async def test_a_difference_that_goes_away_by_itself_is_forgotten(repairs: Repairs, bench: PipelineContext) -> None:
    """As when the document is deleted of which passages were left."""
    await bench.manifest.announce_deletion(await lineage(bench, "b"), ["n0"])
    await bench.manifest.settled(await lineage(bench, "b"), ["n0"])
    await repairs.check()
    assert len(await repairs.warnings()) == 1
    await bench.store.delete_documents("b", ["n0"])
    assert await repairs.warnings() == []


async def test_a_manifest_that_can_be_used_again_is_no_longer_told_of(bench: PipelineContext) -> None:
    """The check that is repeated until it succeeds takes its warning back."""
    broken = [StoreUnavailable("the manifest was written by a newer Winnow")]

    async def get() -> PipelineContext:
        if broken:
            raise broken.pop()
        return bench

    repairs = Repairs(get)
    with pytest.raises(StoreUnavailable):
        await repairs.check()
    assert await repairs.warnings() != []
    await repairs.check()
    assert await repairs.warnings() == []
