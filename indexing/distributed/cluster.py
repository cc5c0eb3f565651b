"""The stages on a Ray cluster, by Ray Data: who reads, who embeds, what is done again when a machine is lost.

Ray Data hands files out to readers and their documents to embedders as these become free, keeps results in the order of
the files, holds the stages back while the writer is busy, and repeats elsewhere what a lost machine had in hand.
"""

import asyncio
import importlib.util
import logging
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from indexing.distributed.stages import COLUMN, CutPiece, Cutter, FileReader, Task
from indexing.errors import UnreadableDocument, WinnowError
from indexing.pipeline.manifest import SourceRecord
from indexing.pipeline.read_stage import Content, Outcome, Versions
from indexing.readers.limits import ReadLimits, reading
from indexing.settings import EmbeddingSettings

_FILES_PER_TASK = 8
_MOST_TASKS = 10_000
_PIECES_PER_CALL = 32
_BLOCK_BYTES = 4 * 2**20
"""Of pieces that Ray keeps and hands on together, which is 128 MB unless it is told: the whole of most files."""
_PROBE_S = 120.0
_CONNECT_S = 10.0


class ClusterFailed(WinnowError):
    """The Ray cluster cannot be used, or was lost in the middle."""


class RayReading:
    """A `Reading` by the cluster at `address`: "host:6379" as seen from one of its machines, "auto", or "local" for a
    cluster of this machine alone.

    Raises ClusterFailed. What was written by then counts, and the next run goes on from there.
    """

    def __init__(self, address: str, limits: ReadLimits, embedding: EmbeddingSettings) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ClusterFailed("--ray needs another package: pip install 'winnow[distributed]'")
        self._address, self._limits, self._embedding = address, limits, embedding

    async def __call__(
        self, sources: Sequence[SourceRecord], versions: Callable[[str], Awaitable[Versions]]
    ) -> AsyncGenerator[tuple[SourceRecord, Outcome], None]:
        if not sources:
            return
        tasks = [Task(source=source, earlier=await versions(source.path)) for source in sources]
        pieces = _Pieces(self._address, self._limits, self._embedding, tasks)
        try:
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                yield piece.piece.source, _outcome(piece)
        finally:
            await asyncio.to_thread(pieces.close)


def _outcome(cut: CutPiece) -> Outcome:
    piece = cut.piece
    if piece.error is not None:
        return UnreadableDocument(*piece.error)
    return Content(
        found=cut.found,
        removed=piece.removed,
        refused=piece.refused,
        warnings=piece.warnings,
        size=0,
        more=not piece.last,
    )


class _Pieces(Iterator[CutPiece]):
    """All pieces of the tasks, in order. Blocks; connects with the first one. Raises ClusterFailed."""

    def __init__(self, address: str, limits: ReadLimits, embedding: EmbeddingSettings, tasks: Sequence[Task]) -> None:
        self._address, self._limits, self._embedding, self._tasks = address, limits, embedding, tasks
        self._rows: Iterator[dict[str, Any]] | None = None

    def __next__(self) -> CutPiece:
        import ray

        try:
            if self._rows is None:
                self._rows = iter(self._begun().iter_rows())
            piece: CutPiece = next(self._rows)[COLUMN]
        except (ConnectionError, ValueError, RuntimeError, SystemExit, ray.exceptions.RayError) as exc:
            # Ray's own words run over pages, with the workers' stacks.
            raise ClusterFailed(
                f"the Ray cluster at {self._address} cannot be used ({type(exc).__name__}): see its logs, and "
                "`ray status --address ...`; what was indexed so far is kept"
            ) from exc
        return piece

    def close(self) -> None:
        """Let go of the cluster, which ends what it still does for this run."""
        import ray

        self._rows = None
        ray.shutdown()

    def _begun(self) -> Any:
        """The rows, of which nothing has been computed yet."""
        import ray
        import ray.data

        _connect(self._address)
        machines = _machines()
        _check_releases(self._address, self._limits, machines)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        context.target_max_block_size = _BLOCK_BYTES
        cpus = int(min(machine["Resources"]["CPU"] for machine in machines))  # of the smallest one
        gpus = int(sum(machine["Resources"].get("GPU", 0) for machine in machines))
        readers_each = max(1, cpus // 4)
        blocks = min(_MOST_TASKS, -(-len(self._tasks) // _FILES_PER_TASK))
        files = ray.data.from_items([{COLUMN: task} for task in self._tasks], override_num_blocks=blocks)
        pieces = files.map_batches(
            FileReader,
            batch_size=1,
            compute=_pool(readers_each * len(machines), blocks),
            fn_constructor_kwargs={"limits": self._limits},
            num_cpus=1 if cpus > 1 else 0.25,
        )
        return pieces.map_batches(
            Cutter,
            batch_size=_PIECES_PER_CALL,
            compute=_pool(max(gpus, len(machines)), blocks),
            fn_constructor_kwargs={"settings": self._embedding},
            num_cpus=1 if gpus else cpus - readers_each if cpus > 1 else 0.75,
            num_gpus=1 if gpus else 0,
        )


def _pool(most: int, blocks: int) -> Any:
    """All of them at once where there is work for them: Ray adds one after the other, each once the last has loaded."""
    import ray.data

    return ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=min(most, blocks))


def _connect(address: str) -> None:
    import ray

    host, _, port = address.rpartition(":")
    if host and "//" not in host:
        # Ray itself tries for minutes, and then ends the process.
        try:
            socket.create_connection((host, int(port)), _CONNECT_S).close()
        except (OSError, ValueError) as exc:
            raise ClusterFailed(f"no Ray cluster answers at {address}; give it as HOST:6379, auto or local") from exc
    # Ray reports how it is used, unless it is told not to, and writes its doings between our lines.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "ignore_reinit_error": True}
    if address == "local":
        ray.init("local", include_dashboard=False, **options)
    else:
        ray.init(address, **options)


def _machines() -> list[Mapping[str, Any]]:
    """Those that have a processor to give, as Ray tells of them. Raises ClusterFailed where none has."""
    import ray

    machines = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    if not machines:
        raise ClusterFailed("no machine of the Ray cluster has a processor to give")
    return machines


def _check_releases(address: str, limits: ReadLimits, machines: Sequence[Mapping[str, Any]]) -> None:
    """All machines must read alike: the same version, and the same OCR. Raises ClusterFailed."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = ray.remote(num_cpus=0)(reading)
    replies = [
        asked.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(limits)
        for node in machines
    ]
    own = reading(limits)
    for node, reply in zip(machines, replies, strict=True):
        try:
            theirs = ray.get(reply, timeout=_PROBE_S)
        except ray.exceptions.RayError as exc:
            raise ClusterFailed(
                f"{node['NodeManagerAddress']} of the Ray cluster at {address} cannot run Winnow: install this version "
                "on each of its machines, with the same extras"
            ) from exc
        if theirs != own:
            raise ClusterFailed(
                f"{node['NodeManagerAddress']} of the Ray cluster at {address} has another Winnow or another OCR "
                f"({theirs}) than this machine ({own}): install the same on all of them"
            )
