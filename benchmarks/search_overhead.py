"""Our own time of a /search, beside embedding and store: `python -m benchmarks.search_overhead [--chunks 20000]`.

A real server process on a real socket over a real embedded store of random passages; only the embedding model is a
fake, so that its time is next to nothing. Each query is new, hence nothing comes from the query cache. Milliseconds:

inside    total - embed - retrieve of the response's own timings
request   the server's handling of the request less embed and retrieve: routing, decoding and encoding are in
ours      what the caller waits on one kept connection, less embed and retrieve: the socket and both ends' HTTP are in
client    what the caller waits
"""

import argparse
import asyncio
import http.client
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from app.config.settings import IndexSection, ServiceSettings, Settings
from app.instance import find_service
from app.main import serve
from app.wiring import Services
from indexing.retrieval.bm25 import Lexical
from indexing.store.base import CollectionSpec, Point, VectorStore
from indexing.store.embedded import EmbeddedStore
from tests.fakes.answerer import ScriptedAnswerer
from tests.fakes.corpus import passage
from tests.fakes.embedder import HashEmbedder
from tests.fakes.source import GivenEmbedder

DIMENSION, WORDS_EACH, VOCABULARY = 384, 120, 20_000
BATCH = 500


def main() -> None:
    """Fill, serve in a process of its own, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--limit", type=int, default=10)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        run_server(arguments.serve)
        return
    with tempfile.TemporaryDirectory() as home:
        asyncio.run(fill(Path(home), arguments.chunks))
        measure(Path(home), arguments.queries, arguments.limit)


def words(rng: random.Random, count: int) -> str:
    """Made-up words; low numbers are frequent, as in a language."""
    return " ".join(f"w{int(VOCABULARY * rng.random() ** 3)}" for _ in range(count))


async def fill(home: Path, chunks: int) -> None:
    """A collection of random passages."""
    rng, embedder, lexical = random.Random(7), HashEmbedder(DIMENSION), Lexical()
    store = EmbeddedStore(home / "index")
    await store.create("default", CollectionSpec(dimension=DIMENSION, embedder="hash-words"))
    for start in range(0, chunks, BATCH):
        found = [passage(f"d{i}", words(rng, WORDS_EACH), {"n": i}) for i in range(start, start + BATCH)]
        vectors = embedder.embed_documents([p.text for p in found])
        points = [
            Point(passage=p, dense=v, sparse=lexical.document(p.text)) for p, v in zip(found, vectors, strict=True)
        ]
        await store.upsert("default", points)
    await store.optimize("default")
    await store.close()


def run_server(home: Path) -> None:
    """The real server over the filled store."""

    async def open_store() -> VectorStore:
        return EmbeddedStore(home / "index")

    settings = Settings(service=ServiceSettings(port=0, log_format="json"), index=IndexSection(home=home))
    embedder = GivenEmbedder(HashEmbedder(DIMENSION))
    serve(settings, Services(settings, open_store, embedder, lambda _services: ScriptedAnswerer()))


def measure(home: Path, queries: int, limit: int) -> None:
    """Ask one after another on one connection."""
    log = home / "log.jsonl"
    with log.open("w") as output:
        command = [sys.executable, "-m", "benchmarks.search_overhead", "--serve", str(home)]
        server = subprocess.Popen(command, stderr=output)
    try:
        connection = http.client.HTTPConnection(address(home))
        rng = random.Random(11)
        for _ in range(50):
            ask(connection, words(rng, 8), limit)
        asked = [ask(connection, words(rng, 8), limit) for _ in range(queries)]
        time.sleep(0.2)
    finally:
        server.terminate()
        server.wait(timeout=30)
    requests = [line for line in map(json.loads, log.read_text().splitlines()) if line.get("route") == "/search"]
    report("inside", [t["total"] - t["embed"] - t["retrieve"] for _, t in asked])
    report("request", [line["ms"] - line["embed"] - line["retrieve"] for line in requests[-queries:]])
    report("ours", [ms - t["embed"] - t["retrieve"] for ms, t in asked])
    report("embed", [t["embed"] for _, t in asked])
    report("retrieve", [t["retrieve"] for _, t in asked])
    report("client", [ms for ms, _ in asked])


def address(home: Path) -> str:
    """host:port, once the server is there."""
    while (presence := find_service(home)) is None:
        time.sleep(0.05)
    return urlsplit(presence.url).netloc


def ask(connection: http.client.HTTPConnection, query: str, limit: int) -> tuple[float, dict[str, float]]:
    """(milliseconds, the response's timings)."""
    started = time.perf_counter()
    body = json.dumps({"query": query, "limit": limit})
    connection.request("POST", "/search", body, {"Content-Type": "application/json"})
    answer = connection.getresponse().read()
    taken = 1000 * (time.perf_counter() - started)
    timings: dict[str, float] = json.loads(answer)["timings_ms"]
    return taken, timings


def report(name: str, values: list[float]) -> None:
    """p50 and p95."""
    p95 = statistics.quantiles(values, n=20)[-1]
    print(f"{name:9} p50 {statistics.median(values):7.3f}   p95 {p95:7.3f}")


if __name__ == "__main__":
    main()
