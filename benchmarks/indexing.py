"""What indexing costs beside the bare encoder, what a run with nothing to do costs, and what a huge file needs.

    python -m benchmarks.indexing --data PATH [--passages 600] [--repeat 3]    throughput over the bare encoder
    python -m benchmarks.indexing --unchanged 5000                             a second run with nothing to do
    python -m benchmarks.indexing --megabytes 30                               peak memory of one file of so many MB

Throughput: PATH is a folder of files, or a corpus.jsonl of which as many records as `--passages` are taken. The whole
pipeline (files on disk -> embedded store), with the engine that the service would choose, and
`SentenceTransformer.encode_document` in float32 with its default batch size, on the very texts that the pipeline
embedded, take turns; the ratios are those of the medians, by wall and by processor time. Exit status 1 below 1.5 by
the latter.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from indexing.embedding.batching import LazyEmbedder
from indexing.embedding.loading import load_embedder
from indexing.embedding.model import Embedder, Lane, Vectors, check_model
from indexing.pipeline.context import PipelineContext, ensure_collection, index_fingerprint
from indexing.pipeline.manifest import Manifest
from indexing.pipeline.progress import Summary, SyncRequest
from indexing.pipeline.sync import sync
from indexing.readers.limits import ReadLimits
from indexing.retrieval.bm25 import Lexical
from indexing.settings import EmbeddingSettings
from indexing.store.embedded import EmbeddedStore

GOAL_RATIO, GOAL_SECONDS = 1.5, 3.0
WORDS = ("garden", "river", "winter", "copper", "engine", "letter", "harbour", "silver", "market", "window", "doctor")


class RecordingEmbedder:
    """A real one, remembering what it embedded; with `pretend` it makes up the vectors."""

    def __init__(self, embedder: Embedder, *, pretend: bool = False) -> None:
        self.texts: list[str] = []
        self._embedder, self._pretend = embedder, pretend
        self.model_id, self.dimension, self.max_tokens = embedder.model_id, embedder.dimension, embedder.max_tokens

    def embed_documents(self, texts: Sequence[str], lane: Lane = "texts") -> Vectors:
        self.texts += texts
        if self._pretend:
            rows = np.random.default_rng(len(texts)).normal(size=(len(texts), self.dimension))
            return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)
        return self._embedder.embed_documents(texts, lane)

    def embed_queries(self, texts: Sequence[str], lane: Lane = "queries") -> Vectors:
        return self._embedder.embed_queries(texts, lane)

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        return self._embedder.token_spans(text)


def main() -> int:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--passages", type=int, default=600)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--unchanged", type=int, metavar="FILES")
    parser.add_argument("--megabytes", type=int)
    args = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="winnow-indexing-") as scratch:
        right = True
        if args.data:
            right &= asyncio.run(_throughput(Path(scratch), args.data, args.passages, args.repeat))
        if args.unchanged:
            right &= _unchanged(Path(scratch), args.unchanged)
        if args.megabytes:
            asyncio.run(_memory(Path(scratch), args.megabytes))
    return 0 if right else 1


async def _throughput(scratch: Path, data: Path, passages: int, repeat: int) -> bool:
    folder = _chosen(data, passages, scratch)
    embedder = _embedder(scratch)
    from sentence_transformers import SentenceTransformer  # takes seconds

    bare = SentenceTransformer(check_model(EmbeddingSettings()), device="cpu")
    bench = _bench(scratch, embedder)
    piped, encoded = [], []
    for turn in range(repeat):
        spent, begun = _processor_s(), time.perf_counter()
        summary = await _index(bench, folder, f"turn-{turn}")
        piped.append((time.perf_counter() - begun, _processor_s() - spent))
        texts = list(embedder.texts)
        spent, begun = _processor_s(), time.perf_counter()
        bare.encode_document(texts, show_progress_bar=False)
        encoded.append((time.perf_counter() - begun, _processor_s() - spent))
        print(
            f"turn {turn + 1}: {summary.total_documents} documents, {len(texts)} texts; pipeline {_told(piped[-1])} "
            f"(the model {summary.embed_seconds:.1f} s), encoder {_told(encoded[-1])}",
            flush=True,
        )
    await _close(bench)
    wall, processor = (
        statistics.median(one[by] for one in encoded) / statistics.median(one[by] for one in piped) for by in (0, 1)
    )
    print(
        f"pipeline over bare encoder: {wall:.2f} by wall time, {processor:.2f} by processor time ({GOAL_RATIO} or more)"
    )
    return processor >= GOAL_RATIO


def _embedder(scratch: Path, *, pretend: bool = False) -> RecordingEmbedder:
    """With its engine chosen as by the service, and loaded."""
    embedder = load_embedder(EmbeddingSettings(exports=scratch / "exports"))
    embedder.embed_documents(["The first text takes longer."], "bulk")
    return RecordingEmbedder(embedder, pretend=pretend)


def _processor_s() -> float:
    """Of this process and of the children that have ended, such as readers."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _told(taken: tuple[float, float]) -> str:
    return f"{taken[0]:.1f} s ({taken[1]:.1f} of the processor)"


async def _index(bench: PipelineContext, folder: Path, collection: str) -> Summary:
    """The collection is made before, with the embedder's scale measured: that is done once, not for each run."""
    await ensure_collection(bench, collection)
    embedder = await bench.embedder.get()
    assert isinstance(embedder, RecordingEmbedder)
    embedder.texts.clear()
    return await sync(bench, SyncRequest(inputs=(str(folder),), cwd=str(folder.parent), collection=collection))


def _chosen(data: Path, passages: int, scratch: Path) -> Path:
    if data.is_dir():
        return data
    with data.open(encoding="utf-8") as lines:
        chosen = "".join(itertools.islice(lines, passages))
    few = scratch / "corpus.jsonl"
    few.write_text(chosen, encoding="utf-8")
    return few


def _bench(scratch: Path, embedder: RecordingEmbedder) -> PipelineContext:
    settings = EmbeddingSettings()
    return PipelineContext(
        store=EmbeddedStore(scratch / "index"),
        manifest=Manifest(scratch / "manifest.sqlite3"),
        embedder=LazyEmbedder(settings, index_fingerprint(settings), lambda _: embedder),
        limits=ReadLimits(),
        lexical=Lexical(),
    )


async def _close(bench: PipelineContext) -> None:
    await bench.manifest.close()
    await bench.store.close()


def _unchanged(scratch: Path, files: int) -> bool:
    folder, dice = scratch / "files", random.Random(1)
    folder.mkdir()
    for number in range(files):
        (folder / f"{number:05}.txt").write_text(f"Document {number}: {' '.join(dice.choices(WORDS, k=8))}.")
    seconds, summary = _run(folder, scratch / "home")
    print(f"first run: {summary['created']} documents in {seconds:.1f} s", flush=True)
    times = []
    for _ in range(3):
        taken, summary = _run(folder, scratch / "home")
        assert (summary["passages"], summary["embed_seconds"], summary["unchanged"]) == (0, 0, files)
        times.append(taken)
    print(f"unchanged runs: {', '.join(f'{taken:.2f}' for taken in times)} s, no embedding (under {GOAL_SECONDS:g} s)")
    return statistics.median(times) < GOAL_SECONDS


def _run(folder: Path, home: Path) -> tuple[float, dict[str, Any]]:
    command = [sys.executable, "-m", "app.cli.main", "index", str(folder), "--json"]
    begun = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, "WINNOW_HOME": str(home)}, capture_output=True, check=True)
    seconds = time.perf_counter() - begun
    loaded = b"loading the embedding model" in done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    assert loaded == (summary["passages"] > 0)
    return seconds, summary


async def _memory(scratch: Path, megabytes: int) -> None:
    file, dice = scratch / "huge.txt", random.Random(1)
    with file.open("w") as out:
        while out.tell() < megabytes * 10**6:
            out.write(" ".join(dice.choices(WORDS, k=12)).capitalize() + dice.choice((". ", ". ", ".\n\n")))
    bench = _bench(scratch, _embedder(scratch, pretend=True))
    before = _peak()
    summary = await sync(bench, SyncRequest(inputs=(str(file),), cwd=str(scratch)))
    print(
        f"{megabytes} MB of text: {summary.total_passages} passages in {summary.seconds:.0f} s but for the model's "
        f"work; peak {_peak():.0f} MB, {before:.0f} MB of it before"
    )
    await _close(bench)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6  # Linux counts in KiB


if __name__ == "__main__":
    sys.exit(main())
