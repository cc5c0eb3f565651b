import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from indexing.concurrency import finish
from indexing.documents import EVERYTHING, Document
from indexing.embedding.model import Lane, Vectors
from indexing.errors import EmbedderUnavailable
from indexing.pipeline.context import PipelineContext, ensure_collection
from indexing.pipeline.ingest import SubmittedDocument, put_documents
from indexing.pipeline.manifest import DocumentRecord, SourceRecord
from indexing.pipeline.progress import Advanced, Event
from indexing.pipeline.queues import SMALL_WRITE, Turns
from indexing.pipeline.write_stage import WINDOW, Prepared, Writer, prepare
from indexing.store.server import ServerStore
from tests.fakes.embedder import HashEmbedder
from tests.fakes.library import texts, workbench

pytestmark = [pytest.mark.anyio, pytest.mark.numeric]


@pytest.fixture
async def lineage(bench: PipelineContext) -> str:
    return (await ensure_collection(bench, "default")).spec.lineage


def prepared(key: str, text: str) -> Prepared:
    document = Document(text=text)
    record = DocumentRecord(
        id=key, path="/a.txt", source="a.txt", title="", version=document.content_hash(), passages=0
    )
    return prepare(document, record, HashEmbedder(), weight=10)


def long_text(passages: int) -> str:
    return "\n\n".join(" ".join(f"word{n}" for _ in range(140)) + "." for n in range(passages))


def test_passages_say_where_they_stand() -> None:
    """Every passage is cut from the document at its offsets, and has a text to embed."""
    document = Document(text=long_text(3), title="T", metadata={"year": 2024})
    record = DocumentRecord(id="x", path=None, source="s", title="T", version="v", passages=0)
    made = prepare(document, record, HashEmbedder())
    assert len(made.passages) == len(made.texts) == 3
    for ordinal, passage in enumerate(made.passages):
        assert passage.text == document.text[passage.start : passage.end]
        assert (passage.ordinal, passage.version, passage.source, passage.metadata) == (
            ordinal,
            "v",
            "s",
            {"year": 2024},
        )
    assert len({passage.id for passage in made.passages}) == 3


async def test_nothing_is_written_before_a_window_is_full(bench: PipelineContext, lineage: str) -> None:
    """Small documents wait for each other; flush writes what waits, and commits it with its source."""
    told: list[tuple[int, int]] = []

    def tell(event: Event) -> None:
        assert isinstance(event, Advanced)
        told.append((event.documents, event.passages))

    writer = Writer(bench, "default", lineage, tell)
    await writer.add(prepared("x", "one"))
    writer.finish_source(SourceRecord(path="/a.txt", name="a.txt", hash="h", bytes=3))
    assert (await texts(bench), await bench.manifest.count(lineage), told) == ([], 0, [])
    await writer.flush()
    assert (await texts(bench), await bench.manifest.count(lineage), told) == (["one"], 1, [(0, 1), (1, 1)])
    assert [source.path for source in await bench.manifest.sources(lineage)] == ["/a.txt"]


async def test_a_document_longer_than_a_window_is_written_in_several(bench: PipelineContext, lineage: str) -> None:
    """It is committed once, after its last passage; progress is told in between, as passages are embedded."""
    told: list[Event] = []
    await Writer(bench, "default", lineage, told.append).add(prepared("x", long_text(WINDOW + 10)))
    *before, last = told
    assert last == Advanced(bytes=10, documents=1, passages=WINDOW + 10)
    counts = [(event.passages, event.bytes) for event in before if isinstance(event, Advanced) and event.documents == 0]
    assert len(counts) == len(before) > 2
    assert counts == sorted(counts)
    assert all(size == round(10 * passages / (WINDOW + 10)) for passages, size in counts)
    assert (await bench.store.info("default")).passages == WINDOW + 10


class FullStore(ServerStore):
    """There is no room until somebody says so."""

    free: asyncio.Event

    async def room(self, name: str) -> None:
        await self.free.wait()


async def test_only_a_run_waits_for_room(tmp_path: Path) -> None:
    """Whoever submits documents does not, nor while a run waits that has the same ones in hand."""
    store = FullStore.in_memory()
    store.free = asyncio.Event()
    bench = workbench(store, tmp_path / "home")
    writer = Writer(bench, "default", (await ensure_collection(bench, "default")).spec.lineage)
    await writer.add(prepared("y", "few"))
    await asyncio.wait_for(writer.flush(), 30)
    many = prepared("x", long_text(SMALL_WRITE + 1))
    await writer.add(msgspec.structs.replace(many, record=msgspec.structs.replace(many.record, path=None)))
    running = asyncio.create_task(writer.flush())
    submitted = SubmittedDocument(writer=EVERYTHING, id="x", document=Document(text=long_text(SMALL_WRITE + 2)))
    (result,) = await asyncio.wait_for(put_documents(bench, "default", [submitted]), 30)
    assert (result.passages, running.done()) == (SMALL_WRITE + 2, False)
    store.free.set()
    await running
    assert len(await texts(bench)) == 1 + SMALL_WRITE + 1
    await bench.manifest.close()
    await bench.store.close()


async def test_a_new_version_leaves_nothing_of_the_old(bench: PipelineContext, lineage: str) -> None:
    """Passages of earlier versions are deleted, even if the new one is empty."""
    for text in (long_text(3), "short", " "):
        writer = Writer(bench, "default", lineage)
        await writer.add(prepared("x", text))
        await writer.flush()
        assert await texts(bench) == [passage.text for passage in prepared("x", text).passages]


async def test_deleting_removes_passages_and_records(bench: PipelineContext, lineage: str) -> None:
    """Of exactly these documents."""
    writer = Writer(bench, "default", lineage)
    await writer.add(prepared("x", "one"))
    await writer.add(prepared("y", "two"))
    await writer.flush()
    await writer.delete(["x"])
    await writer.delete([])
    assert (await texts(bench), await bench.manifest.count(lineage)) == (["two"], 1)


async def test_equal_texts_are_embedded_once(embedder: HashEmbedder) -> None:
    """Each text gets its own vector, in order, whatever order the model saw them in."""
    given = [f"text {n % 7} {'x' * (n % 5)}" for n in range(200)]
    vectors = await Turns().embed(embedder, given)
    assert sorted(embedder.embedded) == sorted(set(given))
    assert np.array_equal(vectors, HashEmbedder().embed_documents(given))
    assert vectors.dtype == np.float32


class BrokenEmbedder(HashEmbedder):
    """Half of what it says is not a number."""

    def embed_documents(self, texts: Sequence[str], lane: Lane = "texts") -> Vectors:
        vectors = super().embed_documents(texts, lane)
        vectors[::2] = np.nan
        return vectors


async def test_numbers_that_mean_nothing_are_not_stored() -> None:
    """A model that returns NaN is an error, not a ranking."""
    with pytest.raises(EmbedderUnavailable, match="hash-words returned values that are not finite"):
        await Turns().embed(BrokenEmbedder(), ["a", "b"])


async def test_cancelling_waits_for_the_thread() -> None:
    """What cannot be stopped is waited for, so that nothing goes on afterwards."""
    begun, release = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        release.wait(10)

    task = asyncio.create_task(finish(asyncio.to_thread(work)))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
