"""Whose place in the top k is still open, and whether reading on can change it. Pure.

A passage's true grade is taken as normal around E with sigma = max(sqrt(V), LEAST_SIGMA). The cut t is where

    sum_i Phi((E_i - t) / sigma_i) = k

and Phi((E_i - t) / sigma_i) is the probability that passage i belongs to the top k. One that was not read has
E ~ N(m(prior), spread^2) (see priors.py), and belongs to it with probability Phi((m(prior) - t) / spread).
"""

import math
from collections.abc import Mapping

from app.ranking.priors import PriorModel
from app.ranking.shapes import Grade

LEAST_SIGMA = 0.02
RISK = 0.02
"""What is less likely than this does not happen; what is likelier than 1 - RISK is settled."""

_FAR = 40.0  # sigmas: Phi is 0 or 1 in floating point
_HALVINGS = 64


def cut_of(grades: Mapping[str, Grade], k: int) -> float | None:
    """The cut t, by bisection. None when there is nothing to cut: no more than k grades, or k < 1."""
    if not 0 < k < len(grades):
        return None
    bells = [(grade.expected, sigma_of(grade)) for grade in grades.values()]
    low = min(expected - _FAR * sigma for expected, sigma in bells)
    high = max(expected + _FAR * sigma for expected, sigma in bells)
    for _ in range(_HALVINGS):
        t = (low + high) / 2
        if math.fsum(phi((expected - t) / sigma) for expected, sigma in bells) > k:
            low = t
        else:
            high = t
    return (low + high) / 2


def memberships(grades: Mapping[str, Grade], k: int) -> dict[str, float]:
    """The probability of each to belong to the top k."""
    t = cut_of(grades, k)
    if t is None:
        return dict.fromkeys(grades, 1.0 if k > 0 else 0.0)
    return {key: phi((grade.expected - t) / sigma_of(grade)) for key, grade in grades.items()}


def uncertain(grades: Mapping[str, Grade], k: int, risk: float = RISK) -> list[str]:
    """The ids whose membership is neither sure nor out of the question, the most open first, ties by id."""
    chances = memberships(grades, k)
    still_open = [key for key, chance in chances.items() if risk < chance < 1 - risk]
    return sorted(still_open, key=lambda key: (abs(chances[key] - 0.5), key))


def worth_reading(
    unread: Mapping[str, float], model: PriorModel, grades: Mapping[str, Grade], k: int, risk: float = RISK
) -> list[str]:
    """Those of the unread (id -> prior) that could still enter the top k, the likeliest first, ties by id.

    All of them as long as fewer than k are read.
    """
    t = cut_of(grades, k)
    if t is None and len(grades) >= k:
        t = min((grade.expected for grade in grades.values()), default=math.inf)
    chances = {
        key: 1.0 if t is None else phi((model.expected(prior) - t) / model.spread) for key, prior in unread.items()
    }
    return sorted((key for key, chance in chances.items() if chance > risk), key=lambda key: (-unread[key], key))


def phi(x: float) -> float:
    """The standard normal distribution function."""
    return math.erfc(-x / math.sqrt(2)) / 2


def sigma_of(grade: Grade) -> float:
    """A grade's standard deviation, never quite 0."""
    return max(math.sqrt(max(0.0, grade.variance)), LEAST_SIGMA)
