"""An environment that is made, filled, and left alone while nothing it was made from has changed.

Runs on a bare Python 3.11, so it uses the standard library only. A process that is killed here leaves a mark in the
lock file; the next one starts the environment afresh, with what pip has already downloaded.
"""

import fcntl
import hashlib
import importlib.util
import json
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tools.pip import InstallFailed

ROOT = Path(__file__).resolve().parent.parent

NO_VENV = "{python} cannot make environments. On Debian and Ubuntu:  apt-get install python3-venv"
NOT_WRITABLE = "Winnow installs into {folder}, and that cannot be written to: {reason}"


@dataclass(frozen=True)
class Stamp:
    """What an environment was made from. It holds for one place and one Python: an environment cannot be moved."""

    place: str
    python: str
    torch: str
    ingredients: str
    extras: tuple[str, ...] = ()

    def covers(self, wanted: "Stamp") -> bool:
        """Whether nothing is left to install."""
        return self.movable() == wanted.movable() and set(self.extras) >= set(wanted.extras)

    def movable(self) -> tuple[str, ...]:
        """Everything but the extras, of which there may be more."""
        return self.place, self.python, self.torch, self.ingredients


def stamp(torch: str, ingredients: Sequence[Path], extras: tuple[str, ...] = ()) -> Stamp:
    """The stamp of an environment made here and now from these files."""
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in ingredients)).hexdigest()
    return Stamp(str(ROOT), f"{sys.version_info.major}.{sys.version_info.minor}", torch, digest, extras)


class Venv:
    """A folder with a Python of its own. `hint` tells a person how long the first time takes, and why."""

    def __init__(self, folder: Path, hint: str) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self._hint = hint
        self._stamp = folder / "winnow.json"
        self._lock = folder.with_name(f"{folder.name}.lock")

    def exit_status(self, wanted: Stamp, fill: Callable[[Stamp], None]) -> int:
        """0 when it is ready; 1 with one plain line when it cannot be made; 130 interrupted."""
        try:
            self.bring_up_to_date(wanted, fill)
        except InstallFailed as exc:
            print(f"\n{exc}", file=sys.stderr)
            return 1
        except OSError as exc:
            print(NOT_WRITABLE.format(folder=self.folder, reason=exc.strerror or exc), file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\nInterrupted; the same command starts over.", file=sys.stderr)
            return 130
        return 0

    def bring_up_to_date(self, wanted: Stamp, fill: Callable[[Stamp], None]) -> None:
        """Let `fill` install what is wanted, and the extras that are there already. Raises InstallFailed, OSError."""
        if self._is_ready(wanted):
            return
        with self._locked() as interrupted:
            if self._is_ready(wanted) and not interrupted:
                return  # another make did it while this one waited
            have = None if interrupted else self._read()
            self._make_room(wanted, have, interrupted)
            union = replace(wanted, extras=tuple(sorted({*wanted.extras, *(have.extras if have else ())})))
            self._stamp.unlink(missing_ok=True)
            with self._marked():
                fill(union)
            self._stamp.write_text(json.dumps(asdict(union)), encoding="utf-8")
        print("Installed.\n", flush=True)

    def _read(self) -> Stamp | None:
        try:
            fields = json.loads(self._stamp.read_text(encoding="utf-8"))
            return Stamp(**{**fields, "extras": tuple(fields["extras"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _is_ready(self, wanted: Stamp) -> bool:
        have = self._read()
        return have is not None and have.covers(wanted) and self.python.exists()

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """One installation at a time; waits. Gives whether the last one was killed halfway."""
        with self._lock.open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("Another make is installing here; waiting for it.", flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            yield bool(file.read())
            file.truncate(0)

    @contextmanager
    def _marked(self) -> Iterator[None]:
        """The lock file says that an installation is under way, until it ends by itself."""
        self._lock.write_text("installing\n", encoding="utf-8")
        try:
            yield
        except InstallFailed:
            self._lock.write_text("", encoding="utf-8")  # pip has put back what it was replacing
            raise
        self._lock.write_text("", encoding="utf-8")

    def _make_room(self, wanted: Stamp, have: Stamp | None, interrupted: bool) -> None:
        """Make the folder, or make it anew where the old one is of no use."""
        moved = have is not None and (have.place, have.python) != (wanted.place, wanted.python)
        if self.python.exists() and not moved and not interrupted:
            print(f"Bringing {self.folder.name} up to date.", flush=True)
            return
        if importlib.util.find_spec("ensurepip") is None:
            raise InstallFailed(NO_VENV.format(python=sys.executable))
        afresh = " afresh: the last installation was interrupted" if interrupted else ""
        print(f"Making the environment {self.folder.name} with Python {wanted.python}{afresh}.", flush=True)
        print(self._hint, flush=True)
        with self._marked():
            create(self.folder)


def create(folder: Path) -> None:
    """An empty environment. Raises InstallFailed."""
    try:
        venv.EnvBuilder(clear=True, symlinks=True, with_pip=True).create(folder)
    except subprocess.CalledProcessError as exc:
        raise InstallFailed(NO_VENV.format(python=sys.executable)) from exc


def pins_beside(torch: str, constraints: Path, folder: Path) -> Path:
    """The constraints; without the line for torch, and in `folder`, when another torch is asked for."""
    if not torch:
        return constraints
    lines = constraints.read_text(encoding="utf-8").splitlines()
    path = folder / "constraints.txt"
    path.write_text("\n".join(line for line in lines if not line.startswith("torch==")), encoding="utf-8")
    return path
