"""Chunking measured by what our own index retrieves: characters of gold spans in the first five passages.

    python -m benchmarks.chunking --data .../chunking_eval [--home DIR]

All corpora lie in one collection; the questions go through the service's use case, mode "hybrid". Exit status 1 when
character recall@5 is below 0.86 or precision@5 below 0.06.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from statistics import fmean

from app.domain import ANONYMOUS, Mode, Query
from benchmarks.chunking_metrics import measure, read_gold
from benchmarks.indexed import index_folder, services_at

TOP = 5
REQUIRED_RECALL, REQUIRED_PRECISION = 0.86, 0.06
MODES: tuple[Mode, ...] = ("dense", "sparse", "hybrid")


def main() -> int:
    """Index, ask, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--home", type=Path, help="keep the index here")
    args = parser.parse_args()
    return asyncio.run(_run(args.data, args.home))


async def _run(data: Path, home: Path | None) -> int:
    gold = read_gold(data / "qrels_spans.tsv")
    lines = (data / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    queries = {query["_id"]: query["text"] for query in map(json.loads, lines)}
    async with services_at(home) as services:
        summary = await index_folder(services, data / "corpora")
        print(f"{summary.total_documents} documents, {summary.total_passages} passages")
        for mode in MODES:
            found = {}
            for query_id, text in queries.items():
                hits = (await services.searcher.search(Query(text=text, limit=TOP, mode=mode), ANONYMOUS)).results
                found[query_id] = [(hit.source.removesuffix(".md"), hit.start, hit.end) for hit in hits]
            result = measure(found, gold)
            length = fmean(end - start for ranges in found.values() for _, start, end in ranges)
            print(
                f"{mode:7} recall@{TOP} {result.recall:.4f}  precision@{TOP} {result.precision:.4f}"
                f"  IoU {result.iou:.4f}  mean passage {length:.0f} characters"
            )
    return int(result.recall < REQUIRED_RECALL or result.precision < REQUIRED_PRECISION)


if __name__ == "__main__":
    sys.exit(main())
