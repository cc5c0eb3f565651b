"""Writing to collections, several at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.errors import Overloaded
from app.library import MAX_AT_ONCE, Library
from indexing.collections import Workbench
from indexing.documents import Document
from indexing.intake import Handed
from indexing.lexical import Lexical
from indexing.manifest import Manifest
from indexing.pipeline import SyncRequest
from indexing.progress import LoadingModel, Report, say_nothing
from indexing.readers import ReadLimits
from indexing.store.embedded import EmbeddedStore
from tests.fakes.embedder import HashEmbedder

pytestmark = pytest.mark.anyio


class GatedEmbedder:
    """Once `held`, hands out its embedder only when `gate` opens; `asked` says that someone waits for it."""

    fingerprint = "hash-words"

    def __init__(self) -> None:
        self.held = False
        self.asked, self.gate = asyncio.Event(), asyncio.Event()

    async def get(self, report: Report = say_nothing) -> HashEmbedder:
        if self.held:
            report(LoadingModel(model="hash-words"))
            self.asked.set()
            await self.gate.wait()
        return HashEmbedder()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    store, manifest = EmbeddedStore(tmp_path / "index"), Manifest(tmp_path / "manifest.sqlite3")
    yield Workbench(store=store, manifest=manifest, embedder=GatedEmbedder(), limits=ReadLimits(), lexical=Lexical())
    manifest.close()
    await store.close()


@pytest.fixture
def library(bench: Workbench) -> Library:
    async def get() -> Workbench:
        return bench

    return Library(get)


def handed(document_id: str, text: str = "dental") -> Handed:
    return Handed(document=Document(text=text), id=document_id)


async def ids(bench: Workbench) -> set[str]:
    return {passage.document_id async for passage in bench.store.scan("c")}


async def test_nothing_is_lost_to_a_rebuild(bench: Workbench, library: Library, tmp_path: Path) -> None:
    """While a collection is rebuilt, callers are told to come back, those who can wait do, and nothing is lost."""
    await library.index("c", [handed("before")])
    embedder = bench.embedder
    assert isinstance(embedder, GatedEmbedder)
    embedder.held = True
    rebuild = asyncio.create_task(library.sync(SyncRequest(inputs=(), cwd=str(tmp_path), collection="c", rebuild=True)))
    await asyncio.wait_for(embedder.asked.wait(), 10)
    patient = asyncio.create_task(library.index("c", [handed("patient")], patient=True))
    with pytest.raises(Overloaded) as refused:
        await library.index("c", [handed("hasty")])
    assert refused.value.retry_after > 1
    for refusal in (library.delete("c", "before"), library.drop("c"), library.admit("c")):
        with pytest.raises(Overloaded):
            await refusal
    await library.admit("another")
    assert not patient.done()
    embedder.gate.set()
    await rebuild
    await patient
    await library.index("c", [handed("hasty")])
    assert await ids(bench) == {"before", "patient", "hasty"}


async def test_a_long_put_lets_others_in(bench: Workbench, library: Library) -> None:
    """A small put is done before a large one that came first."""
    order: list[str] = []

    async def put(name: str, count: int) -> None:
        await library.index("c", [handed(f"{name}{n}") for n in range(count)])
        order.append(name)

    await asyncio.gather(put("large", 400), put("small", 1))
    assert order == ["small", "large"]


async def test_results_are_told_slice_by_slice(library: Library) -> None:
    """Every result is told once, in order, before the end."""
    told: list[int] = []
    results = await library.index("c", [handed(str(n)) for n in range(150)], lambda part: told.append(len(part)))
    assert len(told) > 1
    assert sum(told) == len(results) == 150
    assert [result.id for result in results] == [str(n) for n in range(150)]


async def test_uploads_at_once_are_bounded(library: Library) -> None:
    """One more is Overloaded; when one ends there is room again."""
    with ExitStack() as stack:
        for _ in range(MAX_AT_ONCE):
            stack.enter_context(library.uploading())
        with pytest.raises(Overloaded):
            stack.enter_context(library.uploading())
    with library.uploading():
        pass
