import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backends.base import LabelScores
from app.ranking.models import Grade
from app.ranking.scoring import (
    DUEL_WEIGHT,
    apply_duel,
    contenders,
    duel_window,
    fuse_orders,
    preferences,
    reassign,
    top_k,
    undecided,
)
from tests.unit.app.ranking.drawn import GRADED, IDS, UNIT, label_scores

pytestmark = pytest.mark.numeric

LETTERS = 5
TOLD = label_scores(size=LETTERS)
STRENGTHS = st.lists(st.integers(-1000, 1000).map(lambda n: n / 1000), min_size=LETTERS, max_size=LETTERS)


def graded(sigma: float, **expected: float) -> dict[str, Grade]:
    return {key: Grade(expected=value, variance=sigma**2) for key, value in expected.items()}


def spoken(logits: list[float]) -> LabelScores:
    """As a model tells them that says nothing but letters."""
    whole = np.logaddexp.reduce(logits)
    return LabelScores(logprobs=tuple(float(logit - whole) for logit in logits), floor=-20.0)


@given(GRADED, st.integers(1, 20), st.integers(2, 15))
def test_a_window_holds_open_passages_in_their_order(grades: dict[str, Grade], k: int, size: int) -> None:
    """At most as many as asked for, at least two or none, each a contender or uncertain."""
    order = sorted(grades, key=lambda key: (-grades[key].expected, key))
    _, chances = top_k(grades, k)
    window = duel_window(order, grades, chances, size)
    open_ones = {*contenders(order, grades), *undecided(chances)}
    assert window == [key for key in order if key in window]
    assert set(window) <= open_ones
    assert len(window) == (min(size, len(open_ones)) if len(open_ones) > 1 else 0)


def test_a_window_has_both_the_top_and_the_cut() -> None:
    """Half for the first place, half around the k-th; a side with too few leaves its places to the other."""
    top = {f"t{at}": 0.95 for at in range(6)}
    cut = {f"u{at}": 0.5 for at in range(6)}
    grades = graded(0.05, **top, **cut)
    _, chances = top_k(grades, 9)
    window = duel_window(list(grades), grades, chances, 8)
    assert Counter(key[0] for key in window) == {"t": 4, "u": 4}
    assert Counter(key[0] for key in duel_window(list(grades), grades, chances, 11)) == {"t": 6, "u": 5}
    assert Counter(key[0] for key in duel_window(list(grades), grades, top_k(grades, 6)[1], 8)) == {"t": 6}


def test_a_settled_ranking_needs_no_duel() -> None:
    """A sure leader and a clear cut leave nothing to look at; nor does an empty ranking."""
    grades = graded(0.02, a=0.9, b=0.6, c=0.1)
    assert duel_window(["a", "b", "c"], grades, top_k(grades, 1)[1]) == []
    assert duel_window([], {}, {}) == []


def test_contenders_are_those_that_may_beat_the_leader() -> None:
    """By the difference of two normal grades: 0.1 apart at 0.05 each is a chance of 8 %, 0.2 apart one of 0.2 %."""
    grades = graded(0.05, a=0.9, b=0.8, c=0.7, d=0.85)
    assert contenders(["a", "b", "c", "d"], grades) == ["a", "d", "b"]
    assert contenders(["a", "c"], grades) == []


@given(STRENGTHS, STRENGTHS)
def test_what_front_and_back_differ_by_falls_out(strengths: list[float], bias: list[float]) -> None:
    """With a bias that is odd in the letter's place, the preferences are the centred strengths."""
    odd = (np.array(bias) - np.array(bias)[::-1]) / 2
    forward = spoken(list(np.array(strengths) + odd))
    backward = spoken(list(np.array(strengths)[::-1] + odd))
    found = preferences(forward, backward)
    assert found == pytest.approx(np.array(strengths) - np.mean(strengths), abs=1e-9)


@given(TOLD, TOLD)
def test_preferences_are_bounded_and_know_no_direction(one: LabelScores, other: LabelScores) -> None:
    """Numbers within 3, mirrored when the orders are exchanged; None of both or of neither."""
    found, mirrored = preferences(one, other), preferences(other, one)
    if found is None:
        assert mirrored is None
    else:
        assert mirrored == found[::-1]
        assert all(abs(u) <= 3 for u in found)


@pytest.mark.parametrize(
    "bad",
    [None, LabelScores(logprobs=(None,) * 3, floor=-5.0), LabelScores(logprobs=(math.log(0.09),) * 3, floor=-5.0)],
    ids=["failed", "untold", "unwilling"],
)
def test_one_order_alone_says_nothing(bad: LabelScores | None) -> None:
    """When one failed, told no letter or hardly wanted to name one."""
    good = spoken([0.0, 1.0, 2.0])
    assert preferences(good, bad) is None
    assert preferences(bad, good) is None


def test_a_duel_moves_the_window_alone() -> None:
    """By half the preferences."""
    zs = {"a": 1.0, "b": 0.5, "c": 0.0}
    assert apply_duel(zs, ["c", "a"], [1.0, -1.0]) == {"a": 1 - DUEL_WEIGHT, "b": 0.5, "c": DUEL_WEIGHT}


@given(st.integers(0, 15).flatmap(lambda n: st.permutations(range(n))))
def test_merging_is_by_reciprocal_rank(judged: list[int]) -> None:
    """Every id once, by 1/(60+rank) in both orders; the judge's own order among equals."""
    order = [str(at) for at in range(len(judged))]
    names = [str(at) for at in judged]
    found = fuse_orders(order, names)
    points = {key: 1 / (61 + order.index(key)) + 1 / (61 + names.index(key)) for key in names}
    assert sorted(found) == sorted(order)
    for above, below in pairwise(found):
        assert points[above] >= points[below] - 1e-15
        if points[above] == points[below]:
            assert names.index(above) < names.index(below)


@given(st.dictionaries(IDS, UNIT), st.data())
def test_dealing_out_keeps_the_values_and_makes_the_order_theirs(zs: dict[str, float], data: st.DataObject) -> None:
    """The window's z fall strictly in its order, are its own up to a hair, and nobody else's move."""
    window = data.draw(st.permutations(sorted(zs)))[: len(zs) // 2]
    dealt = reassign(zs, window)
    assert all(dealt[above] > dealt[below] for above, below in pairwise(window))
    assert sorted(dealt[key] for key in window) == pytest.approx(sorted(zs[key] for key in window), abs=1e-6)
    assert {key: z for key, z in dealt.items() if key not in window} == {
        key: z for key, z in zs.items() if key not in window
    }
