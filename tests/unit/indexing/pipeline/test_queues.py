import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from indexing.documents import EVERYTHING, Document
from indexing.embedding.model import Lane, Vectors
from indexing.errors import CollectionNotFound, StoreUnavailable
from indexing.pipeline.context import PipelineContext
from indexing.pipeline.ingest import SubmittedDocument, delete_document, drop_collection, put_documents
from indexing.pipeline.queues import DocumentLocks, Gate, LineageRetired, Turns
from indexing.store.server import ServerStore
from tests.fakes.embedder import HashEmbedder
from tests.fakes.library import index, texts, workbench

pytestmark = [pytest.mark.anyio, pytest.mark.numeric]

MANY = 40
"""Passages: more than a small write has."""


class GatedEmbedder(HashEmbedder):
    """Bulk work begins, says so, and waits until it is let through."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.pass_on = threading.Event()
        self.slices: list[str] = []

    def embed_documents(self, texts: Sequence[str], lane: Lane = "texts") -> Vectors:
        if lane == "bulk":
            self.slices.append(texts[0][:1])
            self.begun.set()
            assert self.pass_on.wait(20)
        return super().embed_documents(texts)


@pytest.fixture
def gated() -> GatedEmbedder:
    return GatedEmbedder()


@pytest.fixture
def crowded(gated: GatedEmbedder, tmp_path: Path) -> PipelineContext:
    return workbench(ServerStore.in_memory(), tmp_path / "home", gated)


def note(key: str, text: str) -> SubmittedDocument:
    return SubmittedDocument(writer=EVERYTHING, id=key, document=Document(text=text))


def big(key: str, word: str = "big") -> SubmittedDocument:
    return note(key, "\n\n".join(" ".join(f"{word}{p}x{n}" for n in range(140)) + "." for p in range(MANY)))


async def begun(gated: GatedEmbedder) -> None:
    assert await asyncio.to_thread(gated.begun.wait, 20)
    gated.begun.clear()


async def documents(bench: PipelineContext) -> list[str]:
    lineage = (await bench.store.info("default")).spec.lineage
    assert not await bench.manifest.unfinished(lineage)
    assert not bench.visibility.counting(lineage)
    return [record.id for record in await bench.manifest.documents(lineage, EVERYTHING)]


async def test_small_writes_and_deletions_pass_a_big_one(crowded: PipelineContext, gated: GatedEmbedder) -> None:
    """While the model is busy with whole files, others put and delete, in this collection and in another one."""
    await put_documents(crowded, "default", [note("old", "one")])
    whole = asyncio.create_task(put_documents(crowded, "default", [big("whole")]))
    await begun(gated)
    assert (await put_documents(crowded, "default", [note("new", "two")]))[0].status == "created"
    assert (await put_documents(crowded, "other", [note("new", "two")]))[0].status == "created"
    assert await delete_document(crowded, "default", "old", EVERYTHING) is True
    await drop_collection(crowded, "other")
    assert not whole.done()
    gated.pass_on.set()
    assert (await whole)[0].status == "created"
    assert await documents(crowded) == ["new", "whole"]


async def test_two_puts_of_one_document_end_in_the_later_one(crowded: PipelineContext, gated: GatedEmbedder) -> None:
    """The second waits for the first, and so does a deletion; exactly one version stays."""
    first = asyncio.create_task(put_documents(crowded, "default", [big("x")]))
    await begun(gated)
    second = asyncio.create_task(put_documents(crowded, "default", [note("x", "the later one"), note("y", "another")]))
    await asyncio.sleep(0.05)
    assert not second.done()
    gated.pass_on.set()
    assert [(await first)[0].status, (await second)[0].status] == ["created", "updated"]
    assert await texts(crowded) == ["another", "the later one"]
    assert await documents(crowded) == ["x", "y"]


async def test_who_hangs_up_leaves_no_lock_and_no_half(crowded: PipelineContext, gated: GatedEmbedder) -> None:
    """The earlier version stays, the next writer begins at once, and what had been written before stays."""
    await put_documents(crowded, "default", [note("x", "the earlier one")])
    leaving = asyncio.create_task(put_documents(crowded, "default", [note("y", "written"), big("z"), big("x")]))
    await begun(gated)
    leaving.cancel()
    gated.pass_on.set()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert (await put_documents(crowded, "default", [note("x", "the earlier one")]))[0].status == "unchanged"
    kept = await documents(crowded)
    assert kept in (["x"], ["x", "y"])
    assert await texts(crowded) == sorted(["the earlier one", "written"][: len(kept)])


class FailingStore(ServerStore):
    """The second upsert fails."""

    upserts = 0

    async def upsert(self, name: str, points: Sequence[object]) -> None:  # type: ignore[override]
        self.upserts += 1
        await super().upsert(name, points)  # type: ignore[arg-type]
        if self.upserts == 2:
            raise StoreUnavailable("gone for a moment")


async def test_a_failed_write_leaves_the_earlier_version(tmp_path: Path) -> None:
    """Nothing of the new version stays in the store, and nothing is left to do."""
    bench = workbench(FailingStore.in_memory(), tmp_path / "home")
    await put_documents(bench, "default", [note("x", "one")])
    with pytest.raises(StoreUnavailable, match="for a moment"):
        await put_documents(bench, "default", [note("x", "two"), note("y", "three")])
    assert await texts(bench) == ["one"]
    assert await documents(bench) == ["x"]


async def test_bulk_writers_take_turns(gated: GatedEmbedder) -> None:
    """A slice of one, then a slice of the next."""
    turns = Turns()
    works = [asyncio.create_task(turns.embed(gated, [f"{key} {n}" for n in range(MANY)])) for key in "abc"]
    await begun(gated)
    gated.pass_on.set()
    await asyncio.gather(*works)
    assert gated.slices[:3] == ["a", "b", "c"]


async def test_a_write_into_a_dropped_collection_ends(crowded: PipelineContext, gated: GatedEmbedder) -> None:
    """It does not bring the collection back."""
    whole = asyncio.create_task(put_documents(crowded, "default", [big("whole")]))
    await begun(gated)
    await drop_collection(crowded, "default")
    gated.pass_on.set()
    with pytest.raises(CollectionNotFound):
        await whole
    assert await crowded.store.collections() == []
    assert await crowded.manifest.lineages() == set()


async def test_a_write_under_way_survives_a_rebuild(
    crowded: PipelineContext, gated: GatedEmbedder, tmp_path: Path
) -> None:
    """It ends in the new index, whole and once."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("a file")
    gated.pass_on.set()
    await index(crowded, tmp_path / "files")
    gated.pass_on.clear()
    whole = asyncio.create_task(put_documents(crowded, "default", [big("whole")]))
    await begun(gated)
    rebuild = asyncio.create_task(index(crowded, tmp_path / "files", rebuild=True))
    await asyncio.sleep(0.05)
    gated.pass_on.set()
    await asyncio.gather(whole, rebuild)
    assert "whole" in await documents(crowded)
    assert len(await texts(crowded)) == MANY + 1


async def test_a_gate_lets_steps_pass_until_it_is_retired() -> None:
    """Retiring waits for the steps under way; one that fails leaves the gate open."""
    gate, ran = Gate(), asyncio.Event()

    async def fail() -> None:
        raise StoreUnavailable("no")

    async def work() -> None:
        ran.set()

    with pytest.raises(StoreUnavailable):
        await gate.retire(fail)
    async with gate.step():
        retiring = asyncio.create_task(gate.retire(work))
        await asyncio.sleep(0)
        late = asyncio.create_task(gate.step().__aenter__())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not ran.is_set()
    await retiring
    for refused in (late, gate.retire(work), gate.step().__aenter__()):
        with pytest.raises(LineageRetired):
            await refused


async def test_locks_of_documents_are_fair_and_forgotten() -> None:
    """Writers of overlapping documents never wait for each other in a circle, and nothing is kept afterwards."""
    locks, order = DocumentLocks(), []

    async def write(name: str, *ids: str) -> None:
        async with locks.holding("L", ids):
            order.append(name)
            await asyncio.sleep(0)

    await asyncio.gather(write("1", "a", "b"), write("2", "b", "a"), write("3", "a"), write("4", "c"))
    assert [name for name in order if name != "4"] == ["1", "2", "3"]
    assert locks._waiters == {}


async def test_slices_grow_with_the_speed_of_the_model() -> None:
    """The first one is small, the later ones are as long as the model takes for a fraction of a second."""
    sizes: list[int] = []

    class Counting(HashEmbedder):
        def embed_documents(self, texts: Sequence[str], lane: Lane = "texts") -> Vectors:
            sizes.append(len(texts))
            return super().embed_documents(texts)

    turns = Turns()
    await turns.embed(Counting(), [f"text {n}" for n in range(200)])
    turns._characters_per_s = 1_000.0
    assert turns._slice(["x" * 10] * 200, 0) == 40
    assert turns._slice(["x" * 5_000] * 200, 0) == 8
    assert turns._slice(["x"] * 3, 1) >= 2
    assert sizes[0] == 16
    assert sum(sizes) == 200
