import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import InvalidRequest
from app.ranking.calibration import (
    Bin,
    calibration_error,
    fit_calibration,
    judgements_hash,
    log_loss,
    reliability,
)
from app.ranking.models import Calibration
from app.ranking.scoring import sigmoid
from tests.unit.app.ranking.drawn import UNIT

pytestmark = pytest.mark.numeric

SCORED = st.lists(st.tuples(UNIT, st.booleans()), max_size=60)


def drawn(n: int, slope: float, offset: float, seed: int) -> tuple[list[float], list[bool]]:
    """Observations of which sigmoid(slope z + offset) is the truth."""
    rng = random.Random(seed)
    zs = [rng.gauss(0, 2) for _ in range(n)]
    return zs, [rng.random() < sigmoid(slope * z + offset) for z in zs]


def slopes_of_loss(zs: list[float], relevant: list[bool], calibration: Calibration) -> tuple[float, float]:
    """The cross-entropy's derivatives by A and B against Platt's targets, at a fit; 0 at its minimum."""
    z, label = np.array(zs), np.array(relevant)
    target = np.where(label, (label.sum() + 1) / (label.sum() + 2), 1 / ((~label).sum() + 2))
    miss = 1 / (1 + np.exp(-(calibration.slope * z + calibration.offset))) - target
    return float(miss @ z) / len(zs), float(miss.sum()) / len(zs)


@settings(max_examples=40)
@given(st.integers(10, 300), st.floats(0.2, 5), st.floats(-3, 3), st.integers(0, 10**6))
def test_a_fit_is_where_the_cross_entropy_is_flat(n: int, slope: float, offset: float, seed: int) -> None:
    """It is convex, so that this is its minimum; what cannot be fitted upwards is refused."""
    zs, relevant = drawn(n, slope, offset, seed)
    try:
        fit = fit_calibration(zs, relevant, "")
    except InvalidRequest:
        mean = [np.mean([z for z, label in zip(zs, relevant, strict=True) if label is kind]) for kind in (True, False)]
        assert len(set(relevant)) < 2 or mean[0] <= mean[1]
        return
    assert slopes_of_loss(zs, relevant, fit.calibration) == pytest.approx((0, 0), abs=1e-6)
    assert fit.slope > 0


def test_a_fit_finds_the_truth_in_many_observations() -> None:
    """And is better calibrated than no fit."""
    zs, relevant = drawn(20_000, 1.7, -2.0, seed=5)
    fit = fit_calibration(zs, relevant, "abc")
    assert (fit.slope, fit.offset) == pytest.approx((1.7, -2.0), abs=0.1)
    assert fit.ece_after < 0.02 < 0.1 < fit.ece_before
    assert (fit.n, fit.positives, fit.data_hash) == (20_000, sum(relevant), "abc")
    assert fit.log_loss < log_loss([sum(relevant) / len(relevant)] * len(relevant), relevant)


def test_a_fit_is_the_same_for_any_order_of_the_observations() -> None:
    """To the last bit."""
    zs, relevant = drawn(500, 1.0, 0.0, seed=1)
    pairs = list(zip(zs, relevant, strict=True))
    random.Random(2).shuffle(pairs)
    shuffled = [list(column) for column in zip(*pairs, strict=True)]
    assert fit_calibration(zs, relevant, "") == fit_calibration(shuffled[0], shuffled[1], "")


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_perfect_separation_has_a_finite_fit(scale: float) -> None:
    """Platt's targets keep it from running away, whatever the size of z."""
    fit = fit_calibration([-2 * scale, -scale, scale, 2 * scale], [False, False, True, True], "")
    assert math.isfinite(fit.slope)
    assert fit.slope * scale == pytest.approx(
        fit_calibration([-2, -1, 1, 2], [False, False, True, True], "").slope, rel=1e-4
    )


@pytest.mark.parametrize(
    ("zs", "relevant", "why"),
    [
        ([], [], "0 of 0 are relevant"),
        ([1.0, 2.0], [True, True], "2 of 2 are relevant"),
        ([1.0, 2.0], [False, False], "0 of 2 are relevant"),
        ([1.0, 2.0, 3.0], [True, False, False], "say nothing about relevance"),
        ([1.0, 1.0, 1.0], [True, False, False], "say nothing about relevance"),
    ],
)
def test_what_would_turn_the_ranking_around_is_refused(zs: list[float], relevant: list[bool], why: str) -> None:
    """As is one class alone, and grades that are all the same."""
    with pytest.raises(InvalidRequest, match=why):
        fit_calibration(zs, relevant, "")


@given(SCORED)
def test_bins_hold_every_passage_once(scored: list[tuple[float, bool]]) -> None:
    """Each in the bin of its score, with the mean score and the share that is relevant."""
    scores, relevant = [score for score, _ in scored], [label for _, label in scored]
    bins = reliability(scores, relevant)
    assert sum(bin.n for bin in bins) == len(scored)
    for bin in bins:
        inside = [(score, label) for score, label in scored if bin.low <= score < bin.high or (score == bin.high == 1)]
        assert bin.n == len(inside)
        assert (bin.score, bin.relevant) == pytest.approx(tuple(np.mean(inside, axis=0)))


@given(SCORED)
def test_the_calibration_error_weighs_the_bins_by_their_passages(scored: list[tuple[float, bool]]) -> None:
    """Equal to the sum over the bins of |sum of labels - sum of scores|, per passage."""
    scores, relevant = np.array([score for score, _ in scored]), np.array([label for _, label in scored])
    bin_of = np.minimum((scores * 10).astype(int), 9)
    gaps = sum(abs((relevant[bin_of == at].astype(float) - scores[bin_of == at]).sum()) for at in range(10))
    found = calibration_error(reliability(list(scores), list(relevant)))
    assert found == pytest.approx(gaps / max(len(scored), 1))


def test_errors_of_stated_bins() -> None:
    """0.1 off for three passages of four and 0.5 off for one; nothing is nothing off."""
    bins = [
        Bin(low=0.0, high=0.1, n=3, score=0.05, relevant=0.15),
        Bin(low=0.9, high=1.0, n=1, score=1.0, relevant=0.5),
    ]
    assert calibration_error(bins) == pytest.approx(0.2)
    assert calibration_error([]) == 0.0


def test_the_log_loss_is_finite_even_for_sure_mistakes() -> None:
    """-ln of what was given to the truth, of which nothing counts as 1e-15."""
    assert log_loss([0.5, 0.25], [True, False]) == pytest.approx(-(math.log(0.5) + math.log(0.75)) / 2)
    assert log_loss([0.0], [True]) == pytest.approx(-math.log(1e-15))
    assert log_loss([], []) == 0.0


def test_the_hash_knows_the_judgements_and_not_their_order() -> None:
    """Another grade is another hash."""
    judgements = [("q1", "d1", 3), ("q1", "d2", 0), ("q2", "d1", 1)]
    assert judgements_hash(judgements) == judgements_hash(reversed(judgements))
    assert judgements_hash(judgements) != judgements_hash([*judgements[:2], ("q2", "d1", 2)])
    assert judgements_hash([("a", "bc", 1)]) != judgements_hash([("ab", "c", 1)])
