"""The second look: some passages side by side in one prompt. Pure.

A model that tells log-probabilities names the single best passage by its letter, for the window forward and reversed.
With f_i and r_i passage i's letter in either (in log-shares of the letters, minus their mean),

    u_i = (f_i + r_i) / 2, within [-FARTHEST, FARTHEST];   z_i += DUEL_WEIGHT * u_i

A letter's place adds a bias b_j to passage j from the front, in the other order b_(n+1-j): in u the part of b by which
front and back differ is gone.

A judge orders the window; its order and the one so far are merged by reciprocal rank,
sum 1 / (RANK_CONSTANT + rank), and the window's own z are dealt out again in that order.
"""

import math
from collections.abc import Mapping, Sequence

from app.backends.ports import LabelScores
from app.ranking.grading import LEAST_MASS, label_mass, log_evidence, softmax
from app.ranking.settling import RISK, phi, sigma_of, uncertain
from app.ranking.shapes import Grade

WINDOW = 15
DUEL_WEIGHT = 0.5
FARTHEST = 3.0
RANK_CONSTANT = 60
"""Cormack et al., "Reciprocal Rank Fusion", 2009."""

_APART = 1e-9


def window_of(order: Sequence[str], grades: Mapping[str, Grade], k: int, size: int = WINDOW) -> list[str]:
    """At most `size` ids of `order` (the read ones, best first) that are worth a second look, in that order.

    Half of them are contenders for the first place, the rest are open around the cut; where one side has too few, the
    other has more. Empty when fewer than two are left: then everything is settled.
    """
    ...


def contenders(order: Sequence[str], grades: Mapping[str, Grade], risk: float = RISK) -> list[str]:
    """The leader and all that may be better than it with a probability above `risk`, the likeliest first."""
    ...


def preferences(forward: LabelScores | None, backward: LabelScores | None) -> tuple[float, ...] | None:
    """u of each passage, in the forward order. `backward` has the letters of the reversed window.

    None, since the place's bias cannot be told from the passage, when either order is missing or its letters have a
    mass below LEAST_MASS.
    """
    ...


def duelled(zs: Mapping[str, float], window: Sequence[str], preferences: Sequence[float]) -> dict[str, float]:
    """All z, those of the window moved by the preferences."""
    ...


def merged(order: Sequence[str], judged: Sequence[str]) -> list[str]:
    """Two orders of the same ids as one by reciprocal rank; ties as the judge has them."""
    ...


def redealt(zs: Mapping[str, float], window: Sequence[str]) -> dict[str, float]:
    """All z, those of the window dealt out so that its order is theirs (each by 1e-9 below the one before at least)."""
    ...
