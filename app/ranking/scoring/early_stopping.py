"""Whose place in the top k is still open, and whether reading on can change it. Pure.

A passage's true grade is taken as normal around E with sigma = max(sqrt(V), LEAST_SIGMA). The cut t is where

    sum_i Phi((E_i - t) / sigma_i) = k

and Phi((E_i - t) / sigma_i) is the probability that passage i belongs to the top k. One that was not read has
E ~ N(m(prior), spread^2) (see priors.py), and belongs to it with probability Phi((m(prior) - t) / spread).
"""

import math
from collections.abc import Mapping

import msgspec

from app.ranking.models import Grade
from app.ranking.scoring.priors import PriorModel

LEAST_SIGMA = 0.02

RISK = 0.02
"""What is less likely than this does not happen; what is likelier than 1 - RISK is settled."""

_FAR = 9.0  # sigmas: beyond, Phi is 0 or 1 in floating point
_CLOSE = 1e-6  # of t: far below LEAST_SIGMA
_ROOT2 = math.sqrt(2)


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """The cut t, in units of E, and each read passage's probability to belong to the top k.

    With no more than k passages read, all belong to it, and `cut` is the lowest E; None as long as the top k has room.
    """

    cut: float | None
    chances: Mapping[str, float]

    def uncertain(self, risk: float = RISK) -> list[str]:
        """The ids that are neither surely in nor surely out, the most open first, ties by id."""
        still_open = [key for key, chance in self.chances.items() if risk < chance < 1 - risk]
        return sorted(still_open, key=lambda key: (abs(self.chances[key] - 0.5), key))


def settle(grades: Mapping[str, Grade], k: int) -> Settlement:
    """Where the cut between the top k (at least 1) and the rest is. The same for any order of the grades."""
    if len(grades) < k:
        return Settlement(cut=None, chances=dict.fromkeys(grades, 1.0))
    if len(grades) == k:
        return Settlement(cut=min(grade.expected for grade in grades.values()), chances=dict.fromkeys(grades, 1.0))
    bells = {key: (grade.expected, sigma_of(grade)) for key, grade in grades.items()}
    cut = _cut(list(bells.values()), k)
    return Settlement(cut=cut, chances={key: phi((expected - cut) / sigma) for key, (expected, sigma) in bells.items()})


def worth_reading(
    unread: Mapping[str, float], model: PriorModel, settlement: Settlement, risk: float = RISK
) -> list[str]:
    """Those of the unread (id -> prior) that could still enter the top k, by falling prior, ties by id.

    All of them as long as the top k has room.
    """
    cut = settlement.cut
    hopeful = [
        key
        for key, prior in unread.items()
        if cut is None or phi((model.expected(prior) - cut) / max(model.spread, LEAST_SIGMA)) > risk
    ]
    return sorted(hopeful, key=lambda key: (-unread[key], key))


def phi(x: float) -> float:
    """The standard normal distribution function."""
    return math.erfc(-x / _ROOT2) / 2


def sigma_of(grade: Grade) -> float:
    """A grade's standard deviation, never quite 0."""
    return max(math.sqrt(max(0.0, grade.variance)), LEAST_SIGMA)


def _cut(bells: list[tuple[float, float]], k: int) -> float:
    """By bisection: the sum falls from the number of bells to 0 as t rises."""
    low = min(expected - _FAR * sigma for expected, sigma in bells)
    high = max(expected + _FAR * sigma for expected, sigma in bells)
    scaled = [(expected, 1 / (sigma * _ROOT2)) for expected, sigma in bells]
    while high - low > _CLOSE:
        t = (low + high) / 2
        if math.fsum([math.erfc((t - expected) * scale) for expected, scale in scaled]) > 2 * k:
            low = t
        else:
            high = t
    return (low + high) / 2
