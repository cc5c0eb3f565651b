"""Calibration of scores as probabilities: fits it, measures it, and stores the fits in a file."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.errors import ConfigError, InvalidRequest
from app.ranking.models import Calibration
from app.ranking.scoring import score_of

Vector = NDArray[np.float64]

BINS = 10

_STEPS = 30
_HALVINGS = 12
_RIDGE = 1e-12
_FLAT = 1e-9  # deviation of z
_MIN_CHANCE = 1e-15  # keeps the log loss finite


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """The passages with a score in [low, high): how many, their mean score, and the share that is relevant."""

    low: float
    high: float
    n: int
    score: float
    relevant: float


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """A calibration, and the data it was fitted on.

    `ece_before`, `ece_after`: calibration error in [0,1] without and with it. `log_loss` with it, in nats per passage.
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
        """The part that scoring needs."""
        return Calibration(slope=self.slope, offset=self.offset)


def fit_calibration(zs: Sequence[float], relevant: Sequence[bool], data_hash: str) -> Fit:
    """The fit of finite z to whether their passages are relevant.

    Raises InvalidRequest when one of the two classes is missing, and when a higher z does not go with more relevance:
    such a fit would turn the ranking around.
    """
    observations = sorted(zip(zs, relevant, strict=True))
    zs, relevant = [z for z, _ in observations], [label for _, label in observations]
    positives = sum(relevant)
    if not 0 < positives < len(zs):
        raise InvalidRequest(f"a calibration needs relevant and other passages: {positives} of {len(zs)} are relevant")
    fitted = _platt(np.array(zs, dtype=float), np.array(relevant, dtype=bool))
    if not fitted.slope > 0:
        raise InvalidRequest(
            "the model's grades say nothing about relevance here: a higher one is no likelier relevant"
        )
    before, after = ([score_of(z, calibration) for z in zs] for calibration in (Calibration(), fitted))
    return Fit(
        slope=fitted.slope,
        offset=fitted.offset,
        data_hash=data_hash,
        n=len(zs),
        positives=positives,
        ece_before=calibration_error(reliability(before, relevant)),
        ece_after=calibration_error(reliability(after, relevant)),
        log_loss=log_loss(after, relevant),
    )


def judgements_hash(judgements: Iterable[tuple[str, str, int]]) -> str:
    """sha256 of (query id, passage id, grade), in any order."""
    return hashlib.sha256(msgspec.json.encode(sorted(judgements))).hexdigest()


def reliability(scores: Sequence[float], relevant: Sequence[bool], bins: int = BINS) -> tuple[Bin, ...]:
    """Equal bins over [0,1], the last with its upper end; empty ones are left out."""
    members: dict[int, list[tuple[float, bool]]] = {}
    for score, label in zip(scores, relevant, strict=True):
        members.setdefault(min(int(score * bins), bins - 1), []).append((score, label))
    return tuple(
        Bin(
            low=at / bins,
            high=(at + 1) / bins,
            n=len(inside),
            score=math.fsum(score for score, _ in inside) / len(inside),
            relevant=sum(label for _, label in inside) / len(inside),
        )
        for at, inside in sorted(members.items())
    )


def calibration_error(bins: Sequence[Bin]) -> float:
    """The mean of |share relevant - score| over the passages (Naeini et al., 2015); 0 of none."""
    return math.fsum(bin.n * abs(bin.relevant - bin.score) for bin in bins) / max(sum(bin.n for bin in bins), 1)


def log_loss(scores: Sequence[float], relevant: Sequence[bool]) -> float:
    """In nats per passage; 0 of none."""
    likely = (score if label else 1 - score for score, label in zip(scores, relevant, strict=True))
    return -math.fsum(math.log(max(chance, _MIN_CHANCE)) for chance in likely) / max(len(scores), 1)


def _platt(zs: Vector, relevant: NDArray[np.bool_]) -> Calibration:
    """Fitted on standardised z, which keeps Newton's equations well-behaved; slope 0 when all z are equal."""
    mean, deviation = float(zs.mean()), float(zs.std())
    if deviation < _FLAT:
        return Calibration(slope=0.0)
    positives = int(relevant.sum())
    targets = np.where(relevant, (positives + 1) / (positives + 2), 1 / (len(zs) - positives + 2))
    slope, offset = _newton(np.column_stack([(zs - mean) / deviation, np.ones(len(zs))]), targets)
    return Calibration(slope=slope / deviation, offset=offset - slope * mean / deviation)


def _newton(features: Vector, targets: Vector) -> tuple[float, float]:
    """Newton's method from the base rate; each step is halved as often as lowers the cross-entropy most."""
    weights = np.array([0.0, math.log(targets.mean() / (1 - targets.mean()))])
    for _ in range(_STEPS):
        chances = _sigmoid(features @ weights)
        hessian = (features.T * (chances * (1 - chances))) @ features + _RIDGE * np.eye(2)
        step = np.linalg.solve(hessian, features.T @ (chances - targets))
        moves = [weights, *(weights - step / 2**halved for halved in range(_HALVINGS))]
        weights = min(moves, key=lambda moved: _cross_entropy(features, targets, moved))
    return float(weights[0]), float(weights[1])


def _cross_entropy(features: Vector, targets: Vector, weights: Vector) -> float:
    logits = features @ weights
    return float(np.sum(np.logaddexp(0, logits) - targets * logits))


def _sigmoid(logits: Vector) -> Vector:
    return np.exp(-np.logaddexp(0, -logits))


FITS_FILE = "calibration.json"

Fits = Mapping[tuple[str, str], Calibration]
"""By model and prompt version."""


class StoredFit(msgspec.Struct, frozen=True, kw_only=True):
    """A fit, and the model and prompts that it holds for."""

    model: str
    prompt_version: str
    fit: Fit


def read_fits(path: Path) -> tuple[StoredFit, ...]:
    """() when there is no file. Raises ConfigError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[StoredFit, ...])
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except (OSError, msgspec.MsgspecError) as exc:
        raise ConfigError(f"{path} cannot be read as calibrations; delete it, and fit them again") from exc


def store_fit(path: Path, fit: StoredFit) -> None:
    """Store it in place of an earlier fit of the same model and prompts, atomically. Raises ConfigError."""
    others = [stored for stored in read_fits(path) if owner_of(stored) != owner_of(fit)]
    draft = path.with_name(path.name + ".new")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode([*others, fit])))
    draft.replace(path)


def calibrations(path: Path) -> Fits:
    """The calibrations in the file. Raises ConfigError."""
    return {owner_of(stored): stored.fit.calibration for stored in read_fits(path)}


def owner_of(stored: StoredFit) -> tuple[str, str]:
    """The model and the prompts that a fit holds for."""
    return stored.model, stored.prompt_version
