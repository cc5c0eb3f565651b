"""Brings `.venv-ray` up to date: Ray, and a server that speaks S3's protocol, beside what `.venv` has.

The workers of a cluster load what the service loads: this environment sees all of `.venv`, and adds to it.
"""

import sys
from pathlib import Path

from tools.environment import CONSTRAINTS
from tools.environment import VENV as PROJECT
from tools.pip import pip_install
from tools.venvs import ROOT, Venv, stamp

PACKAGES = ("ray[data]", "s3fs", "moto[server]")
VENV = Venv(ROOT / ".venv-ray", hint="This takes about a minute and 0.7 GB.")
PINS = ROOT / "constraints-ray.txt"


def main() -> int:
    """Exit status 0 when `.venv-ray` is ready; 1 with plain lines when it cannot be made; 130 interrupted."""
    return VENV.exit_status(stamp("", (CONSTRAINTS, PINS, Path(__file__))), lambda _: _install())


def install(python: Path, options: list[str]) -> None:
    """Install the packages into the environment of `python`, with these options for pip. Raises InstallFailed."""
    options = ["--constraint", str(CONSTRAINTS), *options]
    pip_install(python, [*options, "--upgrade", "pip"], progress="off")
    pip_install(python, [*options, *PACKAGES])


def _install() -> None:
    own, project = _packages(VENV), _packages(PROJECT)
    (own / "project.pth").write_text(f"{project}\n", encoding="utf-8")
    install(VENV.python, ["--constraint", str(PINS)])


def _packages(venv: Venv) -> Path:
    [folder] = venv.folder.glob("lib/python3*/site-packages")
    return folder


if __name__ == "__main__":
    sys.exit(main())
