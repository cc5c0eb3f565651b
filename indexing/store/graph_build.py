"""A copy of a shard with its graphs built, made while the shard goes on taking writes. Blocking.

    copy        the small files while nobody writes, the large ones beside the writers
    build       in a child process, which has the copy for itself
    catch up    what has been written since is copied point by point, the last of it while nobody writes
    switch      by the caller, before anybody may write again

Until the switch nothing points to the copy: a kill leaves the shard as it was, and the next start removes the copy.

The large files may be copied beside the writers because the engine survives a kill at any moment: after a flush it
writes nothing into existing files that matters before the next flush, save for points that are replaced, and those are
copied once more. So nothing is flushed until the large files are copied, and the engine's log, which is written to at
once, is copied while nobody writes.
"""

import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from indexing.disk import DiskGuard, copy_with_holes, sync_tree
from indexing.errors import CollectionDamaged, StoreUnavailable
from indexing.settings import StoreSettings
from indexing.store import edge_layout
from indexing.store.base import CollectionSpec
from indexing.store.coverage import BUILT
from indexing.store.directory import SPEC
from indexing.store.edge_shard import EdgeShard, is_log_in_use
from indexing.store.generation import Generation, Retired
from indexing.store.seal import MARKS

log = logging.getLogger(__name__)

_LARGE_BYTES = 1 << 20
_OF_THE_LIVE = (*MARKS, SPEC, BUILT)
"""What the copy leaves behind."""
_POINTS_AT_ONCE = 64
"""The engine lets no other thread of the process run meanwhile: some 10 ms."""
_ROUNDS = 16
"""Of catching up beside writers, who may be as quick."""


class GraphBuild:
    """One build: from the live generation to a better one under `directory`."""

    def __init__(
        self, live: Generation, directory: Path, spec: CollectionSpec, disk: DiskGuard, settings: StoreSettings
    ) -> None:
        """The better generation lies as `settings` say."""
        self._live = live
        self._directory = directory
        self._spec = spec
        self._disk = disk
        self._settings = settings

    def run(self, writing: threading.Lock, switch: Callable[[Generation], bool]) -> bool:
        """Build, and hand the better generation to `switch` while `writing`, the lock of the writers, is held.

        What `switch` returns; if it refuses, or anything fails, the copy is deleted. Raises Retired if the live
        generation is dropped or replaced meanwhile, DiskFull and StoreUnavailable.
        """
        better = None
        try:
            with self._live.use() as shard:
                try:
                    self._copy(shard, writing)
                    self._build(shard.count())
                    better = self._load(shard)
                    with self._caught_up(shard, better, writing):
                        switched = switch(Generation(self._directory, self._spec, self._disk, better))
                finally:
                    shard.forget_changes()
        except BaseException as exc:
            self._discard(better)
            if isinstance(exc, OSError) and self._live.retired:  # the files went with the collection
                raise Retired from exc
            raise
        if not switched:
            self._discard(better)
        return switched

    def _copy(self, shard: EdgeShard, writing: threading.Lock) -> None:
        source = self._live.directory
        shard.flush()  # so that there is little left to do while writers wait
        with writing:
            shard.flush()
            shard.note_changes()
            files = {path: path.stat().st_size for path in source.rglob("*") if path.is_file()}
            files = {path: size for path, size in files.items() if path.name not in _OF_THE_LIVE}
            self._disk.check(sum(files.values()))  # the engine may fill the holes
            large = [path for path, size in files.items() if size >= _LARGE_BYTES and not is_log_in_use(path)]
            self._copy_files([path for path in files if path not in set(large)])
        try:
            self._copy_files(large)
        finally:
            shard.resume_flushes()

    def _copy_files(self, paths: Sequence[Path]) -> None:
        for path in paths:
            self._go_on()
            target = self._directory / path.relative_to(self._live.directory)
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_with_holes(str(path), str(target))

    def _build(self, points: int) -> None:
        edge_layout.change(self._directory, self._settings)
        code, errors = self._live.optimize_apart(self._directory, points)
        self._go_on()
        if code != 0:
            raise self._failed(errors[-500:])
        # The shard that this is a copy of is soon deleted: a power cut must not take both.
        sync_tree(self._directory)

    def _load(self, shard: EdgeShard) -> EdgeShard:
        with self._engine_of_the_copy():
            better = EdgeShard.load(self._directory, self._spec)
            better.note_build()
            better.create_indexes(shard.indexes())
            return better

    @contextmanager
    def _caught_up(self, shard: EdgeShard, better: EdgeShard, writing: threading.Lock) -> Iterator[None]:
        """Inside, both hold the same points, and nobody writes."""
        for _ in range(_ROUNDS):
            changed = shard.take_changes()
            self._copy_points(shard, better, changed)
            if len(changed) <= _POINTS_AT_ONCE:
                break
        better.sync_log()  # so that there is little left to do while writers wait
        with writing:
            self._copy_points(shard, better, shard.take_changes())
            with self._engine_of_the_copy():
                better.create_indexes(shard.indexes())
            better.sync_log()
            if (points := better.count()) != (expected := shard.count()):
                raise self._failed(f"the copy holds {points} passages, and there are {expected}")
            yield

    def _copy_points(self, shard: EdgeShard, better: EdgeShard, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), _POINTS_AT_ONCE):
            self._go_on()
            few = ids[start : start + _POINTS_AT_ONCE]
            records = shard.records(few)
            with self._engine_of_the_copy():
                better.replace(few, records)

    def _go_on(self) -> None:
        if self._live.retired:
            raise Retired

    @contextmanager
    def _engine_of_the_copy(self) -> Iterator[None]:
        """What is wrong with the copy does not make the live generation damaged."""
        try:
            yield
        except CollectionDamaged as exc:
            raise self._failed(exc.why) from exc

    def _failed(self, why: str) -> StoreUnavailable:
        log.error("optimising %s failed: %s", self._live.directory, why)
        return StoreUnavailable(f"optimising collection {self._directory.parent.name!r} failed; the log has more")

    def _discard(self, better: EdgeShard | None) -> None:
        if better is not None:
            better.close()
        shutil.rmtree(self._directory, ignore_errors=True)
        if not self._live.directory.exists():  # dropped meanwhile: what the copying has made goes too
            with_nothing_in_it = self._directory.parent
            try:
                with_nothing_in_it.rmdir()
            except OSError:
                return
