"""Whether a shard's files are those that were closed, found out before the engine touches them.

The engine deletes a segment that lacks its version, and takes a list of points that was cut off for a shorter one, both
without a word. So a shard that is closed is sealed: the sizes and times of its files, and how many points it holds, are
written beside them. The first write after that marks the shard as in use, until it is sealed again.
"""

import os
from pathlib import Path

import msgspec

from indexing.disk import sync_directory

_SEAL, _IN_USE = "sealed.json", "in-use"
MARKS = (_SEAL, _IN_USE)
"""What a copy of a shard must leave behind."""

_GROWING = ("mutable_id_tracker.mappings", "mutable_id_tracker.versions")
"""Files that the engine only appends to."""

_JOURNAL = "tracker_journal.dat"
"""What the engine has not yet put in its place; it removes the file when it has, also of a shard that is only read."""


class Seal(msgspec.Struct, frozen=True):
    """How many points there were, and of each file its size and when it was changed last (ns)."""

    points: int
    files: dict[str, tuple[int, int]]


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """`trouble` says what is wrong with the files, "" if nothing is. `untouched`: nobody has changed any since.

    `points` is how many there must be, None if that is not known.
    """

    trouble: str = ""
    untouched: bool = False
    points: int | None = None


def seal(directory: Path, points: int) -> None:
    """Seal a shard that has been closed. Raises OSError."""
    replace_file(directory / _SEAL, msgspec.json.encode(Seal(points, _files(directory))))
    (directory / _IN_USE).unlink(missing_ok=True)


def mark_in_use(directory: Path) -> None:
    """The shard is about to be written to. Raises OSError."""
    if not (directory / _IN_USE).exists():
        replace_file(directory / _IN_USE, b"")


def inspect(directory: Path) -> Inspection:
    """Look at the files, without opening any of the engine's. Raises OSError."""
    segments = directory / "segments"
    for part in (directory / "wal", segments):
        if not part.is_dir():
            return Inspection(trouble=f"{part.name} is missing")
    for segment in segments.iterdir():
        if segment.is_dir() and not all((segment / name).exists() for name in ("version.info", "segment.json")):
            return Inspection(trouble="a segment is incomplete")
    sealed = _read(directory / _SEAL)
    if sealed is None:
        return Inspection()
    now = _files(directory)
    if (directory / _IN_USE).exists():
        growing = {path: size for path, (size, _) in sealed.files.items() if path.endswith(_GROWING)}
        return Inspection(trouble=_cut_off(growing, now))
    changed = {path for path, (size, _) in sealed.files.items() if path not in now or now[path][0] != size}
    return Inspection(
        trouble=f"{min(changed)} is missing or has another size" if changed else "",
        untouched=now == sealed.files,
        points=sealed.points,
    )


def replace_file(path: Path, content: bytes) -> None:
    """Write so that after a crash at any moment the file is the old one or the new one. Raises OSError."""
    temporary = path.with_name(f"{path.name}.new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def _cut_off(growing: dict[str, int], now: dict[str, tuple[int, int]]) -> str:
    short = [path for path, size in growing.items() if now.get(path, (0, 0))[0] < size]
    return f"{min(short)} is missing or has been cut off" if short else ""


def _files(directory: Path) -> dict[str, tuple[int, int]]:
    """Of the segments only: the log is cut off and begun anew at any time."""
    paths = [path for path in (directory / "segments").rglob("*") if path.name != _JOURNAL and path.is_file()]
    states = [(path.relative_to(directory).as_posix(), path.stat()) for path in paths]
    return {path: (state.st_size, state.st_mtime_ns) for path, state in states}


def _read(path: Path) -> Seal | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Seal)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
