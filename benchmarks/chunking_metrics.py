"""Character-level recall, precision and IoU of retrieved ranges against gold spans."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import msgspec

Retrieved = Mapping[str, Sequence[tuple[str, int, int]]]
"""For every query id the retrieved ranges: (corpus, start, end), best first."""

Range = tuple[int, int]


class Overlap(msgspec.Struct, frozen=True):
    """Means over all questions, each in [0,1]."""

    recall: float
    precision: float
    iou: float


def read_gold(path: Path) -> dict[str, list[tuple[str, int, int]]]:
    """qrels_spans.tsv: the gold ranges of every question."""
    gold = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        query_id, corpus, start, end = line.split("\t")
        gold[query_id].append((corpus, int(start), int(end)))
    return dict(gold)


def measure(retrieved: Retrieved, gold: Retrieved) -> Overlap:
    """Recall: gold characters found. Precision: found over retrieved, a character retrieved twice counted twice."""
    rows = [_overlap(retrieved.get(query_id, ()), spans) for query_id, spans in gold.items()]
    return Overlap(*(fmean(column) for column in zip(*rows, strict=True)))


def _overlap(found: Sequence[tuple[str, int, int]], gold: Sequence[tuple[str, int, int]]) -> tuple[float, float, float]:
    corpora = {corpus for corpus, _, _ in (*found, *gold)}
    hits = wanted = union = 0
    for corpus in corpora:
        found_here = _union((start, end) for name, start, end in found if name == corpus)
        gold_here = _union((start, end) for name, start, end in gold if name == corpus)
        hits += sum(max(0, min(a[1], b[1]) - max(a[0], b[0])) for a in found_here for b in gold_here)
        wanted += _length(gold_here)
        union += _length(_union((*found_here, *gold_here)))
    fetched = sum(end - start for _, start, end in found)
    return hits / wanted, hits / fetched if fetched else 0.0, hits / union


def _length(ranges: Iterable[Range]) -> int:
    return sum(end - start for start, end in ranges)


def _union(ranges: Iterable[Range]) -> list[Range]:
    """Disjoint ranges that cover the same characters."""
    merged: list[Range] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
