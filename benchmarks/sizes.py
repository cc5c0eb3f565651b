"""What a search costs by the size of the collection: `python -m benchmarks.sizes --data DIR [--points 2068 20000 ...]`.

DIR: corpus.jsonl and queries.jsonl, as squad2_dev. For each number of points (`benchmarks.sizes_filled`): written
without a graph; a service over it, whose embedder looks vectors up and so costs nothing, and which builds the graph:
its first search, which opens the collection, its searches and one document a second until that is done; searches with
the graph, by one client and by many, with the processor time of the service for each; the engine alone, its one call
for both sides without any payload; last recall@10 of the vectors' side, as the service asks for it, against an exact
search. Milliseconds, requests a second, megabytes.

With `--kept DIR` each size has a folder under it that stays: the next run only searches, and repeats what filling and
building had taken. `--quantization`, `--vectors-on-disk` and the other settings of the layout count for a new folder,
and in one that is filled for the next graph.
"""

import argparse
import asyncio
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import qdrant_edge as edge

from app.config.settings import IndexSection, ServiceSettings, Settings
from app.main import serve
from app.wiring import Services
from benchmarks.processes import children, memory, processor_s
from benchmarks.search_overhead import address
from benchmarks.sizes_filled import TOP, Filling, LookUp, Texts, embedded, filled
from indexing.documents import EVERYTHING
from indexing.retrieval.bm25 import Lexical
from indexing.settings import StoreSettings
from indexing.store.base import Retrieval, VectorStore
from indexing.store.coverage import OPTIMIZE_FROM
from indexing.store.embedded import EmbeddedStore
from tests.fakes.answerer import ScriptedAnswerer
from tests.fakes.source import GivenEmbedder

POINTS = (2068, 20_000, 122_000, 500_000)
SIDE, CLIENTS, QUIET, MANY = 50, 16, 400, 1600


class Building(msgspec.Struct, frozen=True):
    """What building the graph took: of the child its processor time, resident megabytes at most, and without files."""

    seconds: float
    cpu_s: float
    megabytes: float
    own_megabytes: float


def settings_at(home: Path) -> StoreSettings:
    """Those of the layout, as the last run was told."""
    return msgspec.json.decode((home / "settings.json").read_bytes(), type=StoreSettings)


def run_server(home: Path) -> None:
    """The real server over the filled store."""

    async def open_store() -> VectorStore:
        return EmbeddedStore(home / "index", settings=settings_at(home))

    settings = Settings(service=ServiceSettings(port=0, log_format="json"), index=IndexSection(home=home))
    embedder = GivenEmbedder(LookUp(np.load(home / "asked.npy")), LookUp.fingerprint)
    serve(settings, Services(settings, open_store, embedder, lambda _services: ScriptedAnswerer()))


class Service:
    """The server in a process of its own, and clients of it."""

    def __init__(self, home: Path, texts: Texts) -> None:
        self._home, self._questions = home, texts.questions
        self._number = 0
        self.cpu_ms = 0.0
        """Processor time of the service for each of the last searches."""
        np.save(home / "asked.npy", texts.asked)
        command = [sys.executable, "-m", "benchmarks.sizes", "--serve", str(home)]
        with (home / "log.jsonl").open("w") as log:
            self.process = subprocess.Popen(command, stderr=log)
        self._address = address(home)

    def searches(self, count: int, clients: int = 1) -> list[float]:
        """Milliseconds of each, and last the requests a second; every question is new."""
        before = processor_s(self.process.pid)
        try:
            return self._searches(count, clients)
        finally:
            self.cpu_ms = 1000 * (processor_s(self.process.pid) - before) / count

    def _searches(self, count: int, clients: int) -> list[float]:
        numbers = iter(range(self._number, self._number + count))
        self._number += count
        times: list[float] = []
        threads = [threading.Thread(target=self._client, args=(numbers, times)) for _ in range(clients)]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [*times, len(times) / (time.perf_counter() - begun)]

    def search_until(self, done: Callable[[], bool]) -> tuple[list[float], list[float]]:
        """Milliseconds of the searches of one client, and of the documents that are handed over meanwhile, each a
        second after the last.
        """
        searches: list[float] = []
        stop = threading.Event()

        def go_on() -> None:
            while not stop.is_set():
                searches.extend(self.searches(1)[:1])

        thread = threading.Thread(target=go_on)
        thread.start()
        documents: list[float] = []
        while True:
            body = {"documents": [{"id": f"new{len(documents)}", "text": f"A sentence of number {len(documents)}."}]}
            documents.append(self._post(http.client.HTTPConnection(self._address), "/documents", body))
            if done():
                break
            time.sleep(1)
        stop.set()
        thread.join()
        return searches, documents

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)

    def _client(self, numbers: Iterator[int], times: list[float]) -> None:
        connection = http.client.HTTPConnection(self._address)
        for number in numbers:
            question = self._questions[number % len(self._questions)]
            times.append(self._post(connection, "/search", {"query": f"{question} #{number}"}))

    @staticmethod
    def _post(connection: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> float:
        begun = time.perf_counter()
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
        if response.status == 503:  # too many at once: it says when to come back
            time.sleep(float(response.headers.get("Retry-After", "1")))
            return Service._post(connection, path, body)
        assert response.status == 200, f"{path}: {response.status} {answer[:300]!r}"
        return 1000 * (time.perf_counter() - begun)


class Engine:
    """A shard of a closed store without us: the two sides in one call, no payload."""

    def __init__(self, home: Path, texts: Texts) -> None:
        (directory,) = (path for path in (home / "index" / "collections" / "default").iterdir() if path.is_dir())
        self.shard = edge.EdgeShard.load(str(directory))
        self._dense, lexical = texts.asked, Lexical()
        self._sparse = [lexical.query(question) for question in texts.questions]

    def ask(self, number: int) -> None:
        """Both sides, SIDE points each."""
        sparse = self._sparse[number % len(self._sparse)]
        assert sparse is not None
        dense = edge.Query.Nearest(self._dense[number % len(self._dense)].tolist(), using="dense")
        words = edge.Query.Nearest(edge.SparseVector(sparse.indices, sparse.values), using="sparse")
        requests = [edge.QueryRequest(limit=SIDE, query=query) for query in (dense, words)]
        self.shard.query_batch(edge.QueryBatchRequest(requests))

    def searches(self, count: int, clients: int = 1) -> list[float]:
        """As those of `Service`, by threads."""
        times: list[float] = []
        numbers = iter(range(count))

        def client() -> None:
            for number in numbers:
                begun = time.perf_counter()
                self.ask(number)
                times.append(1000 * (time.perf_counter() - begun))

        threads = [threading.Thread(target=client) for _ in range(clients)]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [*times, count / (time.perf_counter() - begun)]


class Builder(threading.Thread):
    """Watches the child process that builds the graph: its peak of memory and its processor time."""

    def __init__(self, parent: int) -> None:
        super().__init__(daemon=True)
        self._parent = parent
        self.megabytes = self.own_megabytes = self.cpu_s = 0.0

    def run(self) -> None:
        while Path(f"/proc/{self._parent}").exists():
            for pid, command in children(self._parent):
                if b"edge_process" in command:
                    now = memory(pid)
                    self.megabytes = max(self.megabytes, now.resident)
                    self.own_megabytes = max(self.own_megabytes, now.anonymous)
                    self.cpu_s = max(self.cpu_s, processor_s(pid))
            time.sleep(0.2)


def report(name: str, times: Sequence[float], cpu_ms: float | None = None) -> None:
    """p50, p99 and the longest; with the last figure as requests a second."""
    *each, rate = times
    p50, p99 = np.percentile(each, [50, 99])
    cpu = "" if cpu_ms is None else f"  CPU {cpu_ms:5.2f} each"
    print(f"  {name:38} p50 {p50:8.1f}  p99 {p99:8.1f}  longest {max(each):8.1f}  {rate:7.1f}/s{cpu}", flush=True)


def told(settings: StoreSettings) -> dict[str, Any]:
    """What is not as it is by default."""
    usual = msgspec.structs.asdict(StoreSettings())
    return {key: value for key, value in msgspec.structs.asdict(settings).items() if value != usual[key]}


def measure(home: Path, texts: Texts, points: int, settings: StoreSettings, *, alone: bool) -> None:
    """One size, in a home of its own; with `alone` nobody searches or writes while the graph is built."""
    layout = ", ".join(f"{key} {value}" for key, value in told(settings).items()) or "as it comes"
    print(f"{points:,} passages; load {os.getloadavg()[0]:.1f}; layout: {layout}", flush=True)
    (home / "settings.json").write_bytes(msgspec.json.encode(settings))
    filling = asyncio.run(filled(home, texts, points, settings))
    print(f"  written in {filling.seconds:.0f} s, {filling.cpu_s:.0f} s of CPU", flush=True)
    with suppress(FileNotFoundError):
        (home / "log.jsonl").unlink()
    before = _pointer(home)
    service = Service(home, texts)
    if points >= OPTIMIZE_FROM:
        building = _built(home, service, lambda: _pointer(home) != before, alone=alone)
        print(
            f"  build {building.seconds:.0f} s, of the child {building.cpu_s:.0f} s of CPU, {building.megabytes:.0f} MB"
            f" resident, {building.own_megabytes:.0f} MB without files"
        )
    service.searches(50)
    report("service, 1 client", service.searches(QUIET), service.cpu_ms)
    report(f"service, {CLIENTS} clients", service.searches(MANY, CLIENTS), service.cpu_ms)
    used = memory(service.process.pid)
    disk = sum(path.stat().st_blocks * 512 for path in (home / "index").rglob("*") if path.is_file()) / 1e6
    print(f"  service: {used.resident:.0f} MB resident, {used.anonymous:.0f} without files; {disk:.0f} MB on disk")
    service.stop()
    engine = Engine(home, texts)
    engine.searches(50)
    report("engine, 1 thread", engine.searches(QUIET))
    report(f"engine, {CLIENTS} threads", engine.searches(MANY, CLIENTS))
    engine.shard.close()
    print(f"  recall@{TOP} of vectors: {asyncio.run(recall(home, texts, filling, settings)):.4f}", flush=True)


def _pointer(home: Path) -> bytes:
    """Changes with the generation."""
    return (home / "index" / "collections" / "default" / "current.json").read_bytes()


def _built(home: Path, service: Service, done: Callable[[], bool], *, alone: bool) -> Building:
    """As an earlier run has built it, or built now beside searches and documents."""
    record = home / "built.json"
    if record.exists():
        return msgspec.json.decode(record.read_bytes(), type=Building)
    begun = time.perf_counter()
    builder = Builder(service.process.pid)
    builder.start()
    if alone:
        while not done():
            time.sleep(0.2)
    else:
        print(f"  the first search, which opens the collection: {service.searches(1)[0]:.0f} ms", flush=True)
        searches, documents = service.search_until(done)
        report("service, during the build, 1 client", [*searches, len(searches) / (time.perf_counter() - begun)])
        report("a document, during the build", [*documents, len(documents) / (time.perf_counter() - begun)])
    took = time.perf_counter() - begun
    building = Building(took, builder.cpu_s, builder.megabytes, builder.own_megabytes)
    record.write_bytes(msgspec.json.encode(building))
    return building


async def recall(home: Path, texts: Texts, filling: Filling, settings: StoreSettings) -> float:
    """The share of what is found first, in the mean over the judged questions, that is as near as the TOPth of all."""
    store = EmbeddedStore(home / "index", settings=settings)
    found = 0
    for vector, tenth in zip(texts.judged(), filling.tenth, strict=True):
        retrieved = await store.retrieve("default", Retrieval(dense=vector, limit=SIDE), EVERYTHING)
        found += sum(candidate.score >= tenth - 1e-5 for candidate in retrieved.dense[:TOP])
    await store.close()
    return found / TOP / len(filling.tenth)


def main() -> None:
    """All sizes, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--points", type=int, nargs="+", default=POINTS)
    parser.add_argument("--vectors", type=Path, help="an .npz in which the vectors are kept for the next time")
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--kept", type=Path, help="a folder in which the filled homes are kept for the next time")
    parser.add_argument("--quantization", choices=["scalar", "binary", "turbo"])
    parser.add_argument("--oversampling", type=float, default=StoreSettings().oversampling)
    parser.add_argument("--vectors-on-disk", action="store_true", default=None)
    parser.add_argument("--alone", action="store_true", help="nobody searches while the graph is built")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        run_server(arguments.serve)
        return
    if arguments.data is None:
        parser.error("--data is required: a folder with corpus.jsonl and queries.jsonl")
    texts = asyncio.run(embedded(arguments.data, arguments.questions, arguments.vectors))
    settings = StoreSettings(
        quantization=arguments.quantization,
        oversampling=arguments.oversampling,
        vectors_on_disk=arguments.vectors_on_disk,
    )
    for points in arguments.points:
        with tempfile.TemporaryDirectory(prefix="winnow-sizes-") as temporary:
            home = Path(temporary) if arguments.kept is None else arguments.kept / str(points)
            home.mkdir(parents=True, exist_ok=True)
            measure(home, texts, points, settings, alone=arguments.alone)


if __name__ == "__main__":
    main()
