"""The container of Office before 2007 and of Outlook's messages: a small file system in a file (MS-CFB)."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import olefile

from indexing.readers.zip_xml import corrupt


@contextmanager
def opened_ole(data: bytes) -> Iterator[olefile.OleFileIO]:
    """The file, open for reading. Raises UnreadableDocument; errors inside the block are translated too."""
    try:
        with olefile.OleFileIO(io.BytesIO(data)) as file:
            yield file
    except (OSError, ValueError, IndexError) as exc:  # olefile's own errors are OSErrors
        raise corrupt("Its container is truncated or damaged.") from exc
