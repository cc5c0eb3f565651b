"""The file that says which generation of a collection is live, and what a directory weighs."""

import os
from pathlib import Path

import msgspec

from indexing.store.base import CollectionSpec

_FILE = "current.json"


class Pointer(msgspec.Struct, frozen=True):
    """`generation` is the name of a directory beside the file."""

    generation: str
    spec: CollectionSpec


def read_pointer(directory: Path) -> Pointer | None:
    """None where no collection was ever completed."""
    try:
        return msgspec.json.decode((directory / _FILE).read_bytes(), type=Pointer)
    except FileNotFoundError:
        return None


def remove_pointer(directory: Path) -> None:
    (directory / _FILE).unlink()


def write_pointer(directory: Path, pointer: Pointer) -> None:
    """Write so that after a crash at any moment the file is the old one or the new one."""
    temporary = directory / f"{_FILE}.new"
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(pointer))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(directory / _FILE)
    if os.name == "posix":  # the new name itself must reach the disk
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def size_on_disk(directory: Path) -> int:
    """Bytes on disk, as blocks: the engine's files are sparse."""
    total = 0
    for path in directory.rglob("*"):
        try:
            status = path.lstat()
        except FileNotFoundError:  # the engine replaces files while we look
            continue
        total += getattr(status, "st_blocks", status.st_size // 512) * 512
    return total
