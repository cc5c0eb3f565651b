"""A grade and a prior become one absolute score. Pure.

    z = logit(LEAST + (1 - 2 LEAST) E) + PRIOR_WEIGHT * prior_z;   score = sigmoid(slope * z + offset)

E is squeezed, not clipped, so that a better grade is always a better z. Nothing is scaled by the query's own best and
worst (no min-max): a lone weak passage keeps its low score. Passages are ordered by z, since scores near 1 may be
equal in floating point where z is not.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from app.ranking.models import Calibration, Spread
from app.ranking.scoring.priors import PriorModel, clip

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
