"""One passage for each text: the same words in three documents must not take three places. Pure."""

import math
from collections.abc import Iterable

from indexing.documents import Passage
from indexing.store.base import Candidate, Retrieved


def collapse(retrieved: Retrieved) -> Retrieved:
    """Both sides with one candidate for each text, under its best score, the order kept.

    Both sides show the same passage for a text, so that their evidence meets: the one that stands highest on the dense
    side, else on the sparse side, ties by document and place in it: a text that a document repeats is shown where it
    stands first. Scores that are not finite are dropped with their candidates.
    """
    dense, sparse = _finite(retrieved.dense), _finite(retrieved.sparse)
    keepers: dict[str, Passage] = {}
    for side in (dense, sparse):
        for candidate in _best_first(side):
            keepers.setdefault(candidate.passage.text, candidate.passage)
    return Retrieved(dense=_one_each(dense, keepers), sparse=_one_each(sparse, keepers))


def _finite(side: Iterable[Candidate]) -> list[Candidate]:
    return [candidate for candidate in side if math.isfinite(candidate.score)]


def _best_first(side: list[Candidate]) -> list[Candidate]:
    return sorted(side, key=lambda c: (-c.score, c.passage.document_id, c.passage.ordinal))


def _one_each(side: list[Candidate], keepers: dict[str, Passage]) -> list[Candidate]:
    seen: set[str] = set()
    kept = []
    for candidate in side:
        text = candidate.passage.text
        if text not in seen:
            seen.add(text)
            kept.append(Candidate(keepers[text], candidate.score))
    return kept
