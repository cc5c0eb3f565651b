"""Brings `.venv` up to date: created, filled from constraints.txt, and left alone while nothing has changed."""

import argparse
import sys

from tools.pip import pip_install
from tools.venvs import ROOT, Stamp, Venv, constraints_for, stamp

VENV = Venv(
    ROOT / ".venv",
    hint="This takes a few minutes: torch alone is 0.2 GB, or 3 GB where it comes with CUDA.",
)
CONSTRAINTS = ROOT / "constraints.txt"


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 when `.venv` is ready; 1 with one plain line when it cannot be made; 130 interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", default="", help="a requirement or a wheel, in place of the pinned torch")
    parser.add_argument("extras", nargs="+")
    options = parser.parse_args(arguments)
    wanted = stamp(options.torch, (CONSTRAINTS, ROOT / "pyproject.toml"), tuple(options.extras))
    return VENV.exit_status(wanted, _install)


def _install(wanted: Stamp) -> None:
    pins = str(constraints_for(wanted.torch, CONSTRAINTS, VENV.folder))
    # An old pip knows no raw progress, and torch first shows the largest download by itself.
    pip_install(VENV.python, ["--constraint", pins, "--upgrade", "pip"], progress="off")
    pip_install(VENV.python, ["--constraint", pins, wanted.torch or "torch"])
    project = f"{ROOT}[{','.join(wanted.extras)}]"
    pip_install(VENV.python, ["--constraint", pins, "--build-constraint", pins, "--editable", project])


if __name__ == "__main__":
    sys.exit(main())
