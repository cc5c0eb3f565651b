import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from indexing.documents import Document
from indexing.pipeline.context import PipelineContext
from indexing.pipeline.ingest import SubmittedDocument, put_documents
from indexing.store.embedded import EmbeddedStore
from tests.fakes.library import content, index, records, workbench
from tests.fakes.shelf import Shelf

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
SECONDS_A_TEXT = 0.001
HANDED = [SubmittedDocument(id=f"note-{n}", document=Document(text=f"Note number {n}, handed over.")) for n in range(5)]


def killed_after(seconds: float, home: Path, folder: Path, *, rebuild: bool) -> bool:
    """Begin a run and kill it so many seconds later; False if it was done before."""
    command = [sys.executable, "-m", "tests.fakes.indexer", str(home), str(folder), str(SECONDS_A_TEXT)]
    run = subprocess.Popen(command + ["rebuild"] * rebuild, cwd=ROOT, stdout=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stdout.readline() == b"begun\n"
    time.sleep(seconds)
    run.kill()
    run.stdout.close()
    code = run.wait(timeout=10)
    assert code in (0, -signal.SIGKILL)
    return code != 0


async def opened(home: Path) -> PipelineContext:
    """The index in a home; waits for readers of a killed run to let go."""
    return workbench(EmbeddedStore(home / "index", wait=10), home)


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
        kills += killed_after(dice.uniform(0, 2), home, folder, rebuild=dice.random() < 0.25)
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
