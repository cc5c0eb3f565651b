"""The services' lifetime."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from app.backends.settings import BackendSettings
from app.config.settings import IndexSection, Settings
from app.wiring import Services
from indexing.errors import EmbedderUnavailable, IndexBusy, StoreUnavailable
from indexing.store.base import VectorStore
from indexing.store.embedded import EmbeddedStore
from tests.fakes.answerer import ScriptedAnswerer
from tests.fakes.embedder import HashEmbedder
from tests.fakes.points import SPEC, point
from tests.fakes.source import GivenEmbedder

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.anyio


async def no_store() -> VectorStore:
    raise IndexBusy("held")


def services(embedder: GivenEmbedder) -> Services:
    return Services(Settings(), no_store, embedder, lambda _services: ScriptedAnswerer())


async def test_a_probe_does_not_wait_for_a_slow_start() -> None:
    """A dependency that is still loading is not ready, and goes on loading."""
    source = GivenEmbedder(HashEmbedder(), delay_s=0.1)
    given = services(source)
    _, embedder, _ = await given.warm_up.readiness(timeout_s=0.01)
    assert (embedder.ready, embedder.detail) == (False, "still starting, or not answering")
    _, embedder, _ = await given.warm_up.readiness(timeout_s=5)
    assert embedder.ready
    assert source.loads == 1
    await given.close()


async def test_a_start_that_fails_does_not_stop_the_service() -> None:
    """The reasons are told by readiness; closing works."""
    given = services(GivenEmbedder(HashEmbedder(), failures=(EmbedderUnavailable("no"),) * 3))
    await given.start()
    details = [dependency.detail for dependency in await given.warm_up.readiness()]
    assert details == ["held", "no", ""]
    await given.close()


async def test_backends_that_cannot_be_opened_keep_nobody_from_getting_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The samples are indexed, searching works, and readiness says what is wrong with the backends."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    (tmp_path / "a.txt").write_text("Parcels arrive within two days.")
    settings = Settings(
        index=IndexSection(home=tmp_path / "home"), backends={"flash": BackendSettings(kind="gemini", api_key="k")}
    )
    store = EmbeddedStore(tmp_path / "index")
    given = Services(settings, lambda: _given(store), GivenEmbedder(HashEmbedder()), lambda *_: ScriptedAnswerer())
    await given.start(tmp_path / "a.txt")
    async with asyncio.timeout(30):
        while "samples" in (names := {need.name: need for need in await given.warm_up.readiness()}):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert "ALL_PROXY" in names["backends"].detail
    assert (names["backends"].ready, names["store"].ready, names["embedder"].ready) == (False, True, True)
    assert [info.passages for info in await store.collections()] == [1]
    await given.close()


async def test_graphs_that_an_earlier_run_did_not_get_to_are_built_at_the_start(tmp_path: Path) -> None:
    """Nobody has to write first."""
    before = EmbeddedStore(tmp_path / "index")
    await before.create("docs", SPEC)
    await before.upsert("docs", [point(f"d{i}") for i in range(200)])
    generation = (await before.info("docs")).generation
    await before.close()
    store = EmbeddedStore(tmp_path / "index", optimize_from=100)
    settings = Settings(index=IndexSection(home=tmp_path / "home"))
    given = Services(settings, lambda: _given(store), GivenEmbedder(HashEmbedder()), lambda *_: ScriptedAnswerer())
    await given.start()
    async with asyncio.timeout(60):
        while (await store.info("docs")).generation == generation:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (await store.info("docs")).passages == 200
    await given.close()


async def test_what_fails_to_close_keeps_nothing_else_open(tmp_path: Path) -> None:
    """The manifest is closed before the store on which it stands; its failure is logged, and the store closed."""
    closed: list[str] = []

    class RecordedStore(EmbeddedStore):
        async def close(self) -> None:
            closed.append("store")
            await super().close()

    async def fail() -> None:
        closed.append("manifest")
        raise OSError("the disk is full")

    store = RecordedStore(tmp_path / "index")
    settings = Settings(index=IndexSection(home=tmp_path))
    given = Services(settings, lambda: _given(store), GivenEmbedder(HashEmbedder()), lambda *_: ScriptedAnswerer())
    manifest = (await given.context.get()).manifest
    close_manifest, manifest.close = manifest.close, fail  # type: ignore[method-assign]
    with structlog.testing.capture_logs() as lines:
        await given.close()
    await close_manifest()
    assert closed == ["manifest", "store"]
    assert [line["what"] for line in lines if line["event"] == "closing failed"] == ["manifest"]
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.collections()


async def _given(store: VectorStore) -> VectorStore:
    return store


def test_importing_the_service_imports_no_heavy_package() -> None:
    """The start is quick: models, servers' clients and readers are imported when they are needed."""
    program = "import sys, app.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    heavy = {"torch", "transformers", "sentence_transformers", "qdrant_client", "sklearn", "scipy", "pandas"}
    assert not heavy & set(done.stdout.split())
