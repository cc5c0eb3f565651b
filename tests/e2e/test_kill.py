import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from indexing.documents import EVERYTHING, Document
from indexing.pipeline.context import PipelineContext, show_what_counts
from indexing.pipeline.ingest import SubmittedDocument, finish_submitted, put_documents
from indexing.pipeline.visibility import retrieve_counting
from indexing.retrieval.bm25 import Lexical
from indexing.store.base import Retrieval
from indexing.store.embedded import EmbeddedStore
from tests.fakes.embedder import HashEmbedder
from tests.fakes.indexer import PASSAGES, SUBMITTED, submitted
from tests.fakes.library import content, index, records, workbench
from tests.fakes.shelf import Shelf

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
SECONDS_A_TEXT = 0.001
HANDED = [
    SubmittedDocument(writer=EVERYTHING, id=f"note-{n}", document=Document(text=f"Note number {n}, handed over."))
    for n in range(5)
]


def killed_after(seconds: float, home: Path, folder: Path, *how: str) -> bool:
    """Begin a run and kill it so many seconds later; False if it was done before."""
    command = [sys.executable, "-m", "tests.fakes.indexer", str(home), str(folder), str(SECONDS_A_TEXT)]
    run = subprocess.Popen([*command, *how], cwd=ROOT, stdout=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stdout.readline() == b"begun\n"
    time.sleep(seconds)
    run.kill()
    run.stdout.close()
    code = run.wait(timeout=60)
    assert code in (0, -signal.SIGKILL)
    return code != 0


async def opened(home: Path) -> PipelineContext:
    """The index in a home; waits for readers of a killed run to let go."""
    bench = workbench(EmbeddedStore(home / "index", wait=10), home)
    await show_what_counts(bench)
    return bench


async def closed(bench: PipelineContext) -> None:
    await bench.manifest.close()
    await bench.store.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
async def test_killed_runs_leave_nothing_that_the_next_run_does_not_mend(tmp_path: Path, seed: int) -> None:
    """After five kills, with files changed in between, one run makes the index that a fresh one would be."""
    dice = random.Random(seed)
    home, folder = tmp_path / "home", tmp_path / "files"
    shelf = Shelf(folder, seed)
    bench = await opened(home)
    await put_documents(bench, "default", HANDED)
    await closed(bench)
    kills = 0
    while kills < 5:
        kills += killed_after(dice.uniform(0, 2), home, folder, *["rebuild"] * (dice.random() < 0.25))
        if dice.random() < 0.6:
            shelf.shuffle()
    bench, fresh = await opened(home), await opened(tmp_path / "fresh")
    await put_documents(fresh, "default", HANDED)
    await index(bench, folder)
    await index(fresh, folder)
    assert await content(bench) == await content(fresh)
    assert await records(bench) == await records(fresh)
    assert (await index(bench, folder)).passages == 0
    await closed(bench)
    await closed(fresh)


async def versions_served(bench: PipelineContext) -> dict[str, list[int]]:
    """The rounds that a search finds of each document; each with all of its passages, as GET shows it."""
    lineage = (await bench.store.info("default")).spec.lineage
    query = Retrieval(dense=HashEmbedder().embed_queries(["word"])[0], sparse=Lexical().query("word"), limit=100)
    retrieved = await retrieve_counting(
        bench.store, "default", query, EVERYTHING, lambda: bench.visibility.counting(lineage)
    )
    rounds: dict[str, list[int]] = {}
    for candidate in retrieved.sparse:
        passage = candidate.passage
        rounds.setdefault(passage.document_id, []).append(int(passage.text.split()[3]))
        record = await bench.manifest.document(lineage, passage.document_id)
        assert record is not None
        assert record.version == passage.version
    return rounds


@pytest.mark.timeout(600)
async def test_a_killed_update_leaves_the_old_or_the_new_version(tmp_path: Path) -> None:
    """After every kill each document is served in one version, whole, never an older one; a restart finishes."""
    dice, home, first = random.Random(5), tmp_path / "home", 1
    home.mkdir()
    bench = await opened(home)
    for key in SUBMITTED:
        await put_documents(bench, "default", [submitted(key, 0)])
    await closed(bench)
    newest = dict.fromkeys(SUBMITTED, 0)
    for _ in range(8):
        assert killed_after(dice.uniform(0.05, 1.2), home, tmp_path, f"put{first}")
        bench = await opened(home)
        served = await versions_served(bench)
        assert {key: len(set(rounds)) for key, rounds in served.items()} == dict.fromkeys(SUBMITTED, 1)
        assert {key: len(rounds) for key, rounds in served.items()} == dict.fromkeys(SUBMITTED, PASSAGES)
        assert all(served[key][0] >= newest[key] for key in SUBMITTED)
        info = await bench.store.info("default")
        await finish_submitted(bench, "default", info.spec.lineage)
        finished = await versions_served(bench)
        assert all(finished[key][0] >= served[key][0] for key in SUBMITTED)
        assert await bench.manifest.unfinished(info.spec.lineage) == []
        assert (await bench.store.info("default")).passages == PASSAGES * len(SUBMITTED)
        newest = {key: rounds[0] for key, rounds in finished.items()}
        first = max(newest.values()) + 1
        await closed(bench)
    assert first > 1
