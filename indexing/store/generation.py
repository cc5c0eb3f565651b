"""One generation of a collection on disk, and the pointer file that names the live one."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from indexing.errors import StoreUnavailable
from indexing.store.base import CollectionSpec
from indexing.store.edge_shard import EdgeShard

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


_OPTIMIZER = Path(__file__).with_name("edge_optimize.py")


class Retired(Exception):
    """This generation was replaced or dropped a moment ago: look the name up again."""


class Generation:
    """Exactly one handle on one shard directory. `use` may overlap with itself, never with `retire`."""

    def __init__(self, directory: Path, spec: CollectionSpec, shard: EdgeShard | None = None) -> None:
        self.directory = directory
        self._spec = spec
        self._shard = shard
        self._users = 0
        self._retired = False
        self._changed = threading.Condition()
        self._optimizer: subprocess.Popen[bytes] | None = None

    @classmethod
    def create(cls, directory: Path, spec: CollectionSpec) -> "Generation":
        return cls(directory, spec, EdgeShard.create(directory, spec))

    @property
    def id(self) -> str:
        return self.directory.name

    @contextmanager
    def use(self) -> Iterator[EdgeShard]:
        """The open shard, kept open inside the block. Raises Retired."""
        shard = self._enter()
        try:
            yield shard
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
        if shard is not None:
            shard.close()
        if remove:
            shutil.rmtree(self.directory, ignore_errors=True)

    def optimized_copy(self, directory: Path) -> "Generation | None":
        """An optimised copy under `directory`, while this one goes on answering; nobody may write to it meanwhile.

        None when this generation was retired in the meantime.
        """
        with self.use() as shard:
            shard.flush()
            shutil.copytree(self.directory, directory)
        try:
            code, errors = self._run_optimizer(directory)
            if code == 0:
                return Generation(directory, self._spec, EdgeShard.load(directory, self._spec))
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        shutil.rmtree(directory, ignore_errors=True)
        if self._retired:
            return None
        raise StoreUnavailable(f"optimising {self.directory.parent.name} failed: {errors[-500:]}")

    def _run_optimizer(self, directory: Path) -> tuple[int, str]:
        with self._changed:
            if self._retired:
                return -1, ""
            command = [sys.executable, str(_OPTIMIZER), str(directory)]
            optimizer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # noqa: S603
            self._optimizer = optimizer
        _, errors = optimizer.communicate()
        with self._changed:
            self._optimizer = None
        return optimizer.returncode, errors.decode("utf-8", "replace")

    def _enter(self) -> EdgeShard:
        with self._changed:
            if self._retired:
                raise Retired
            if self._shard is None:
                self._shard = EdgeShard.load(self.directory, self._spec)
            self._users += 1
            return self._shard
