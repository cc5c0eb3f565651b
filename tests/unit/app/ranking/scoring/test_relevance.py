"""What follows from a reranker's log-odds: an order by comparison, and scores that are absolute."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ranking.injection.detector import SUSPECTED_INJECTION
from app.ranking.models import Calibration, Ranked
from app.ranking.scoring import Scoreboard, relevance_grades

pytestmark = pytest.mark.numeric

LOG_ODDS = st.lists(st.floats(-14, 14), min_size=1, max_size=9)


def board_of(log_odds: dict[str, float], priors: dict[str, float], *suspects: str) -> Scoreboard:
    flags = {name: (SUSPECTED_INJECTION,) if name in suspects else () for name in priors}
    passages = [Ranked(id=name, text=name, prior=prior, flags=flags[name]) for name, prior in priors.items()]
    board = Scoreboard(passages, Calibration())
    board.attempted.update(priors)
    board.add_relevance(log_odds)
    return board


@given(LOG_ODDS, st.floats(0.01, 100), st.floats(-50, 50))
def test_the_scale_of_a_reranker_does_not_matter(values: list[float], factor: float, shift: float) -> None:
    """Whether it calls an answer 0.9 or 0.001: what counts is how its passages compare."""
    log_odds = {str(number): value for number, value in enumerate(values)}
    if max(values) - min(values) < 0.01:
        return
    other = {key: factor * value + shift for key, value in log_odds.items()}
    for key, grade in relevance_grades(log_odds).items():
        assert relevance_grades(other)[key].expected == pytest.approx(grade.expected, abs=1e-6)


def test_equal_scores_leave_the_order_of_retrieval() -> None:
    """A reranker that calls all alike moves nothing."""
    board = board_of({"a": 13.8, "b": 13.8, "c": 13.8}, {"a": 0.2, "b": 0.9, "c": 0.5})
    assert [one.id for one in board.ranked()] == ["b", "c", "a"]


@given(LOG_ODDS)
def test_scores_fall_and_are_shown_with_the_rerankers_own(values: list[float]) -> None:
    """`grade` is the reranker's probability; the scores fall along the order, in (0,1)."""
    log_odds = {str(number): value for number, value in enumerate(values)}
    ranked = board_of(log_odds, {key: 0.5 for key in log_odds}).ranked()
    scores = [one.score for one in ranked]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score < 1 for score in scores)
    assert {one.id: one.grade for one in ranked} == {
        key: pytest.approx(1 / (1 + math.exp(-value))) for key, value in log_odds.items()
    }


def test_a_suspect_lends_its_score_to_nobody() -> None:
    """It is held back, and the score that it wanted goes to no other either."""
    priors = {"a": 0.9, "b": 0.5, "evil": 0.1}
    ranked = board_of({"a": -4.0, "b": -5.0, "evil": 12.0}, priors, "evil").ranked()
    assert [one.id for one in ranked] == ["a", "b", "evil"]
    assert ranked[0].score < 0.3


def test_what_was_not_read_stands_where_its_prior_says() -> None:
    """A reply that failed is no verdict."""
    ranked = board_of({"a": 3.0, "c": -3.0}, {"a": 0.9, "b": 0.5, "c": 0.1}).ranked()
    assert [one.id for one in ranked] == ["a", "b", "c"]
    assert [one.grade is None for one in ranked] == [False, True, False]
    assert ranked[1].flags == ("ungraded",)
