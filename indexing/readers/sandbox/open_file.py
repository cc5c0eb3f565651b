"""A file on disk, opened only if it is one that may be read."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from indexing.errors import UnreadableDocument
from indexing.readers.limits import ReadLimits


def too_large(size: int, limits: ReadLimits) -> UnreadableDocument:
    """The refusal of a file that is too big to be opened."""
    return UnreadableDocument(
        "too_large", f"It has {size / 2**20:.1f} MiB; at most {limits.max_bytes / 2**20:.0f} MiB are read."
    )


@contextmanager
def opened(path: Path, limits: ReadLimits) -> Iterator[BinaryIO]:
    """The file for reading, errors inside the block translated too. Pipes and devices are not opened: they might never
    end. Raises UnreadableDocument.
    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise UnreadableDocument("not_a_file", "It is a directory, a pipe or a device, not a file.")
        if about.st_size > limits.max_bytes:
            raise too_large(about.st_size, limits)
        with path.open("rb") as file:
            yield file
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise UnreadableDocument("not_found", "There is no such file.") from exc
    except PermissionError as exc:
        raise UnreadableDocument("permission", "The file may not be opened; check its permissions.") from exc
    except OSError as exc:
        raise UnreadableDocument("corrupt", f"The file cannot be read from its disk: {exc.strerror}.") from exc
