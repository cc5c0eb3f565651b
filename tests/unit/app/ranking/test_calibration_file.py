"""The file of fitted calibrations."""

from pathlib import Path

import pytest

from app.errors import ConfigError
from app.ranking.calibration import FITS_FILE, Fit, StoredFit, calibrations, read_fits, store_fit
from app.ranking.models import Calibration


def kept(model: str, version: str = "1", slope: float = 2.0) -> StoredFit:
    fit = Fit(slope=slope, offset=-0.5, data_hash="abc", n=10, positives=3, ece_before=0.2, ece_after=0.1, log_loss=0.4)
    return StoredFit(model=model, prompt_version=version, fit=fit)


def test_there_may_be_none(tmp_path: Path) -> None:
    """No file is no calibration."""
    assert calibrations(tmp_path / FITS_FILE) == {}


def test_a_fit_is_kept_for_its_model_and_prompts(tmp_path: Path) -> None:
    """A new one replaces that of the same model and prompts only, and its data's hash and error are kept with it."""
    path = tmp_path / FITS_FILE
    for one in (kept("gemma"), kept("gemma", "2"), kept("flash"), kept("gemma", slope=3.0)):
        store_fit(path, one)
    assert calibrations(path) == {
        ("gemma", "2"): Calibration(slope=2.0, offset=-0.5),
        ("flash", "1"): Calibration(slope=2.0, offset=-0.5),
        ("gemma", "1"): Calibration(slope=3.0, offset=-0.5),
    }
    assert {(one.fit.data_hash, one.fit.ece_after) for one in read_fits(path)} == {("abc", 0.1)}


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """It is not guessed at."""
    (tmp_path / FITS_FILE).write_text("{")
    with pytest.raises(ConfigError, match=FITS_FILE):
        calibrations(tmp_path / FITS_FILE)
