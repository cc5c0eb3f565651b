"""PDF -> text: PDFium says where every character stands, `layout` puts them in order."""

import contextlib
import ctypes
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from indexing.documents import Document
from indexing.errors import UnreadableDocument
from indexing.readers.builder import TextWriter
from indexing.readers.limits import ReadLimits
from indexing.readers.pdf.layout import write_pages
from indexing.readers.pdf.lines import HYPHEN, Glyph, Page, fragments_of_line
from indexing.readers.zip_xml import corrupt

_DATE = re.compile(r"D:(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?")
_BOLD_FONT = re.compile(rb"bold|black|heavy", re.IGNORECASE)
_SCANNED_CHARACTERS_PER_PAGE = 15
_CHARACTERS_PER_PAGE = 200_000
_PLACEHOLDER = re.compile(
    r"^(\(?(untitled|anonymous|unspecified)\)?|untitled document|powerpoint presentation"
    r"|microsoft (word|powerpoint) - .*"
    r"|.*\.(docx?|pdf|indd|tex|dvi|qxd|pptx?))$",
    re.IGNORECASE,
)


Box = tuple[float, float, float, float]
ToReadingFrame = Callable[[float, float, float, float], Box]
"""(left, bottom, right, top) on the page, y upwards -> (left, top, right, bottom) from the top left, y downwards."""


def read_pdf(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """One document with its pages. Opens files that are encrypted with an empty password.

    Raises UnreadableDocument: "password", "no_text_layer", "too_many_pages", "corrupt".
    """
    with contextlib.closing(open_pdf(data)) as pdf:
        count = len(pdf)
        if count > limits.max_pages:
            raise UnreadableDocument("too_many_pages", f"It has {count} pages; at most {limits.max_pages} are read.")
        pages = [_page(pdf, number) for number in range(count)]
        _refuse_scan(pdf, pages)
        info = pdf.get_metadata_dict(skip_empty=True)
    writer = TextWriter()
    write_pages(pages, writer)
    title = _stated(info.get("Title", ""))
    without_text = [number for number, page in enumerate(pages, 1) if not page.fragments]
    metadata = {
        "author": _stated(info.get("Author", "")),
        "subject": _stated(info.get("Subject", "")),
        "created": _iso_date(info.get("CreationDate", "")),
        "modified": _iso_date(info.get("ModDate", "")),
        "pages": count,
        "pages_without_text": without_text,
    }
    return [writer.document(title=title, media_type="application/pdf", metadata=metadata)]


def open_pdf(data: bytes) -> Any:
    """The PDF, also one that is encrypted with an empty password. Raises UnreadableDocument: "password", "corrupt"."""
    try:
        return pdfium.PdfDocument(data)
    except pdfium.PdfiumError as exc:
        if getattr(exc, "err_code", None) == pdfium_c.FPDF_ERR_PASSWORD:
            raise UnreadableDocument(
                "password", "It is encrypted; save it without a password and send it again."
            ) from exc
        if getattr(exc, "err_code", None) == pdfium_c.FPDF_ERR_SECURITY:
            raise UnreadableDocument(
                "password", "Its encryption is not supported; save it without a password."
            ) from exc
        raise corrupt("It is not a complete PDF.") from exc


def _page(pdf: Any, number: int) -> Page:
    """One page's text fragments. A page that cannot be loaded counts as a page without text."""
    try:
        page = pdf[number]
    except pdfium.PdfiumError:
        return Page(0.0, 0.0, ())
    with contextlib.closing(page):
        width, height = page.get_size()
        text = pdfium_c.FPDFText_LoadPage(page)
        if not text:
            return Page(width, height, ())
        try:
            to_reading_frame = _reading_frame(page, text)
            fragments = [
                fragment
                for line in _lines(text, to_reading_frame)
                for fragment in fragments_of_line(line, _is_bold(text, line))
            ]
        finally:
            pdfium_c.FPDFText_ClosePage(text)
    return Page(width, height, tuple(fragments))


def _reading_frame(page: Any, text: Any) -> ToReadingFrame:
    """What turns boxes in PDFium's coordinates into those in which the text reads upright.

    How the page itself is turned does not matter, only how most of its text runs.
    """
    x0, y0, x1, y1 = page.get_bbox()
    turns: dict[int, ToReadingFrame] = {
        0: lambda left, bottom, right, top: (left - x0, y1 - top, right - x0, y1 - bottom),
        90: lambda left, bottom, right, top: (bottom - y0, left - x0, top - y0, right - x0),
        180: lambda left, bottom, right, top: (x1 - right, bottom - y0, x1 - left, top - y0),
        270: lambda left, bottom, right, top: (y1 - top, x1 - right, y1 - bottom, x1 - left),
    }
    return turns[_direction(text)]


# Where a hyphen divides a word at the end of a line, PDFium writes one of these instead of hyphen and line break.
_DIVIDING = frozenset({2, 0xFFFE})
_LINE_ENDS = _DIVIDING | {10, 13}


def _direction(text: Any) -> int:
    """Degrees counter-clockwise, a multiple of 90, by which most of the text is turned; judged by a sample."""
    count = pdfium_c.FPDFText_CountChars(text)
    sample = range(0, count, max(1, count // 25))
    angles = [math.degrees(pdfium_c.FPDFText_GetCharAngle(text, index)) for index in sample]
    turns = Counter(-round(angle / 90) * 90 % 360 for angle in angles if angle >= 0)
    return turns.most_common(1)[0][0] if turns else 0


def _lines(text: Any, to_reading_frame: ToReadingFrame) -> Iterator[list[Glyph]]:
    """The glyphs of each line, in PDFium's order: that of the content stream."""
    get_unicode, get_box = pdfium_c.FPDFText_GetUnicode, pdfium_c.FPDFText_GetLooseCharBox
    box = pdfium_c.FS_RECTF()
    pointer = ctypes.byref(box)
    line: list[Glyph] = []
    for index in range(min(pdfium_c.FPDFText_CountChars(text), _CHARACTERS_PER_PAGE)):
        code = get_unicode(text, index)
        if code in _LINE_ENDS:
            if line and code in _DIVIDING:
                line.append((HYPHEN, *line[-1][1:]))
            if line:
                yield line
            line = []
        elif code and get_box(text, index, pointer):
            line.append((chr(code), *to_reading_frame(box.left, box.bottom, box.right, box.top), index))
    if line:
        yield line


def _is_bold(text: Any, line: list[Glyph]) -> bool:
    """Judged by three glyphs of the line."""
    places = {len(line) // 5, len(line) // 2, len(line) * 4 // 5}
    return all(_is_bold_glyph(text, line[place][5]) for place in places)


def _is_bold_glyph(text: Any, index: int) -> bool:
    if pdfium_c.FPDFText_GetFontWeight(text, index) >= 600:
        return True
    buffer = ctypes.create_string_buffer(128)
    pdfium_c.FPDFText_GetFontInfo(text, index, buffer, 128, None)
    return _BOLD_FONT.search(buffer.value) is not None


def _refuse_scan(pdf: Any, pages: list[Page]) -> None:
    """Refuse pictures of text. A few stamped characters on a page do not make a text layer."""
    characters = sum(len(fragment.text) for page in pages for fragment in page.fragments)
    if characters >= _SCANNED_CHARACTERS_PER_PAGE * max(1, len(pages)):
        return
    if any(_has_picture(pdf, number) for number in range(min(len(pages), 20))):
        raise UnreadableDocument(
            "no_text_layer", "Its pages are pictures without a text layer; run OCR over it and index the result."
        )


def _has_picture(pdf: Any, number: int) -> bool:
    try:
        with contextlib.closing(pdf[number]) as page:
            return next(iter(page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_IMAGE], max_depth=4)), None) is not None
    except pdfium.PdfiumError:
        return False


def _stated(value: str) -> str:
    """A metadata field; "" for the placeholders that programs write when nobody gave a title."""
    return "" if _PLACEHOLDER.match(value.strip()) else value.strip()


def _iso_date(text: str) -> str:
    """A PDF date ("D:20240131120000") as ISO 8601, as far as it goes; "" for anything else."""
    match = _DATE.match(text)
    if not match:
        return ""
    year, month, day, *clock = (part or "" for part in match.groups())
    date = "-".join(part for part in (year, month, day) if part)
    return f"{date}T{':'.join(clock)}" if all(clock) and day else date
