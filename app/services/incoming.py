"""Large files of uploads on the disk, as long as somebody is at work on them."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType

from indexing.concurrency import finish
from indexing.disk import DiskGuard, disk_error
from indexing.errors import IndexBusy, StoreUnavailable
from indexing.store.lock import DirectoryLock

_PREFIX = "incoming-"


class Incoming:
    """A directory for the files of one upload, made with the first of them and deleted at the end of the block.

    Of a process that was killed, `sweep` deletes it. Whoever wants to keep a file moves it away. What writes blocks:
    call it in a thread.
    """

    def __init__(self, parent: Path, disk: DiskGuard) -> None:
        self._parent, self._disk = parent, disk
        self._directory: Path | None = None
        self._lock: DirectoryLock | None = None
        self._files = 0

    async def __aenter__(self) -> "Incoming":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._directory is not None:
            await finish(asyncio.to_thread(self.close))

    def check(self, size: int) -> None:
        """Raise DiskFull unless there is room for so many bytes."""
        self._disk.check(size)

    def new_file(self) -> Path:
        """An empty file. Raises DiskFull, StoreUnavailable."""
        self._disk.check()
        with self._writing():
            if self._directory is None:
                self._parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._directory = Path(mkdtemp(prefix=_PREFIX, dir=self._parent))
                self._lock = DirectoryLock(self._directory, 0)
            self._files += 1
            path = self._directory / str(self._files)
            path.touch(mode=0o600)
        return path

    def append(self, path: Path, data: bytes | bytearray) -> None:
        """Add to one of the files. Raises DiskFull, StoreUnavailable."""
        self._disk.check(len(data))
        with self._writing(), path.open("ab") as file:
            file.write(data)

    def close(self) -> None:
        """Delete the directory with all that is in it."""
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        if self._lock is not None:
            self._lock.release()
        self._directory = self._lock = None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """The one seam for the errors of the disk."""
        try:
            yield
        except OSError as exc:
            raise disk_error(exc, f"the upload cannot be kept in {self._parent}") from exc


def sweep(parent: Path) -> None:
    """Delete what processes that were killed have left there."""
    for directory in parent.glob(f"{_PREFIX}*"):
        try:
            lock = DirectoryLock(directory, 0)
        except (IndexBusy, StoreUnavailable):  # somebody is at work
            continue
        shutil.rmtree(directory, ignore_errors=True)
        lock.release()
