"""From what was noted to an order: suspects, unread passages, what a second look moves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ranking.injection.detector import SUSPECTED_INJECTION
from app.ranking.models import Calibration, Grade, Ranked
from app.ranking.scoring import CallStats, Scoreboard

pytestmark = pytest.mark.numeric


def passage(name: str, prior: float, *flags: str, duplicates: tuple[str, ...] = ()) -> Ranked:
    return Ranked(id=name, text=name, prior=prior, flags=flags, duplicates=duplicates)


def graded(expected: float) -> Grade:
    return Grade(expected=expected, variance=0.04)


def board_of(*passages: Ranked, **grades: float) -> Scoreboard:
    board = Scoreboard(passages, Calibration())
    board.attempted.update(grades)
    board.add_grades({name: graded(expected) for name, expected in grades.items()})
    return board


def order(board: Scoreboard) -> list[str]:
    return [place.id for place in board.ranked()]


def test_a_suspect_is_not_believed_above_its_prior() -> None:
    """It scores just below the honest passage of its prior; a bad grade of it is believed."""
    honest = [passage("a", 0.9), passage("b", 0.5), passage("c", 0.1)]
    evil = passage("evil", 0.1, SUSPECTED_INJECTION)
    caught = board_of(*honest, evil, a=0.9, b=0.5, c=0.1, evil=1.0)
    scores = {place.id: place.score for place in caught.ranked()}
    assert scores["evil"] < scores["c"] < scores["evil"] + 1e-9
    assert (
        order(board_of(*honest, passage("evil", 0.9, SUSPECTED_INJECTION), a=0.9, b=0.5, c=0.1, evil=0.0))[-1] == "evil"
    )


def test_a_suspect_rises_above_nobody() -> None:
    """Not even above passages with a worse grade than its prior lets expect."""
    honest = [passage("a", 0.9), passage("b", 0.8), passage("c", 0.7)]
    suspects = [passage("evil", 0.75, SUSPECTED_INJECTION), passage("worse", 0.65, SUSPECTED_INJECTION)]
    caught = board_of(*honest, *suspects, a=0.0, b=0.0, c=1.0, evil=1.0, worse=1.0)
    assert order(caught) == ["c", "a", "evil", "b", "worse"]


def test_a_suspect_does_not_speak_for_its_prior() -> None:
    """A grade that it begged for does not lift others that were not read."""
    honest, unread = [passage("a", 0.9), passage("b", 0.3)], passage("unread", 0.29)
    evil = passage("evil", 0.28, SUSPECTED_INJECTION)
    scores = [
        next(
            place.score
            for place in board_of(*honest, evil, unread, a=0.9, b=0.1, evil=e).ranked()
            if place.id == "unread"
        )
        for e in (0.5, 1.0)
    ]
    assert scores[0] == scores[1]


def test_suspects_take_no_second_look() -> None:
    """Beside others they could speak against them."""
    board = board_of(passage("a", 0.9), passage("evil", 0.5, SUSPECTED_INJECTION), a=0.5, evil=0.5)
    assert set(board.trusted(board.grades())) == {"a"}


def test_a_second_look_replaces_the_first() -> None:
    """What it moved stands where it moved it; the grades stay as they were."""
    board = board_of(passage("a", 0.9), passage("b", 0.8), a=0.6, b=0.5)
    assert order(board) == ["a", "b"]
    board.move({"b": 5.0})
    assert order(board) == ["b", "a"]
    assert [place.grade for place in board.ranked()] == [0.5, 0.6]


@given(
    priors=st.lists(st.floats(0, 1), min_size=1, max_size=12),
    grades=st.lists(st.floats(0, 1) | st.none(), min_size=12, max_size=12),
)
def test_unread_passages_stand_below_the_last_that_was_read(priors: list[float], grades: list[float | None]) -> None:
    """By prior, ties by id; every score is in [0,1], and none is above the one before."""
    passages = [passage(f"p{number:02}", prior) for number, prior in enumerate(priors)]
    read = {p.id: grade for p, grade in zip(passages, grades, strict=False) if grade is not None}
    places = board_of(*passages, **read).ranked()
    assert {place.id for place in places[: len(read)]} == set(read)
    unread = [next(p for p in passages if p.id == place.id) for place in places[len(read) :]]
    assert unread == sorted(unread, key=lambda p: (-p.prior, p.id))
    scores = [place.score for place in places]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


def test_twins_follow_the_one_that_was_read() -> None:
    """Under its score and its flags."""
    board = board_of(passage("a", 0.9, "odd", duplicates=("x", "y")), passage("b", 0.8), a=0.1, b=0.9)
    assert [(place.id, place.flags) for place in board.ranked()] == [
        ("b", ()),
        ("a", ("odd",)),
        ("x", ("odd",)),
        ("y", ("odd",)),
    ]


def test_a_round_without_a_request_is_none() -> None:
    """What the cache knew took no time upstream."""
    stats = CallStats()
    with stats.round():
        pass
    with stats.round():
        stats.requests += 3
    assert (stats.rounds, stats.requests) == (1, 3)
