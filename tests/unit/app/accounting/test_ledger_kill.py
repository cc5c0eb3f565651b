"""The ledger under kill -9."""

import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]


def killed(home: Path, after: float) -> set[str]:
    """Let a process spend, kill it, and return the calls that it knew to be safe."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.spender", str(home)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(after)
    process.kill()
    said = first + process.stdout.read()
    process.stdout.close()
    process.wait(timeout=60)
    return set(said.decode().rpartition("\n")[0].split())


def check(home: Path, safe: set[str]) -> None:
    """Every call that was said to be safe is there, and the file is whole."""
    with closing(sqlite3.connect(home / "ledger.sqlite3")) as db:
        rows = {row[0] for row in db.execute("SELECT request_id FROM calls")}
        (whole,) = db.execute("PRAGMA integrity_check").fetchone()
        (sums,) = db.execute("SELECT pico FROM spending WHERE scope = 'total' AND length(period) = 7").fetchone()
        (paid,) = db.execute("SELECT sum(pico) FROM calls").fetchone()
    assert safe
    assert safe <= rows
    assert (whole, sums) == ("ok", paid)


def test_what_was_safe_survives_a_kill(tmp_path: Path) -> None:
    """Once, quickly."""
    check(tmp_path, killed(tmp_path, 0.05))


@pytest.mark.slow
def test_what_was_safe_survives_ten_kills(tmp_path: Path) -> None:
    """At random moments, over the same file."""
    dice, safe = random.Random(7), set[str]()
    for _ in range(10):
        safe |= killed(tmp_path, dice.uniform(0, 0.4))
        check(tmp_path, safe)
