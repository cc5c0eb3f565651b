"""How `.venv` is made and brought up to date, with a pip that only writes down what it is told."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tools.constraints import pinned_torch, pins
from tools.environment import Stamp
from tools.pip import InstallFailed, pip_install, show

ROOT = Path(__file__).resolve().parents[2]

OUTPUT = """\
Collecting torch==2.13.0
  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl.metadata (31 kB)
Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl (526.6 MB)
Progress 0 of 526605292
Progress 263302646 of 526605292
Downloading https://index.example/packages/ab/cuda_libraries-13.0-py3-none-any.whl (1.2 GB)
Progress 5 of 10
Downloading h11-0.16.0-py3-none-any.whl (37 kB)
Progress 37 of 37
Installing collected packages: torch
"""

STAMP = Stamp(place="/here", python="3.11", torch="", ingredients="abc", extras=("quickstart",))

PIP = """\
import os, sys, time
from pathlib import Path
with open(os.environ["FAKE_PIP_LOG"], "a") as log:
    log.write(" ".join(sys.argv[2:]) + chr(10))
time.sleep(float(os.environ.get("FAKE_PIP_SLEEP", "0")))
print("no such package"); sys.exit(int(os.environ.get("FAKE_PIP_STATUS", "0")))
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_only_big_downloads_are_shown() -> None:
    """A line with its size for each download that takes a while, and nothing of the rest."""
    screen = io.StringIO()
    last_words = show(OUTPUT.splitlines(keepends=True), screen)
    assert screen.getvalue() == "  torch-2.13.0, 527 MB\n  cuda_libraries-13.0, 1200 MB\n"
    assert last_words[-1] == "Installing collected packages: torch"


def test_a_terminal_sees_progress() -> None:
    """The line of a big download is drawn anew with its percentage; small downloads have none."""
    screen = Terminal()
    show(OUTPUT.splitlines(keepends=True), screen)
    assert "torch-2.13.0, 527 MB: 50 %" in screen.getvalue()
    assert "100 %" not in screen.getvalue()


def test_failure_repeats_what_pip_said() -> None:
    """What pip said last is in the error, with what to do."""
    with pytest.raises(InstallFailed, match=r"(?s)requirement.*the same command goes on"):
        pip_install(Path(sys.executable), ["--no-index", "no-such-package-of-winnow"])


@pytest.mark.parametrize(
    "change", [{"place": "/there"}, {"python": "3.12"}, {"torch": "torch==2.14.0"}, {"ingredients": "abd"}]
)
def test_a_stamp_holds_for_one_place_python_torch_and_list(change: dict[str, str]) -> None:
    """Any of these differing means that there is something to install."""
    assert STAMP.covers(STAMP)
    assert not STAMP.covers(replace(STAMP, **change))  # type: ignore[arg-type]


def test_more_extras_cover_fewer() -> None:
    """`make run` has nothing to do after `make test`; the other way round it has."""
    both = replace(STAMP, extras=("dev", "quickstart"))
    assert both.covers(STAMP)
    assert not STAMP.covers(both)


def test_pins_carry_no_builds_and_no_addresses() -> None:
    """Local versions, direct references and torch's own CUDA libraries stay out; order does not depend on case."""
    frozen = "torch==2.13.0+cpu\nb @ file:///b.whl\nnvidia-cudnn-cu13==9\ntriton==3.7\ncuda-toolkit==13\nFaker==1\nanyio==2\n"
    assert pins(frozen) == "anyio==2\nFaker==1\ntorch==2.13.0\n"


def test_constraints_of_this_repository_pin_torch_once_and_name_no_host() -> None:
    """They are names and versions only."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert pinned_torch(text) == "torch==2.13.0"
    assert all(line.count("==") == 1 and "/" not in line and "+" not in line for line in lines)


class Checkout:
    """A copy of what the installer needs, with a `.venv` whose pip is PIP."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "pip.log"
        for name in ("tools/environment.py", "tools/pip.py", "tools/__init__.py", "constraints.txt", "pyproject.toml"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())

    def make_venv(self) -> None:
        """As a first installation leaves it, but for the stamp."""
        site = self.folder / ".venv" / "bin"
        site.mkdir(parents=True)
        pip = self.folder / "fake_pip.py"
        pip.write_text(PIP)
        (site / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{pip}" "$@"\n')
        (site / "python").chmod(0o755)

    def start(self, *extras: str, **environ: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "tools.environment", *extras],
            cwd=self.folder,
            env={**os.environ, "FAKE_PIP_LOG": str(self.log), **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *extras: str, **environ: str) -> tuple[int, str]:
        process = self.start(*extras, **environ)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def pip_calls(self) -> Sequence[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    checkout = Checkout(tmp_path / "a checkout")
    checkout.make_venv()
    return checkout


def test_torch_comes_first_and_all_is_constrained(checkout: Checkout) -> None:
    """pip itself, torch by its own command, then Winnow with its extras."""
    assert checkout.run("quickstart")[0] == 0
    calls = checkout.pip_calls()
    assert [call.split()[-1] for call in calls][:2] == ["pip", "torch"]
    assert calls[2].endswith("a checkout[quickstart]")
    assert all("--constraint" in call for call in calls)


def test_nothing_is_installed_twice(checkout: Checkout) -> None:
    """The second run calls no pip; a changed list of dependencies does."""
    checkout.run("quickstart")
    before = len(checkout.pip_calls())
    assert checkout.run("quickstart") == (0, "")
    assert len(checkout.pip_calls()) == before
    with (checkout.folder / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    assert checkout.run("quickstart")[0] == 0
    assert len(checkout.pip_calls()) == 2 * before


def test_extras_add_up(checkout: Checkout) -> None:
    """Bringing the environment up to date for `make run` keeps what `make test` needs."""
    checkout.run("quickstart", "dev")
    checkout.run("quickstart", FAKE_PIP_SLEEP="0")
    stamp = json.loads((checkout.folder / ".venv" / "winnow.json").read_text())
    assert stamp["extras"] == ["dev", "quickstart"]


def test_a_failed_pip_is_repeated_next_time(checkout: Checkout) -> None:
    """Exit status 1, pip's words, and the next run goes on in the same environment."""
    status, output = checkout.run("quickstart", FAKE_PIP_STATUS="1")
    assert status == 1
    assert "no such package" in output
    assert checkout.run("quickstart") == (0, "Bringing .venv up to date.\nInstalled.\n\n")


def test_two_at_once_install_once(checkout: Checkout) -> None:
    """The second waits, says so, and finds everything done."""
    first = checkout.start("quickstart", FAKE_PIP_SLEEP="0.5")
    _wait_for(checkout.pip_calls)
    status, output = checkout.run("quickstart")
    assert (status, first.wait(60)) == (0, 0)
    assert output == "Another make is installing here; waiting for it.\n"
    assert len(checkout.pip_calls()) == 3
    first.communicate()


def test_a_killed_installation_starts_afresh(checkout: Checkout) -> None:
    """After a kill in the middle the old environment is not trusted: a real one takes its place."""
    first = checkout.start("quickstart", FAKE_PIP_SLEEP="30")
    _wait_for(checkout.pip_calls)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    status, output = checkout.run("quickstart", PIP_NO_INDEX="1", PIP_FIND_LINKS="")
    assert status == 1  # the new environment has the real pip, and this one is given nowhere to look
    assert "afresh: the last installation was interrupted" in output


def _wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
