"""What metrics cost a /search, and what a scrape costs: `python -m benchmarks.metrics [--pairs 2000] [--traces]`.

Two applications over the same store in this process, called without a socket; one counts, the metrics of the other do
nothing. Both get each query, in turns and in changing order: the difference of a pair has nothing of the machine's
moods in it. The embedder is a fake whose time is next to nothing. Then the text of 10,000 series is written, as a
scrape does it; of that the processor's time counts, which other work on the machine does not lengthen.

Exits with 1 when a median is more than it may be.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import structlog

from app.config.settings import IndexSection, ServiceSettings, Settings, TracingSettings
from app.domain import TokenCount
from app.main import create_app
from app.observability.metrics import CallSeen, Metrics
from app.wiring import Services
from benchmarks.search_overhead import DIMENSION, fill, words
from indexing.store.base import VectorStore
from indexing.store.embedded import EmbeddedStore
from tests.fakes.embedder import HashEmbedder
from tests.fakes.source import GivenEmbedder

MOST_OF_A_SEARCH_MS = 0.3
MOST_OF_A_SCRAPE_MS = 100.0
SERIES = 10_000


class SilentMetrics(Metrics):
    """Counts nothing."""

    def request_begun(self) -> None:
        pass

    def request_ended(self, method: str, route: str | None, status: int | None, seconds: float) -> None:
        pass

    def refused(self, kind: str) -> None:
        pass

    def stage(self, name: str, seconds: float) -> None:
        pass

    def degraded(self, stage: str) -> None:
        pass

    def called(self, call: CallSeen, tokens: TokenCount, usd: float) -> None:
        pass


def main() -> int:
    """Measure both, print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--chunks", type=int, default=5000)
    parser.add_argument("--traces", action="store_true", help="record traces too, for a collector that is away")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with tempfile.TemporaryDirectory() as home:
        search_ms = asyncio.run(searches(Path(home), arguments.chunks, arguments.pairs, arguments.traces))
    scrape_ms = statistics.median(scrapes())
    print(f"a scrape of {SERIES:,} series       p50 {scrape_ms:.1f} ms")
    return int(search_ms > MOST_OF_A_SEARCH_MS or scrape_ms > MOST_OF_A_SCRAPE_MS)


async def searches(home: Path, chunks: int, pairs: int, traces: bool) -> float:
    """The median of what counting adds to a search, in milliseconds."""
    await fill(home, chunks)
    store = EmbeddedStore(home / "index")
    settings = Settings(service=ServiceSettings(), index=IndexSection(home=home))
    tracing = TracingSettings(endpoint="http://127.0.0.1:9" if traces else None)
    watched = msgspec.structs.replace(settings, tracing=tracing)
    counting, silent = application(watched, store), application(settings, store, SilentMetrics())
    rng, both = random.Random(3), [counting, silent]
    taken: dict[int, list[float]] = {id(app): [] for app in both}
    async with counting.lifespan(), silent.lifespan():
        for number in range(pairs + 50):
            query = words(rng, 8)
            for app in rng.sample(both, 2):
                ms = await ask(app, f"{query} {id(app)}")
                if number >= 50:
                    taken[id(app)].append(ms)
    differences = [with_it - without for with_it, without in zip(*taken.values(), strict=True)]
    print(f"a search without metrics      p50 {statistics.median(taken[id(silent)]):.3f} ms")
    print(f"what metrics add to it        p50 {statistics.median(differences):+.3f} ms")
    return statistics.median(differences)


def application(settings: Settings, store: VectorStore, metrics: Metrics | None = None) -> Any:
    """Over the store, which outlives it."""

    async def open_store() -> VectorStore:
        return store

    services = Services(settings, open_store, GivenEmbedder(HashEmbedder(DIMENSION)))
    if metrics is not None:
        services.metrics = metrics
    return create_app(settings, services)


async def ask(app: Any, query: str) -> float:
    """Milliseconds of one search, from its head to the end of its response."""
    body = json.dumps({"query": query, "limit": 10}).encode()
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/search", "raw_path": b"/search", "query_string": b"", "root_path": "",
        "headers": [(b"content-type", b"application/json"), (b"host", b"localhost")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000),
    }  # fmt: skip
    received = 0

    async def receive() -> dict[str, Any]:
        nonlocal received
        received += 1
        if received > 1:
            await asyncio.Event().wait()  # the client stays
        return {"type": "http.request", "body": body, "more_body": False}

    statuses = []

    async def send(message: dict[str, Any]) -> None:
        statuses.append(message.get("status", 200))

    begun = time.perf_counter()
    await app(scope, receive, send)
    taken = 1000 * (time.perf_counter() - begun)
    assert set(statuses) == {200}, statuses
    return taken


def scrapes(count: int = 30) -> list[float]:
    """Milliseconds of the processor for each, with counters and histograms as an application has them."""
    metrics, route = Metrics(), 0
    lines = 0
    while lines < SERIES:
        for _ in range(20):
            route += 1
            for status in (200, 400, 404, 503):
                metrics.request_begun()
                metrics.request_ended("POST", f"/route/{route}", status, 0.02)
            metrics.stage(f"stage-{route}", 0.01)
        lines = sum(not line.startswith(b"#") for line in metrics.text([]).splitlines())
    taken = []
    for _ in range(count):
        begun = time.thread_time()
        metrics.text([])
        taken.append(1000 * (time.thread_time() - begun))
    return taken


if __name__ == "__main__":
    sys.exit(main())
