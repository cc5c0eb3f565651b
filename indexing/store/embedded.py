"""Qdrant Edge behind the store contract: the real engine inside this process, no server.

    root/lock                                     one process at a time
    root/collections/<name>/current.json          which generation is live, and the collection's spec
    root/collections/<name>/<generation>/         a shard of the engine

`current.json` is replaced atomically; a generation that it does not name is left over from a kill, and is deleted when
the store is opened. Searching below 20,000 points without a graph costs 1 to 3 ms, so graphs are built only beyond.
"""

import asyncio
import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from indexing.disk import MB, DiskGuard
from indexing.documents import Passage
from indexing.errors import CollectionNotFound, Conflict, StoreUnavailable
from indexing.store.base import (
    CollectionInfo,
    CollectionSpec,
    Point,
    Retrieval,
    Retrieved,
    check_name,
    generation_name,
    new_generation,
    split_generation,
)
from indexing.store.edge_shard import EdgeShard, Generation, Retired
from indexing.store.lock import DirectoryLock

R = TypeVar("R")

OPTIMIZE_FROM = 20_000
"""Points without a graph that make building one worth it; and at least a tenth of all."""

NEW_SHARD_BYTES = 40 * MB
"""What an empty shard takes at most: the engine sets aside two pieces of its log, 32 MB each, mostly holes."""

_POINTER = "current.json"
_READERS, _WRITERS = 4, 8


class _Entry:
    """What a name stands for: a live collection, or a generation under construction (`live` false)."""

    def __init__(self, name: str, spec: CollectionSpec, generation: Generation, *, live: bool) -> None:
        self.name = name
        self.spec = spec
        self.generation = generation
        self.live = live
        self.writing = threading.Lock()

    def save(self) -> None:
        """Make this entry's generation and spec the collection's, on disk; one under construction keeps nothing."""
        if self.live:
            _write_pointer(self.generation.directory.parent, self.generation.id, self.spec)


class EmbeddedStore:
    """A `VectorStore` in a directory. Safe to call from several event loops and threads at once."""

    def __init__(
        self, root: Path, *, wait: float = 0.0, optimize_from: int = OPTIMIZE_FROM, disk: DiskGuard | None = None
    ) -> None:
        """Blocks up to `wait` seconds while another process holds `root`, then raises IndexBusy.

        Nothing is written that `disk` does not allow (DiskFull); without one there is no reserve.
        """
        self._disk = disk or DiskGuard(root, 0)
        self._directory = root / "collections"
        self._directory.mkdir(parents=True, exist_ok=True)
        self._lock = DirectoryLock(root, wait)
        self._optimize_from = optimize_from
        self._table = threading.Lock()
        self._readers = ThreadPoolExecutor(_READERS, "winnow-search")
        self._writers = ThreadPoolExecutor(_WRITERS, "winnow-write")
        self._closed = False
        self._entries = {entry.name: entry for entry in map(_opened, sorted(self._directory.iterdir())) if entry}

    async def create(self, name: str, spec: CollectionSpec) -> CollectionInfo:
        check_name(name)
        await self._in_writer(self._create, name, spec)
        return await self.info(name)

    async def info(self, name: str) -> CollectionInfo:
        return await self._in_reader(self._info, name)

    async def bytes_on_disk(self, name: str) -> int | None:
        return await self._in_reader(lambda: _size_on_disk(self._find(name).generation.directory))

    async def drop(self, name: str) -> None:
        await self._in_writer(self._drop, name)

    async def begin_rebuild(self, name: str, spec: CollectionSpec) -> str:
        check_name(name)
        return await self._in_writer(self._begin_rebuild, name, spec)

    async def finish_rebuild(self, name: str, generation: str) -> None:
        await self._in_writer(self._finish_rebuild, name, generation)

    async def upsert(self, name: str, points: Sequence[Point]) -> None:
        def work(shard: EdgeShard) -> None:
            self._disk.check(sum(map(_bytes_of, points)))
            shard.upsert(points)

        await self._write(name, work)

    async def delete_documents(self, name: str, document_ids: Sequence[str]) -> None:
        def work(shard: EdgeShard) -> None:
            self._disk.check_deletion()
            shard.delete_documents(document_ids)

        await self._write(name, work)

    async def delete_stale(self, name: str, versions: dict[str, str]) -> None:
        def work(shard: EdgeShard) -> None:
            self._disk.check_deletion()
            shard.delete_stale(versions)

        await self._write(name, work)

    async def retrieve(self, name: str, retrieval: Retrieval) -> Retrieved:
        return await self._read(name, lambda shard: shard.retrieve(retrieval))

    async def passages(self, name: str, document_id: str) -> list[Passage]:
        return await self._read(name, lambda shard: shard.passages(document_id))

    async def points(self, name: str, document_ids: Sequence[str]) -> list[Point]:
        return await self._read(name, lambda shard: shard.points(document_ids))

    async def page(self, name: str, after: str | None, limit: int) -> tuple[list[Passage], str | None]:
        return await self._read(name, lambda shard: shard.page(after, limit))

    async def optimize(self, name: str) -> None:
        await self._in_writer(self._optimize, name)

    async def collections(self) -> list[CollectionInfo]:
        return await self._in_reader(lambda: [*self._list()])

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._close)

    # What follows blocks, and runs in the pools.

    def _create(self, name: str, spec: CollectionSpec) -> None:
        with self._table:
            if name not in self._entries:
                self._disk.check(NEW_SHARD_BYTES)
                generation = Generation.create(self._directory / name / new_generation(), spec)
                entry = _Entry(name, spec, generation, live=True)
                entry.save()
                self._entries[name] = entry
            existing = self._entries[name].spec
        if (existing.dimension, existing.distance) != (spec.dimension, spec.distance):
            raise Conflict(
                f"collection {name!r} holds vectors of {existing.dimension} dimensions by {existing.distance}, "
                f"not of {spec.dimension} by {spec.distance}"
            )

    def _info(self, name: str) -> CollectionInfo:
        entry = self._find(name)
        passages = self._with_shard(name, EdgeShard.count)
        return CollectionInfo(name=name, generation=entry.generation.id, spec=entry.spec, passages=passages)

    def _list(self) -> Iterator[CollectionInfo]:
        with self._table:
            names = sorted(name for name, entry in self._entries.items() if entry.live)
        for name in names:
            with contextlib.suppress(CollectionNotFound):  # dropped since
                yield self._info(name)

    def _drop(self, name: str) -> None:
        with self._table:
            if not self._entry(name).live:
                raise CollectionNotFound(name)
            gone = [self._entries.pop(key) for key in self._family(name)]
            # Without its pointer the collection is gone even if the process is killed now.
            (self._directory / name / _POINTER).unlink()
        for entry in gone:
            entry.generation.retire(remove=True)
        shutil.rmtree(self._directory / name, ignore_errors=True)

    def _begin_rebuild(self, name: str, spec: CollectionSpec) -> str:
        self._disk.check(NEW_SHARD_BYTES)
        directory = self._directory / name / new_generation()
        fresh = Generation.create(directory, spec)
        key = generation_name(name, fresh.id)
        with self._table:
            unfinished = [self._entries.pop(other) for other in self._family(name) if other != name]
            self._entries[key] = _Entry(key, spec, fresh, live=False)
        for entry in unfinished:
            entry.generation.retire(remove=True)
        return key

    def _finish_rebuild(self, name: str, generation: str) -> None:
        if generation not in self._family(name) or generation == name:
            raise CollectionNotFound(generation)
        with self._find(generation).writing, self._table:
            built = self._entry(generation)
            before = self._entries.get(name)
            entry = _Entry(name, built.spec, built.generation, live=True)
            entry.save()
            self._entries[name] = entry
            del self._entries[generation]
        if before is not None:
            before.generation.retire(remove=True)

    def _optimize(self, name: str) -> None:
        entry = self._find(name)
        with entry.writing:
            before = entry.generation
            try:
                with before.use() as shard:
                    shard.index_words()
                if not self._worth_optimizing(before):
                    return
                self._disk.check(_size_on_disk(before.directory))  # the copy that is optimised
                better = before.optimized_copy(before.directory.parent / new_generation())
            except Retired:
                return
            if better is not None and not self._swap(entry, better):
                before = better
        if better is not None:
            before.retire(remove=True)

    def _swap(self, entry: _Entry, better: Generation) -> bool:
        """Let readers see `better`; False if the entry was dropped or replaced in the meantime."""
        with self._table:
            if self._entries.get(entry.name) is not entry:
                return False
            entry.generation = better
            entry.save()
            return True

    def _worth_optimizing(self, generation: Generation) -> bool:
        with generation.use() as shard:
            unindexed, points = shard.unindexed()
        return unindexed >= max(self._optimize_from, points // 10)

    def _close(self) -> None:
        with self._table:
            entries = list(self._entries.values())
            self._entries.clear()
        for entry in entries:
            entry.generation.retire(remove=not entry.live)
        self._readers.shutdown()
        self._writers.shutdown()
        self._lock.release()

    def _family(self, name: str) -> tuple[str, ...]:
        """The names of everything under a collection's directory."""
        return tuple(key for key in self._entries.copy() if key == name or (split_generation(key) or ("",))[0] == name)

    def _find(self, name: str) -> _Entry:
        with self._table:
            return self._entry(name)

    def _entry(self, name: str) -> _Entry:
        """The table must be locked."""
        if self._closed:
            raise StoreUnavailable("the index has been closed")
        if name not in self._entries:
            raise CollectionNotFound(name)
        return self._entries[name]

    def _with_shard(self, name: str, work: Callable[[EdgeShard], R]) -> R:
        while True:
            try:
                with self._find(name).generation.use() as shard:
                    return work(shard)
            except Retired:
                continue

    def _with_shard_alone(self, name: str, work: Callable[[EdgeShard], R]) -> R:
        while True:
            entry = self._find(name)
            try:
                with entry.writing, entry.generation.use() as shard:
                    return work(shard)
            except Retired:
                continue

    async def _read(self, name: str, work: Callable[[EdgeShard], R]) -> R:
        return await self._in_reader(self._with_shard, name, work)

    async def _write(self, name: str, work: Callable[[EdgeShard], R]) -> R:
        return await self._in_writer(self._with_shard_alone, name, work)

    async def _in_reader(self, work: Callable[..., R], *args: Any) -> R:
        return await self._run(self._readers, work, *args)

    async def _in_writer(self, work: Callable[..., R], *args: Any) -> R:
        return await self._run(self._writers, work, *args)

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[..., R], *args: Any) -> R:
        if self._closed:
            raise StoreUnavailable("the index has been closed")
        return await asyncio.get_running_loop().run_in_executor(pool, work, *args)


def _opened(directory: Path) -> _Entry | None:
    """The collection in a directory, after deleting what a killed process left half done."""
    pointer = _read_pointer(directory)
    if pointer is None:
        shutil.rmtree(directory, ignore_errors=True)
        return None
    live, spec = pointer
    for left_over in directory.iterdir():
        if left_over.is_dir() and left_over.name != live:
            shutil.rmtree(left_over, ignore_errors=True)
    return _Entry(directory.name, spec, Generation(directory / live, spec), live=True)


def _read_pointer(directory: Path) -> tuple[str, CollectionSpec] | None:
    """The live generation's directory name and its spec; None where no collection was ever completed."""
    try:
        fields = msgspec.json.decode((directory / _POINTER).read_bytes(), type=dict[str, msgspec.Raw])
    except FileNotFoundError:
        return None
    return (
        msgspec.json.decode(fields["generation"], type=str),
        msgspec.json.decode(fields["spec"], type=CollectionSpec),
    )


def _write_pointer(directory: Path, generation: str, spec: CollectionSpec) -> None:
    """Write so that after a crash at any moment the file is the old one or the new one."""
    temporary = directory / f"{_POINTER}.new"
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode({"generation": generation, "spec": spec}))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(directory / _POINTER)
    if os.name == "posix":  # the rename itself must reach the disk
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _bytes_of(point: Point) -> int:
    """About what a point takes, in the log and in the segment, with its words beside its text."""
    weights = len(point.sparse.indices) if point.sparse else 0
    return 2 * (4 * len(point.dense) + 8 * weights + 2 * len(point.passage.text))


def _size_on_disk(directory: Path) -> int:
    """Bytes on disk, as blocks: the engine's files are sparse."""
    total = 0
    for path in directory.rglob("*"):
        try:
            status = path.lstat()
        except FileNotFoundError:  # the engine replaces files at any time
            continue
        total += getattr(status, "st_blocks", status.st_size // 512) * 512
    return total
