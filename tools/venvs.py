"""Virtual environments that are created, filled, and left alone while nothing they were made from has changed.

Runs on a bare Python 3.11, so it uses the standard library only. An installation that is killed leaves a mark in the
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

NO_VENV = "{python} cannot create virtual environments. On Debian and Ubuntu:  apt-get install python3-venv"
NOT_WRITABLE = "cannot write to {folder}, into which Winnow installs: {reason}"
LINKED = (
    "{folder} is a link to the environment of another checkout, and does not fit this one. Remove the link, or bring "
    "that environment up to date there."
)


@dataclass(frozen=True)
class Stamp:
    """What an environment was made from: in which checkout, by which Python, with which torch, files and extras."""

    place: str
    python: str
    torch: str
    files: str
    extras: tuple[str, ...] = ()

    def covers(self, other: "Stamp") -> bool:
        """Whether nothing is missing for `other`; more extras do no harm."""
        return replace(self, extras=()) == replace(other, extras=()) and set(self.extras) >= set(other.extras)


def stamp(torch: str, files: Sequence[Path], extras: tuple[str, ...] = ()) -> Stamp:
    """The stamp of an environment made now, in this checkout, from these files."""
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()
    return Stamp(str(ROOT), f"{sys.version_info.major}.{sys.version_info.minor}", torch, digest, extras)


class Venv:
    """A virtual environment in `folder`. `hint` tells a person how long the first installation takes, and why."""

    def __init__(self, folder: Path, hint: str) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self._hint = hint
        self._stamp = folder / "winnow.json"
        self._lock = folder.with_name(f"{folder.name}.lock")

    def exit_status(self, wanted: Stamp, install: Callable[[Stamp], None]) -> int:
        """0 when the environment is ready; 1 with one plain line when it cannot be made; 130 interrupted."""
        try:
            self.bring_up_to_date(wanted, install)
        except InstallFailed as exc:
            print(f"\n{exc}", file=sys.stderr)
            return 1
        except OSError as exc:
            print(NOT_WRITABLE.format(folder=self.folder, reason=exc.strerror or exc), file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\nInterrupted; run the same command again.", file=sys.stderr)
            return 130
        return 0

    def bring_up_to_date(self, wanted: Stamp, install: Callable[[Stamp], None]) -> None:
        """Let `install` add what is wanted to what is there. Raises InstallFailed, OSError."""
        if self._is_ready(wanted):
            return
        if self.folder.is_symlink():
            raise InstallFailed(LINKED.format(folder=self.folder))  # others may be using it at this moment
        with self._locked() as interrupted:
            if self._is_ready(wanted) and not interrupted:
                return  # another make did it while this one waited
            present = None if interrupted else self._read()
            if interrupted or not self.python.exists() or _made_elsewhere(present, wanted):
                self._create(wanted, " afresh: the last installation was interrupted" if interrupted else "")
            else:
                print(f"Bringing {self.folder.name} up to date.", flush=True)
            extras = {*wanted.extras, *(present.extras if present else ())}
            wanted = replace(wanted, extras=tuple(sorted(extras)))
            self._stamp.unlink(missing_ok=True)
            with self._marked():
                install(wanted)
            self._stamp.write_text(json.dumps(asdict(wanted)), encoding="utf-8")
        print("Installed.\n", flush=True)

    def _read(self) -> Stamp | None:
        try:
            fields = json.loads(self._stamp.read_text(encoding="utf-8"))
            return Stamp(**{**fields, "extras": tuple(fields["extras"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _is_ready(self, wanted: Stamp) -> bool:
        present = self._read()
        return present is not None and present.covers(wanted) and self.python.exists()

    def _create(self, wanted: Stamp, afresh: str) -> None:
        if importlib.util.find_spec("ensurepip") is None:
            raise InstallFailed(NO_VENV.format(python=sys.executable))
        print(f"Creating the environment {self.folder.name} with Python {wanted.python}{afresh}.", flush=True)
        print(self._hint, flush=True)
        with self._marked():
            create(self.folder)

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """One installation at a time; waits. Yields whether the last one was killed halfway."""
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
        """Mark the lock file while an installation is under way; only a kill leaves the mark there."""
        self._lock.write_text("installing\n", encoding="utf-8")
        try:
            yield
        except InstallFailed:
            self._lock.write_text("", encoding="utf-8")  # pip has put back what it was replacing
            raise
        self._lock.write_text("", encoding="utf-8")


def _made_elsewhere(present: Stamp | None, wanted: Stamp) -> bool:
    """Scripts in an environment hold its path and its Python: it cannot be moved."""
    return present is not None and (present.place, present.python) != (wanted.place, wanted.python)


def create(folder: Path) -> None:
    """Create an empty environment. Raises InstallFailed."""
    try:
        venv.EnvBuilder(clear=True, symlinks=True, with_pip=True).create(folder)
    except subprocess.CalledProcessError as exc:
        raise InstallFailed(NO_VENV.format(python=sys.executable)) from exc


def constraints_for(torch: str, constraints: Path, folder: Path) -> Path:
    """The constraints file; a copy in `folder` without the line for torch when another torch is asked for."""
    if not torch:
        return constraints
    lines = constraints.read_text(encoding="utf-8").splitlines()
    path = folder / "constraints.txt"
    path.write_text("\n".join(line for line in lines if not line.startswith("torch==")), encoding="utf-8")
    return path
