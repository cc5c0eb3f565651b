"""One passage for each text."""

import math
from itertools import permutations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from app.services.search import collapse
from indexing.documents import Candidate
from indexing.store.base import Retrieved
from tests.fakes.corpus import passage

texts = st.sampled_from(["red", "green", "blue"])
scores = st.floats(-1, 1) | st.sampled_from([math.nan, math.inf])


@st.composite
def sides(draw: st.DrawFn) -> Retrieved:
    """Both sides as a store returns them, over a few documents that share texts."""
    pool = [passage(f"d{i}", draw(texts)) for i in range(draw(st.integers(0, 6)))]

    def side() -> list[Candidate]:
        chosen = [p for p in pool if draw(st.booleans())]
        found = [Candidate(p, draw(scores)) for p in chosen]
        return sorted(found, key=lambda c: (-c.score if math.isfinite(c.score) else 0.0, c.passage.id))

    return Retrieved(dense=side(), sparse=side())


@given(sides())
def test_no_text_comes_twice_and_none_is_lost(retrieved: Retrieved) -> None:
    """Each side holds every text that it found with a finite score, once, with its best score."""
    (collapsed,) = collapse([retrieved])
    for before, after in ((retrieved.dense, collapsed.dense), (retrieved.sparse, collapsed.sparse)):
        best: dict[str, float] = {}
        for candidate in before:
            if math.isfinite(candidate.score):
                text = candidate.passage.text
                best[text] = max(best.get(text, -math.inf), candidate.score)
        assert {c.passage.text: c.score for c in after} == best
        assert len(after) == len(best)


@given(sides())
def test_both_sides_show_the_same_passage(retrieved: Retrieved) -> None:
    """The evidence of both sides for a text meets in one passage."""
    (collapsed,) = collapse([retrieved])
    dense = {c.passage.text: c.passage.id for c in collapsed.dense}
    sparse = {c.passage.text: c.passage.id for c in collapsed.sparse}
    assert all(dense[text] == sparse[text] for text in dense.keys() & sparse.keys())


def test_copies_meet_even_when_each_side_found_another() -> None:
    """Two copies, one found by each side, become one passage on both."""
    (collapsed,) = collapse(
        [
            Retrieved(
                dense=[Candidate(passage("a", "same"), 0.5)],
                sparse=[Candidate(passage("b", "same"), 3.0)],
            )
        ]
    )
    assert [c.passage.document_id for c in (*collapsed.dense, *collapsed.sparse)] == ["a", "a"]


def test_the_choice_does_not_depend_on_the_order() -> None:
    """Among equals the one that stands first in the first document stays, however they come."""
    later = msgspec.structs.replace(passage("a", "same"), id="0", ordinal=7)
    copies = [Candidate(p, 0.5) for p in (passage("c", "same"), later, passage("a", "same"), passage("b", "same"))]
    kept = [collapse([Retrieved(dense=list(order))])[0].dense[0].passage for order in permutations(copies)]
    assert {(p.document_id, p.ordinal) for p in kept} == {("a", 0)}


def test_copies_meet_even_when_each_phrasing_found_another() -> None:
    """Two copies, one found by each of two phrasings, become one passage in both."""
    found = [Retrieved(sparse=[Candidate(passage(name, "same"), 3.0)]) for name in ("b", "a")]
    assert [one.sparse[0].passage.document_id for one in collapse(found)] == ["b", "b"]
