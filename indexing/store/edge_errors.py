"""What the embedded engine raises when it fails, as errors of ours. What it wrote goes to the log only."""

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from indexing.errors import CollectionDamaged, DiskFull, StoreUnavailable

log = logging.getLogger(__name__)

_PANICS = "pyo3_runtime"
"""The module of the exception that a panic becomes. It is no Exception, and cannot be imported."""

_SHORTAGES = {
    # Before EMFILE: its words begin with those of that.
    errno.ENFILE: "the system has as many files open as it may (fs.file-max); let it have more",
    errno.EMFILE: "this process has as many files open as it may (ulimit -n); let it have more",
    errno.ENOMEM: "the system gives no more memory for its files (vm.max_map_count, and limits of memory)",
}


@contextmanager
def engine_errors(directory: Path, lineage: str) -> Iterator[None]:
    """Edge raises plain `Exception` for everything that goes wrong inside it, and panics on what it did not expect;
    errors of arguments pass through.
    """
    try:
        yield
    except BaseException as exc:
        if type(exc) is not Exception and type(exc).__module__ != _PANICS:
            raise
        log.exception("the engine failed on %s", directory)
        if "No space left" in str(exc):
            raise DiskFull(f"the disk of {directory} is full; free some space") from exc
        if shortage := shortage_in(directory.parent.name, str(exc)):
            raise shortage from exc
        why = "the engine cannot use its files (the log has more)"
        raise CollectionDamaged(directory.parent.name, why, lineage) from exc


def shortage_in(name: str, text: str) -> StoreUnavailable | None:
    """The error of a collection where the system refused what it takes to use its files: these are whole, and to make
    the collection anew, as damage asks for, would not help. `text` is what the engine, or a process with it, wrote.
    """
    for number, why in _SHORTAGES.items():
        if os.strerror(number) in text:
            return StoreUnavailable(f"collection {name!r} cannot be used for now: {why}")
    return None
