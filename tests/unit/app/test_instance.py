"""How the command line finds the service."""

import stat
from pathlib import Path

from app.instance import announce, find_service, withdraw
from tests.fakes.http_server import answering


def test_a_service_that_confirms_is_found(tmp_path: Path) -> None:
    """The file names it, and it answers."""
    with answering(204, b"") as url:
        presence = announce(tmp_path / "home", url)
        assert find_service(tmp_path / "home") == presence


def test_only_the_owner_can_read_the_token(tmp_path: Path) -> None:
    """Who can read the file may write to the index."""
    announce(tmp_path, "http://127.0.0.1:1")
    assert stat.S_IMODE((tmp_path / "service.json").stat().st_mode) == 0o600


def test_a_dead_service_is_not_found(tmp_path: Path) -> None:
    """A kill leaves the file behind."""
    with answering(204, b"") as url:
        announce(tmp_path, url)
    assert find_service(tmp_path) is None


def test_another_program_on_its_port_is_not_taken_for_it(tmp_path: Path) -> None:
    """It does not know the token."""
    with answering(403) as url:
        announce(tmp_path, url)
        assert find_service(tmp_path) is None


def test_a_damaged_file_is_no_service(tmp_path: Path) -> None:
    """Nor is a missing one."""
    assert find_service(tmp_path) is None
    (tmp_path / "service.json").write_bytes(b'{"url": "\xff')
    assert find_service(tmp_path) is None


def test_a_service_withdraws_only_its_own_file(tmp_path: Path) -> None:
    """A later one may have written its own."""
    first, second = announce(tmp_path, "http://127.0.0.1:1"), announce(tmp_path, "http://127.0.0.1:2")
    withdraw(tmp_path, first)
    assert (tmp_path / "service.json").exists()
    withdraw(tmp_path, second)
    assert not (tmp_path / "service.json").exists()
