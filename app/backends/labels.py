"""What a model's log-probabilities of labels say. Pure."""

import math
from collections.abc import Sequence

from app.backends.ports import LabelScores

LEAST_MASS = 0.3
"""Below this the model wanted to say something else than a label."""

_LEAST_MASS_LEFT = 1e-9
_LEAST = math.log(_LEAST_MASS_LEFT)


def label_mass(scores: LabelScores) -> float:
    """The probability that the first token is one of the labels, as far as it was told; in [0,1]."""
    return _mass(_told(scores))


def log_evidence(scores: LabelScores) -> tuple[float, ...] | None:
    """The labels' log-probabilities in [ln 1e-9, 0], all finite. None when not one of them was told.

    A label that was not told is below `floor`, and all such labels together have no more than what the others left of
    the probability: it is put at the lower of `floor` and an even share of that.
    """
    told = _told(scores)
    missing = told.count(None)
    if missing == len(told):
        return None
    left = (1.0 - _mass(told)) / missing if missing else 0.0
    bound = min(math.log(max(left, _LEAST_MASS_LEFT)), scores.floor if math.isfinite(scores.floor) else 0.0)
    return tuple(max(_LEAST, bound) if logprob is None else logprob for logprob in told)


def softmax(logs: Sequence[float]) -> list[float]:
    """Probabilities that sum to 1, of finite logs."""
    top = max(logs)
    weights = [math.exp(log - top) for log in logs]
    whole = sum(weights)
    return [weight / whole for weight in weights]


def _told(scores: LabelScores) -> list[float | None]:
    """In [ln 1e-9, 0]; servers round, and a sum over spellings may exceed 1 by a hair."""
    return [
        None if logprob is None or not math.isfinite(logprob) else max(_LEAST, min(0.0, logprob))
        for logprob in scores.logprobs
    ]


def _mass(told: Sequence[float | None]) -> float:
    return min(1.0, sum(math.exp(logprob) for logprob in told if logprob is not None))
