"""What several phrasings of one need are worth, and which way of fusing their rankings: word-dropped and foreign ones.

    python -m benchmarks.phrasings --data DIR [--sets squad2_dev ...] [--queries 300] [--home DIR]

A phrasing is the query with each of its words left out with probability .4 (at least two stay), drawn by a seed: what
people type who remember the thing in part. Each set is searched with the query, with one phrasing, with three of them
fused by the service (`fuse_phrasings`), by reciprocal ranks (k = 60) and by the best score, and with the query and two
phrasings. XQuAD's questions exist in three languages: "zh + en" is the Chinese question with the English one.
Prints nDCG@10 and recall@100 (ir_measures).
"""

import argparse
import asyncio
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from statistics import fmean

from app.domain import ANONYMOUS, Query
from app.evaluation.data import read_qrels, read_rows
from app.evaluation.records import Outcome, retrieval
from app.wiring import Services
from benchmarks.indexed import services_at
from benchmarks.retrieval import collection_of, index_corpus

SETS = ("squad2_dev", "scifact", "noveleval", "xquad/en")
DROPPED = 0.4
RRF_K = 60

Found = Sequence[tuple[str, float]]
"""Documents with their scores, best first."""


def main() -> int:
    """Index, search, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="*", default=SETS, choices=SETS)
    parser.add_argument("--queries", type=int, default=300, help="only the first so many queries of each set")
    parser.add_argument("--home", type=Path, help="keep the index here")
    args = parser.parse_args()
    asyncio.run(_measure(args.home, args.data, args.sets, args.queries))
    return 0


async def _measure(home: Path | None, data: Path, sets: Sequence[str], limit: int) -> None:
    async with services_at(home) as services:
        for name in sets:
            await index_corpus(services, data / name / "corpus.jsonl", collection_of(name))
            qrels = read_qrels(data / name)
            rows = [row for row in read_rows(data / name / "queries.jsonl") if row["_id"] in qrels][:limit]
            texts = {row["_id"]: row["text"] for row in rows}
            runs: dict[str, dict[str, Found]] = defaultdict(dict)
            for key, text in texts.items():
                await _ask_all(services, collection_of(name), key, text, runs)
            if name.startswith("xquad"):
                await _ask_in_two_languages(services, data, name, texts, runs)
            for variant, found in runs.items():
                ndcg, recall = _measures(found, qrels)
                print(f"{name:12} {variant:32} nDCG@10 {ndcg:.4f}  R@100 {recall:.4f}", flush=True)


async def _ask_all(services: Services, collection: str, key: str, text: str, runs: dict[str, dict[str, Found]]) -> None:
    """Search for the query `key` in every way."""
    phrasings = [shortened(text, f"{key} {number}") for number in range(3)]
    alone = [await _search(services, collection, phrasing) for phrasing in phrasings]
    runs["query"][key] = await _search(services, collection, text)
    runs["one phrasing"][key] = alone[0]
    runs["three phrasings"][key] = await _search(services, collection, *phrasings)
    runs["three, by reciprocal ranks"][key] = _fused(alone, lambda rank, _: 1 / (RRF_K + rank), sum)
    runs["three, by the best score"][key] = _fused(alone, lambda _, score: score, max)
    runs["query and two phrasings"][key] = await _search(services, collection, text, *phrasings[:2])


async def _ask_in_two_languages(
    services: Services, data: Path, name: str, texts: Mapping[str, str], runs: dict[str, dict[str, Found]]
) -> None:
    for language in ("zh", "de"):
        rows = read_rows(data / name.replace("/en", f"/{language}") / "queries.jsonl")
        foreign = {row["_id"]: row["text"] for row in rows if row["_id"] in texts}
        for key, text in foreign.items():
            runs[f"query in {language}"][key] = await _search(services, collection_of(name), text)
            both = await _search(services, collection_of(name), text, texts[key])
            runs[f"query in {language}, phrasing in en"][key] = both


def shortened(text: str, seed: str) -> str:
    """The text with words left out."""
    words, random = text.split(), Random(seed)
    kept = [word for word in words if random.random() >= DROPPED]
    return " ".join(kept if len(kept) > 1 else words[:2])


async def _search(services: Services, collection: str, text: str, *phrasings: str) -> Found:
    result = await services.searcher.search(
        Query(
            text=text, phrasings=phrasings, collection=collection, backend="none", limit=100, candidates=400,
            group_by_document=True, include_text=False,
        ), ANONYMOUS)  # fmt: skip
    return [(hit.document_id, hit.score) for hit in result.results]


def _fused(
    rankings: Sequence[Found], points: Callable[[int, float], float], combine: Callable[[Sequence[float]], float]
) -> Found:
    """The other ways, for comparison."""
    given: dict[str, list[float]] = defaultdict(list)
    for ranking in rankings:
        for rank, (document, score) in enumerate(ranking, 1):
            given[document].append(points(rank, score))
    fused = [(document, combine(some)) for document, some in given.items()]
    return sorted(fused, key=lambda pair: (-pair[1], pair[0]))[:100]


def _measures(run: Mapping[str, Found], qrels: Mapping[str, Mapping[str, int]]) -> tuple[float, float]:
    outcomes = {key: Outcome(id=key, documents=tuple(name for name, _ in found)) for key, found in run.items()}
    measured = retrieval(outcomes, qrels, k=100)
    return fmean(measured["nDCG@10"].values()), fmean(measured["recall@100"].values())


if __name__ == "__main__":
    sys.exit(main())
