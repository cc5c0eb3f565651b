from typing import TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexing.documents import Candidate
from indexing.retrieval.fusion import (
    SAME_PAGE,
    fuse,
    fuse_phrasings,
    score_dense,
    score_sparse,
    sparse_bound,
    spread_pages,
)
from indexing.store.base import Retrieved
from tests.fakes.points import passage

pytestmark = pytest.mark.numeric

COSINES = st.integers(-1000, 1000).map(lambda n: n / 1000)
WEIGHTS = st.integers(0, 30_000).map(lambda n: n / 1000)
KEYS = st.integers(0, 80)


def candidates(scores: dict[int, float]) -> list[Candidate]:
    """By descending score, ties by id, as stores give them."""
    found = [Candidate(passage(f"d{key}"), score) for key, score in scores.items()]
    return sorted(found, key=lambda c: (-c.score, c.passage.id))


def sides(cosines: st.SearchStrategy[float] = COSINES) -> st.SearchStrategy[Retrieved]:
    return st.builds(
        lambda dense, sparse: Retrieved(dense=candidates(dense), sparse=candidates(sparse)),
        st.dictionaries(KEYS, cosines, max_size=80),
        st.dictionaries(KEYS, WEIGHTS, max_size=80),
    )


class Scale(TypedDict):
    """What a unit of either side means."""

    dense_unit: float
    bound: float


scales = st.builds(
    lambda unit, bound: Scale(dense_unit=unit / 100, bound=bound / 10), st.integers(5, 150), st.integers(0, 900)
)


def ids(fused: list[Candidate]) -> list[str]:
    return [found.passage.id for found in fused]


@given(sides(), scales)
def test_every_candidate_of_either_side_is_there_once(retrieved: Retrieved, scale: Scale) -> None:
    """A permutation of the union, with each side's own score, or None where that side did not find it."""
    fused = fuse(retrieved, **scale)
    dense = {c.passage.id: c.score for c in retrieved.dense}
    sparse = {c.passage.id: c.score for c in retrieved.sparse}
    assert sorted(ids(fused)) == sorted(dense.keys() | sparse.keys())
    assert {f.passage.id: (f.dense, f.sparse) for f in fused} == {
        key: (dense.get(key), sparse.get(key)) for key in dense.keys() | sparse.keys()
    }


@given(sides(), scales)
def test_scores_are_shares_and_descend(retrieved: Retrieved, scale: Scale) -> None:
    """`score` is in [0, 1], the evidence over its maximum, and the order is by it."""
    fused = fuse(retrieved, **scale)
    assert all(0 <= f.score <= 1 for f in fused)
    assert [f.score for f in fused] == sorted((f.score for f in fused), reverse=True)


@given(sides(), scales)
def test_the_order_does_not_depend_on_that_of_ties(retrieved: Retrieved, scale: Scale) -> None:
    """Candidates of equal score may come in any order from the stores."""
    turned = Retrieved(
        dense=sorted(retrieved.dense[::-1], key=lambda c: -c.score),
        sparse=sorted(retrieved.sparse[::-1], key=lambda c: -c.score),
    )
    assert ids(fuse(turned, **scale)) == ids(fuse(retrieved, **scale))


@given(sides(), scales)
def test_more_evidence_never_ranks_lower(retrieved: Retrieved, scale: Scale) -> None:
    """Of two candidates, one that is at least as good on both sides stands at least as high."""
    fused = fuse(retrieved, **scale)
    place = {f.passage.id: n for n, f in enumerate(fused)}
    for better in fused[:10]:
        for worse in fused:
            pairs = ((better.dense, worse.dense), (better.sparse, worse.sparse))
            if all(b is not None and w is not None and b > w for b, w in pairs):
                assert place[better.passage.id] < place[worse.passage.id]


@given(sides(), scales, st.integers(1, 8), st.integers(-4, 4))
def test_the_embedder_s_own_scale_does_not_matter(retrieved: Retrieved, scale: Scale, factor: int, shift: int) -> None:
    """Similarities stretched and moved, with the unit stretched alike, give the same scores."""
    moved = [Candidate(c.passage, c.score * factor + shift) for c in retrieved.dense]
    stretched = Scale(dense_unit=scale["dense_unit"] * factor, bound=scale["bound"])
    before = {f.passage.id: f.score for f in fuse(retrieved, **scale)}
    after = {f.passage.id: f.score for f in fuse(Retrieved(dense=moved, sparse=retrieved.sparse), **stretched)}
    assert after == pytest.approx(before, abs=1e-6)


def test_nothing_found_is_nothing() -> None:
    """Both sides empty give an empty ranking."""
    assert fuse(Retrieved()) == []


def test_a_flat_dense_side_does_not_drag_the_lexical_one_down() -> None:
    """Where the embedder finds everything alike, the order is the lexical side's."""
    dense = candidates({n: 0.9 + n / 100_000 for n in range(60)})
    sparse = candidates({n: 20.0 - n for n in range(10)})
    fused = fuse(Retrieved(dense=dense, sparse=sparse), dense_unit=0.5, bound=30)
    assert ids(fused)[:10] == [c.passage.id for c in sparse]


def test_a_weak_lexical_match_does_not_outweigh_a_strong_dense_one() -> None:
    """A best BM25 score far below its bound is weak evidence."""
    dense = candidates({0: 0.8} | {n: 0.1 for n in range(1, 60)})
    sparse = candidates({5: 0.5})
    assert ids(fuse(Retrieved(dense=dense, sparse=sparse), dense_unit=0.5, bound=40))[0] == passage("d0").id


def test_a_few_shared_words_decide_only_where_the_dense_side_is_unsure() -> None:
    """A match by a fifth of the query's words is first if the embedder finds all alike, and not if it is sure."""
    sparse = candidates({1: 8.0, 2: 7.0})
    for cosine, first in ((0.2, "d1"), (0.32, "d0")):
        dense = candidates({0: cosine} | {n: 0.1 for n in range(1, 60)})
        assert fuse(Retrieved(dense=dense, sparse=sparse), dense_unit=0.25, bound=40)[0].passage.id == passage(first).id


def test_one_side_alone_scores_by_its_own_measure() -> None:
    """The cosine, or BM25 over its bound; both in [0, 1]."""
    found = candidates({1: 0.7, 2: -0.2})
    assert [f.score for f in score_dense(found)] == [0.7, 0.0]
    found = candidates({1: 30.0, 2: 5.0})
    assert [f.score for f in score_sparse(found, 20)] == [1.0, 0.25]
    assert [f.score for f in score_sparse(found, 0)] == [0.0, 0.0]


def test_one_side_alone_is_the_only_evidence() -> None:
    """It is named as what it is, unclipped, and the other side has none."""
    [dense], [sparse] = score_dense(candidates({1: -0.2})), score_sparse(candidates({1: 30.0}), 20)
    assert (dense.dense, dense.sparse, dense.fused) == (-0.2, None, -0.2)
    assert (sparse.dense, sparse.sparse, sparse.fused) == (None, 30.0, 30.0)


def test_a_cut_lexical_side_leaves_the_rest_open() -> None:
    """A passage that is not on a list that was cut may be as good as its last; on a whole list it would be."""
    dense = candidates({n: 0.5 for n in range(3)})
    sparse = candidates({0: 10.0, 1: 5.0})
    whole, cut = (fuse(Retrieved(dense=dense, sparse=sparse), bound=10, sparse_cut=cut) for cut in (False, True))
    assert [f.fused for f in whole] == [1.0, 0.5, 0.0]
    assert [f.fused for f in cut] == [1.0, 0.5, 0.5]


def test_the_bound_of_a_query_grows_with_its_terms_and_the_collection() -> None:
    """No terms or no passages: nothing can be reached."""
    assert sparse_bound(0, 1000) == sparse_bound(3, 0) == 0
    assert sparse_bound(2, 1000) == 2 * sparse_bound(1, 1000)
    assert sparse_bound(1, 10) < sparse_bound(1, 1000)


@given(sides(), scales)
def test_one_phrasing_is_its_own_ranking(retrieved: Retrieved, scale: Scale) -> None:
    """So is one beside others that found nothing, and one that came twice: evidence is a mean."""
    fused = fuse(retrieved, **scale)
    assert fuse_phrasings([fused], [False], [1]) == fused
    assert fuse_phrasings([[], fused, []], [True, False, True], [2, 1, 1]) == fused
    twice = {c.passage.id: c.score for c in fuse_phrasings([fused, fused], [True, True], [2, 1])}
    assert twice == pytest.approx({c.passage.id: c.score for c in fused})


@given(st.lists(sides(), min_size=2, max_size=4), scales, st.booleans())
def test_phrasings_are_fused_to_a_permutation_of_their_union(
    retrieved: list[Retrieved], scale: Scale, cut: bool
) -> None:
    """Each passage once, by descending evidence, its score no higher than the best that a phrasing gave it or its
    rankings end with, and its sides the best of all."""
    rankings = [fuse(one, **scale) for one in retrieved]
    fused = fuse_phrasings(rankings, [cut] * len(rankings), [2, 1, 1, 1][: len(rankings)])
    assert sorted(ids(fused)) == sorted({c.passage.id for ranking in rankings for c in ranking})
    assert [c.fused for c in fused] == sorted((c.fused for c in fused), reverse=True)  # type: ignore[type-var]
    for candidate in fused:
        own = [c for ranking in rankings for c in ranking if c.passage.id == candidate.passage.id]
        rest = [ranking[-1].score for ranking in rankings if ranking and cut]
        assert 0 <= candidate.score <= max([c.score for c in own] + rest) + 1e-12
        assert candidate.sparse == max((c.sparse for c in own if c.sparse is not None), default=None)


def test_what_a_phrasing_has_not_found_is_no_better_than_its_last() -> None:
    """A ranking that was cut says so much of the others; one that found all that matches says 0."""
    first, second = score_sparse(candidates({1: 9.0, 2: 6.0}), 10), score_sparse(candidates({2: 8.0, 3: 4.0}), 10)
    scores = {c.passage.document_id: c.score for c in fuse_phrasings([first, second], [True, True], [1, 1])}
    assert scores == pytest.approx({"d1": 0.65, "d2": 0.7, "d3": 0.5})
    scores = {c.passage.document_id: c.score for c in fuse_phrasings([first, second], [False, False], [1, 1])}
    assert scores == pytest.approx({"d1": 0.45, "d2": 0.7, "d3": 0.2})
    scores = {c.passage.document_id: c.score for c in fuse_phrasings([first, second], [False, False], [2, 1])}
    assert scores == pytest.approx({"d1": 0.6, "d2": 2 / 3, "d3": 0.4 / 3})


def on_page(name: str, page: int | None, evidence: float, document: str = "d") -> Candidate:
    place = msgspec.structs.replace(passage(document), id=name, page=page)
    return Candidate(place, max(0.0, evidence / 2), fused=evidence)


def test_a_page_does_not_crowd_out_the_others() -> None:
    """Each further passage of a page counts for less, in its score as well; another document's pages are others."""
    found = [on_page("a", 7, 1.0), on_page("b", 7, 0.9), on_page("c", 7, 0.85), on_page("d", 8, 0.7)]
    found.append(on_page("e", 7, 0.69, document="another"))
    spread = spread_pages(found)
    assert [(one.passage.id, one.fused) for one in spread] == [
        ("a", 1.0),
        ("b", pytest.approx(0.9 * SAME_PAGE)),
        ("d", 0.7),
        ("e", 0.69),
        ("c", pytest.approx(0.85 * SAME_PAGE**2)),
    ]
    assert all(one.score == pytest.approx((one.fused or 0) / 2) for one in spread)


def test_pages_of_two_tenants_are_two() -> None:
    """Their documents may have one id."""
    found = [on_page("a", 7, 1.0), on_page("b", 7, 0.9)]
    theirs = msgspec.structs.replace(found[1].passage, tenant="acme")
    found[1] = msgspec.structs.replace(found[1], passage=theirs)
    assert spread_pages(found) == found


def test_without_pages_nothing_is_spread() -> None:
    """However many passages of a document there are."""
    found = [on_page(name, None, 1.0) for name in "abc"]
    assert spread_pages(found) == found


def test_what_speaks_against_a_passage_stays() -> None:
    """A passage does not rise by standing on a page that was seen."""
    against = [on_page("a", 7, 1.0), on_page("b", 7, -0.5)]
    assert spread_pages(against)[1].fused == -0.5
