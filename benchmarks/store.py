"""How fast the embedded store is, and how much of that is ours: `python -m benchmarks.store [--points N] [--seed S]`.

Random unit vectors (384), sparse vectors of 60 tokens, texts of about 800 characters, six metadata fields. Figures are
in milliseconds over `--queries` single-client searches of both sides, limit 50 each, read into `Passage`s.
"""

import argparse
import asyncio
import functools
import shutil
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import qdrant_edge as edge
from rich.console import Console
from rich.table import Table

from app.domain import Condition, Conditions
from app.retrieval.conditions import narrowing
from indexing.documents import EVERYTHING, Passage
from indexing.filters import parse_filter
from indexing.store.base import CollectionSpec, Point, Retrieval, SparseVector
from indexing.store.embedded import EmbeddedStore

DIMENSION, TOKENS, VOCABULARY, LIMIT, BATCH = 384, 60, 30_000, 50, 256

FILTERS: dict[str, dict[str, Any] | None] = {
    "no filter": None,
    "lang = zh (1 in 3)": {"lang": "zh"},
    "year in a range (1 in 4)": {"year": {"gte": 2003, "lt": 2008}},
    "date range (1 in 2)": {"when": {"lt": "2024-01-15"}},
    "not lang = zh": {"not": {"lang": "zh"}},
    "title has a word": {"title": {"text": "guide"}},
    "one document": {"document_id": "d7"},
    "author, exactly (10 passages)": {"author": "Person 7 of team 7"},
    "author has words (10 passages)": {"author": {"text": "person 7 team 7"}},
}


def _equal(field: str, value: str) -> Conditions:
    return Conditions(conditions=(Condition(fields=(field,), operator="=", values=(value,)),))


CONDITIONS = {
    "author is (10 passages)": _equal("author", "PERSON 7 OF TEAM 7"),
    "author is nobody": _equal("author", "nobody"),
    "lang is EN (1 in 3)": _equal("lang", "EN"),
    "year is 2003 (1 in 20)": _equal("year", "2003"),
    "document_id is": _equal("document_id", "D7"),
}
"""As Dify and RAGFlow send them: case does not count."""


class Corpus:
    """Points and queries that are the same for the same seed."""

    def __init__(self, points: int, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._words = [f"word{number}" for number in range(5000)]
        rows = self._random.standard_normal((points, DIMENSION)).astype(np.float32)
        self.rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def batches(self) -> Iterator[list[Point]]:
        for start in range(0, len(self.rows), BATCH):
            yield [self._point(number) for number in range(start, min(start + BATCH, len(self.rows)))]

    def retrieval(self, condition: dict[str, Any] | None) -> Retrieval:
        near = self.rows[self._random.integers(len(self.rows))] + self._random.standard_normal(DIMENSION) * 0.02
        return Retrieval(
            dense=near.astype(np.float32), sparse=self._sparse(), limit=LIMIT, filter=parse_filter(condition or {})
        )

    def _point(self, number: int) -> Point:
        text = " ".join(self._random.choice(self._words, 95))
        passage = Passage(
            id=str(uuid.UUID(int=number)),
            document_id=f"d{number // 10}",
            version="0" * 32,
            ordinal=number % 10,
            start=0,
            end=len(text),
            text=text,
            source=f"manuals/{number // 100}.pdf",
            title=f"A guide to chapter {number // 100}",
            page=number % 30,
            heading=("Chapter", "Section"),
            metadata={
                "author": f"Person {number // 10} of team {number // 10 % 40}",
                "lang": ("zh", "en", "de")[number % 3],
                "year": 2000 + number % 20,
                "when": f"2024-01-{number % 28 + 1:02}",
                "tags": ["a", "b"],
                "public": number % 2 == 0,
            },
        )
        return Point(passage=passage, dense=self.rows[number], sparse=self._sparse())

    def _sparse(self) -> SparseVector:
        ids = self._random.choice(VOCABULARY, TOKENS, replace=False)
        return SparseVector(ids.tolist(), (self._random.random(TOKENS) + 0.5).tolist())


async def milliseconds(call: Callable[[Retrieval], Awaitable[Any]], retrievals: list[Retrieval]) -> tuple[float, float]:
    """p50 and p95, after a tenth of the calls to warm up."""
    for retrieval in retrievals[: len(retrievals) // 10]:
        await call(retrieval)
    times = []
    for retrieval in retrievals:
        began = time.perf_counter()
        await call(retrieval)
        times.append((time.perf_counter() - began) * 1e3)
    return float(np.percentile(times, 50)), float(np.percentile(times, 95))


def engine_calls(shard: edge.EdgeShard) -> Callable[[Retrieval], Awaitable[Any]]:
    """The engine's two calls of a retrieval and nothing else: what our own time is measured against."""

    async def call(retrieval: Retrieval) -> None:
        assert retrieval.dense is not None
        assert retrieval.sparse is not None
        dense = edge.Query.Nearest(retrieval.dense.tolist(), using="dense")
        sparse = edge.Query.Nearest(
            edge.SparseVector(retrieval.sparse.indices, retrieval.sparse.values), using="sparse"
        )
        requests = [edge.QueryRequest(limit=LIMIT, query=query) for query in (dense, sparse)]
        found = shard.query_batch(edge.QueryBatchRequest(requests))
        ids = [*{point.id for side in found for point in side}]
        for record in shard.retrieve(ids, edge.PayloadSelector.Exclude(["words", "dates"]), False):
            _ = record.payload

    return call


async def measure(root: Path, points: int, queries: int, seed: int) -> Table:
    table = Table("", "p50", "p95", title=f"Embedded store, {points:,} x {DIMENSION}, milliseconds")
    corpus = Corpus(points, seed)
    store = EmbeddedStore(root)
    await store.create("bench", CollectionSpec(dimension=DIMENSION, embedder="random"))
    batches = list(corpus.batches())
    began = time.perf_counter()
    for batch in batches:
        await store.upsert("bench", batch)
    table.add_row("upsert everything (s)", f"{time.perf_counter() - began:.1f}", "")
    await _searches(table, "exact", store, corpus, queries)
    began = time.perf_counter()
    await store.optimize("bench")
    table.add_row("optimize (s)", f"{time.perf_counter() - began:.1f}", "")
    await _searches(table, "graph", store, corpus, queries)
    size = await store.bytes_on_disk("bench")
    table.add_row("on disk (MB)", f"{(size or 0) / 1e6:.0f}", "")
    await _overhead(table, store, root / "collections" / "bench", corpus, queries)
    await store.close()
    began = time.perf_counter()
    store = EmbeddedStore(root)
    await store.retrieve("bench", corpus.retrieval(None), EVERYTHING)
    table.add_row("open and first search (s)", f"{time.perf_counter() - began:.2f}", "")
    await store.close()
    return table


async def _searches(table: Table, kind: str, store: EmbeddedStore, corpus: Corpus, queries: int) -> None:
    for name, condition in FILTERS.items():
        retrievals = [corpus.retrieval(condition) for _ in range(queries if condition is None else queries // 4)]
        p50, p95 = await milliseconds(functools.partial(store.retrieve, "bench", audience=EVERYTHING), retrievals)
        table.add_row(f"{kind}: retrieve, {name}", f"{p50:.2f}", f"{p95:.2f}")
    for name, conditions in CONDITIONS.items():
        narrowed = narrowing(conditions)
        asked = [msgspec.structs.replace(corpus.retrieval(None), filter=narrowed) for _ in range(queries // 4)]
        p50, p95 = await milliseconds(functools.partial(store.retrieve, "bench", audience=EVERYTHING), asked)
        table.add_row(f"{kind}: retrieve, {name}", f"{p50:.2f}", f"{p95:.2f}")


async def _overhead(table: Table, store: EmbeddedStore, directory: Path, corpus: Corpus, queries: int) -> None:
    """Our retrieve and the engine's own calls on a copy, by turns, so that a busy machine is busy for both."""
    info = await store.info("bench")
    shutil.copytree(directory / info.generation, directory / "copy")
    shard = edge.EdgeShard.load(str(directory / "copy"))
    alone = engine_calls(shard)
    ours, engines = [], []
    for retrieval in [corpus.retrieval(None) for _ in range(queries)]:
        for call, times in ((alone, engines), (functools.partial(store.retrieve, "bench", audience=EVERYTHING), ours)):
            began = time.perf_counter()
            await call(retrieval)
            times.append((time.perf_counter() - began) * 1e3)
    for name, times in (("the engine's two calls alone", engines), ("retrieve", ours)):
        table.add_row(f"by turns: {name}", *(f"{value:.2f}" for value in np.percentile(times, [50, 95])))
    table.add_row("ours: median of the differences", f"{np.median(np.subtract(ours, engines)):.2f}", "")
    shard.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="winnow-bench-"))
    try:
        Console().print(asyncio.run(measure(root, given.points, given.queries, given.seed)))
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
