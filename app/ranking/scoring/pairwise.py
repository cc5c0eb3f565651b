"""Which candidates are still open at the top, and what comparisons of pairs say of them. Pure."""

import math
from collections.abc import Mapping, Sequence

import msgspec

from app.backends.base import LabelScores, meant_evidence
from app.ranking.models import Grade
from app.ranking.scoring.fusion import PriorModel

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


WINDOW = 10
DUEL_WEIGHT = 0.5
FARTHEST = 3.0

RANK_CONSTANT = 60
"""Cormack et al., "Reciprocal Rank Fusion", 2009."""

_APART = 1e-9


def window_of(
    order: Sequence[str], grades: Mapping[str, Grade], settlement: Settlement, size: int = WINDOW
) -> list[str]:
    """At most `size` ids of `order` (those with a grade, best first) that are worth a second look, in that order.

    Half of them are contenders for the first place, the rest are open around the cut; where one side has too few, the
    other has more. Empty when fewer than two are left: then everything is settled.
    """
    top = contenders(order, grades)
    around = settlement.uncertain()
    half = (size + 1) // 2
    chosen = list(dict.fromkeys([*top[:half], *around, *top[half:]]))[:size]
    return [key for key in order if key in set(chosen)] if len(chosen) > 1 else []


def contenders(order: Sequence[str], grades: Mapping[str, Grade], risk: float = RISK) -> list[str]:
    """The leader and all that are better than it with a probability above `risk`, the likeliest first.

    P(i better than the leader) = Phi((E_i - E_1) / sqrt(sigma_i^2 + sigma_1^2)). Empty when there is no rival.
    """
    if not order:
        return []
    leader = grades[order[0]]
    chances = {key: _beats(grades[key], leader) for key in order[1:]}
    rivals = sorted((key for key, chance in chances.items() if chance > risk), key=lambda key: -chances[key])
    return [order[0], *rivals] if rivals else []


def preferences(forward: LabelScores | None, backward: LabelScores | None) -> tuple[float, ...] | None:
    """u of each passage of the window, in its forward order. `backward` has the letters of the reversed window.

    None when an order is missing or its letters have a mass below LEAST_MASS: one order alone cannot tell the passage
    from its place.
    """
    one, other = _centred(forward), _centred(backward)
    if one is None or other is None:
        return None
    return tuple(max(-FARTHEST, min(FARTHEST, (f + r) / 2)) for f, r in zip(one, reversed(other), strict=True))


def duelled(zs: Mapping[str, float], window: Sequence[str], preferences: Sequence[float]) -> dict[str, float]:
    """All z, those of the window moved by its preferences."""
    return {**zs, **{key: zs[key] + DUEL_WEIGHT * u for key, u in zip(window, preferences, strict=True)}}


def merged(order: Sequence[str], judged: Sequence[str]) -> list[str]:
    """Two orders of the same ids as one, by reciprocal rank; ties as the judge has them."""
    rank = {key: at for at, key in enumerate(order, start=1)}
    points = {key: 1 / (RANK_CONSTANT + at) + 1 / (RANK_CONSTANT + rank[key]) for at, key in enumerate(judged, start=1)}
    return sorted(judged, key=lambda key: -points[key])


def redealt(zs: Mapping[str, float], window: Sequence[str]) -> dict[str, float]:
    """All z, those of the window dealt out so that they fall in its order, each by at least 1e-9."""
    dealt: dict[str, float] = {}
    above = math.inf
    for key, z in zip(window, sorted((zs[key] for key in window), reverse=True), strict=True):
        dealt[key] = above = min(z, above - _APART)
    return {**zs, **dealt}


def _beats(grade: Grade, leader: Grade) -> float:
    return phi((grade.expected - leader.expected) / math.hypot(sigma_of(grade), sigma_of(leader)))


def _centred(scores: LabelScores | None) -> list[float] | None:
    evidence = meant_evidence(scores)
    if evidence is None:
        return None
    mean = math.fsum(evidence) / len(evidence)
    return [log - mean for log in evidence]
