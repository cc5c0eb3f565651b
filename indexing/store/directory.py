"""The collections of an embedded index as they lie on disk, and what is done about those that cannot be used.

    root/collections/<name>/current.json              which generation is live, and the collection's spec
    root/collections/<name>/<generation>/             a shard of the engine
    root/collections/<name>/<generation>/spec.json    the spec once more, written when the generation first went live
    root/collections/<name>/creating                  its first generation is being made, and holds nothing yet
    root/quarantine/<name>-<time>/                    what cannot be used, as it was found, and damage.json: why

Nothing that may hold passages is deleted here: a pointer that is lost is written again if only one generation has been
live, and everything else is moved away.
"""

import logging
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from indexing.errors import Conflict, InvalidName
from indexing.store.base import CollectionSpec, Damaged, check_name, new_generation
from indexing.store.seal import replace_file

log = logging.getLogger(__name__)

SPEC = "spec.json"
_POINTER, _DAMAGE = "current.json", "damage.json"
_CREATING = "creating"
_DROPPED = ".dropped-"
_MOVED = "its files were moved to quarantine"
_QUARANTINED = re.compile(r"(?P<name>.+)-\d{8}T\d{6}Z(-\d+)?")


class Pointer(msgspec.Struct, frozen=True):
    """The live generation of a collection, and the collection's spec."""

    generation: str
    spec: CollectionSpec


class Found(msgspec.Struct, frozen=True):
    """A collection with a live generation. `left_over`: what a kill left beside it, to be removed once it opens."""

    name: str
    live: Path
    spec: CollectionSpec
    left_over: tuple[Path, ...]


class CollectionsDirectory:
    """Blocking. Raises OSError."""

    def __init__(self, root: Path) -> None:
        self._collections = root / "collections"
        self._quarantine = root / "quarantine"
        self._collections.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """Where the generations of a collection are."""
        return self._collections / name

    def scan(self) -> tuple[list[Found], list[Damaged]]:
        """What there is, after mending what can be; to be called once, before anything is opened."""
        found, damaged = [], []
        for directory in sorted(self._collections.iterdir()):
            if directory.name.startswith(_DROPPED):
                shutil.rmtree(directory, ignore_errors=True)
                continue
            if not directory.is_dir() or not _is_name(directory.name):
                log.warning("%s is no collection; it is ignored", directory)
                continue
            collection = self._examine(directory)
            if isinstance(collection, Found):
                found.append(collection)
            elif collection is not None:
                damaged.append(collection)
        known = {one.name for one in found} | {one.name for one in damaged}
        return found, [*damaged, *(one for one in self._quarantined() if one.name not in known)]

    def check_spelling(self, name: str) -> None:
        """Raise Conflict where the disk takes a name for that of another collection, as that of a Mac does "Notes" and
        "notes": one would be written over the other.
        """
        spellings = [one.name for one in self._collections.iterdir()]
        if name not in spellings and self.path(name).exists():
            other = next(one for one in spellings if one.casefold() == name.casefold())
            raise Conflict(
                f"collection {name!r}: this disk does not tell it from {other!r}, as it ignores upper and lower case; "
                "choose another name"
            )

    def begin(self, name: str) -> None:
        """Announce the first generation of a new collection: if `point` never comes, there was nothing in it."""
        directory = self.path(name)
        directory.mkdir(exist_ok=True)
        if not any(directory.iterdir()):
            replace_file(directory / _CREATING, b"")

    def try_to_point(self, live: Path, spec: CollectionSpec) -> None:
        """As `point`, but the collection can be used without it: on a full disk, say."""
        try:
            self.point(live, spec)
        except OSError as exc:
            log.warning("%s cannot be written: %s", live.parent / _POINTER, exc.strerror)

    def point(self, live: Path, spec: CollectionSpec) -> None:
        """Make this generation the live one of its collection, on disk."""
        replace_file(live / SPEC, msgspec.json.encode(spec))
        replace_file(live.parent / _POINTER, msgspec.json.encode(Pointer(live.name, spec)))
        (live.parent / _CREATING).unlink(missing_ok=True)

    def drop(self, name: str) -> Callable[[], None]:
        """Take the collection away, and what lies of it in quarantine, even if the process is killed now; call the
        result to delete the files, once nobody uses them any more.
        """
        quarantined = [path for path in self._quarantine.glob(f"{name}-*") if _name_of(path) == name]
        dropped = []
        for path in (self.path(name), *quarantined):
            if path.exists():
                dropped.append(self._collections / f"{_DROPPED}{new_generation()}")
                path.rename(dropped[-1])

        def delete() -> None:
            for path in dropped:
                shutil.rmtree(path, ignore_errors=True)

        return delete

    def quarantine(self, path: Path, name: str, why: str, spec: CollectionSpec | None) -> Damaged:
        """Move a collection's directory, or one of its generations, away; a collection that is left is not damaged."""
        time = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        names = (f"{name}-{time}{suffix}" for suffix in ("", *(f"-{n}" for n in range(2, 1000))))
        target = next(place for place in map(self._quarantine.joinpath, names) if not place.exists())
        target.parent.mkdir(exist_ok=True)
        if path == self.path(name):
            path.rename(target)
        else:
            target.mkdir()
            path.rename(target / path.name)
        damaged = Damaged(name=name, detail=f"{why}; {_MOVED}", spec=spec)
        replace_file(target / _DAMAGE, msgspec.json.encode(damaged))
        log.error("collection %r: %s; moved from %s to %s", name, why, path, target)
        return damaged

    def _examine(self, directory: Path) -> Found | Damaged | None:
        """The collection in a directory; None if there is nothing in it."""
        name = directory.name
        try:
            if (directory / _POINTER).is_dir():
                self.quarantine(directory / _POINTER, name, f"{_POINTER} is a directory", None)
            pointer = _read_pointer(directory)
            generations = [path for path in directory.iterdir() if path.is_dir()]
        except OSError as exc:
            log.exception("collection %r cannot be read", name)
            return Damaged(name=name, detail=f"its files cannot be read ({exc.strerror})")
        if pointer is None or not (directory / pointer.generation).is_dir():
            pointer = self._repaired(directory, generations)
        if pointer is not None:
            live = directory / pointer.generation
            if not (live / SPEC).exists():  # of an earlier version
                self.try_to_point(live, pointer.spec)
            left_over = tuple(path for path in generations if path != live)
            return Found(name, live, pointer.spec, left_over)
        if (directory / _CREATING).exists() or not any(path.is_file() for path in directory.rglob("*")):
            shutil.rmtree(directory)
            return None
        specs = [spec for spec in map(_read_spec, generations) if spec is not None]
        why = f"nothing says which of its {len(generations)} generations counts"
        return self.quarantine(directory, name, why, specs[0] if specs else None)

    def _repaired(self, directory: Path, generations: list[Path]) -> Pointer | None:
        """The pointer, written again, if exactly one generation has ever been live."""
        complete = [(path, spec) for path in generations if (spec := _read_spec(path)) is not None]
        if len(complete) != 1:
            return None
        ((live, spec),) = complete
        self.try_to_point(live, spec)
        log.warning("collection %r had no readable %s; written again from %s", directory.name, _POINTER, live / SPEC)
        return Pointer(live.name, spec)

    def _quarantined(self) -> Iterator[Damaged]:
        """Collections of which something lies in quarantine, each once."""
        directories = sorted(self._quarantine.iterdir()) if self._quarantine.is_dir() else []
        by_name = {name: directory for directory in directories if (name := _name_of(directory))}
        for name, directory in by_name.items():
            try:
                yield msgspec.json.decode((directory / _DAMAGE).read_bytes(), type=Damaged)
            except (OSError, msgspec.DecodeError):
                yield Damaged(name=name, detail=_MOVED)


def _is_name(name: str) -> bool:
    try:
        return bool(check_name(name))
    except InvalidName:
        return False


def _name_of(quarantined: Path) -> str:
    match = _QUARANTINED.fullmatch(quarantined.name)
    return match["name"] if match else ""


def _read_pointer(directory: Path) -> Pointer | None:
    """None if there is none, or none that can be understood."""
    try:
        return msgspec.json.decode((directory / _POINTER).read_bytes(), type=Pointer)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _read_spec(generation: Path) -> CollectionSpec | None:
    try:
        return msgspec.json.decode((generation / SPEC).read_bytes(), type=CollectionSpec)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
