"""Fits the calibration of one model and prompt version, and says how good it is. Pure.

Platt scaling: slope A and offset B minimise the cross-entropy of sigmoid(A z + B) against targets drawn in from 0 and 1
by the number of examples, (n+ + 1) / (n+ + 2) and 1 / (n- + 2) (Platt 1999), by Newton's method with backtracking (Lin,
Lin and Weng, 2007).
"""

from collections.abc import Iterable, Sequence

import msgspec

from app.ranking.shapes import Calibration


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """Passages with a score in [low, high): how many, their mean score, and the share that is relevant."""

    low: float
    high: float
    n: int
    score: float
    relevant: float


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """A calibration and where it comes from. `ece_*`: expected calibration error in [0,1], before is without a fit.

    `log_loss` in nats per passage, after.
    """

    slope: float
    offset: float
    data_hash: str
    n: int
    positives: int
    ece_before: float
    ece_after: float
    log_loss: float

    @property
    def calibration(self) -> Calibration:
        """What the ranking needs of it."""
        return Calibration(slope=self.slope, offset=self.offset)


def fit_calibration(zs: Sequence[float], relevant: Sequence[bool], data_hash: str) -> Fit:
    """Raises InvalidRequest when only one class is there, or when more relevant passages do not have a higher z."""
    ...


def judgements_hash(judgements: Iterable[tuple[str, str, int]]) -> str:
    """sha256 of (query id, passage id, grade), in any order."""
    ...


def reliability(scores: Sequence[float], relevant: Sequence[bool], bins: int = 10) -> tuple[Bin, ...]:
    """Equal bins over [0,1], the last with its upper end; empty ones are left out."""
    ...


def calibration_error(bins: Iterable[Bin]) -> float:
    """The mean of |share relevant - score| over the passages (Naeini et al., 2015)."""
    ...
