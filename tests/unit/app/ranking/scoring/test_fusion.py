import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ranking.models import Calibration, Grade
from app.ranking.scoring import (
    combine,
    in_order,
    pooled,
    prior_scores,
    score_of,
    sigmoid,
)
from tests.unit.app.ranking.drawn import GRADED, IDS, UNIT

pytestmark = pytest.mark.numeric

CALIBRATIONS = st.builds(
    lambda slope, offset: Calibration(slope=slope / 100, offset=offset / 100),
    st.integers(1, 500),
    st.integers(-500, 500),
)
PRIORS = st.lists(UNIT, max_size=50)


@given(PRIORS)
def test_prior_scores_are_z_scores(priors: list[float]) -> None:
    """Deviations from the mean in standard deviations, at most 3 of them; 0 where all are equal."""
    deviation = np.std(priors) if priors else 0.0
    expected = (
        np.clip((np.array(priors) - np.mean(priors)) / deviation, -3, 3) if deviation > 1e-9 else [0] * len(priors)
    )
    assert prior_scores(priors) == pytest.approx(expected, abs=1e-9)


def test_odd_priors_give_numbers_all_the_same() -> None:
    """What is not a number counts as no evidence at all."""
    assert prior_scores([math.nan, math.inf, -math.inf]) == prior_scores([0.0, 1.0, 0.0])


@given(UNIT, st.integers(-300, 300), CALIBRATIONS)
def test_a_score_follows_the_formula(expected: float, prior_z: int, calibration: Calibration) -> None:
    """sigmoid(A (logit(0.01 + 0.98 E) + z_prior / 2) + B)."""
    squeezed = 0.01 + 0.98 * expected
    z = np.log(squeezed) - np.log1p(-squeezed) + 0.5 * prior_z / 100
    assert combine(expected, prior_z / 100) == pytest.approx(z)
    assert score_of(z, calibration) == pytest.approx(1 / (1 + np.exp(-(calibration.slope * z + calibration.offset))))


@given(UNIT, UNIT, st.integers(-300, 300))
def test_a_better_grade_is_always_a_better_z(one: float, other: float, prior_z: int) -> None:
    """Strictly, at the same prior, up to grades of 0 and 1."""
    low, high = sorted((one, other))
    assert (combine(low, prior_z / 100) < combine(high, prior_z / 100)) == (low < high)


@given(st.floats(allow_nan=False))
def test_a_sigmoid_never_overflows(x: float) -> None:
    """It is in [0,1], and its mirror image its complement."""
    assert 0 <= sigmoid(x) <= 1
    assert sigmoid(x) + sigmoid(-x) == pytest.approx(1)


@given(UNIT, UNIT, UNIT)
def test_trust_leads_from_retrievals_score_to_the_models(expected: float, prior: float, trust: float) -> None:
    """Without trust the score is retrieval's, with all of it the model's, and between them it lies between them."""
    z = combine(expected)
    assert pooled(z, prior, 1.0) == z
    assert sigmoid(pooled(z, prior, 0.0)) == pytest.approx(0.01 + 0.98 * prior)
    low, high = sorted((z, combine(prior)))
    assert low - 1e-9 <= pooled(z, prior, trust) <= high + 1e-9


def final_order(grades: dict[str, Grade], priors: dict[str, float]) -> list[tuple[str, float]]:
    """Grades to places, as the reranker does it: from whatever order the candidates came in."""
    zs = {
        key: combine(grades[key].expected, prior_z)
        for key, prior_z in zip(priors, prior_scores(list(priors.values())), strict=True)
    }
    return [(key, zs[key]) for key in in_order(zs, priors)]


@given(GRADED, st.lists(UNIT, min_size=40, max_size=40), st.randoms(use_true_random=False))
def test_two_shuffles_of_the_candidates_end_in_one_order(
    grades: dict[str, Grade], priors: list[float], shuffling: random.Random
) -> None:
    """The same z to the last bit, and ties by prior, then by id."""
    by_id = dict(zip(grades, priors, strict=False))
    shuffled = list(by_id)
    shuffling.shuffle(shuffled)
    assert final_order(grades, by_id) == final_order(grades, {key: by_id[key] for key in shuffled})


@given(st.dictionaries(IDS, st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.1, 0.2])), max_size=20))
def test_ties_go_by_prior_and_then_by_id(drawn: dict[str, tuple[float, float]]) -> None:
    """With few different values of z and prior."""
    zs, priors = ({key: pair[at] for key, pair in drawn.items()} for at in (0, 1))
    assert in_order(zs, priors) == [key for _, _, key in sorted((-zs[key], -priors[key], key) for key in drawn)]


def test_a_given_spread_makes_prior_scores_independent_of_each_other() -> None:
    """How far a prior stands out is the same in any list; also there, no further than three deviations."""
    spread = (0.5, 0.1)
    assert prior_scores([0.5, 0.6, 0.3, 1.0], spread) == pytest.approx((0.0, 1.0, -2.0, 3.0))
    assert prior_scores([0.6], spread) == pytest.approx((1.0,))
