"""What the embedded engine raises, as errors of ours."""

import errno
import os

import pytest

from indexing.errors import CollectionDamaged
from indexing.store.edge_errors import shortage_in


@pytest.mark.parametrize(
    ("number", "fix"), [(errno.EMFILE, "ulimit -n"), (errno.ENFILE, "fs.file-max"), (errno.ENOMEM, "vm.max_map_count")]
)
def test_a_shortage_names_what_to_raise(number: int, fix: str) -> None:
    """That of the process and that of the system begin with the same words."""
    error = shortage_in("docs", f"Service error: {os.strerror(number)} (os error {number})")
    assert error is not None
    assert not isinstance(error, CollectionDamaged)
    assert str(error).startswith("collection 'docs' cannot be used for now: ")
    assert fix in str(error)


def test_damage_is_no_shortage() -> None:
    """What else the engine says is left to whoever asks."""
    assert shortage_in("docs", "Service error: invalid segment") is None
