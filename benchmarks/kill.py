"""Kills `winnow index` at random moments, runs it again, and compares the index with one that was never killed.

    python -m benchmarks.kill [--rounds 20] [--seed 1]

Indexes a generated folder (several formats, a file of records) with the quick start's model, each round into a home of
its own: SIGKILL at a random moment of the run, then the same command to its end. A round is right when passages,
payloads and manifest are those of an undisturbed index, and yet another run has nothing to do. Exit status 1 otherwise.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from indexing.store.embedded import EmbeddedStore
from tests.fakes.library import content, records, workbench
from tests.fakes.shelf import Shelf


def main() -> int:
    """Kill, mend, compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    dice = random.Random(args.seed)
    scratch = Path(tempfile.mkdtemp(prefix="winnow-kill-"))
    try:
        Shelf(scratch / "files", args.seed, files=6, records=40)
        right = _rounds(scratch, dice, args.rounds)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"{right} of {args.rounds} complete and identical")
    return 0 if right == args.rounds else 1


def _rounds(scratch: Path, dice: random.Random, rounds: int) -> int:
    begun = time.perf_counter()
    _finish(scratch / "undisturbed", scratch / "files")
    seconds = time.perf_counter() - begun
    expected = asyncio.run(_held(scratch / "undisturbed"))
    print(f"an undisturbed run takes {seconds:.1f} s and writes {len(expected[0])} passages", flush=True)
    right = 0
    for number in range(1, rounds + 1):
        home, moment = scratch / f"round-{number}", dice.uniform(0, seconds)
        killed = _kill(home, scratch / "files", moment)
        _finish(home, scratch / "files")
        same = asyncio.run(_held(home)) == expected and _finish(home, scratch / "files")["passages"] == 0
        right += same
        print(
            f"{number:3}: {'killed' if killed else 'done'} after {moment:5.2f} s: {'identical' if same else 'DIFFERS'}",
            flush=True,
        )
        shutil.rmtree(home)
    return right


def _start(home: Path, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "app.cli.main", "index", str(folder), "--json"]
    environment = {**os.environ, "WINNOW_HOME": str(home)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def _kill(home: Path, folder: Path, seconds: float) -> bool:
    """False when the run was done before its time was up."""
    with _start(home, folder) as run:
        time.sleep(seconds)
        run.kill()
    return run.returncode != 0


def _finish(home: Path, folder: Path) -> dict[str, Any]:
    out, _ = _start(home, folder).communicate()
    summary: dict[str, Any] = json.loads(out)
    return summary


async def _held(home: Path) -> tuple[Any, Any]:
    """Passages with their payloads, and the manifest."""
    bench = workbench(EmbeddedStore(home / "index", wait=10), home)
    try:
        return await content(bench), await records(bench)
    finally:
        await bench.manifest.close()
        await bench.store.close()


if __name__ == "__main__":
    sys.exit(main())
