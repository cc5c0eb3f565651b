"""One ranking from the dense and the sparse side. Pure.

Measured with two embedders (benchmarks/README.md), it is at most .008 nDCG@10 below the better of the two.

Reciprocal ranks trust both sides alike, so an embedder that cannot read a language drags the lexical side down with
it (measured: benchmarks/README.md). Here each side speaks in its own natural unit, and its weight follows from what it
says:

    dense_j  = min(1, (cos_j - cos_r) / unit)
    sparse_j = min(1, bm25_j / max(bm25_top, floor * bound))
    floor    = FLOOR + DOUBT * max(0, dense_top - SURE)
    fused_j  = dense_j + sparse_j

cos_r is the similarity at rank REFERENCE_RANK of this query; `unit` is how much closer this embedder puts a question to
its answer than to an unrelated passage (`indexing.embedding.calibration`); `bound` is the highest BM25 score that the
query could reach. An embedder that finds all passages of a foreign script alike has a flat list, hence dense terms near
0; a query whose words the collection does not know stays below `floor` of its bound, hence small sparse terms. Nothing
is scaled by the query's own minimum, so a lone weak match does not become a perfect one.

The surer the dense side is of its best passage, the more of the query a match by words has to cover before it counts in
full. A German question shares a name or two with any number of English passages: where the embedder reads both
languages, those are no reason against the passage that it found; where it does not, they are all there is.

A side that did not find j says what it knows: that j is no better than the last it found (0 for the sparse side when it
found all that matches). So neither side's tail crowds out the other's.
"""

import math
from collections.abc import Mapping, Sequence
from operator import itemgetter

import msgspec

from indexing.documents import Candidate
from indexing.store.base import Retrieved

REFERENCE_RANK = 50
"""Dense similarities count from the one at this rank; retrieve at least as many candidates a side."""

FLOOR = 0.15
"""The share of its highest possible score below which a best BM25 match counts as weak."""

SURE = 0.3
"""Evidence for its best passage that a dense side may also have by chance: MiniLM has .16 to .43 in Chinese."""

DOUBT = 0.5
"""How much that share rises with the dense side's evidence for its best passage, beyond SURE."""

DEFAULT_DENSE_UNIT = 0.5

SAME_PAGE = 0.9
"""What of the evidence for a passage counts for each better one of the same page."""

BM25_SATURATION = 2.2
"""The most that term frequency can multiply a term's idf with: k1 + 1 with k1 = 1.2."""


def sparse_bound(terms: float, passages: int) -> float:
    """The highest BM25 score that a query can reach among `passages` passages; `terms` is the sum of its weights.

    A token in a single passage has the highest idf, ln(1 + (N - 0.5) / 1.5) (Robertson's, as Qdrant's idf modifier
    computes it).
    """
    return terms * BM25_SATURATION * math.log1p(max(passages - 0.5, 0.0) / 1.5)


def fuse(
    retrieved: Retrieved, *, dense_unit: float = DEFAULT_DENSE_UNIT, bound: float = 0.0, sparse_cut: bool = False
) -> list[Candidate]:
    """Both sides as one list, by descending `fused` (at most 2), ties by passage id; `score` is half of it, clipped.

    `dense_unit` is a difference of cosines > 0, `bound` a BM25 score >= 0 (see `sparse_bound`). `sparse_cut` says that
    more passages match the query's words than were retrieved.
    """
    dense, dense_rest = _dense_evidence(retrieved.dense, dense_unit)
    floor = FLOOR + DOUBT * max(0.0, max(dense.values(), default=0.0) - SURE)
    sparse, sparse_rest = _sparse_evidence(retrieved.sparse, floor * bound, cut=sparse_cut)
    cosines = {candidate.passage.id: candidate.score for candidate in retrieved.dense}
    bm25 = {candidate.passage.id: candidate.score for candidate in retrieved.sparse}
    passages = {candidate.passage.id: candidate.passage for candidate in (*retrieved.dense, *retrieved.sparse)}
    fused = []
    for key, passage in passages.items():
        evidence = dense.get(key, dense_rest) + sparse.get(key, sparse_rest)
        candidate = Candidate(passage, _clip(evidence / 2), cosines.get(key), bm25.get(key), evidence)
        fused.append((-evidence, key, candidate))
    return [candidate for *_, candidate in sorted(fused, key=itemgetter(0, 1))]


def fuse_phrasings(
    rankings: Sequence[Sequence[Candidate]], cut: Sequence[bool], weights: Sequence[float]
) -> list[Candidate]:
    """The rankings of several phrasings of one need as one, by descending evidence, ties by passage id.

    The evidence is the mean over the rankings by their `weights` > 0: CombSUM (Fox and Shaw, "Combination of multiple
    searches", TREC-2, 1994) over their number, so that scores keep their meaning. A ranking says of a passage that it
    has not found what it says of its last one if it was `cut`, else 0; one that found nothing has no say. `dense` and
    `sparse`: the best of all.
    """
    lists = [one for one in zip(rankings, cut, weights, strict=True) if one[0]]
    if len(lists) < 2:
        return list(lists[0][0]) if lists else []
    found = [{candidate.passage.id: candidate for candidate in ranking} for ranking, *_ in lists]
    nothing = Candidate(lists[0][0][0].passage, 0.0, fused=0.0)
    rests = [ranking[-1] if was_cut else nothing for ranking, was_cut, _ in lists]
    shares = [weight / math.fsum(weight for *_, weight in lists) for *_, weight in lists]
    fused = []
    for key in dict.fromkeys(key for candidates in found for key in candidates):
        own = [candidates[key] for candidates in found if key in candidates]
        said = [candidates.get(key, rest) for candidates, rest in zip(found, rests, strict=True)]
        score, evidence = (
            math.fsum(share * value for share, value in zip(shares, values, strict=True))
            for values in ([one.score for one in said], [one.fused or 0.0 for one in said])
        )
        dense = max((one.dense for one in own if one.dense is not None), default=None)
        sparse = max((one.sparse for one in own if one.sparse is not None), default=None)
        fused.append(Candidate(own[0].passage, min(1.0, score), dense, sparse, evidence))
    return sorted(fused, key=lambda candidate: (-(candidate.fused or 0.0), candidate.passage.id))


def spread_pages(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates, with the evidence and the score of each times SAME_PAGE for each one above it on its page.

    Whoever reads the first has the page before them, and another page may have what it lacks. A greedy rule in the
    manner of maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998), with the page as the likeness. Passages
    of documents without pages keep what they have.
    """
    seen: dict[tuple[str, str, int], int] = {}
    spread = []
    for candidate in candidates:
        passage = candidate.passage
        if passage.page is None:
            spread.append(candidate)
            continue
        place = passage.tenant, passage.document_id, passage.page
        above = seen.get(place, 0)
        seen[place] = above + 1
        spread.append(_weakened(candidate, SAME_PAGE**above) if above else candidate)
    return sorted(spread, key=lambda one: (-(one.fused or 0.0), one.passage.id)) if seen else spread


def _weakened(candidate: Candidate, share: float) -> Candidate:
    evidence = candidate.fused or 0.0
    weaker = min(evidence, share * evidence)  # what speaks against it stays
    return msgspec.structs.replace(candidate, score=share * candidate.score, fused=weaker)


def score_dense(candidates: Sequence[Candidate]) -> list[Candidate]:
    """A ranking by vectors alone: the score is the cosine itself, clipped to [0,1]."""
    return [Candidate(c.passage, _clip(c.score), dense=c.score, fused=c.score) for c in candidates]


def score_sparse(candidates: Sequence[Candidate], bound: float) -> list[Candidate]:
    """A ranking by words alone: the score is BM25 over its `bound`, clipped to [0,1]; 0 where the bound is 0."""
    return [
        Candidate(c.passage, _clip(c.score / bound) if bound else 0.0, sparse=c.score, fused=c.score)
        for c in candidates
    ]


def _dense_evidence(side: Sequence[Candidate], unit: float) -> tuple[Mapping[str, float], float]:
    """By passage id, and what is assumed of every other passage: no better than the last one found."""
    if not side:
        return {}, 0.0
    reference = side[min(REFERENCE_RANK, len(side)) - 1].score
    evidence = {c.passage.id: min(1.0, (c.score - reference) / unit) for c in side}
    return evidence, evidence[side[-1].passage.id]


def _sparse_evidence(side: Sequence[Candidate], least: float, *, cut: bool) -> tuple[Mapping[str, float], float]:
    """By passage id, and what is assumed of every other passage: 0 unless the list was cut.

    A score counts in full if it is the best one and at least `least`.
    """
    top = max(side[0].score, least) if side else 0.0
    if top <= 0:
        return {}, 0.0
    evidence = {c.passage.id: min(1.0, c.score / top) for c in side}
    return evidence, evidence[side[-1].passage.id] if cut else 0.0


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))
