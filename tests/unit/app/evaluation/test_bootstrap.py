"""How sure a mean is."""

import math
import random

import pytest

from app.evaluation.metrics import figure, gain

pytestmark = pytest.mark.numeric


def coins(count: int, share: float) -> dict[str, float]:
    return {str(number): float(number < share * count) for number in range(count)}


def test_an_interval_is_that_of_the_normal_approximation() -> None:
    """For many coins, the mean plus and minus 1.96 standard errors."""
    found = figure(coins(400, 0.3), seed=1)
    assert found is not None
    error = 1.96 * math.sqrt(0.3 * 0.7 / 400)
    assert found.mean == pytest.approx(0.3)
    assert (found.low, found.high) == (pytest.approx(0.3 - error, abs=0.004), pytest.approx(0.3 + error, abs=0.004))
    assert found.n == 400


def test_a_seed_fixes_the_interval() -> None:
    """Whatever the order of the questions."""
    chance = random.Random(1)
    values = {str(number): chance.random() for number in range(50)}
    turned = dict(reversed(values.items()))
    assert figure(values, seed=1) == figure(turned, seed=1) != figure(values, seed=2)


def test_a_gain_is_paired() -> None:
    """What is equally hard for both cancels out; questions that one of them lacks do not count."""
    chance = random.Random(1)
    baseline = {str(number): chance.random() for number in range(100)}
    better = {key: value + 0.1 for key, value in baseline.items() if key != "7"} | {"other": 5.0}
    found = gain(better, baseline, seed=1)
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert found.n == 99


def test_nothing_has_no_figure() -> None:
    """Nor do two that share no question."""
    assert figure({}, seed=1) is None
    assert gain({"a": 1.0}, {"b": 1.0}, seed=1) is None
    certain = figure({"a": 0.5}, seed=1)
    assert certain is not None
    assert (certain.mean, certain.low, certain.high) == (0.5, 0.5, 0.5)
