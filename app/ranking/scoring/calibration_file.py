"""The calibrations that were fitted, in a file of the home: one for each model and version of the prompts."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from app.errors import ConfigError
from app.ranking.models import Calibration
from app.ranking.scoring.calibration import Fit

FITS_FILE = "calibration.json"

Fits = Mapping[tuple[str, str], Calibration]
"""By model and prompt version."""


class KeptFit(msgspec.Struct, frozen=True, kw_only=True):
    """A fit and whose it is."""

    model: str
    prompt_version: str
    fit: Fit


def read_fits(path: Path) -> tuple[KeptFit, ...]:
    """() when there is no file. Raises ConfigError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[KeptFit, ...])
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.MsgspecError) as exc:
        raise ConfigError(f"{path} cannot be read as calibrations; delete it, and fit them anew") from exc


def keep_fit(path: Path, fit: KeptFit) -> None:
    """In place of an earlier one of the same model and prompts; whole or not at all. Raises ConfigError."""
    others = [kept for kept in read_fits(path) if _whose(kept) != _whose(fit)]
    draft = path.with_name(path.name + ".new")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode([*others, fit])))
    draft.replace(path)


def calibrations(path: Path) -> Fits:
    """What the file holds. Raises ConfigError."""
    return {_whose(kept): kept.fit.calibration for kept in read_fits(path)}


def _whose(kept: KeptFit) -> tuple[str, str]:
    return kept.model, kept.prompt_version
