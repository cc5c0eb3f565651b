"""When a child process is given up."""

import itertools
import subprocess
import sys
from collections.abc import Iterator

import pytest

from indexing.store.supervision import Watch, outcome


def child(program: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.fixture
def hanging() -> Iterator[subprocess.Popen[bytes]]:
    with child("import signal; signal.pause()") as process:
        yield process
        process.kill()


def test_a_process_that_does_nothing_has_hung() -> None:
    """Each bit of processor time starts the ten minutes anew."""
    watch = Watch(1000.0, points=0)
    assert watch.complaint(1599.0, 0.0) == ""
    assert watch.complaint(1600.0, 0.01) == ""
    assert watch.complaint(2199.0, 0.01) == ""
    assert "did nothing for 600 s" in watch.complaint(2200.0, 0.01)


def test_a_process_that_works_for_ever_has_hung() -> None:
    """It may take an hour of the processor and 50 ms a point, or as long by the clock where nobody counts that."""
    for spent in (4600.0, None):
        assert Watch(0.0, points=20_000).complaint(4600.0, spent) == ""
    for spent in (4601.0, None):
        assert "not done after 4601 s" in Watch(0.0, points=20_000).complaint(4601.0, spent)


def test_a_hanging_child_is_ended(hanging: subprocess.Popen[bytes]) -> None:
    """Its status is that of a kill, and the reason stands for its errors."""
    hours = itertools.count(3600.0, 3600.0)
    code, errors = outcome(hanging, Watch(0.0, points=10**6), clock=lambda: next(hours), look_s=0.02)
    assert code < 0
    assert "was ended" in errors


def test_what_a_child_says_is_handed_on() -> None:
    """However often it was looked at before it ended."""
    working = child("import sys, time; sys.stderr.write('one '); sys.stderr.flush(); time.sleep(.1); sys.exit('two')")
    assert outcome(working, Watch(0.0, points=0), clock=lambda: 1.0, look_s=0.01) == (1, "one two\n")
