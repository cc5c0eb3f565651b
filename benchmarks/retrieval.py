"""Retrieval quality over labelled sets, through our own index: dense, sparse and hybrid side by side.

    python -m benchmarks.retrieval --data DIR [--sets scifact squad2_dev ...] [--home DIR]
    python -m benchmarks.retrieval --data DIR --engines torch auto [--queries 150 --passages 600]

DIR holds BEIR-style sets (corpus.jsonl, queries.jsonl, qrels.tsv). Every corpus is indexed by `winnow index`'s pipeline
into the embedded store, every query goes through the service's use case, and a document counts with its best passage.
Prints nDCG@10 and recall@100 (ir_measures) with what is asked of them; exit status 1 when something falls short.
`--home` keeps the index for the next run. With `--engines` everything is indexed and asked once for each engine of the
embedding model, and what one of them loses beside the first must be less than .002 nDCG@10 in every set. `--passages`
cuts each corpus to what is relevant to the questions and to others that are drawn with a fixed seed.
"""

import argparse
import asyncio
import os
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import msgspec

from app.domain import ANONYMOUS, Mode, Query
from app.evaluation.data import Grades, read_qrels, read_rows
from app.evaluation.records import Outcome, retrieval
from app.wiring import Services
from benchmarks.indexed import index_folder, services_at

MODES: tuple[Mode, ...] = ("dense", "sparse", "hybrid")
WITH_VECTORS: tuple[Mode, ...] = ("dense", "hybrid")
ALLOWED_LOSS = 0.01
ENGINE_LOSS = 0.002


class Set(NamedTuple):
    """A corpus, the queries asked of it, and what hybrid retrieval must reach (None: nothing but the better side)."""

    name: str
    corpus: str
    queries: str
    ndcg: float | None = None
    recall: float | None = None


SETS = (
    Set("scifact", "scifact", "scifact", 0.70, 0.922),
    Set("squad2_dev", "squad2_dev", "squad2_dev", 0.89, 0.992),
    Set("xquad en", "xquad/en", "xquad/en"),
    Set("xquad zh", "xquad/zh", "xquad/zh", 0.95),
    Set("xquad de", "xquad/de", "xquad/de"),
    Set("xquad zh->en", "xquad/en", "xquad/zh"),
    Set("xquad de->en", "xquad/en", "xquad/de"),
    Set("cmrc2018_trial", "cmrc2018_trial", "cmrc2018_trial", 0.96, 0.996),
    Set("noveleval", "noveleval", "noveleval", None, 0.984),
)


class Row(msgspec.Struct, frozen=True):
    """Measures of one set in one mode, and the median time of a search in milliseconds."""

    set: str
    mode: str
    ndcg: float
    recall: float
    p50_ms: float


Rows = Mapping[tuple[str, str], Row]
"""By set and mode."""


def main() -> int:
    """Measure and judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="*", choices=[s.name for s in SETS], metavar="SET", help="all by default")
    parser.add_argument("--home", type=Path, help="keep the index here")
    parser.add_argument("--queries", type=int, default=0, help="only the first so many queries of each set")
    parser.add_argument("--passages", type=int, default=0, help="only so many passages of each corpus")
    parser.add_argument("--engines", nargs="*", default=[], help="of the embedding model, compared with the first")
    args = parser.parse_args()
    chosen = [s for s in SETS if not args.sets or s.name in args.sets]
    if not args.engines:
        return _judge(chosen, asyncio.run(_measure(args.home, args.data, chosen, args.queries, args.passages)))
    rows = {}
    for engine in args.engines:
        os.environ["WINNOW_EMBEDDING_ENGINE"] = engine
        print(f"{engine}:", flush=True)
        home = args.home and args.home / engine
        rows[engine] = asyncio.run(_measure(home, args.data, chosen, args.queries, args.passages, WITH_VECTORS))
    return _compare(chosen, rows)


async def _measure(
    home: Path | None, data: Path, sets: Sequence[Set], limit: int, passages: int, modes: Sequence[Mode] = MODES
) -> Rows:
    rows = {}
    async with services_at(home) as services:
        for corpus in dict.fromkeys(s.corpus for s in sets):
            asked = [_queries(data, one, limit) for one in sets if one.corpus == corpus]
            relevant = {document for _, qrels in asked for judged in qrels.values() for document in judged}
            kept = _sampled(data / corpus / "corpus.jsonl", relevant, passages) if passages else None
            await index_corpus(services, data / corpus / "corpus.jsonl", collection_of(corpus), kept)
        for chosen in sets:
            for mode in modes:
                row = await _run(services, data, chosen, mode, limit)
                rows[row.set, row.mode] = row
                print(f"  {row.set:16} {mode:7} nDCG@10 {row.ndcg:.4f}  R@100 {row.recall:.4f}", flush=True)
    return rows


def _sampled(corpus: Path, relevant: set[str], passages: int) -> set[str]:
    """Ids: the relevant ones, and others until there are so many."""
    others = sorted({row["_id"] for row in read_rows(corpus)} - relevant)
    return relevant | set(random.Random(7).sample(others, min(len(others), max(0, passages - len(relevant)))))


async def index_corpus(services: Services, corpus: Path, collection: str, kept: set[str] | None = None) -> None:
    """Index a corpus.jsonl, packed or not, or those of its passages that are `kept`, and say how it went."""
    # A copy in the home, unpacked: an index kept with --home finds its file again.
    folder = services.settings.index.home / "corpora" / collection
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    rows = (row for row in read_rows(corpus) if kept is None or row["_id"] in kept)
    lines = (msgspec.json.encode(row) + b"\n" for row in rows)
    (folder / "corpus.jsonl").write_bytes(b"".join(lines))
    summary = await index_folder(services, folder, collection)
    rate = summary.passages / summary.seconds if summary.seconds else 0.0
    print(
        f"{collection}: {summary.total_documents} documents, {summary.total_passages} passages, {rate:.0f} passages/s"
    )


async def _run(services: Services, data: Path, chosen: Set, mode: Mode, limit: int) -> Row:
    queries, qrels = _queries(data, chosen, limit)
    run: dict[str, Outcome] = {}
    times = []
    for query in queries:
        begun = time.perf_counter()
        found = await services.searcher.search(
            Query(
                text=query["text"], collection=collection_of(chosen.corpus), mode=mode, limit=100, candidates=400,
                group_by_document=True, include_text=False,
            ), ANONYMOUS)  # fmt: skip
        times.append(time.perf_counter() - begun)
        documents = tuple(hit.document_id for hit in found.results)
        run[query["_id"]] = Outcome(id=query["_id"], documents=documents)
    measured = retrieval(run, qrels, k=100)
    ndcg, recall = (fmean(measured[name].values()) for name in ("nDCG@10", "recall@100"))
    return Row(chosen.name, mode, ndcg, recall, 1000 * median(times))


def _queries(data: Path, chosen: Set, limit: int) -> tuple[list[dict[str, Any]], Grades]:
    """The first questions of the set that are judged, and what is relevant to them."""
    qrels = read_qrels(data / chosen.queries)
    queries = [q for q in read_rows(data / chosen.queries / "queries.jsonl") if q["_id"] in qrels][: limit or None]
    return queries, {query["_id"]: qrels[query["_id"]] for query in queries}


def _compare(sets: Sequence[Set], rows: Mapping[str, Rows]) -> int:
    """A line for each set, by vectors alone and by both sides; 1 if an engine loses too much in one."""
    first, *others = rows
    lost = 0
    print(f"\n{'nDCG@10':24}" + "".join(f"{engine:>10}" for engine in rows) + f"{'difference':>12}")
    for chosen in sets:
        for mode in WITH_VECTORS:
            each = {engine: found[chosen.name, mode].ndcg for engine, found in rows.items()}
            least = min(each[engine] - each[first] for engine in others)
            lost += mode == "hybrid" and least < -ENGINE_LOSS
            print(f"{chosen.name:17}{mode:7}" + "".join(f"{one:10.4f}" for one in each.values()) + f"{least:+12.4f}")
    return 1 if lost else 0


def _judge(sets: Sequence[Set], rows: Rows) -> int:
    failed = 0
    print(f"\n{'set':16}{'dense':>8}{'sparse':>8}{'hybrid':>8}{'- better':>10}{'R@100':>8}{'sparse':>8}{'p50 ms':>8}")
    for chosen in sets:
        dense, sparse, hybrid = (rows[chosen.name, mode] for mode in MODES)
        gain = hybrid.ndcg - max(dense.ndcg, sparse.ndcg)
        short = gain < -ALLOWED_LOSS
        short |= chosen.ndcg is not None and hybrid.ndcg < chosen.ndcg
        short |= chosen.recall is not None and round(hybrid.recall, 3) < chosen.recall
        failed += short
        print(
            f"{chosen.name:16}{dense.ndcg:8.4f}{sparse.ndcg:8.4f}{hybrid.ndcg:8.4f}{gain:+10.4f}{hybrid.recall:8.4f}"
            f"{sparse.recall:8.4f}{hybrid.p50_ms:8.1f}{'  FALLS SHORT' if short else ''}"
        )
    return 1 if failed else 0


def collection_of(corpus: str) -> str:
    """Where the corpus of this name is indexed."""
    return corpus.replace("/", "-")


if __name__ == "__main__":
    sys.exit(main())
