"""How the command line finds the service."""

import os
import stat
from pathlib import Path

import pytest

from app.errors import ConfigError
from app.instance import (
    announce,
    announced,
    ensure_directory,
    ensure_home,
    find_service,
    make_private,
    presence_at,
    withdraw,
)
from tests.fakes.http_server import answering


def test_a_service_that_confirms_is_found(tmp_path: Path) -> None:
    """The file names it, and it answers."""
    with answering(204, b"") as url:
        presence = presence_at(url)
        assert not announced(tmp_path / "home")
        assert announce(tmp_path / "home", presence) == ""
        assert announced(tmp_path / "home")
        assert find_service(tmp_path / "home") == presence


def test_only_the_owner_can_read_the_token(tmp_path: Path) -> None:
    """Who can read the file may write to the index."""
    announce(tmp_path, presence_at("http://127.0.0.1:1"))
    assert stat.S_IMODE((tmp_path / "service.json").stat().st_mode) == 0o600


def test_a_home_that_takes_no_file_keeps_nobody_from_serving(tmp_path: Path) -> None:
    """Only the command line does not find the service, and the reason is told."""
    (tmp_path / "file").touch()
    assert announce(tmp_path / "file" / "home", presence_at("http://127.0.0.1:1")) == "Not a directory"


def modes(home: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in (home, *home.iterdir())}


@pytest.mark.parametrize("shared", [False, True])
def test_a_home_of_an_earlier_version_is_closed_to_others(tmp_path: Path, shared: bool) -> None:
    """What is ours in it; the directory itself, too, unless it holds something else."""
    home = tmp_path / "home"
    for directory in ("index", "quarantine"):
        (home / directory).mkdir(parents=True)
        (home / directory).chmod(0o755)
    for file in ("manifest.sqlite3-wal", "trust.json", "lock"):
        (home / file).touch(0o644)
    if shared:
        (home / "my letters").mkdir(0o755)
    home.chmod(0o755)
    make_private(home)
    expected = {"home": 0o700, "index": 0o700, "quarantine": 0o700}
    expected |= {"manifest.sqlite3-wal": 0o600, "trust.json": 0o600, "lock": 0o600}
    assert modes(home) == ({**expected, "home": 0o755, "my letters": 0o755} if shared else expected)


def test_a_home_that_was_removed_is_made_again(tmp_path: Path) -> None:
    """By the next service of the same process, too."""
    home = tmp_path / "home"
    for _ in range(2):
        ensure_home(home)
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        home.rmdir()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_is_read_only_is_named(tmp_path: Path) -> None:
    """One line with the setting, before anything is opened."""
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="is not writable; WINNOW_HOME names another place"):
        ensure_directory(tmp_path)
    tmp_path.chmod(0o700)


def test_a_dead_service_is_not_found(tmp_path: Path) -> None:
    """A kill leaves the file behind."""
    with answering(204, b"") as url:
        announce(tmp_path, presence_at(url))
    assert find_service(tmp_path) is None


def test_another_program_on_its_port_is_not_taken_for_it(tmp_path: Path) -> None:
    """It does not know the token."""
    with answering(403) as url:
        announce(tmp_path, presence_at(url))
        assert find_service(tmp_path) is None


def test_a_damaged_file_is_no_service(tmp_path: Path) -> None:
    """Nor is a missing one."""
    assert find_service(tmp_path) is None
    (tmp_path / "service.json").write_bytes(b'{"url": "\xff')
    assert find_service(tmp_path) is None


def test_a_service_withdraws_only_its_own_file(tmp_path: Path) -> None:
    """A later one may have written its own."""
    first, second = presence_at("http://127.0.0.1:1"), presence_at("http://127.0.0.1:2")
    announce(tmp_path, second)
    withdraw(tmp_path, first)
    assert (tmp_path / "service.json").exists()
    withdraw(tmp_path, second)
    assert not (tmp_path / "service.json").exists()
