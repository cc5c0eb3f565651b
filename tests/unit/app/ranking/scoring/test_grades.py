import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backends.base import LabelScores, log_evidence, mass_and_evidence
from app.ranking.scoring import JUDGE_VARIANCE, UNBIASED, UNRELIABLE, bias_of, grade_of, grades_of
from tests.unit.app.ranking.drawn import LOGS, label_scores

pytestmark = pytest.mark.numeric

TOLD = label_scores(LOGS)
BIASES = st.lists(TOLD, max_size=4).map(bias_of)


def scores(*logprobs: float | None, floor: float = -12.0) -> LabelScores:
    return LabelScores(logprobs=logprobs, floor=floor)


@given(TOLD, BIASES)
def test_a_grade_is_the_mean_and_variance_of_the_softmax_without_bias(
    told: LabelScores, bias: tuple[float, ...]
) -> None:
    """E and V are those of exp(l - b/2), normalised, over the grades 0, 1/3, 2/3 and 1."""
    weights = np.exp(np.array(told.logprobs) - 0.5 * np.array(bias))
    values = np.linspace(0, 1, 4)
    mean = np.average(values, weights=weights)
    grade = grade_of(told, bias)
    assert grade is not None
    assert grade.expected == pytest.approx(mean, abs=1e-9)
    assert grade.variance == pytest.approx(np.average(values**2, weights=weights) - mean**2, abs=1e-9)


@given(label_scores(), BIASES)
def test_whatever_a_server_tells_a_grade_is_a_number_in_its_range(told: LabelScores, bias: tuple[float, ...]) -> None:
    """E is in [0,1] and V in [0,1/4], or there is no grade because no label was told."""
    grade = grade_of(told, bias)
    if all(logprob is None or not math.isfinite(logprob) for logprob in told.logprobs):
        assert grade is None
    else:
        assert grade is not None
        assert 0 <= grade.expected <= 1
        assert 0 <= grade.variance <= 0.25


@given(TOLD, BIASES, st.floats(0.01, 5))
def test_more_evidence_for_the_higher_grades_gives_a_higher_grade(
    told: LabelScores, bias: tuple[float, ...], more: float
) -> None:
    """Raising each label in proportion to its grade never lowers E; nor does lowering the lowest."""
    raised = scores(*(logprob - more * (3 - at) for at, logprob in enumerate(told.logprobs) if logprob is not None))
    lowered = scores(told.logprobs[0] - more if told.logprobs[0] is not None else None, *told.logprobs[1:])
    before = grade_of(told, bias)
    assert before is not None
    for after in (grade_of(raised, bias), grade_of(lowered, bias)):
        assert after is not None
        assert after.expected >= before.expected - 1e-12


def test_certainty_is_a_grade_without_variance() -> None:
    """All of the probability on one label gives that label's grade."""
    for grade in range(4):
        found = grade_of(scores(*(0.0 if label == grade else None for label in range(4))))
        assert found is not None
        assert found.expected == pytest.approx(grade / 3, abs=1e-8)
        assert found.variance == pytest.approx(0, abs=1e-8)


def test_labels_that_were_not_told_share_what_is_left() -> None:
    """One told label of 0.7 leaves 0.1 for each of the others where the floor is above that, else the floor."""
    assert log_evidence(scores(math.log(0.7), None, None, None, floor=math.log(0.7))) == pytest.approx(
        [math.log(0.7), *[math.log(0.1)] * 3]
    )
    assert log_evidence(scores(math.log(0.7), None, None, None, floor=-12.0)) == pytest.approx(
        [math.log(0.7), *[-12.0] * 3]
    )


def test_without_a_single_label_nothing_is_known() -> None:
    """A model that said something else entirely has no grade, rather than a middling one."""
    assert grade_of(scores(None, None, -math.inf, math.nan)) is None
    assert log_evidence(scores(None, None, None, None)) is None


@pytest.mark.parametrize(("mass", "flags"), [(0.31, ()), (0.29, (UNRELIABLE,))])
def test_a_model_that_wanted_to_say_something_else_is_flagged(mass: float, flags: tuple[str, ...]) -> None:
    """Below a label mass of 0.3 the grade is unreliable."""
    told = scores(*[math.log(mass / 4)] * 4)
    grade = grade_of(told)
    assert grade is not None
    assert grade.flags == flags
    assert mass_and_evidence(told)[0] == pytest.approx(mass)


def test_no_blanks_mean_no_bias() -> None:
    """Without content-free passages, or without any told label on them, nothing is taken off."""
    assert bias_of([]) == pytest.approx(UNBIASED)
    assert bias_of([None, scores(None, None, None, None)]) == pytest.approx(UNBIASED)


def test_bias_is_the_log_of_the_mean_share_with_one_neutral_blank() -> None:
    """Two blanks at (1, 0, 0, 0) and (0.5, 0.5, 0, 0) and the neutral one."""
    bias = bias_of([scores(0.0, None, None, None), scores(math.log(0.5), math.log(0.5), None, None)])
    assert np.exp(bias) == pytest.approx([1.75 / 3, 0.75 / 3, 0.25 / 3, 0.25 / 3], abs=1e-6)


@given(
    st.permutations([scores(-0.1, -2.0, -5.0, -7.0), scores(-1.0, -1.5, -2.5, -9.0), scores(-3.0, -0.2, -4.0, None)])
)
def test_bias_is_the_same_for_any_order_of_the_blanks(blanks: list[LabelScores]) -> None:
    """To the last bit."""
    assert bias_of(blanks) == bias_of(sorted(blanks, key=lambda blank: blank.logprobs[0] or 0))


@given(st.permutations(range(30)), st.lists(st.integers(0, 30), min_size=3, max_size=3).map(sorted))
def test_each_listed_grade_has_its_own_third(passages: list[int], ends: list[int]) -> None:
    """Grades fall strictly along the lists from 3 to 1, each within its third; the unlisted ones are 0."""
    first, second, third = ends
    listed = {3: passages[:first], 2: passages[first:second], 1: passages[second:third]}
    grades = grades_of(listed, passages)
    assert list(grades) == passages
    for grade, row in listed.items():
        assert all((grade - 1) / 3 < grades[passage].expected < grade / 3 for passage in row)
    along = [grades[passage].expected for passage in passages]
    assert all(above > below for above, below in pairwise(along[:third]))
    assert set(along[third:]) <= {0.0}


def test_a_judged_grade_follows_the_formula() -> None:
    """E = (g - 1 + 1 - r/(n_g+1)) / 3; what was listed under 0 is like unlisted; V is the stated one."""
    grades = grades_of({3: ["a"], 2: ["b", "c"], 0: ["d"]}, ["a", "b", "c", "d", "e"])
    expected = {key: grade.expected for key, grade in grades.items()}
    assert expected == pytest.approx({"a": 2.5 / 3, "b": (1 + 2 / 3) / 3, "c": (1 + 1 / 3) / 3, "d": 0, "e": 0})
    assert {grade.variance for grade in grades.values()} == {JUDGE_VARIANCE}
    assert pytest.approx(1 / 108 + 0.2 / 9) == JUDGE_VARIANCE
    assert grades_of({}, []) == {}
