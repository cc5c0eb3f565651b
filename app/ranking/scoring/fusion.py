"""Prior and grade into one absolute score. Pure."""

import math
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter, mul
from typing import TypeVar

import msgspec

from app.backends.base import LEAST_MASS, LabelScores, log_evidence, mass_and_evidence, softmax
from app.ranking.models import LABELS, TOP_GRADE, Calibration, Grade, Spread

USUAL_SPREAD = 0.25
"""The spread as long as nothing is read, in units of E."""

DOUBT = 4
"""How many readings that assumption weighs."""


class Knot(msgspec.Struct, frozen=True):
    """A point of the map."""

    prior: float
    expected: float


class PriorModel(msgspec.Struct, frozen=True, kw_only=True):
    """The distribution of E given the prior. `knots` by rising prior."""

    knots: tuple[Knot, ...] = ()
    spread: float = USUAL_SPREAD

    def expected(self, prior: float) -> float:
        """m(prior), in [0,1]; never falls when the prior rises."""
        prior = clip(prior)
        above = bisect_right(self.knots, prior, key=lambda knot: knot.prior)
        left = self.knots[above - 1] if above else Knot(0.0, 0.0)
        if above == len(self.knots):
            return left.expected if self.knots else prior
        right = self.knots[above]
        share = (prior - left.prior) / (right.prior - left.prior)
        return min(right.expected, left.expected + share * (right.expected - left.expected))


def clip(value: float) -> float:
    """Into [0,1]; what is no number is 0."""
    return 0.0 if math.isnan(value) else min(1.0, max(0.0, value))


def fit_prior(read: Iterable[tuple[float, float]]) -> PriorModel:
    """The model of pairs (prior, E), in any order."""
    pairs = sorted((clip(prior), clip(expected)) for prior, expected in read)
    model = PriorModel(knots=_isotonic(pairs))
    squares = math.fsum((expected - model.expected(prior)) ** 2 for prior, expected in pairs)
    spread = math.sqrt((squares + DOUBT * USUAL_SPREAD**2) / (len(pairs) + DOUBT))
    return PriorModel(knots=model.knots, spread=spread)


class _Pool:
    """Neighbouring priors that share one value: the mean of what was found there."""

    def __init__(self, prior: float, found: Sequence[float]) -> None:
        self.first = self.last = prior
        self._sum, self._n = math.fsum(found), len(found)

    @property
    def mean(self) -> float:
        return self._sum / self._n

    def swallow(self, later: "_Pool") -> None:
        self.last = later.last
        self._sum += later._sum
        self._n += later._n


def _isotonic(pairs: list[tuple[float, float]]) -> tuple[Knot, ...]:
    """Pool adjacent violators (Ayer et al., 1955), of sorted pairs."""
    pools: list[_Pool] = []
    for prior, equals in groupby(pairs, key=itemgetter(0)):
        pools.append(_Pool(prior, [expected for _, expected in equals]))
        while len(pools) > 1 and pools[-2].mean >= pools[-1].mean:
            pools[-2].swallow(pools.pop())
    return tuple(Knot(prior, min(1.0, pool.mean)) for pool in pools for prior in dict.fromkeys((pool.first, pool.last)))


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


PRIOR_WEIGHT = 0.5

LEAST = 0.01
"""No grade is surer than this: logit(0.01) = -4.6."""

_FARTHEST = 3.0
_FLAT = 1e-9


def prior_scores(priors: Sequence[float], spread: Spread | None = None) -> tuple[float, ...]:
    """How far each prior is above the mean, in standard deviations, within [-3, 3].

    `spread` None: that of these priors; all are 0 when all are equal. With a given one, none depends on the others.
    """
    priors = [clip(prior) for prior in priors]
    mean, deviation = _own_spread(priors) if spread is None else (spread.mean, spread.deviation)
    if deviation < _FLAT:
        return (0.0,) * len(priors)
    return tuple(max(-_FARTHEST, min(_FARTHEST, (prior - mean) / deviation)) for prior in priors)


def _own_spread(priors: Sequence[float]) -> tuple[float, float]:
    mean = math.fsum(priors) / max(len(priors), 1)
    return mean, math.sqrt(math.fsum((prior - mean) ** 2 for prior in priors) / max(len(priors), 1))


def fuse(expected: float, prior_z: float = 0.0, weight: float = PRIOR_WEIGHT) -> float:
    """z, of a grade's E in [0,1] and of the prior's z-score. Rises strictly with E."""
    squeezed = LEAST + (1 - 2 * LEAST) * clip(expected)
    return math.log(squeezed / (1 - squeezed)) + weight * prior_z


def score_of(z: float, calibration: Calibration) -> float:
    """The absolute score, in [0,1]."""
    return sigmoid(calibration.slope * z + calibration.offset)


def unread_scores(
    priors: Sequence[float], prior_zs: Sequence[float], model: PriorModel, calibration: Calibration, last: float
) -> tuple[float, ...]:
    """The scores of passages that no model read: what their prior lets expect, but not above `last`.

    `last` is the lowest score of those that were read (1 when none was). A higher prior never has the lower score.
    """
    return tuple(
        min(last, score_of(fuse(model.expected(prior), prior_z), calibration))
        for prior, prior_z in zip(priors, prior_zs, strict=True)
    )


def in_order(zs: Mapping[str, float], priors: Mapping[str, float]) -> list[str]:
    """The ids by falling z; ties by falling prior, then by id."""
    return sorted(zs, key=lambda key: (-zs[key], -clip(priors[key]), key))


def by_prior(priors: Mapping[str, float], among: Iterable[str]) -> list[str]:
    """Some ids by falling prior; ties by id."""
    return sorted(among, key=lambda key: (-clip(priors[key]), key))


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    if x >= 0:
        return 1 / (1 + math.exp(-x))
    return math.exp(x) / (1 + math.exp(x))
