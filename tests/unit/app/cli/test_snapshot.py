"""What `winnow snapshot` sends to the service, and prints."""

from pathlib import Path

import click
import pytest

from app.cli.snapshot import _absolute


def test_a_slash_at_the_end_names_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is kept when the path is made absolute, and given to several collections; a file cannot take these."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert _absolute("new/", directory=False) == f"{tmp_path}/new/"
    assert _absolute("new", directory=False) == f"{tmp_path}/new"
    assert _absolute("new", directory=True) == f"{tmp_path}/new/"
    with pytest.raises(click.UsageError):
        _absolute("file", directory=True)
