"""How many documents a second two workers of a Ray cluster index, over one.

    .venv-ray/bin/python -m benchmarks.ray_workers --data DIR/squad2_dev [--documents 800] [--rounds 3]

Needs what `make test-ray` installs. Each passage of corpus.jsonl becomes a file. A turn runs what `winnow index --ray`
runs on a real cluster whose head does nothing, with one worker or two of one processor each: the workers read, cut and
embed with the real model, held to one thread (OMP_NUM_THREADS=1), and this process plans and writes to a new server of
the index (`tests.fakes.qdrant_server`). One worker and two take turns, in the other order each round.

Rates count between two moments in the middle, when a fifth and four fifths of the documents have come back: no model is
being loaded, and as much is under way at the end as at the beginning; "with the start" counts all of it. CPU is that of
the processes that embed in the same time: where other work takes the processors, documents for each second of it say
what a second worker costs, and the cores in use what it was given.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import msgspec

from indexing.distributed.cluster import RayReading
from indexing.embedding.loading import load_embedder
from indexing.embedding.model import Embedder
from indexing.pipeline.context import ensure_collection, index_fingerprint
from indexing.pipeline.manifest import SourceRecord
from indexing.pipeline.progress import SyncRequest
from indexing.pipeline.read_stage import Outcome, Versions
from indexing.pipeline.sync import sync
from indexing.readers.limits import ReadLimits
from indexing.settings import EmbeddingSettings, StoreSettings
from indexing.store.server import ServerStore
from tests.fakes.library import workbench
from tests.fakes.qdrant_server.server import running

EMBEDDING = EmbeddingSettings(exports=Path.home() / ".cache" / "winnow" / "models")
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_gcs_server_port_wait_time_s": "120",  # 30 are too few for a start on a busy machine
}
"""Of the workers, who have it from this process."""
MIDDLE = (0.2, 0.8)
"""Of the documents: between these is measured."""
LEAST_CPU_S = 0.3
"""Of a process that embedded."""


class Turn(msgspec.Struct, frozen=True):
    """What was measured with so many workers: documents and seconds in the middle, CPU seconds of what embeds."""

    workers: int
    documents: int
    seconds: float
    cpu: float
    whole: float
    passages: int

    @property
    def rate(self) -> float:
        return self.documents / self.seconds

    @property
    def per_cpu(self) -> float:
        return self.documents / self.cpu

    @property
    def cores(self) -> float:
        return self.cpu / self.seconds


class TimedReading:
    """A `Reading` that notes when the measured part begins and ends, and the CPU seconds of the embedders by then."""

    def __init__(self, reading: RayReading, documents: int) -> None:
        self._reading = reading
        self._noted = [round(documents * share) for share in MIDDLE]
        self.notes: list[tuple[int, float, dict[int, float]]] = []

    async def __call__(
        self, sources: Sequence[SourceRecord], versions: Callable[[str], Awaitable[Versions]]
    ) -> AsyncGenerator[tuple[SourceRecord, Outcome], None]:
        done = set[str]()
        async for source, outcome in self._reading(sources, versions):
            if source.path not in done:
                done.add(source.path)
                if len(done) in self._noted:
                    self.notes.append((len(done), time.perf_counter(), embedders_cpu()))
            yield source, outcome


def embedders_cpu() -> dict[int, float]:
    """CPU seconds of each process below this one that embeds, by its id: Ray titles it by what it runs."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        pid = int(folder.name)
        parents[pid] = int(fields[1])
        if title.startswith(b"ray::") and b"Cutter" in title:
            seconds[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return {pid: spent for pid, spent in seconds.items() if _descends(pid, os.getpid(), parents)}


def _descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid and pid != ancestor:
        pid = parents.get(pid, 0)
    return pid == ancestor


class Workers:
    """A cluster on this machine, of workers of one processor each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self._nodes: list[Any] = []
        self.address: str = self._cluster.address

    def become(self, workers: int) -> None:
        """So many from now on."""
        while len(self._nodes) > workers:
            self._cluster.remove_node(self._nodes.pop())
        while len(self._nodes) < workers:
            self._nodes.append(self._cluster.add_node(num_cpus=1, object_store_memory=200_000_000))

    def close(self) -> None:
        """End all of it."""
        self._cluster.shutdown()


async def turn(cluster: Workers, workers: int, folder: Path, documents: int, embedder: Embedder) -> Turn:
    """Index the folder once, into a new index. Raises SystemExit where not every worker embedded."""
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="winnow-ray-")))
        server = stack.enter_context(running(home / "qdrant"))
        store = ServerStore.connect(StoreSettings(url=server.url, grpc_port=server.grpc_port))
        stack.push_async_callback(store.close)
        bench = workbench(store, home, embedder, index_fingerprint(EMBEDDING))
        stack.push_async_callback(bench.manifest.close)
        await ensure_collection(bench, "default")
        cluster.become(workers)
        reading = TimedReading(RayReading(cluster.address, ReadLimits(), EMBEDDING), documents)
        request = SyncRequest(inputs=(str(folder),), cwd="/", ray=cluster.address)
        summary = await sync(bench, request, reading=reading)
    (first, begun, before), (last, ended, after) = reading.notes
    spent = [seconds - before.get(pid, 0.0) for pid, seconds in after.items()]
    spent = [seconds for seconds in spent if seconds > LEAST_CPU_S]  # one of the turn before may not have ended yet
    if len(spent) != workers or summary.created != documents:
        sys.exit(f"{len(spent)} of {workers} workers embedded, {summary.created} of {documents} documents came")
    return Turn(workers, last - first, ended - begun, sum(spent), summary.seconds, summary.passages)


def written(data: Path, documents: int, folder: Path) -> int:
    """A file for each of the first records; how many there are."""
    folder.mkdir()
    with (data / "corpus.jsonl").open(encoding="utf-8") as lines:
        for number, line in enumerate(itertools.islice(lines, documents)):
            record = json.loads(line)
            (folder / f"{number:05}.txt").write_text(f"{record['title']}\n\n{record['text']}\n", encoding="utf-8")
    return sum(1 for _ in folder.iterdir())


def processor() -> str:
    """As the system names it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def main() -> None:
    """Measure in turns, and print each turn and the medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(f"{processor()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the start", flush=True)
    embedder = load_embedder(EMBEDDING)  # exports the model where that has not been done, with all threads
    os.environ |= ENVIRONMENT
    turns: list[Turn] = []
    with tempfile.TemporaryDirectory(prefix="winnow-ray-") as scratch:
        folder = Path(scratch, "docs")
        documents = written(args.data, args.documents, folder)
        with closing(Workers()) as cluster:
            for number in range(args.rounds):
                for workers in (1, 2) if number % 2 == 0 else (2, 1):
                    turns.append(asyncio.run(turn(cluster, workers, folder, documents, embedder)))
                    _print(f"round {number + 1}", turns[-1])
    one, two = ([made for made in turns if made.workers == workers] for workers in (1, 2))

    def median(of: Sequence[Turn], figure: Callable[[Turn], float]) -> float:
        return statistics.median(map(figure, of))

    figures: tuple[tuple[str, Callable[[Turn], float]], ...] = (
        ("documents/s", lambda made: made.rate),
        ("documents for each CPU second of what embeds", lambda made: made.per_cpu),
        ("cores in use by what embeds", lambda made: made.cores),
        ("documents/s with the start", lambda made: documents / made.whole),
    )
    print(
        f"{documents} documents, {turns[0].passages} passages; medians of {args.rounds} rounds: one worker, two, ratio"
    )
    for name, figure in figures:
        few, more = median(one, figure), median(two, figure)
        print(f"  {name:46} {few:7.2f} {more:7.2f} {more / few:6.2f}")
    print(f"load average {os.getloadavg()[0]:.1f} at the end")


def _print(when: str, made: Turn) -> None:
    print(
        f"{when}, workers {made.workers}: {made.rate:.1f} documents/s over {made.seconds:.1f} s; CPU of what embeds "
        f"{made.cpu:.1f} s ({made.cores:.2f} cores); {made.whole:.1f} s with the start",
        flush=True,
    )


if __name__ == "__main__":
    main()
