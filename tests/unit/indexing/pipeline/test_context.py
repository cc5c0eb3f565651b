import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from indexing.embedding.batching import LazyEmbedder
from indexing.embedding.model import Embedder
from indexing.errors import EmbedderMismatch, EmbedderUnavailable
from indexing.pipeline.context import (
    PipelineContext,
    ensure_collection,
    find_collection,
    forget_lost_lineages,
    index_fingerprint,
)
from indexing.pipeline.manifest import DocumentRecord
from indexing.settings import EmbeddingSettings
from indexing.store.server import ServerStore
from tests.fakes.embedder import HashEmbedder
from tests.fakes.library import workbench

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[PipelineContext]:
    bench = workbench(ServerStore.in_memory(), tmp_path / "home")
    yield bench
    await bench.manifest.close()
    await bench.store.close()


async def test_a_collection_is_made_with_what_retrieval_needs(bench: PipelineContext) -> None:
    """Its dimension, fingerprint, a lineage of its own, and the measured unit of the embedder; once."""
    made = await ensure_collection(bench, "default")
    assert (made.spec.dimension, made.spec.embedder) == (64, "hash-words")
    assert made.spec.lineage
    assert 0 < made.spec.notes["dense_unit"] <= 2
    assert await ensure_collection(bench, "default") == made
    assert (await ensure_collection(bench, "other")).spec.lineage != made.spec.lineage


async def test_a_collection_of_another_embedder_is_not_to_be_written_to(bench: PipelineContext, tmp_path: Path) -> None:
    """The error names both embedders and the command that rebuilds."""
    assert await find_collection(bench, "default") is None
    await ensure_collection(bench, "default")
    other = workbench(bench.store, tmp_path / "home", fingerprint="another")
    for reach in (find_collection, ensure_collection):
        with pytest.raises(EmbedderMismatch, match=r"\[hash-words\].*\[another\].*--rebuild --collection default"):
            await reach(other, "default")
    await other.manifest.close()


async def test_the_manifest_forgets_lineages_that_no_collection_has(bench: PipelineContext) -> None:
    """What a killed rebuild left goes; live collections, and generations under construction, keep theirs."""
    live = (await ensure_collection(bench, "default")).spec.lineage
    record = DocumentRecord(id="x", path=None, source="", title="", version="v", passages=1)
    for lineage in (live, "building", "lost"):
        await bench.manifest.announce(lineage, [record])
    with bench.building_lineage("building"):
        await forget_lost_lineages(bench)
    assert await bench.manifest.lineages() == {live, "building"}


async def test_the_model_is_loaded_once_when_it_is_needed() -> None:
    """Its fingerprint is known before; callers at once share one loading, and hear of it."""
    loads: list[EmbeddingSettings] = []

    def load(settings: EmbeddingSettings) -> Embedder:
        loads.append(settings)
        return HashEmbedder()

    settings = EmbeddingSettings(model="m", max_tokens=200)
    lazy = LazyEmbedder(settings, index_fingerprint(settings), load)
    assert lazy.fingerprint.startswith("m, at most 200 tokens; chunks ")
    assert loads == []
    told: list[str] = []
    first, second = await asyncio.gather(lazy.get(told.append), lazy.get(told.append))
    assert first is second
    assert (loads, told) == ([settings], ["m"])


async def test_a_model_that_could_not_be_loaded_is_tried_again() -> None:
    """The next caller may have better luck."""
    failures = [EmbedderUnavailable("not yet")]

    def load(_: EmbeddingSettings) -> Embedder:
        if failures:
            raise failures.pop()
        return HashEmbedder()

    lazy = LazyEmbedder(EmbeddingSettings(), "f", load)
    with pytest.raises(EmbedderUnavailable, match="not yet"):
        await lazy.get()
    assert isinstance(await lazy.get(), HashEmbedder)


async def test_a_document_has_one_writer_at_a_time(bench: PipelineContext) -> None:
    """A second owner is told who the first is, until the first is done."""
    with bench.claiming("L") as first, bench.claiming("L") as second, bench.claiming("M") as elsewhere:
        assert first.claim("x", "/a") is None
        assert first.claim("x", "/a") is None
        assert first.claim("x", "/b") == "/a"
        assert second.claim("x", "") == "/a"
        assert elsewhere.claim("x", "/b") is None
    with bench.claiming("L") as third:
        assert third.claim("x", "") is None


async def test_a_released_document_is_free_before_the_end(bench: PipelineContext) -> None:
    """What a writer has committed is not held any longer, and what somebody else claims since stays theirs."""
    with bench.claiming("L") as first, bench.claiming("L") as second:
        assert [first.claim(name, "/a") for name in ("x", "y")] == [None, None]
        first.release(["x", "z"])
        assert second.claim("x", "") is None
        first.release_all()
        assert (first.claim("x", "/a"), second.claim("y", "")) == ("", None)
    assert not bench.owners


async def test_the_scale_of_an_embedder_is_measured_once(tmp_path: Path) -> None:
    """It takes seconds on a busy machine, and is the same for every collection."""
    embedder = HashEmbedder()
    bench = workbench(ServerStore.in_memory(), tmp_path / "apart", embedder)
    first = await ensure_collection(bench, "default")
    calls = embedder.document_calls
    assert (await ensure_collection(bench, "other")).spec.notes == first.spec.notes
    assert embedder.document_calls == calls > 0
