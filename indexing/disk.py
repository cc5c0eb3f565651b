"""The reserve of free space on a disk: below it nothing is written, so that what exists can still be used."""

import errno
import os
import shutil
from pathlib import Path

from indexing.errors import DiskFull, StoreUnavailable

MB = 10**6

_COPIED_AT_ONCE = 1 << 20


class DiskGuard:
    """Watches the free space of the file system that `directory` is on; it need not exist yet.

    The vector engine maps its files, and a mapped page that finds no room on the disk ends the whole process (SIGBUS).
    So whoever is about to write asks first.
    """

    def __init__(self, directory: Path, reserve_bytes: int) -> None:
        self.directory = directory
        self.reserve_bytes = reserve_bytes

    def free(self) -> int:
        """Bytes that this process may still take."""
        existing = next(place for place in (self.directory, *self.directory.absolute().parents) if place.exists())
        return shutil.disk_usage(existing).free

    def check(self, extra_bytes: int = 0) -> None:
        """Raise DiskFull unless the reserve is still free after `extra_bytes` have been written."""
        free = self.free()
        if free < self.reserve_bytes + extra_bytes:
            needed = f" and this needs {_megabytes(extra_bytes)}" if extra_bytes >= MB else ""
            raise DiskFull(
                f"the disk of {self.directory} is full: {_megabytes(free)} are free, "
                f"{_megabytes(self.reserve_bytes)} are kept as a reserve{needed}; nothing is written until there is "
                "more space: free some, or lower disk_reserve_mb of [index]"
            )

    def check_deletion(self) -> None:
        """As `check`, but only below a quarter of the reserve: deleting writes little, and makes room."""
        if self.free() < self.reserve_bytes // 4:
            self.check()

    def warning(self) -> str:
        """What is wrong below twice the reserve, and the fix; "" while there is enough."""
        free = self.free()
        if free >= 2 * self.reserve_bytes:
            return ""
        since = "is not written to" if free < self.reserve_bytes else "will not be written to"
        return (
            f"the disk of {self.directory} has {_megabytes(free)} free, and {since} below "
            f"{_megabytes(self.reserve_bytes)} (disk_reserve_mb of [index]); free some space"
        )


def copy_with_holes(source: str, target: str) -> None:
    """Copy a file with its rights and times; where it has holes, its copy has them too: they take no space."""
    with Path(source).open("rb", buffering=0) as original, Path(target).open("xb") as copy:
        size = os.fstat(original.fileno()).st_size
        end = 0
        while (start := _next_data(original.fileno(), end)) is not None:
            end = os.lseek(original.fileno(), start, os.SEEK_HOLE)
            original.seek(start)
            copy.seek(start)
            while (left := end - original.tell()) > 0 and (piece := original.read(min(left, _COPIED_AT_ONCE))):
                copy.write(piece)
        copy.truncate(size)
    shutil.copystat(source, target)


def sync_directory(directory: Path) -> None:
    """Make what was made, renamed or deleted in it reach the disk. Windows does that by itself."""
    if os.name == "posix":
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sync_tree(directory: Path) -> None:
    """Make all that lies under it reach the disk. Raises OSError."""
    for path in (directory, *directory.rglob("*")):
        if path.is_dir():
            sync_directory(path)
        else:
            with path.open("r+b") as file:
                os.fsync(file.fileno())


def _next_data(descriptor: int, offset: int) -> int | None:
    """Where the next bytes are that are no hole; None if there are none."""
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as exc:
        if exc.errno == errno.ENXIO:
            return None
        raise


def disk_error(exc: OSError, failed: str) -> DiskFull | StoreUnavailable:
    """The error of the tree for one of the operating system. `failed` says what could not be done with which file."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"{failed}: the disk is full; free some space")
    return StoreUnavailable(f"{failed}: {exc.strerror or exc}")


def _megabytes(count: int) -> str:
    return f"{count / MB:,.0f} MB"
