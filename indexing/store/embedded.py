"""Qdrant Edge behind the store contract: the real engine inside this process, no server.

    root/lock            one process at a time
    root/collections/    the collections (`indexing.store.directory`)

A collection whose files are damaged raises CollectionDamaged, and the others serve. Searching below 20,000 points
without a graph costs 1 to 3 ms, so graphs are built only beyond: in the background, one at a time, while the collection
is read and written (`indexing.store.graph_build`).
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from indexing.disk import MB, DiskGuard, disk_error, sync_tree
from indexing.documents import Audience, Passage
from indexing.errors import CollectionDamaged, CollectionNotFound, Conflict, StoreUnavailable, WinnowError
from indexing.memory import available_bytes
from indexing.settings import StoreSettings
from indexing.store.base import (
    CollectionInfo,
    CollectionSpec,
    Damaged,
    Point,
    Retrieval,
    Retrieved,
    check_name,
    generation_name,
    new_generation,
    split_generation,
)
from indexing.store.coverage import OPTIMIZE_FROM, is_worth_a_build
from indexing.store.directory import CollectionsDirectory, Found
from indexing.store.edge_layout import needs_change
from indexing.store.edge_shard import EdgeShard
from indexing.store.generation import Generation, Retired
from indexing.store.graph_build import GraphBuild
from indexing.store.lock import DirectoryLock
from indexing.store.payload import IndexKind, declared_paths

R = TypeVar("R")

log = logging.getLogger(__name__)

_BUILD_BYTES, _BUILD_BYTES_PER_POINT = 100 * MB, 4000
"""Memory of a build without pages of files: above what was measured from 20,000 to 1,000,000 points, 3.3 kB each."""
_RETRY_S = 600.0
"""After a build that failed, or found too little memory."""

_LOOKS = 10
"""How often a collection is looked at while so many points are written."""
_DURING_A_BUILD = 0.2
"""Of so many points: who writes many more while a build runs waits for it (`room`). Each takes 5 kB of memory in the
shard that is written to, and again in the copy that is caught up. 94,000 that outran their graphs took 404 MB.
"""
_LOOK_S = 0.05
_READERS, _WRITERS = 4, 8


class _Entry:
    """What a name stands for: a live collection, or a generation under construction (`live` false)."""

    def __init__(
        self, files: CollectionsDirectory, name: str, spec: CollectionSpec, generation: Generation, *, live: bool
    ) -> None:
        self._files = files
        self.name = name
        self.spec = spec
        self.generation = generation
        self.live = live
        self.writing = threading.Lock()
        self.building = self.begun = False
        """A build is under way, or waits for its turn; whether it has begun."""
        self.unchecked = OPTIMIZE_FROM
        """Points written since somebody looked whether a build is worth it. Nobody has since the start."""
        self.beside = 0
        """Points written since the build that is under way began, or since it waits for its turn."""
        self.unbuilt = ""
        """Why the last build came to nothing."""
        self.retries = False
        """Another one is tried later."""

    def save(self) -> None:
        """Make this entry's generation and spec the collection's, on disk; one under construction keeps nothing."""
        if self.live:
            self._files.point(self.generation.directory, self.spec)


class EmbeddedStore:
    """A `VectorStore` in a directory. Safe to call from several event loops and threads at once."""

    def __init__(
        self,
        root: Path,
        *,
        wait: float = 0.0,
        optimize_from: int = OPTIMIZE_FROM,
        disk: DiskGuard | None = None,
        declared: Iterable[str] = (),
        settings: StoreSettings | None = None,
        free_memory: Callable[[], int | None] = available_bytes,
        retry_s: float = _RETRY_S,
    ) -> None:
        """Blocks up to `wait` seconds while another process holds `root`, then raises IndexBusy.

        Nothing is written that `disk` does not allow (DiskFull); without one there is no reserve. The metadata fields
        `declared` are indexed from the first value on, the others when a filter first asks for them. Of `settings`
        count those of quantized vectors and `vectors_on_disk`, from a collection's next graph on. `free_memory` tells
        how many bytes a build may take (None: nobody knows); one that fails is tried again after `retry_s`.
        """
        self._disk = disk or DiskGuard(root, 0)
        self._settings = settings or StoreSettings()
        self._declared = declared_paths(declared)
        self._indexing: set[str] = set()
        root.mkdir(parents=True, exist_ok=True)
        self._lock = DirectoryLock(root, wait)
        self._files = CollectionsDirectory(root)
        self._optimize_from = optimize_from
        self._free_memory, self._retry_s = free_memory, retry_s
        self._table = threading.Lock()
        self._readers = ThreadPoolExecutor(_READERS, "winnow-search")
        self._writers = ThreadPoolExecutor(_WRITERS, "winnow-write")
        self._builders = ThreadPoolExecutor(1, "winnow-build")
        self._closed = False
        found, damaged = self._files.scan()
        self._entries = {one.name: self._live_entry(one) for one in found}
        self._damaged = {one.name: one for one in damaged}
        """Those that have no entry; whether one with an entry is damaged, its generation says."""

    async def create(self, name: str, spec: CollectionSpec) -> CollectionInfo:
        check_name(name)
        await self._in_writer(self._create, name, spec)
        return await self.info(name)

    async def info(self, name: str) -> CollectionInfo:
        entry = self._entries.get(name)
        if entry is not None and entry.generation.is_open:
            with suppress(Retired):
                return _info(entry)  # microseconds, and every search asks: another thread would take more
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
        await self._in_writer(self._upsert, name, points)

    async def delete_documents(self, name: str, keys: Sequence[str]) -> None:
        def work(shard: EdgeShard) -> None:
            self._disk.check_deletion()
            shard.delete_documents(keys)

        await self._write(name, work)

    async def delete_stale(self, name: str, versions: dict[str, str]) -> None:
        def work(shard: EdgeShard) -> None:
            self._disk.check_deletion()
            shard.delete_stale(versions)

        await self._write(name, work)

    async def retrieve(self, name: str, retrieval: Retrieval, audience: Audience) -> Retrieved:
        def work(shard: EdgeShard) -> tuple[Retrieved, dict[str, IndexKind]]:
            retrieved = shard.retrieve(retrieval, audience, self._settings)
            return retrieved, shard.missing_indexes(retrieval.filter, audience, retrieved)

        retrieved, missing = await self._read(name, work)
        if missing and name not in self._indexing and not self._closed:
            self._indexing.add(name)
            self._writers.submit(self._create_indexes, name, missing)
        return retrieved

    async def passages(self, name: str, key: str, audience: Audience) -> list[Passage]:
        return await self._read(name, lambda shard: shard.passages(key, audience))

    async def points(self, name: str, keys: Sequence[str], audience: Audience) -> list[Point]:
        return await self._read(name, lambda shard: shard.points(keys, audience))

    async def page(
        self, name: str, after: str | None, limit: int, audience: Audience
    ) -> tuple[list[Passage], str | None]:
        return await self._read(name, lambda shard: shard.page(after, limit, audience))

    async def optimize(self, name: str) -> None:
        entry = await self._in_reader(self._find, name)
        await self._run(self._builders, self._optimize, entry)

    async def room(self, name: str) -> None:
        while (entry := self._entries.get(name)) is not None and self._outruns(entry):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)  # a thread builds, and callers may be of several event loops

    async def collections(self) -> list[CollectionInfo]:
        names = [entry.name for entry in await self._in_reader(self._live)]
        described = await asyncio.gather(*(self._in_reader(self._described, name) for name in names))
        return [info for info in described if info is not None]

    async def damaged(self) -> list[Damaged]:
        with self._table:
            damaged = list(self._damaged.values())
        damaged += [
            Damaged(
                name=entry.name,
                detail=trouble.why if isinstance(trouble, CollectionDamaged) else str(trouble),
                spec=entry.spec,
                for_now=not isinstance(trouble, CollectionDamaged),
            )
            for entry in self._live()
            if (trouble := entry.generation.trouble) is not None
        ]
        return sorted(damaged, key=lambda one: one.name)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._close)

    # What follows blocks, and runs in the pools.

    def _create(self, name: str, spec: CollectionSpec) -> None:
        with self._table:
            if name in self._damaged:
                raise self._damaged[name].error()
            if name not in self._entries:
                self._files.check_spelling(name)
                self._files.begin(name)
                generation = self._new_generation(name, spec)
                entry = _Entry(self._files, name, spec, generation, live=True)
                entry.save()
                self._entries[name] = entry
            existing = self._entries[name].spec
        if (existing.dimension, existing.distance) != (spec.dimension, spec.distance):
            raise Conflict(
                f"collection {name!r} holds vectors of {existing.dimension} dimensions by {existing.distance}, "
                f"not of {spec.dimension} by {spec.distance}"
            )

    def _upsert(self, name: str, points: Sequence[Point]) -> None:
        def work(shard: EdgeShard) -> None:
            self._disk.check(sum(map(_bytes_of, points)))
            shard.upsert(points, self._declared)

        self._with_shard_alone(name, work)
        self._optimize_if_grown(name, len(points))

    def _new_generation(self, name: str, spec: CollectionSpec) -> Generation:
        return Generation.create(self._files.path(name) / new_generation(), spec, self._disk)

    def _create_indexes(self, name: str, missing: dict[str, IndexKind]) -> None:
        """For the next searches with the same filter; this one has read every payload."""
        try:
            self._disk.check()
            self._with_shard_alone(name, lambda shard: shard.create_indexes(missing))
            log.info("collection %r: indexed %s", name, ", ".join(missing))
        except WinnowError:
            log.info("collection %r: not indexed: %s", name, ", ".join(missing), exc_info=True)
        finally:
            self._indexing.discard(name)

    def _info(self, name: str) -> CollectionInfo:
        while True:
            with suppress(Retired):
                return _info(self._find(name))

    def _described(self, name: str) -> CollectionInfo | None:
        """None for one that has been dropped since, or is in trouble: `damaged` has it."""
        try:
            info = self._info(name)
            return None if self._find(name).generation.trouble else info
        except (CollectionNotFound, StoreUnavailable):
            return None

    def _live(self) -> list[_Entry]:
        """By name."""
        with self._table:
            return sorted((entry for entry in self._entries.values() if entry.live), key=lambda entry: entry.name)

    def _live_entry(self, found: Found) -> _Entry:
        generation = Generation(found.live, found.spec, self._disk, left_over=found.left_over)
        return _Entry(self._files, found.name, found.spec, generation, live=True)

    def _drop(self, name: str) -> None:
        with self._table:
            if self._damaged.pop(name, None) is None and not self._entry(name).live:
                raise CollectionNotFound(name)
            gone = [self._entries.pop(key) for key in self._family(name)]
            delete = self._files.drop(name)
        for entry in gone:
            entry.generation.retire(remove=True)
        delete()

    def _begin_rebuild(self, name: str, spec: CollectionSpec) -> str:
        self._files.check_spelling(name)
        fresh = self._new_generation(name, spec)
        key = generation_name(name, fresh.id)
        with self._table:
            unfinished = [self._entries.pop(other) for other in self._family(name) if other != name]
            self._entries[key] = _Entry(self._files, key, spec, fresh, live=False)
        for entry in unfinished:
            entry.generation.retire(remove=True)
        return key

    def _finish_rebuild(self, name: str, generation: str) -> None:
        if generation not in self._family(name) or generation == name:
            raise CollectionNotFound(generation)
        built = self._find(generation)
        with built.writing:
            sync_tree(built.generation.directory)  # what it replaces is deleted next
            with self._table:
                built = self._entry(generation)
                before = self._entries.get(name)
                entry = _Entry(self._files, name, built.spec, built.generation, live=True)
                entry.save()
                self._entries[name] = entry
                del self._entries[generation]
                self._damaged.pop(name, None)
        if built.unbuilt:  # what would have tried again knows it by the name that it had
            self._try_later(entry, built.unbuilt)
        if before is not None:
            self._replaced(name, before)

    def _replaced(self, name: str, before: _Entry) -> None:
        """Delete a generation; one that is damaged may be worth a look."""
        with suppress(StoreUnavailable), before.generation.use():
            pass
        whole = before.generation.trouble is None
        before.generation.retire(remove=whole)
        if not whole:
            self._files.quarantine(before.generation.directory, name, "damaged, and rebuilt since", before.spec)

    def _optimize(self, entry: _Entry) -> None:
        """In the one thread of the builds: what a build takes of memory and processor is taken once."""
        before = entry.generation
        entry.unchecked = entry.beside = 0
        try:
            points = self._points_worth_a_build(before)
            if points is None:
                entry.unbuilt = ""
                return
            if lack := self._lack_of_memory(points):
                log.warning("collection %r: %s", entry.name, lack)
                self._try_later(entry, lack)
                return
            entry.begun = True
            better = before.directory.parent / new_generation()
            build = GraphBuild(before, better, entry.spec, self._disk, self._settings)
            switched = build.run(entry.writing, lambda better: self._swap(entry, better))
            entry.unbuilt = ""
        except Retired:
            return
        except (WinnowError, OSError) as exc:
            self._try_later(
                entry, str(exc) if isinstance(exc, WinnowError) else "its graph was not built (the log has more)"
            )
            raise
        finally:
            entry.begun = False
        if switched:
            before.retire(remove=True)

    def _lack_of_memory(self, points: int) -> str:
        """Why a build of so many points has to wait: rather than that the system ends the service for it."""
        needed, free = _BUILD_BYTES + _BUILD_BYTES_PER_POINT * points, self._free_memory()
        if free is None or free >= needed:
            return ""
        return (
            f"building its graph needs {needed // MB} MB of memory, and {free // MB} MB are free; until there is more, "
            "it is searched without: slower, and as exactly"
        )

    def _try_later(self, entry: _Entry, why: str) -> None:
        entry.unbuilt = why
        timer = threading.Timer(self._retry_s, self._try_again, (entry,))
        timer.daemon = True
        with self._table:
            if not self._closed and not entry.retries:
                entry.retries = True
                timer.start()

    def _try_again(self, entry: _Entry) -> None:
        entry.retries = False
        entry.unchecked = self._optimize_from
        self._optimize_if_grown(entry.name, 0)

    def _optimize_if_grown(self, name: str, written: int) -> None:
        """In the background; whether a build is worth it is looked into where enough has been written since."""
        with self._table:
            entry = self._entries.get(name)
            if entry is None or self._closed:
                return
            entry.unchecked += written
            entry.beside += written
            if not entry.building and entry.unchecked >= self._optimize_from // _LOOKS:
                entry.building, entry.beside = True, 0
                self._builders.submit(self._optimize_quietly, entry)

    def _optimize_quietly(self, entry: _Entry) -> None:
        try:
            self._optimize(entry)
        except (WinnowError, OSError):
            log.warning("collection %r: its graph was not built", entry.name, exc_info=not self._closed)
        finally:
            entry.building = False
        self._optimize_if_grown(entry.name, 0)  # what was written meanwhile

    def _outruns(self, entry: _Entry) -> bool:
        """Whether as much has been written as may lie beside the graph that is built; or, where that is another
        collection's, as much as makes a build of its own.
        """
        return entry.building and entry.beside >= self._optimize_from * (_DURING_A_BUILD if entry.begun else 1)

    def _swap(self, entry: _Entry, better: Generation) -> bool:
        """Let readers see `better`; False if the entry was dropped or replaced in the meantime."""
        with self._table:
            if self._entries.get(entry.name) is not entry:
                return False
            entry.generation = better
            entry.save()
            return True

    def _points_worth_a_build(self, generation: Generation) -> int | None:
        """How many there are; None where no build is worth it."""
        with generation.use() as shard:
            coverage = shard.coverage()
            large = coverage.points >= self._optimize_from
            lies_otherwise = large and needs_change(generation.directory, self._settings)
        return coverage.points if lies_otherwise or is_worth_a_build(coverage, self._optimize_from) else None

    def _close(self) -> None:
        with self._table:
            entries = list(self._entries.values())
            self._entries.clear()
        for entry in entries:
            try:
                entry.generation.retire(remove=not entry.live)
            except WinnowError:
                log.exception("collection %r was not closed properly", entry.name)
        self._readers.shutdown()
        self._writers.shutdown()
        self._builders.shutdown()
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
        if name in self._damaged:
            raise self._damaged[name].error()
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
        """What has been written is on the disk when it returns: the engine itself waits for the disk only when it
        flushes.
        """
        while True:
            entry = self._find(name)
            try:
                with entry.writing, entry.generation.use() as shard:
                    result = work(shard)
                    shard.sync_log()
                    return result
            except Retired:
                continue
            except FileNotFoundError:
                if self._entries.get(name) is entry:
                    raise  # else it was dropped meanwhile

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
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, work, *args)
        except OSError as exc:
            raise disk_error(exc, f"the index in {self._disk.directory} cannot be used") from exc


def _info(entry: _Entry) -> CollectionInfo:
    """Raises Retired."""
    generation = entry.generation
    with generation.use() as shard:
        return CollectionInfo(
            name=entry.name,
            generation=generation.id,
            spec=entry.spec,
            passages=shard.count(),
            detail=entry.unbuilt,
        )


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
