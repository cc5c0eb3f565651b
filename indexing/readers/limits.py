"""What a reader may spend on one file, the reasons for which it refuses one, and opening it within the limits."""

import importlib.util
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import msgspec
from msgspec import Meta

from indexing.errors import UnreadableDocument

REASONS = {
    "not_found": "the file does not exist",
    "permission": "the file may not be opened",
    "unreachable": "where it lies cannot be reached at the moment",
    "not_a_file": "it is not a regular file",
    "too_large": "the file has more bytes than allowed",
    "too_many_pages": "it has more pages, slides or sheets than allowed",
    "zip_bomb": "it unpacks to far more data than its size allows for",
    "timeout": "reading took longer than allowed",
    "memory": "reading took more memory than allowed",
    "crashed": "a library crashed while reading it",
    "password": "it is encrypted",
    "no_text_layer": "it contains pictures of text, but no text",
    "empty": "it contains no text",
    "binary": "it is neither text nor a known document format",
    "unsupported": "it is a known format that cannot be read",
    "corrupt": "it is damaged or incomplete",
}

UNREADABLE_BY_NATURE = frozenset({"not_a_file", "password", "no_text_layer", "empty", "binary", "unsupported"})
"""Reasons that say what a file is, not that reading it went wrong: it is skipped, which is no failure."""

Count = Annotated[int, Meta(ge=1)]
Amount = Annotated[float, Meta(gt=0)]

OnPage = Callable[[int, int], None]
"""Hears how many of a file's pages OCR has read, and how many there are for it."""


def ignore_pages(_done: int, _total: int) -> None:
    """For callers who do not listen."""


on_page: ContextVar[OnPage] = ContextVar("on_page", default=ignore_pages)
"""Set by whoever waits for a scan: readers are called with bytes and limits alone."""

OFFICE_MISSING = "install the extra office (pip install 'winnow[office]')"
OCR_MISSING = "install tesseract (apt-get install tesseract-ocr), or pip install 'winnow[ocr]'"


class ReadLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds for one file: bytes, pages (slides, sheets), seconds. `max_ratio`: unpacked over packed bytes of a zip.
    `max_nesting`: of files in files. A file that is read in pieces may be of any size: for it `max_bytes` bounds a
    record, and `max_seconds` the time for a piece.

    `ocr`: whether pictures of text are read, in `ocr_languages`, as tesseract calls them ("eng+deu").
    """

    max_bytes: Count = 100 * 2**20
    max_pages: Count = 5000
    max_seconds: Amount = 120.0
    max_expanded_bytes: Count = 2**30
    max_ratio: Amount = 200.0
    max_nesting: Annotated[int, Meta(ge=0, le=10)] = 3
    max_memory_bytes: Count = 4 * 2**30
    ocr: Literal["auto", "off"] = "auto"
    ocr_languages: Annotated[str, Meta(pattern="^[A-Za-z_]+([+][A-Za-z_]+)*$")] = "eng"


def reading(limits: ReadLimits) -> str:
    """What decides, beside a file, whether it can be read: the release of Winnow, the limits, and what is installed."""
    from importlib.metadata import PackageNotFoundError, version  # commands start without it

    try:
        release = version("winnow")
    except PackageNotFoundError:
        release = "0"
    office = "office" if importlib.util.find_spec("xberg") else ""
    return f"{release} {msgspec.json.encode(limits).decode()} {ocr_engine()}{office}"


def ocr_engine() -> Literal["tesseract", "rapidocr", ""]:
    """What is installed to read pictures of text; "" for nothing."""
    if shutil.which("tesseract"):
        return "tesseract"
    return "rapidocr" if importlib.util.find_spec("rapidocr") else ""


def too_large(size: int, limits: ReadLimits) -> UnreadableDocument:
    """The refusal of a file that is too large to be opened."""
    return UnreadableDocument(
        "too_large",
        f"It has {size / 2**20:.1f} MiB; the limit is {limits.max_bytes / 2**20:.0f} MiB ([reading] max_bytes).",
    )


@contextmanager
def opened(path: Path, limits: ReadLimits, *, any_size: bool = False) -> Iterator[BinaryIO]:
    """The file, open for reading; errors inside the block are translated too. Raises UnreadableDocument.

    Pipes and devices are not opened: opening one can block forever.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableDocument("not_a_file", "It is a directory, a pipe or a device, not a file.")
        if status.st_size > limits.max_bytes and not any_size:
            raise too_large(status.st_size, limits)
        with path.open("rb") as file:
            yield file
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise UnreadableDocument("not_found", "The file does not exist.") from exc
    except PermissionError as exc:
        raise UnreadableDocument("permission", "Permission denied; check the permissions of the file.") from exc
    except OSError as exc:
        raise UnreadableDocument("corrupt", f"The file cannot be read from its disk: {exc.strerror}.") from exc
