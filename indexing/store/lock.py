"""One process at a time on a directory."""

import os
from contextlib import suppress
from pathlib import Path
from typing import IO

import portalocker

from indexing.errors import IndexBusy, StoreUnavailable

_POLL_SECONDS = 0.1


class DirectoryLock:
    """Held from construction to `release`, or to the end of the process, however it ends."""

    def __init__(
        self,
        directory: Path,
        wait: float,
        *,
        what: str = "the index in",
        fix: str = "stop it, or use the service that it runs",
    ) -> None:
        """Waits up to `wait` seconds for another process to release it. Raises IndexBusy: it says who holds `what`."""
        path = directory / "lock"
        lock = portalocker.Lock(
            path,
            mode="a+",
            timeout=wait,
            check_interval=_POLL_SECONDS,
            flags=portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING,
        )
        try:
            file = lock.acquire()
        except portalocker.LockException as exc:
            raise IndexBusy(f"{_holder(path)} holds {what} {directory}{_waited(wait)}; {fix}") from exc
        except OSError as exc:
            raise StoreUnavailable(f"{directory} cannot be written to: {exc.strerror}") from exc
        self._lock = lock
        _sign(file)

    def release(self) -> None:
        self._lock.release()


def _sign(file: IO[str]) -> None:
    with suppress(OSError):  # on a full disk the lock holds all the same
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()


def _holder(path: Path) -> str:
    holder = path.read_text(encoding="utf-8", errors="replace").strip()
    return f"process {holder}" if holder.isdecimal() else "another process"


def _waited(wait: float) -> str:
    return f" and did not release it within {wait:g} s" if wait else ""
