import errno
import os
import shutil
from pathlib import Path

import pytest

from indexing.disk import MB, DiskGuard, disk_error
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
