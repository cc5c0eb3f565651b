"""What a model's log-probabilities of labels say. Pure."""

import math
from collections.abc import Sequence

from app.backends.base import LabelScores

LEAST_MASS = 0.3
"""Below this the model wanted to say something else than a label."""

_LEAST_MASS_LEFT = 1e-9
_LEAST = math.log(_LEAST_MASS_LEFT)


def log_evidence(scores: LabelScores) -> tuple[float, ...] | None:
    """The labels' log-probabilities in [ln 1e-9, 0], all finite. None when not one of them was told.

    A label that was not told is below `floor`, and all such labels together have no more than what the others left of
    the probability: it is put at the lower of `floor` and an even share of that.
    """
    return mass_and_evidence(scores)[1]


def meant_evidence(scores: LabelScores | None) -> tuple[float, ...] | None:
    """`log_evidence`; None also of no scores, and where the model wanted to say something else than a label."""
    mass, evidence = mass_and_evidence(scores) if scores else (0.0, None)
    return evidence if mass >= LEAST_MASS else None


def mass_and_evidence(scores: LabelScores) -> tuple[float, tuple[float, ...] | None]:
    """The probability in [0,1] that the first token is a label, as far as it was told; and `log_evidence`."""
    told = _told(scores)
    mass = min(1.0, sum(math.exp(logprob) for logprob in told if logprob is not None))
    missing = told.count(None)
    if missing == len(told):
        return mass, None
    left = (1.0 - mass) / missing if missing else 0.0
    bound = min(math.log(max(left, _LEAST_MASS_LEFT)), scores.floor if math.isfinite(scores.floor) else 0.0)
    return mass, tuple(max(_LEAST, bound) if logprob is None else logprob for logprob in told)


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
