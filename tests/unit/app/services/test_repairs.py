"""What the start of a service finds of collections whose manifest and store disagree."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.services.repairs import Repairs
from indexing.documents import Document
from indexing.errors import StoreUnavailable
from indexing.pipeline.context import PipelineContext
from indexing.pipeline.ingest import SubmittedDocument, put_documents
from indexing.pipeline.progress import say_nothing
from indexing.store.embedded import EmbeddedStore
from tests.fakes.corpus import fill
from tests.fakes.library import workbench

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[PipelineContext]:
    """Two collections of two documents."""
    bench = workbench(EmbeddedStore(tmp_path / "index"), tmp_path)
    for name in ("a", "b"):
        notes = [SubmittedDocument(id=f"n{n}", document=Document(text=f"Note {n}.")) for n in range(2)]
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
    assert repairs.warnings == []


async def test_a_collection_that_the_manifest_lost_is_recovered(repairs: Repairs, bench: PipelineContext) -> None:
    """Without being asked; the warning says what is left to do, and of which collection."""
    await bench.manifest.forget_lineage(await lineage(bench, "a"))
    await repairs.check()
    (warning,) = repairs.warnings
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
    assert repairs.warnings == [
        "collection 'b': the manifest counts 1 passages, the index 2; winnow collections repair b makes them agree"
    ]
    assert (await repairs.repair("b", say_nothing)).recovered == 1
    assert repairs.warnings == []
    await repairs.check()
    assert repairs.warnings == []


async def test_a_manifest_that_cannot_be_used_is_told() -> None:
    """Searching goes on without it, so that somebody must be told."""

    async def get() -> PipelineContext:
        raise StoreUnavailable("the manifest was written by a newer Winnow")

    repairs = Repairs(get)
    with pytest.raises(StoreUnavailable):
        await repairs.check()
    assert repairs.warnings == ["the manifest was written by a newer Winnow"]
