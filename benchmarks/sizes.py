"""What a search costs by the size of the collection: `python -m benchmarks.sizes --data DIR [--points 2068 20000 ...]`.

DIR: corpus.jsonl and queries.jsonl, as squad2_dev. Real passages and questions with their real vectors (the configured
model); beyond the corpus its passages again and again, each with a vector and terms of its own near those of the
original. For each number of points: written without a graph; a service over it, whose embedder looks vectors up and so
costs nothing; its searches while it is quiet; then a first document is handed over, which has the graph built: its
searches and one document a second until that is done; searches with the graph, by one client and by many; last the
engine alone, its one call for both sides without any payload. Milliseconds, requests a second, and megabytes.
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
from numpy.typing import NDArray

from app.config.settings import IndexSection, ServiceSettings, Settings
from app.main import serve
from app.wiring import Services
from benchmarks.indexed import services_at
from benchmarks.search_overhead import address
from indexing.documents import Passage, passage_id
from indexing.embedding.model import Lane, Vectors
from indexing.retrieval.bm25 import Lexical
from indexing.store.base import CollectionSpec, Point, SparseVector, VectorStore
from indexing.store.embedded import OPTIMIZE_FROM, EmbeddedStore
from tests.fakes.answerer import ScriptedAnswerer
from tests.fakes.source import GivenEmbedder

POINTS = (2068, 20_000, 122_000, 500_000)
BATCH, SIDE, CLIENTS = 500, 50, 16
NOISE = 0.5
"""Length of the noise beside a unit vector: the copies of a passage have cosines of about .8 to one another."""
KEPT, QUIET, MANY = 0.8, 400, 1600
NEVER = 10**9


class Texts(msgspec.Struct, frozen=True):
    """Passages and questions with their vectors, as lists of float32."""

    passages: list[tuple[str, str]]
    questions: list[str]
    dense: NDArray[np.float32]
    asked: NDArray[np.float32]


class LookUp:
    """An embedder of questions that end in their number, and of documents of no matter what."""

    model_id, max_tokens, fingerprint = "look-up", 256, "look-up"

    def __init__(self, asked: NDArray[np.float32]) -> None:
        self._asked = asked

    def embed_documents(self, texts: Sequence[str], lane: Lane = "texts") -> Vectors:
        return self._asked[[len(text) % len(self._asked) for text in texts]]

    def embed_queries(self, texts: Sequence[str], lane: Lane = "queries") -> Vectors:
        numbers = [int(text.rpartition("#")[2]) for text in texts]
        noise = np.random.default_rng(numbers[0]).standard_normal((len(texts), self._asked.shape[1]))
        return _near(self._asked[[number % len(self._asked) for number in numbers]], noise, 0.1)

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


def _near(rows: NDArray[np.float32], noise: NDArray[np.float64], length: float) -> NDArray[np.float32]:
    rows = rows + (length / rows.shape[1] ** 0.5 * noise).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


async def embedded(data: Path, questions: int, kept: Path | None) -> Texts:
    """The data set's texts and the first questions, embedded by the configured model, or as `kept` has them."""
    rows = [json.loads(line) for line in (data / "corpus.jsonl").read_text("utf-8").splitlines()]
    asked = [json.loads(line)["text"] for line in (data / "queries.jsonl").read_text("utf-8").splitlines()][:questions]
    if kept is None or not await asyncio.to_thread(kept.exists):
        async with services_at(None) as services:
            model = await services.embedder.get()
            dense = await asyncio.to_thread(model.embed_documents, [row["text"] for row in rows])
            vectors = await asyncio.to_thread(model.embed_queries, asked)
        if kept is not None:
            np.savez(kept, dense=dense, asked=vectors)
    else:
        dense, vectors = (np.load(kept)[name] for name in ("dense", "asked"))
    return Texts([(row.get("title", ""), row["text"]) for row in rows], asked, dense, vectors)


def batches(texts: Texts, points: int) -> Iterator[list[Point]]:
    """The first ones are the corpus itself."""
    lexical, random = Lexical(), np.random.default_rng(5)
    terms = [lexical.document(text) for _, text in texts.passages]
    for start in range(0, points, BATCH):
        numbers = range(start, min(start + BATCH, points))
        rows = texts.dense[[number % len(terms) for number in numbers]]
        copies = np.asarray([number >= len(terms) for number in numbers])
        noise = random.standard_normal(rows.shape) * copies[:, None]
        yield [
            Point(passage=_passage(texts, number), dense=row, sparse=_some(terms[number % len(terms)], copy, random))
            for number, row, copy in zip(numbers, _near(rows, noise, NOISE), copies, strict=True)
        ]


def _some(terms: SparseVector | None, copy: bool, random: np.random.Generator) -> SparseVector | None:
    if terms is None or not copy:
        return terms
    kept = np.flatnonzero(random.random(len(terms.indices)) < KEPT)
    values = np.asarray(terms.values)[kept] * random.uniform(0.8, 1.2, len(kept))
    return SparseVector(np.asarray(terms.indices)[kept].tolist(), values.tolist()) if len(kept) else terms


def _passage(texts: Texts, number: int) -> Passage:
    title, text = texts.passages[number % len(texts.passages)]
    text = text if number < len(texts.passages) else f"{text} ({number})"
    document = f"d{number // 5}"
    return Passage(
        id=passage_id(document, "1", number % 5),
        document_id=document,
        version="1",
        ordinal=number % 5,
        start=0,
        end=len(text),
        text=text,
        source=f"articles/{document}.txt",
        title=title,
        page=number % 5 // 2,
        metadata={"year": 2000 + number % 20, "lang": "en"},
    )


async def fill(home: Path, texts: Texts, points: int) -> float:
    """Seconds that the writing alone took; no graph."""
    store = EmbeddedStore(home / "index", optimize_from=NEVER)
    await store.create("default", CollectionSpec(dimension=texts.dense.shape[1], embedder=LookUp.fingerprint))
    seconds = 0.0
    for batch in batches(texts, points):
        begun = time.perf_counter()
        await store.upsert("default", batch)
        seconds += time.perf_counter() - begun
    await store.close()
    return seconds


def run_server(home: Path) -> None:
    """The real server over the filled store."""

    async def open_store() -> VectorStore:
        return EmbeddedStore(home / "index")

    settings = Settings(service=ServiceSettings(port=0, log_format="json"), index=IndexSection(home=home))
    embedder = GivenEmbedder(LookUp(np.load(home / "asked.npy")), LookUp.fingerprint)
    serve(settings, Services(settings, open_store, embedder, lambda _services: ScriptedAnswerer()))


class Service:
    """The server in a process of its own, and clients of it."""

    def __init__(self, home: Path, texts: Texts) -> None:
        self._home, self._questions = home, texts.questions
        self._number = 0
        np.save(home / "asked.npy", texts.asked)
        command = [sys.executable, "-m", "benchmarks.sizes", "--serve", str(home)]
        with (home / "log.jsonl").open("w") as log:
            self.process = subprocess.Popen(command, stderr=log)
        self._address = address(home)

    def searches(self, count: int, clients: int = 1) -> list[float]:
        """Milliseconds of each, and last the requests a second; every question is new."""
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

    def megabytes(self) -> float:
        """Resident, files of the engine included."""
        return _resident(self.process.pid)

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
            for pid in _children(self._parent):
                with suppress(OSError, IndexError):
                    if b"edge_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        self.megabytes = max(self.megabytes, _resident(pid))
                        self.own_megabytes = max(self.own_megabytes, _resident(pid, "RssAnon"))
                        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                        self.cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            time.sleep(0.2)


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    with suppress(OSError):
        return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]
    return []


def _resident(pid: int, name: str = "VmRSS") -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) / 1000 for line in lines if line.startswith(f"{name}:"))


def report(name: str, times: Sequence[float]) -> None:
    """p50, p99 and the longest; with the last figure as requests a second."""
    *each, rate = times
    p50, p99 = np.percentile(each, [50, 99])
    print(f"  {name:38} p50 {p50:8.1f}  p99 {p99:8.1f}  longest {max(each):8.1f}  {rate:7.1f}/s", flush=True)


def measure(home: Path, texts: Texts, points: int) -> None:
    """One size, in a home of its own."""
    print(f"{points:,} passages; load {os.getloadavg()[0]:.1f}", flush=True)
    print(f"  written in {asyncio.run(fill(home, texts, points)):.0f} s", flush=True)
    pointer = home / "index" / "collections" / "default" / "current.json"
    before = pointer.read_bytes()
    service = Service(home, texts)
    service.searches(50)
    if points >= OPTIMIZE_FROM:
        report("service, no graph, 1 client", service.searches(QUIET))
        builder, begun = Builder(service.process.pid), time.perf_counter()
        builder.start()
        searches, documents = service.search_until(lambda: pointer.read_bytes() != before)
        took = time.perf_counter() - begun
        report("service, during the build, 1 client", [*searches, len(searches) / took])
        report("a document, during the build", [*documents, len(documents) / took])
        print(
            f"  build {took:.0f} s, of the child {builder.cpu_s:.0f} s of CPU, {builder.megabytes:.0f} MB resident,"
            f" {builder.own_megabytes:.0f} MB without files"
        )
    report("service, 1 client", service.searches(QUIET))
    report(f"service, {CLIENTS} clients", service.searches(MANY, CLIENTS))
    print(f"  service: {service.megabytes():.0f} MB resident, {_resident(service.process.pid, 'RssAnon'):.0f} own")
    service.stop()
    engine = Engine(home, texts)
    engine.searches(50)
    report("engine, 1 thread", engine.searches(QUIET))
    report(f"engine, {CLIENTS} threads", engine.searches(MANY, CLIENTS))
    engine.shard.close()


def main() -> None:
    """All sizes, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--points", type=int, nargs="+", default=POINTS)
    parser.add_argument("--vectors", type=Path, help="an .npz in which the vectors are kept for the next time")
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        run_server(arguments.serve)
        return
    if arguments.data is None:
        parser.error("--data is required: a folder with corpus.jsonl and queries.jsonl")
    texts = asyncio.run(embedded(arguments.data, arguments.questions, arguments.vectors))
    for points in arguments.points:
        with tempfile.TemporaryDirectory(prefix="winnow-sizes-") as home:
            measure(Path(home), texts, points)


if __name__ == "__main__":
    main()
