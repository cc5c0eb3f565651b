"""What `winnow doctor` finds."""

import asyncio
import shutil
import time
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from app.cli.doctor import examine
from app.cli.surroundings import Finding, show
from app.instance import announce, presence_at
from app.ranking.trust import TRUST_FILE, TopicReading, TrustBook, topics
from indexing.pipeline.context import index_fingerprint
from indexing.retrieval.bm25 import LEXICAL_VERSION
from indexing.settings import EmbeddingSettings
from indexing.store.base import CollectionSpec, Point
from indexing.store.embedded import EmbeddedStore
from tests.fakes.http_server import answering
from tests.fakes.points import point

MODEL = {"WINNOW_EMBEDDING_MODEL": "somebody/some-model"}  # no weights to check


def findings(cwd: Path, environ: dict[str, str] | None = None) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine({**MODEL, **(environ or {})}, cwd)}


def fill(home: Path, embedder: str, name: str = "default", points: Sequence[Point] = ()) -> None:
    async def create() -> None:
        store = EmbeddedStore(home / "index")
        await store.create(name, CollectionSpec(dimension=4, embedder=embedder, lineage="l"))
        await store.upsert(name, points)
        await store.close()

    asyncio.run(create())


def test_a_fresh_folder(tmp_path: Path) -> None:
    """Nothing is broken, and the next step is named; nothing is created by looking."""
    found = findings(tmp_path)
    assert {finding.state for finding in found.values()} == {"ok", "note"}
    assert found["index"].fix == "winnow index PATH"
    assert not (tmp_path / ".winnow").exists()


def test_a_bad_configuration(tmp_path: Path) -> None:
    """It is the only finding, with the place."""
    (tmp_path / "winnow.toml").write_text("[service]\nprot = 1\n")
    [found] = examine({}, tmp_path)
    assert (found.state, "did you mean port?" in found.detail) == ("broken", True)


def test_a_misspelt_variable(tmp_path: Path) -> None:
    """It is a note with the name that was meant."""
    found = findings(tmp_path, {"WINNOW_HOEM": "/data"})["environment"]
    assert (found.state, "WINNOW_HOME?" in found.detail) == ("note", True)


def test_an_order_that_names_nobody(tmp_path: Path) -> None:
    """What would stop the start is found without starting."""
    [found] = examine({"WINNOW_ROUTING_AUTO": "gema", "GEMINI_API_KEY": "k"}, tmp_path)
    assert (found.state, "the backends declared are gemini" in found.detail) == ("broken", True)


def test_a_backend_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told beside the rest."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    found = findings(tmp_path, {"GEMINI_API_KEY": "k"})["backend gemini"]
    assert (found.state, "ALL_PROXY" in found.detail) == ("broken", True)


def test_a_model_that_does_not_rank(tmp_path: Path) -> None:
    """What the controls have shown of a configured model is a note with what to do; of a good one it is nothing."""
    environ = {"VLLM_URL": "http://127.0.0.1:9/v1"}
    home = tmp_path / ".winnow"
    home.mkdir()
    book = TrustBook(home / TRUST_FILE)
    book.add(("vllm", "smol", "2", "scorer"), {topic: TopicReading((0.1,) * 4, (0.1,) * 4) for topic in topics()})
    found = findings(tmp_path, environ)["ranking by vllm"]
    assert (found.state, found.detail.partition(":")[0]) == ("note", "smol does not rank")
    assert "winnow calibrate" in found.fix
    assert "ranking by vllm" not in findings(tmp_path, {**environ, "WINNOW_RANKING_CONTROLS": "false"})
    book.add(("vllm", "large", "2", "scorer"), {topic: TopicReading((3.0,) * 4, (-3.0,) * 4) for topic in topics()})
    assert "ranking by vllm" not in findings(tmp_path, environ)


def test_a_home_that_cannot_be(tmp_path: Path) -> None:
    """A file is in its place."""
    (tmp_path / "file").touch()
    assert findings(tmp_path, {"WINNOW_HOME": "file/home"})["home"].state == "broken"


def test_a_disk_that_is_nearly_full(tmp_path: Path) -> None:
    """It is a note before writing stops, with the way out."""
    found = findings(tmp_path, {"WINNOW_INDEX_DISK_RESERVE_MB": "1000000000"})["home"]
    assert (found.state, "disk_reserve_mb" in found.detail) == ("note", True)
    assert "WINNOW_HOME=DIR" in found.fix


@pytest.mark.parametrize("ours", [True, False])
def test_a_collection_is_compared_with_the_embedder(tmp_path: Path, ours: bool) -> None:
    """One made by another model is broken until it is rebuilt."""
    fill(tmp_path / ".winnow", index_fingerprint(EmbeddingSettings(model="somebody/some-model")) if ours else "x")
    found = findings(tmp_path)["collection default"]
    assert found.state == ("ok" if ours else "broken")
    assert found.fix.startswith("" if ours else "winnow index --rebuild --collection default, or configure")


def test_a_collection_of_an_earlier_version_is_to_be_rebuilt(tmp_path: Path) -> None:
    """Where only the analyser has changed, no other model would help."""
    fingerprint = index_fingerprint(EmbeddingSettings(model="somebody/some-model"))
    fill(tmp_path / ".winnow", fingerprint.replace(LEXICAL_VERSION, "bm25-0"))
    found = findings(tmp_path)["collection default"]
    assert (found.state, "bm25-0" in found.detail) == ("broken", True)
    assert found.fix.startswith("winnow index --rebuild --collection default, as another version")


def test_a_collection_that_the_manifest_does_not_know(tmp_path: Path) -> None:
    """It is broken, with the command that makes them agree; looking creates no manifest."""
    home, fingerprint = tmp_path / ".winnow", index_fingerprint(EmbeddingSettings(model="somebody/some-model"))
    fill(home, fingerprint, points=[point("d1")])
    found = findings(tmp_path)["collection default"]
    assert (found.state, found.fix) == ("broken", "winnow collections repair default")
    assert not list(home.glob("manifest*"))


def test_a_damaged_collection(tmp_path: Path) -> None:
    """It is broken, with the way back, and the other one is not."""
    fingerprint = index_fingerprint(EmbeddingSettings(model="somebody/some-model"))
    for name in ("default", "other"):
        fill(tmp_path / ".winnow", fingerprint, name)
    for segments in (tmp_path / ".winnow" / "index" / "collections" / "default").glob("*/segments"):
        shutil.rmtree(segments)
    found = findings(tmp_path)
    assert (found["collection default"].state, found["collection other"].state) == ("broken", "ok")
    assert "winnow index --rebuild --collection default" in found["collection default"].fix


def test_a_held_index(tmp_path: Path) -> None:
    """Another process works on it: nothing is broken."""
    store = EmbeddedStore(tmp_path / ".winnow" / "index")
    assert findings(tmp_path)["index"].state == "note"
    asyncio.run(store.close())


def test_a_server_that_is_away(tmp_path: Path) -> None:
    """It is told within seconds, with the settings to look at."""
    begun = time.monotonic()
    found = findings(tmp_path, {"QDRANT_URL": "http://127.0.0.1:9"})["index"]
    assert (found.state, "QDRANT_URL" in found.fix) == ("broken", True)
    assert time.monotonic() - begun < 60


def test_a_service_tells_what_it_holds(tmp_path: Path) -> None:
    """Its answers stand for the index, which it owns."""
    with answering(204, b"") as url:
        announce(tmp_path / ".winnow", presence_at(url))
        assert findings(tmp_path)["service"].state == "broken"  # it confirms, but says nothing that can be read


def test_the_fix_stands_below_the_finding() -> None:
    """Two lines, without markup of what was found."""
    console = Console(file=StringIO(), width=40, soft_wrap=True)
    show(console, [Finding(name="index", state="broken", detail="[x]", fix="mend it")])
    assert isinstance(console.file, StringIO)
    assert console.file.getvalue() == "broken index: [x]\n       fix: mend it\n"
