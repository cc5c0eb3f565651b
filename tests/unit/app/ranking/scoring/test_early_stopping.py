import random
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ranking.models import Grade
from app.ranking.scoring import MIN_SIGMA, PriorModel, fit_prior, phi, sigma_of, top_k, undecided, worth_reading
from tests.unit.app.ranking.drawn import GRADED, IDS, UNIT

pytestmark = pytest.mark.numeric

TOPS = st.integers(1, 45)


def grade(expected: float, sigma: float = 0.05) -> Grade:
    return Grade(expected=expected, variance=sigma**2)


@given(GRADED, TOPS)
def test_the_chances_add_up_to_the_places(grades: dict[str, Grade], k: int) -> None:
    """k passages belong to the top k, in expectation; with no more than k, all do."""
    _, chances = top_k(grades, k)
    assert list(chances) == list(grades)
    assert sum(chances.values()) == pytest.approx(min(k, len(grades)), abs=1e-3)


@given(GRADED, TOPS)
def test_each_chance_is_the_normal_distributions(grades: dict[str, Grade], k: int) -> None:
    """That the true grade, normal around E with sqrt(V) or the least sigma, lies above the cut."""
    cut, chances = top_k(grades, k)
    if cut is None or len(grades) == k:
        return
    for key, found in grades.items():
        above = 1 - NormalDist(found.expected, max(found.variance**0.5, MIN_SIGMA)).cdf(cut)
        assert chances[key] == pytest.approx(above, abs=1e-9)


@given(GRADED, TOPS, st.randoms(use_true_random=False))
def test_settling_is_the_same_for_any_order(grades: dict[str, Grade], k: int, shuffling: random.Random) -> None:
    """To the last bit, and the open ones come in the same order."""
    shuffled = list(grades)
    shuffling.shuffle(shuffled)
    one, other = top_k(grades, k), top_k({key: grades[key] for key in shuffled}, k)
    assert one == other
    assert undecided(one[1]) == undecided(other[1])


def test_a_clear_gap_leaves_nobody_uncertain() -> None:
    """Two good and two bad ones are settled for k=2, and not for k=1."""
    grades = {"a": grade(0.9), "b": grade(0.88), "c": grade(0.1), "d": grade(0.05)}
    assert undecided(top_k(grades, 2)[1]) == []
    assert set(undecided(top_k(grades, 1)[1])) == {"a", "b"}
    assert undecided(top_k(grades, 4)[1]) == []


def test_equal_grades_share_the_places() -> None:
    """Four alike for two places have even chances, and the cut is their grade."""
    cut, chances = top_k({key: Grade(expected=0.5, variance=0.0) for key in "dcba"}, 2)
    assert cut == pytest.approx(0.5, abs=1e-6)
    assert chances == pytest.approx(dict.fromkeys("dcba", 0.5), abs=1e-5)
    assert undecided(chances) == ["a", "b", "c", "d"]


def test_the_most_open_come_first() -> None:
    """By the distance of their chance to one half."""
    chances = {"a": 0.9, "b": 0.45, "c": 0.3, "d": 0.02, "e": 0.98}
    assert undecided(chances) == ["b", "c", "a"]
    assert undecided(chances, risk=0.2) == ["b", "c"]


@given(GRADED, TOPS, st.dictionaries(IDS, UNIT), st.lists(st.tuples(UNIT, UNIT), max_size=20))
def test_worth_reading_is_what_could_still_enter(
    grades: dict[str, Grade], k: int, unread: dict[str, float], read: list[tuple[float, float]]
) -> None:
    """Whatever is normal around the prior's map, and above the cut more often than once in fifty."""
    model, (cut, _) = fit_prior(read), top_k(grades, k)
    hopeful = worth_reading(unread, model, cut)
    assert hopeful == sorted(hopeful, key=lambda key: (-unread[key], key))
    for key, prior in unread.items():
        if cut is None:
            assert key in hopeful
        else:
            chance = 1 - NormalDist(model.expected(prior), model.spread).cdf(cut)
            assert (key in hopeful) == (chance > 0.02)


def test_reading_on_stops_where_priors_say_so() -> None:
    """With a sure prior only the nearest is worth it; as long as there is room, all are; none are none."""
    cut, _ = top_k({"a": grade(0.9), "b": grade(0.8), "c": grade(0.2)}, 2)
    model = PriorModel(spread=0.05)
    assert worth_reading({"x": 0.45, "y": 0.3, "z": 0.1}, model, cut) == ["x"]
    assert worth_reading({"x": 0.0, "y": 0.1}, model, None) == ["y", "x"]
    assert worth_reading({}, model, cut) == []


def test_a_full_top_is_entered_past_its_lowest() -> None:
    """With exactly k read, the cut is the lowest grade among them."""
    assert top_k({"a": grade(0.9), "b": grade(0.6)}, 2) == (0.6, {"a": 1.0, "b": 1.0})
    assert top_k({"a": grade(0.9), "b": grade(0.6)}, 3) == (None, {"a": 1.0, "b": 1.0})


def test_nothing_graded_is_nothing_settled() -> None:
    """No grades, no cut, no chances."""
    assert top_k({}, 10) == (None, {})


@given(st.floats(allow_nan=False))
def test_phi_is_the_normal_distribution_function(x: float) -> None:
    """For any number, infinities included."""
    assert phi(x) == pytest.approx(NormalDist().cdf(x), abs=1e-12)


def test_no_grade_is_quite_sure() -> None:
    """Nor is a negative variance, by rounding, an error."""
    assert sigma_of(Grade(expected=1.0, variance=-1e-18)) == MIN_SIGMA
    assert sigma_of(grade(0.5, 0.3)) == pytest.approx(0.3)
