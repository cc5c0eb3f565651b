"""Brings `.venv` up to date: made, filled from constraints.txt, and left alone while nothing has changed.

Runs on a bare Python 3.11, so it uses the standard library only. A process that is killed here leaves a mark in the
lock file; the next one starts `.venv` afresh, with what pip has already downloaded.
"""

import argparse
import fcntl
import hashlib
import importlib.util
import json
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.pip import InstallFailed, pip_install

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "winnow.json"
LOCK = ROOT / ".venv.lock"
CONSTRAINTS = ROOT / "constraints.txt"
INGREDIENTS = (CONSTRAINTS, ROOT / "pyproject.toml")

NO_VENV = "{python} cannot make environments. On Debian and Ubuntu:  apt-get install python3-venv"
NOT_WRITABLE = "Winnow installs into {folder}, and that cannot be written to: {reason}"


@dataclass(frozen=True)
class Stamp:
    """What an environment was made from. It holds for one place and one Python: an environment cannot be moved."""

    place: str
    python: str
    torch: str
    ingredients: str
    extras: tuple[str, ...]

    def covers(self, wanted: "Stamp") -> bool:
        """Whether nothing is left to install."""
        return self.movable() == wanted.movable() and set(self.extras) >= set(wanted.extras)

    def movable(self) -> tuple[str, ...]:
        """Everything but the extras, of which there may be more."""
        return self.place, self.python, self.torch, self.ingredients


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 when `.venv` is ready; 1 with one plain line when it cannot be made; 130 interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", default="", help="a requirement or a wheel, in place of the pinned torch")
    parser.add_argument("extras", nargs="+")
    options = parser.parse_args(arguments)
    try:
        bring_up_to_date(options.torch, tuple(options.extras))
    except InstallFailed as exc:
        print(f"\n{exc}", file=sys.stderr)
        return 1
    except OSError as exc:
        print(NOT_WRITABLE.format(folder=VENV, reason=exc.strerror or exc), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; the same command starts over.", file=sys.stderr)
        return 130
    return 0


def bring_up_to_date(torch: str, extras: tuple[str, ...]) -> None:
    """Install what is missing. Raises InstallFailed, OSError."""
    wanted = _wanted(torch, extras)
    if _is_ready(wanted):
        return
    with _lock() as interrupted:
        if _is_ready(wanted) and not interrupted:
            return  # another make did it while this one waited
        have = None if interrupted else _stamp()
        _make_room(wanted, have, interrupted)
        union = tuple(sorted({*extras, *(have.extras if have else ())}))
        _fill(torch, union)
        STAMP.write_text(json.dumps(asdict(_wanted(torch, union))), encoding="utf-8")
    print("Installed.\n", flush=True)


def _wanted(torch: str, extras: tuple[str, ...]) -> Stamp:
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in INGREDIENTS)).hexdigest()
    return Stamp(str(ROOT), f"{sys.version_info.major}.{sys.version_info.minor}", torch, digest, extras)


def _stamp() -> Stamp | None:
    try:
        fields = json.loads(STAMP.read_text(encoding="utf-8"))
        return Stamp(**{**fields, "extras": tuple(fields["extras"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _is_ready(wanted: Stamp) -> bool:
    have = _stamp()
    return have is not None and have.covers(wanted) and _python().exists()


def _python() -> Path:
    return VENV / "bin" / "python"


@contextmanager
def _lock() -> Iterator[bool]:
    """One installation at a time; waits. Gives whether the last one was killed halfway."""
    with LOCK.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another make is installing here; waiting for it.", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        yield bool(file.read())
        file.truncate(0)


@contextmanager
def _marked() -> Iterator[None]:
    """The lock file says that an installation is under way, until it ends by itself."""
    LOCK.write_text("installing\n", encoding="utf-8")
    try:
        yield
    except InstallFailed:
        LOCK.write_text("", encoding="utf-8")  # pip has put back what it was replacing
        raise
    LOCK.write_text("", encoding="utf-8")


def _make_room(wanted: Stamp, have: Stamp | None, interrupted: bool) -> None:
    """Make `.venv`, or make it anew where the old one is of no use."""
    moved = have is not None and (have.place, have.python) != (wanted.place, wanted.python)
    if _python().exists() and not moved and not interrupted:
        print("Bringing .venv up to date.", flush=True)
        return
    if importlib.util.find_spec("ensurepip") is None:
        raise InstallFailed(NO_VENV.format(python=sys.executable))
    afresh = " afresh: the last installation was interrupted" if interrupted else ""
    print(f"Making the environment .venv with Python {wanted.python}{afresh}.", flush=True)
    print("This takes a few minutes: torch alone is 0.2 GB, or 3 GB where it comes with CUDA.", flush=True)
    with _marked():
        _create()


def _create() -> None:
    try:
        venv.EnvBuilder(clear=True, symlinks=True, with_pip=True).create(VENV)
    except subprocess.CalledProcessError as exc:
        raise InstallFailed(NO_VENV.format(python=sys.executable)) from exc


def _fill(torch: str, extras: tuple[str, ...]) -> None:
    STAMP.unlink(missing_ok=True)
    with _marked():
        pins = _pins_beside(torch)
        pip_install(_python(), ["--constraint", str(pins), "--upgrade", "pip"], progress="off")
        pip_install(_python(), ["--constraint", str(pins), torch or "torch"])
        place = f"{ROOT}[{','.join(extras)}]"
        pip_install(_python(), ["--constraint", str(pins), "--build-constraint", str(pins), "--editable", place])


def _pins_beside(torch: str) -> Path:
    """The constraints; without the line for torch when another torch is asked for."""
    if not torch:
        return CONSTRAINTS
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    path = VENV / "constraints.txt"
    path.write_text("\n".join(line for line in lines if not line.startswith("torch==")), encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
