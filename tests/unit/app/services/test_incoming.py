"""Large files of uploads while somebody is at work on them."""

from pathlib import Path

import pytest

from app.services.incoming import Incoming, sweep
from indexing.disk import DiskGuard
from indexing.errors import DiskFull, StoreUnavailable

pytestmark = pytest.mark.anyio


def incoming_of(parent: Path, reserve: int = 0) -> Incoming:
    return Incoming(parent, DiskGuard(parent, reserve))


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize("error", [None, KeyError()])
async def test_files_are_gone_at_the_end(tmp_path: Path, error: Exception | None) -> None:
    """However the block ends; one that was moved away stays, and where there was none nothing is made."""
    try:
        async with incoming_of(tmp_path / "jobs") as incoming:
            assert not (tmp_path / "jobs").exists()
            first, second = incoming.new_file(), incoming.new_file()
            for piece in (b"a", b"b"):
                incoming.append(first, piece)
            incoming.append(second, b"c")
            assert (first.read_bytes(), second.read_bytes()) == (b"ab", b"c")
            assert first.stat().st_mode & 0o077 == first.parent.stat().st_mode & 0o077 == 0
            second.replace(tmp_path / "kept")
            if error:
                raise error
    except KeyError:
        pass
    assert names_in(tmp_path / "jobs") == set()
    assert (tmp_path / "kept").read_bytes() == b"c"


async def test_what_a_killed_process_left_is_deleted(tmp_path: Path) -> None:
    """And nothing of an upload that is arriving, of this process or another."""
    async with incoming_of(tmp_path) as incoming:
        path = incoming.new_file()
        left = tmp_path / "incoming-left"
        left.mkdir()
        (left / "lock").write_text("1")
        (left / "1").write_bytes(b"half of a")
        (tmp_path / "other").mkdir()
        sweep(tmp_path)
        assert path.exists()
        assert names_in(tmp_path) == {path.parent.name, "other"}


async def test_a_full_disk_takes_nothing(tmp_path: Path) -> None:
    """Below the reserve: neither a body whose length is told, nor a file."""
    async with incoming_of(tmp_path, 10**18) as incoming:
        with pytest.raises(DiskFull):
            incoming.check(1)
        with pytest.raises(DiskFull):
            incoming.new_file()
    async with incoming_of(tmp_path) as incoming:
        path = incoming.new_file()
        path.unlink()
        path.mkdir()
        with pytest.raises(StoreUnavailable, match="cannot be kept in"):
            incoming.append(path, b"a")
    assert names_in(tmp_path) == set()
