import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ranking.scoring import PriorModel, clip, fit_prior
from tests.unit.app.ranking.drawn import UNIT

pytestmark = pytest.mark.numeric

PAIRS = st.lists(st.tuples(UNIT, UNIT), max_size=30)


def isotonic(pairs: list[tuple[float, float]]) -> dict[float, float]:
    """By the min-max formula: the greatest of the smallest mean over all intervals around a prior."""
    priors = sorted({prior for prior, _ in pairs})

    def mean(low: float, high: float) -> float:
        return float(np.mean([expected for prior, expected in pairs if low <= prior <= high]))

    return {x: max(min(mean(a, b) for b in priors if b >= x) for a in priors if a <= x) for x in priors}


@given(st.lists(st.tuples(st.integers(0, 12).map(lambda n: n / 12), UNIT), min_size=1, max_size=15))
def test_the_map_is_the_isotonic_regression_of_the_readings(pairs: list[tuple[float, float]]) -> None:
    """At the priors that were read it equals the min-max formula."""
    model = fit_prior(pairs)
    for prior, expected in isotonic(pairs).items():
        assert model.expected(prior) == pytest.approx(expected, abs=1e-9)


@given(PAIRS, UNIT, UNIT)
def test_a_higher_prior_never_lets_expect_less(pairs: list[tuple[float, float]], one: float, other: float) -> None:
    """The map does not fall, and stays in [0,1]."""
    model = fit_prior(pairs)
    low, high = sorted((one, other))
    assert 0 <= model.expected(low) <= model.expected(high) <= 1


@given(PAIRS.flatmap(lambda pairs: st.tuples(st.just(pairs), st.permutations(pairs))))
def test_the_model_is_the_same_for_any_order_of_the_readings(
    drawn: tuple[list[tuple[float, float]], list[tuple[float, float]]],
) -> None:
    """To the last bit."""
    assert fit_prior(drawn[0]) == fit_prior(drawn[1])


def test_below_the_lowest_prior_read_the_map_falls_to_zero() -> None:
    """Linear between the readings, level above them."""
    model = fit_prior([(0.4, 0.2), (0.8, 0.6)])
    found = [model.expected(prior) for prior in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)]
    assert found == pytest.approx([0, 0.1, 0.2, 0.4, 0.6, 0.6])


def test_with_nothing_read_the_prior_is_what_is_expected() -> None:
    """And the spread is the usual one."""
    assert fit_prior([]) == PriorModel()
    assert PriorModel().expected(0.3) == 0.3


def test_the_spread_starts_as_assumed_and_ends_as_measured() -> None:
    """Four assumed readings of 0.25 beside the residuals: here +-0.1 around a level map."""
    pairs = [(0.5, 0.4), (0.5, 0.6)] * 8
    assert fit_prior(pairs).spread == pytest.approx(((16 * 0.01 + 4 * 0.0625) / 20) ** 0.5)


@pytest.mark.parametrize(("value", "clipped"), [(-1.0, 0.0), (0.5, 0.5), (7.0, 1.0), (float("nan"), 0.0)])
def test_what_is_no_share_becomes_one(value: float, clipped: float) -> None:
    """Below 0, above 1 and not a number at all."""
    assert clip(value) == clipped
