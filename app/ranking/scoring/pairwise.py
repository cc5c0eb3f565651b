"""The second look: some passages side by side in one prompt. Pure.

A model that tells log-probabilities names the single best passage by its letter, for the window forward and reversed.
With f_i and r_i the log-probabilities of passage i's letter in either order, less the mean of all letters there,

    u_i = (f_i + r_i) / 2, within [-FARTHEST, FARTHEST];   z_i += DUEL_WEIGHT * u_i

A letter's place j of n adds a bias b_j in one order and b_(n+1-j) in the other: whatever front and back differ by is
the same for all passages in their mean, and falls out.

A judge orders the window instead; its order and the one so far are merged by reciprocal rank,
sum 1 / (RANK_CONSTANT + rank), and the window's own z are dealt out again in that order.
"""

import math
from collections.abc import Mapping, Sequence

from app.backends.base import LabelScores
from app.backends.logprobs import meant_evidence
from app.ranking.models import Grade
from app.ranking.scoring.early_stopping import RISK, Settlement, phi, sigma_of

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
