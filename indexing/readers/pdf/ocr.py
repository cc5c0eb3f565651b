"""Pictures of text -> text: by tesseract where it is installed, else by rapidocr (the extra `ocr`).

Tesseract is a process of its own, a child of the reader's, which is ended with it. It is bounded by the reader's memory
and, for each page, in time.
"""

import csv
import io
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from statistics import median
from typing import Any

import msgspec
import numpy
from PIL import Image as Pillow
from PIL import ImageOps

from indexing.documents import Document
from indexing.errors import UnreadableDocument
from indexing.readers.builder import TextWriter
from indexing.readers.limits import OCR_MISSING, ReadLimits, ocr_engine, on_page
from indexing.readers.pdf.layout import write_pages
from indexing.readers.pdf.lines import WIDE, Fragment, Page

DOTS_PER_INCH = 300
"""What tesseract was trained with: twelve points of height are fifty dots."""

MAX_PIXELS = 60_000_000
_SHARE_OF_TIME = 0.8  # of what a file may take; the rest is for all that is not OCR
_PAGE_SECONDS = 60.0
_SURE = 30  # percent; below that tesseract sees letters in dirt and in drawings
_POINTS_PER_INCH = 72
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")

Word = tuple[str, float, float, float, float]
"""Text, left, top, right, bottom in dots."""


class Reading:
    """OCR of the pages of one file, within its time. Raises UnreadableDocument for a language that is not there."""

    def __init__(self, limits: ReadLimits) -> None:
        self._is_off = limits.ocr == "off"
        self.engine = "" if self._is_off else ocr_engine()
        self._languages = limits.ocr_languages
        self._seconds = limits.max_seconds
        self._end = time.monotonic() + _SHARE_OF_TIME * limits.max_seconds
        self.late = False

    def page(self, picture: Pillow.Image, dots_per_inch: float = DOTS_PER_INCH) -> Page | None:
        """The text of a picture, where it stands; None once the time is over."""
        left = self._end - time.monotonic()
        if left <= 0:
            self.late = True
            return None
        try:
            if self.engine == "tesseract":
                lines = _by_tesseract(picture, dots_per_inch, self._languages, min(left, _PAGE_SECONDS))
            else:
                lines = _by_rapidocr(picture)
        except subprocess.TimeoutExpired:
            self.late = True
            return None
        scale = _POINTS_PER_INCH / dots_per_inch
        return Page(picture.width * scale, picture.height * scale, tuple(_fragments(list(lines), scale)))

    def warning(self, left: int, pages: int = 1) -> str:
        """Why pictures were left unread, and what to do about it."""
        what = "It is a picture" if pages == 1 else f"{left} of its {pages} pages are pictures"
        if self.late:
            seconds = _SHARE_OF_TIME * self._seconds
            return f"{what} that OCR did not read within {seconds:g} s; raise max_seconds of [reading]."
        if self._is_off:
            return f'{what} of text, and OCR is off: set ocr = "auto" in [reading].'
        return f"{what} of text, and OCR is not installed: {OCR_MISSING}."


def read_picture(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """The text in a picture; a TIFF may have several pages.

    Raises UnreadableDocument: "no_text_layer" where nothing reads pictures, "empty", "too_large", "too_many_pages".
    """
    reading = Reading(limits)
    if not reading.engine:
        raise UnreadableDocument("no_text_layer", reading.warning(1))
    with Pillow.open(io.BytesIO(data), formats=_FORMATS) as picture:
        count = getattr(picture, "n_frames", 1) if picture.format == "TIFF" else 1
        if count > limits.max_pages:
            raise UnreadableDocument("too_many_pages", f"It has {count} pages; at most {limits.max_pages} are read.")
        found = []
        for frame, prepared in _prepared(picture, count):
            found.append(reading.page(prepared, _dots_per_inch(frame)))
            on_page.get()(len(found), count)
    pages = [page or Page(0.0, 0.0, ()) for page in found]
    writer = TextWriter()
    write_pages(pages, writer)
    warnings = (reading.warning(found.count(None), count),) if reading.late else ()
    if writer.is_empty:
        raise UnreadableDocument(*("no_text_layer", *warnings) if warnings else ("empty", "OCR finds no text in it."))
    metadata = {"pages": count if count > 1 else None, "read_by": reading.engine}
    document = writer.document(title="", media_type=Pillow.MIME.get(picture.format or "", ""), metadata=metadata)
    return [msgspec.structs.replace(document, warnings=warnings)]


def _prepared(picture: Pillow.Image, count: int) -> Iterator[tuple[Pillow.Image, Pillow.Image]]:
    """Each frame, and the same upright and grey."""
    for number in range(count):
        picture.seek(number)
        if picture.width * picture.height > MAX_PIXELS:
            raise UnreadableDocument(
                "too_large", f"It has {picture.width} x {picture.height} pixels; at most {MAX_PIXELS} are read."
            )
        upright = ImageOps.exif_transpose(picture)
        if upright.has_transparency_data:  # transparent is white, as on paper
            upright = Pillow.alpha_composite(Pillow.new("RGBA", upright.size, "white"), upright.convert("RGBA"))
        yield picture, upright.convert("L")


def _dots_per_inch(picture: Pillow.Image) -> float:
    """What the file says, or what letters of a usual size need: screens and cameras say 72."""
    stated = float(picture.info.get("dpi", (0, 0))[0] or 0)
    return stated if 100 <= stated <= 1200 else max(100.0, picture.width / 8.3)


def _by_tesseract(picture: Pillow.Image, dots_per_inch: float, languages: str, seconds: float) -> Iterator[list[Word]]:
    file = io.BytesIO()
    picture.save(file, "PPM")  # of a grey picture: PGM
    done = subprocess.run(  # noqa: S603 - the settings' languages are its only argument from outside
        [
            shutil.which("tesseract") or "tesseract",
            "stdin",
            "stdout",
            "-l",
            languages,
            "--dpi",
            f"{dots_per_inch:.0f}",
            "tsv",
        ],
        input=file.getvalue(),
        capture_output=True,
        timeout=seconds,
        check=False,
        env={**os.environ, "OMP_THREAD_LIMIT": "1"},
    )
    if b"Failed loading language" in done.stderr:
        raise UnreadableDocument(
            "no_text_layer",
            f"OCR lacks a language of ocr_languages ({languages}): apt-get install tesseract-ocr-LANGUAGE for each.",
        )
    rows = csv.DictReader(io.StringIO(done.stdout.decode("utf-8", "replace")), delimiter="\t", quoting=csv.QUOTE_NONE)
    words = (row for row in rows if row.get("level") == "5" and float(row["conf"] or 0) >= _SURE)
    for _, line in groupby(words, key=lambda row: (row["block_num"], row["par_num"], row["line_num"])):
        yield [_word(row) for row in line]


def _word(row: dict[str, str]) -> Word:
    left, top = float(row["left"]), float(row["top"])
    return row["text"], left, top, left + float(row["width"]), top + float(row["height"])


def _by_rapidocr(picture: Pillow.Image) -> Iterator[list[Word]]:
    found = _rapidocr()(numpy.asarray(picture.convert("RGB")))
    for corners, text in zip(found.boxes if found.boxes is not None else (), found.txts or (), strict=True):
        left, top = corners.min(axis=0).tolist()
        right, bottom = corners.max(axis=0).tolist()
        yield [(text, left, top, right, bottom)]


@cache
def _rapidocr() -> Any:
    from rapidocr import RapidOCR

    return RapidOCR()


def _fragments(lines: list[list[Word]], scale: float) -> Iterator[Fragment]:
    """Lines cut at wide gaps. All are of one size: heights of letters in a picture tell no headings."""
    size = (
        round(
            2 * scale * median([max(word[4] for word in line) - min(word[2] for word in line) for line in lines] or [0])
        )
        / 2
    )
    for line in lines:
        part: list[Word] = []
        for word in line:
            if part and (word[1] - part[-1][3]) * scale > WIDE * size:
                yield _fragment(part, scale, size)
                part = []
            part.append(word)
        yield _fragment(part, scale, size)


def _fragment(words: list[Word], scale: float, size: float) -> Fragment:
    text = " ".join(word[0] for word in words)
    left, top = min(word[1] for word in words), min(word[2] for word in words)
    right, bottom = max(word[3] for word in words), max(word[4] for word in words)
    return Fragment(text, left * scale, top * scale, right * scale, bottom * scale, size)
