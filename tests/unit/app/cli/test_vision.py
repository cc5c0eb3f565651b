"""`winnow vision`: what is sent of files and URLs."""

from pathlib import Path

import pytest
import rich_click as click

from app.cli.vision import picture_of


def test_files_and_urls_are_sent_as_they_are(tmp_path: Path) -> None:
    """The service fetches URLs by its rules; a file is read where the command runs."""
    (tmp_path / "a.png").write_bytes(b"hello")
    assert picture_of(str(tmp_path / "a.png")) == ("files", b"hello")
    assert picture_of("HTTPS://pictures.example/a.png") == ("image_url", "HTTPS://pictures.example/a.png")


@pytest.mark.parametrize("name", ["missing.png", ".", "file:///etc/passwd"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Wrong usage, with the name and the reason."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(click.UsageError, match="cannot be read: "):
        picture_of(name)
