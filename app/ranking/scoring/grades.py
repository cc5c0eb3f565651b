"""From what a model said about a passage to its grade. Pure.

A label scorer gives each label's raw log-probability l_g. With the bias b_g that the model has without any content,

    p_g = softmax_g(l_g - beta * b_g),   E = sum_g p_g g / 3,   V = sum_g p_g (g / 3 - E)^2

A judge lists passages under grades, best first. The r-th of the n_g passages under grade g gets

    E = (g - r / (n_g + 1)) / 3 for g > 0, else 0;   V = (1/3)^2 (1/12 + SLIP)

so that each grade has its own third of [0,1], and the order within it counts for no more than that. A judge does not
say how sure it is: V is that of an even spread over one third, and of a slip into a neighbouring grade now and then.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from operator import mul
from typing import TypeVar

from app.backends.base import LabelScores
from app.backends.logprobs import LEAST_MASS, log_evidence, mass_and_evidence, softmax
from app.ranking.models import LABELS, TOP_GRADE, Grade

Key = TypeVar("Key", bound=Hashable)

BETA = 0.5
"""How much of the bias is taken off: it is measured on blank passages, which are rightly graded low."""

UNRELIABLE = "unreliable"

SLIP = 0.2
"""How often a judge is assumed to miss the grade by one."""

JUDGE_VARIANCE = (1 / 12 + SLIP) / TOP_GRADE**2

_STEPS = tuple(grade / TOP_GRADE for grade in range(TOP_GRADE + 1))
UNBIASED = (-math.log(len(LABELS)),) * len(LABELS)


def bias_of(blanks: Iterable[LabelScores | None]) -> tuple[float, ...]:
    """The log of the labels' mean probabilities (among themselves) for passages without content.

    One blank without any bias is added to those given: few blanks do not show that a label is impossible, and no blanks
    mean no bias. After Zhao et al., "Calibrate Before Use", 2021.
    """
    seen = [evidence for evidence in (log_evidence(blank) for blank in blanks if blank) if evidence is not None]
    shares = [softmax(evidence) for evidence in (*seen, UNBIASED)]
    return tuple(math.log(math.fsum(column) / len(shares)) for column in zip(*shares, strict=True))


def grade_of(scores: LabelScores, bias: Sequence[float] = UNBIASED, beta: float = BETA) -> Grade | None:
    """The grade of one passage. None when no label was told: then nothing is known about it.

    It is flagged UNRELIABLE when the labels' mass is below LEAST_MASS.
    """
    mass, evidence = mass_and_evidence(scores)
    if evidence is None:
        return None
    shares = softmax([logprob - beta * b for logprob, b in zip(evidence, bias, strict=True)])
    expected = min(1.0, sum(map(mul, shares, _STEPS)))
    variance = sum(share * (step - expected) ** 2 for share, step in zip(shares, _STEPS, strict=True))
    flags = (UNRELIABLE,) if mass < LEAST_MASS else ()
    return Grade(expected=expected, variance=min(0.25, variance), flags=flags)


def grades_of(listed: Mapping[int, Sequence[Key]], passages: Iterable[Key]) -> dict[Key, Grade]:
    """The grades of all passages that a judge was shown; it listed some, each once, best first within its grade."""
    expected = {
        passage: (grade - rank / (len(row) + 1)) / TOP_GRADE
        for grade, row in listed.items()
        if grade
        for rank, passage in enumerate(row, start=1)
    }
    return {passage: Grade(expected=expected.get(passage, 0.0), variance=JUDGE_VARIANCE) for passage in passages}
