import errno
import os
import shutil
from pathlib import Path

import pytest

from indexing.disk import MB, DiskGuard, copy_with_holes, disk_error
from indexing.errors import DiskFull, StoreUnavailable


def guard(directory: Path, *, kept: float) -> DiskGuard:
    """Its reserve is so many times the space that is free."""
    return DiskGuard(directory, int(kept * shutil.disk_usage(directory).free))


def test_writing_is_refused_below_the_reserve(tmp_path: Path) -> None:
    """The error says how much is free and kept, what was needed, and the setting."""
    guard(tmp_path, kept=0.5).check()
    with pytest.raises(DiskFull, match=r"MB are free, .* MB are kept as a reserve; .*disk_reserve_mb"):
        guard(tmp_path, kept=1.5).check()
    with pytest.raises(DiskFull, match="and this needs"):
        guard(tmp_path, kept=0.5).check(shutil.disk_usage(tmp_path).free)


def test_deleting_goes_on_in_the_reserve(tmp_path: Path) -> None:
    """It makes room; only where next to nothing is left it is refused, too."""
    guard(tmp_path, kept=2).check_deletion()
    with pytest.raises(DiskFull):
        guard(tmp_path, kept=8).check_deletion()


def test_a_warning_comes_before_the_refusal(tmp_path: Path) -> None:
    """Below twice the reserve; without a reserve never."""
    assert guard(tmp_path, kept=0.2).warning() == ""
    assert "will not be written to below" in guard(tmp_path, kept=0.7).warning()
    assert "is not written to below" in guard(tmp_path, kept=1.5).warning()
    assert DiskGuard(tmp_path, 0).warning() == ""


def test_a_directory_need_not_exist(tmp_path: Path) -> None:
    """The nearest one that does is on the same disk."""
    DiskGuard(tmp_path / "not" / "yet", MB).check()


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EROFS, StoreUnavailable)]
)
def test_a_full_disk_is_told_from_a_failing_one(code: int, kind: type[Exception]) -> None:
    """A spent quota is a full disk; the error says what failed, and why."""
    error = disk_error(OSError(code, os.strerror(code)), "the upload cannot be kept")
    assert type(error) is kind
    assert str(error).startswith("the upload cannot be kept: ")


@pytest.mark.parametrize("ends_in_a_hole", [False, True])
def test_a_copy_has_the_holes_of_its_original(tmp_path: Path, ends_in_a_hole: bool) -> None:
    """The same bytes, rights and length; what was never written takes no space."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    with original.open("wb") as file:
        file.write(b"begins" * 5_000)
        file.seek(16 * MB)
        file.write(b"goes on" * 300_000)
        file.truncate((64 if ends_in_a_hole else 18) * MB)
    original.chmod(0o600)
    copy_with_holes(str(original), str(copy))
    assert copy.read_bytes() == original.read_bytes()
    assert copy.stat().st_mode == original.stat().st_mode
    assert copy.stat().st_blocks <= original.stat().st_blocks + 16


@pytest.mark.parametrize("size", [0, 3 * MB])
def test_a_file_of_nothing_but_a_hole_is_copied(tmp_path: Path, size: int) -> None:
    """And an empty one."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.touch()
    os.truncate(original, size)
    copy_with_holes(str(original), str(copy))
    assert (copy.stat().st_size, copy.stat().st_blocks) == (size, original.stat().st_blocks)
