"""One generation of a collection: exactly one open shard on a directory. Blocking.

Generation    counts its uses; opens the shard at the first, and closes it when the last is over
_opened       checks the files before the engine may touch them
"""

import logging
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from indexing.disk import MB, DiskGuard
from indexing.errors import CollectionDamaged, DiskFull, StoreUnavailable
from indexing.memory import give_back
from indexing.store.base import CollectionSpec
from indexing.store.edge_errors import shortage_in
from indexing.store.edge_shard import EdgeShard
from indexing.store.seal import inspect
from indexing.store.supervision import Watch, outcome

log = logging.getLogger(__name__)

_PROCESS = Path(__file__).with_name("edge_process.py")
_CHECK_S = 300.0
"""A check that takes longer hangs: reading is limited to seconds, and the log to 4096 points."""

_LOADING = ThreadPoolExecutor(4, "winnow-load")
"""Threads that open shards, and nothing else. Loading leaves the heap that glibc gives each thread full of holes, in
which a search looks for room hundreds of times: reading the passages of one took 2.1 ms of the processor in the thread
that had opened 122,000, and 1.1 in any other.
"""

NEW_SHARD_BYTES = 40 * MB
"""What an empty shard takes at most: the engine sets aside two pieces of its log, 32 MB each, mostly holes."""


class Retired(Exception):
    """This generation was replaced or dropped a moment ago: look the name up again."""


class Generation:
    """Exactly one handle on one shard directory. Uses may overlap with each other, never with `retire`."""

    def __init__(
        self,
        directory: Path,
        spec: CollectionSpec,
        disk: DiskGuard,
        shard: EdgeShard | None = None,
        *,
        left_over: Sequence[Path] = (),
    ) -> None:
        """`left_over` are directories that are deleted once this one has opened."""
        self.directory = directory
        self.trouble: StoreUnavailable | None = None
        """Why it could not be opened, at the last attempt, or what part of it could not be read."""
        self._spec = spec
        self._disk = disk
        self._shard = shard
        self._left_over = left_over
        self._state_in_trouble: object = None
        self._users = 0
        self._retired = False
        self._changed = threading.Condition()
        self._optimizer: subprocess.Popen[bytes] | None = None

    @classmethod
    def create(cls, directory: Path, spec: CollectionSpec, disk: DiskGuard) -> "Generation":
        disk.check(NEW_SHARD_BYTES)
        return cls(directory, spec, disk, EdgeShard.create(directory, spec))

    @property
    def id(self) -> str:
        return self.directory.name

    @contextmanager
    def use(self) -> Iterator[EdgeShard]:
        """The open shard, kept open inside the block. Raises Retired, and StoreUnavailable if it does not open.

        Damage that shows only now is remembered; what it does not touch can still be read.
        """
        shard = self._enter()
        try:
            yield shard
        except CollectionDamaged as exc:
            self.trouble = exc
            raise
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    def retire(self, *, remove: bool) -> None:
        """Close when the last user is gone, and with `remove` delete the directory."""
        with self._changed:
            self._retired = True
            if self._optimizer is not None:
                self._optimizer.terminate()
            self._changed.wait_for(lambda: self._users == 0)
            shard, self._shard = self._shard, None
        if shard is not None and (remove or self.trouble is not None):
            shard.close()  # what is in trouble shall be looked at closely by the next one who opens it
        elif shard is not None:
            shard.close_and_seal()
        give_back()
        if remove:
            shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def is_open(self) -> bool:
        """The next use waits for nothing."""
        return self._shard is not None

    @property
    def retired(self) -> bool:
        """It was dropped or replaced: who still uses it should come to an end."""
        return self._retired

    def optimize_apart(self, directory: Path, points: int) -> tuple[int, str]:
        """Build the graphs of a copy of this generation, of so many points, in a child process: its exit status and
        errors.

        Retiring this generation ends it, and so does hanging.
        """
        with self._changed:
            if self._retired:
                return -1, ""
            self._optimizer = optimizer = _process("optimize", directory)
        code, errors = outcome(optimizer, Watch(time.monotonic(), points))
        with self._changed:
            self._optimizer = None
        return code, errors

    def _enter(self) -> EdgeShard:
        with self._changed:
            if self._retired:
                raise Retired
            if self._shard is None:
                self._shard = self._open()
            self._users += 1
            return self._shard

    def _open(self) -> EdgeShard:
        """Tries once, and again only when the files have changed: a check may take long."""
        state = _state(self.directory)
        if isinstance(self.trouble, CollectionDamaged) and state == self._state_in_trouble:
            raise self.trouble
        try:
            shard = _opened(self.directory, self._spec, self._disk)
        except StoreUnavailable as exc:
            self.trouble, self._state_in_trouble = exc, _state(self.directory)
            raise
        self.trouble = None
        for path in self._left_over:
            log.info("removing %s, left over from a rebuild that was killed", path)
            shutil.rmtree(path, ignore_errors=True)
        return shard


def _opened(directory: Path, spec: CollectionSpec, disk: DiskGuard) -> EdgeShard:
    """The shard, after a look at its files, and in a child process first if they are not as they were closed."""
    try:
        found = inspect(directory)
    except OSError as exc:
        raise _unreadable(directory, spec, exc.strerror or "") from exc
    if found.trouble:
        log.error("damaged: %s: %s", directory, found.trouble)
        raise _damaged(directory, spec, found.trouble)
    if not found.untouched or _is_short(disk):
        _check_apart(directory, spec, disk)
    try:
        shard = _LOADING.submit(EdgeShard.load, directory, spec).result()
    except DiskFull as exc:
        raise _no_space(directory) from exc
    if found.points is not None and shard.count() != found.points:
        why = f"it holds {shard.count()} passages, and there were {found.points}"
        shard.close()
        raise _damaged(directory, spec, why)
    return shard


def _check_apart(directory: Path, spec: CollectionSpec, disk: DiskGuard) -> None:
    """Open and read the shard in a child process: damage may end it, or keep it busy for ever."""
    process = _process("check", directory)
    try:
        _, errors = process.communicate(timeout=_CHECK_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise _damaged(directory, spec, f"opening it takes more than {_CHECK_S:.0f} s") from None
    if process.returncode == 0:
        return
    text = errors.decode("utf-8", "replace")
    if (process.returncode == -signal.SIGBUS or "No space left" in text) and _is_short(disk):
        raise _no_space(directory)
    log.error("checking %s failed (%d): %s", directory, process.returncode, text[-2000:])
    if shortage := shortage_in(directory.parent.name, text):
        raise shortage
    raise _damaged(directory, spec, "the engine cannot open its files (the log has more)")


def _is_short(disk: DiskGuard) -> bool:
    """Whether opening may find no room: on some file systems even reading a hole in a file takes some."""
    return disk.free() < max(disk.reserve_bytes, NEW_SHARD_BYTES)


def _no_space(directory: Path) -> StoreUnavailable:
    name = directory.parent.name
    return StoreUnavailable(f"collection {name!r} cannot be opened: the disk is full; free some space")


def _process(task: str, directory: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(_PROCESS), task, str(directory)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # noqa: S603


def _unreadable(directory: Path, spec: CollectionSpec, why: str) -> StoreUnavailable:
    return shortage_in(directory.parent.name, why) or _damaged(directory, spec, f"its files cannot be read ({why})")


def _damaged(directory: Path, spec: CollectionSpec, why: str) -> CollectionDamaged:
    return CollectionDamaged(directory.parent.name, why, spec.lineage)


def _state(directory: Path) -> object:
    """Changes when a file does, or when its rights do."""
    states = []
    for path in (directory, *directory.rglob("*")):
        with suppress(OSError):
            state = path.stat()
            states.append((path, state.st_size, state.st_ctime_ns))
    return states
