"""PDF -> text: `page` says what stands where, `layout` puts it in order.

Beside its pages a PDF holds files that are attached to it, and the data of a dynamic (XFA) form. A damaged one, whose
end is cut off or whose table of objects is broken, gets a new end: PDFium finds the objects of such a file by itself,
but not which of them is the catalog, the root of all others.
"""

import contextlib
import ctypes
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c
from PIL.Image import Image as Picture

from indexing.documents import Document, Refused
from indexing.errors import UnreadableDocument
from indexing.readers.builder import TextWriter, one_line
from indexing.readers.limits import ReadLimits, on_page
from indexing.readers.members import MOST, Member, distinct, read_members
from indexing.readers.pdf.layout import Outline, letters, write_pages
from indexing.readers.pdf.lines import Page
from indexing.readers.pdf.ocr import DOTS_PER_INCH, MAX_PIXELS, Reading
from indexing.readers.pdf.page import read_page
from indexing.readers.zip_xml import child, corrupt, descendants, local, parse_xml

_DATE = re.compile(r"D:(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?")
_SCANNED_CHARACTERS_PER_PAGE = 15
_END_BYTES = 4096  # programs append a little to whole files
_HIDDEN_CHARACTERS = 60  # printers write less than that beyond the edges of a page
_MOSTLY = 0.8  # of the pages
_BOOKMARKS = 10_000
_STUB_CHARACTERS = 1500
"""Of the page that stands in a file whose content is elsewhere: a dynamic form, or a portfolio of files."""
_COVER = re.compile(r"\bportfolio\b", re.IGNORECASE)
_PLACEHOLDER = re.compile(
    r"^(\(?(untitled|anonymous|unspecified)\)?|untitled document|powerpoint presentation"
    r"|microsoft (word|powerpoint) - .*"
    r"|.*\.(docx?|pdf|indd|tex|dvi|qxd|pptx?)"
    r"|[\W\d_]*)$",
    re.IGNORECASE,
)


def read_pdf(data: bytes, name: str, limits: ReadLimits) -> list[Document | Refused]:
    """One document with its pages, then those of the files that are attached to it. Opens files that are encrypted with
    an empty password, and mends broken ones.

    Of a portfolio the attached files alone are read, of a dynamic form what is filled in.

    Raises UnreadableDocument: "password", "no_text_layer", "too_many_pages", "unsupported", "corrupt".
    """
    reading = Reading(limits)
    pdf, damaged = _opened(data)
    with contextlib.closing(pdf):
        count = len(pdf)
        if count > limits.max_pages:
            raise UnreadableDocument("too_many_pages", f"It has {count} pages; at most {limits.max_pages} are read.")
        pdf.init_forms()
        pages = [read_page(pdf, number) for number in range(count)]
        names = attached_names(pdf)
        attached = list(read_members(attached_files(pdf, names), limits, {"attached_to": name}))
        is_stub = count == 1 and _characters(pages[0]) <= _STUB_CHARACTERS
        if is_stub and names and _COVER.search(" ".join(fragment.text for fragment in pages[0].fragments)):
            return attached
        is_form = is_stub and pdf.get_formtype() == pdfium_c.FORMTYPE_XFA_FULL
        filled_in = _filled_in(pdf) if is_form else []
        by_ocr, unread = _read_scans(pdf, pages, reading)
        info = pdf.get_metadata_dict(skip_empty=True)
        outline = _outline(pdf)
    if unread and sum(map(_characters, pages)) < _SCANNED_CHARACTERS_PER_PAGE * count:
        raise UnreadableDocument("no_text_layer", reading.warning(len(unread), count))
    writer = TextWriter()
    title = "" if is_form else write_pages(pages, writer, outline)
    for line in filled_in:
        writer.add("list_item", line)
    without_text = [number for number, page in enumerate(pages, 1) if not page.fragments]
    metadata = {
        **_described(info),
        "pages": count,
        "pages_without_text": without_text,
        "pages_by_ocr": by_ocr,
        "attachments": names,
    }
    warnings = [
        (damaged, f"The file is damaged or cut off; what was found of its {count} pages is read."),
        (is_form, "It is a dynamic XFA form: what is filled in is read, not the form itself."),
        (unread, reading.warning(len(unread), count)),
        (
            not unread and len(without_text) >= _MOSTLY * count,
            f"{len(without_text)} of its {count} pages have no text.",
        ),
        (
            (hidden := sum(page.hidden for page in pages)) >= _HIDDEN_CHARACTERS,
            f"{hidden} characters of text that nobody sees on its pages are left out.",
        ),
    ]
    document = writer.document(
        title=_stated(info.get("Title", "")) or title,
        media_type="application/pdf",
        metadata=metadata,
        warnings=[warning for is_so, warning in warnings if is_so],
    )
    return [document, *attached]


def _described(info: Mapping[str, str]) -> dict[str, str]:
    """What the file states of itself, as metadata."""
    return {
        "author": _stated(info.get("Author", "")),
        "subject": _stated(info.get("Subject", "")),
        "created": _iso_date(info.get("CreationDate", "")),
        "modified": _iso_date(info.get("ModDate", "")),
    }


def open_pdf(data: bytes) -> Any:
    """The PDF, also one that is damaged, or encrypted with an empty password.

    Raises UnreadableDocument: "password", "corrupt".
    """
    return _opened(data)[0]


def _opened(data: bytes) -> tuple[Any, bool]:
    """The PDF, and whether it is damaged."""
    try:
        # PDFium opens some files that are cut off, and finds less in them.
        return pdfium.PdfDocument(data), not any(mark in data[-_END_BYTES:] for mark in (b"%%EOF", b"startxref"))
    except pdfium.PdfiumError as exc:
        match getattr(exc, "err_code", None):
            case pdfium_c.FPDF_ERR_PASSWORD:
                raise UnreadableDocument(
                    "password", "It is encrypted; save it without a password and send it again."
                ) from exc
            case pdfium_c.FPDF_ERR_SECURITY:
                raise UnreadableDocument(
                    "password", "Its encryption is not supported; save it without a password."
                ) from exc
        whole = repaired(data)
        if whole is None:
            raise corrupt("It is not a complete PDF.") from exc
    try:
        return pdfium.PdfDocument(whole), True
    except pdfium.PdfiumError as exc:
        raise corrupt("It is not a complete PDF.") from exc


def _outline(pdf: Any) -> Outline:
    """The headings that the file's bookmarks name, by page."""
    outline: defaultdict[int, dict[str, int]] = defaultdict(dict)
    for bookmark in islice(pdf.get_toc(), _BOOKMARKS):
        page = destination.get_index() if (destination := bookmark.get_dest()) else None
        title = letters(bookmark.get_title())
        if page is not None and title:
            outline[page + 1].setdefault(title, min(6, bookmark.level + 1))
    return outline


def _filled_in(pdf: Any) -> list[str]:
    """The values of a dynamic form, whose only page says that some other program can show it."""
    if values := form_values(pdf):
        return values
    raise UnreadableDocument(
        "unsupported", "It is a dynamic XFA form, which only Adobe's programs show; print it to a new PDF there."
    )


def _read_scans(pdf: Any, pages: list[Page], reading: Reading) -> tuple[list[int], list[int]]:
    """Puts the text of pages that are pictures in their places; (pages read, pages left), from 1.

    A few stamped characters on a page do not make a text layer.
    """
    scans = [
        number
        for number, page in enumerate(pages)
        if _characters(page) < _SCANNED_CHARACTERS_PER_PAGE and _has_picture(pdf, number)
    ]
    read, left = [], []
    for done, number in enumerate(scans, 1):
        found = reading.page(_rendered(pdf, number)) if reading.engine else None
        if found is None:
            left.append(number + 1)
            continue
        pages[number] = found
        read.append(number + 1)
        on_page.get()(done, len(scans))
    return read, left


def _characters(page: Page) -> int:
    return sum(len(fragment.text) for fragment in page.fragments)


def _rendered(pdf: Any, number: int) -> Picture:
    with contextlib.closing(pdf[number]) as page:
        width, height = page.get_size()
        # A page may be a kilometre long.
        scale = min(DOTS_PER_INCH / 72, math.sqrt(MAX_PIXELS / max(1.0, width * height)))
        picture: Picture = page.render(scale=scale, grayscale=True).to_pil()
        return picture


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


_VALUES = 10_000
_UNNAMED = "attachment"


def attached_names(pdf: Any) -> list[str]:
    """The names of the attached files, each another."""
    count = min(pdf.count_attachments(), MOST)
    return list(distinct(pdf.get_attachment(number).get_name() or _UNNAMED for number in range(count)))


def attached_files(pdf: Any, names: list[str]) -> Iterator[Member]:
    """The attached files, one after the other; one that is damaged is empty."""
    for number, name in enumerate(names):
        try:
            data = bytes(pdf.get_attachment(number).get_data())
        except pdfium.PdfiumError:
            data = b""
        yield name, data


def form_values(pdf: Any) -> list[str]:
    """What is filled into a dynamic form, field by field as "name: value"; [] where there is none."""
    values: list[str] = []
    for packet in _packets(pdf):
        try:
            root = parse_xml(packet)
        except UnreadableDocument:
            continue
        for datasets in descendants(root, "datasets"):
            data = child(datasets, "data")
            for field in data.iter() if data is not None else ():
                value = one_line(field.text or "") if len(field) == 0 else ""
                if value and len(values) < _VALUES:
                    values.append(f"{local(field)}: {value}")
    return values


def _packets(pdf: Any) -> Iterator[bytes]:
    """The parts of the form's XML, each of which is an XML document; one alone is all of it."""
    for number in range(max(0, pdfium_c.FPDF_GetXFAPacketCount(pdf))):
        size = ctypes.c_ulong()
        pdfium_c.FPDF_GetXFAPacketContent(pdf, number, None, 0, size)
        buffer = (ctypes.c_char * size.value)()
        if size.value and pdfium_c.FPDF_GetXFAPacketContent(pdf, number, buffer, size.value, size):
            yield bytes(buffer)


_OBJECT = re.compile(
    rb"(?<![\d.])(\d{1,10})\s+(\d{1,5})\s+obj\b(.{0,2000}?)(?:endobj|stream\b|(?=\d+\s+\d+\s+obj\b))", re.DOTALL
)
_CATALOG = re.compile(rb"/Type\s*/Catalog\b")
_PAGE = re.compile(rb"/Type\s*/Page\b")
_PAGES = 10_000


def repaired(data: bytes) -> bytes | None:
    """The file with a trailer at its end, and a catalog if that is lost; None where not even pages are found."""
    data = data[: data.rfind(b"endobj") + len(b"endobj")]  # what follows may be half an object, without an end
    catalog, pages, highest = b"", [], 0
    for match in _OBJECT.finditer(data):
        reference = b"%s %s R" % match.group(1, 2)
        highest = max(highest, int(match[1]))
        if _CATALOG.search(match[3]):
            catalog = reference
        elif _PAGE.search(match[3]):
            pages.append(reference)
    if catalog:
        return data + _trailer(catalog, highest + 1)
    pages = list(dict.fromkeys(pages))[:_PAGES]
    if not pages:
        return None
    root, tree = highest + 1, highest + 2
    added = b"\n%d 0 obj\n<< /Type /Catalog /Pages %d 0 R >>\nendobj\n" % (
        root,
        tree,
    ) + b"%d 0 obj\n<< /Type /Pages /Count %d /Kids [%s] >>\nendobj\n" % (tree, len(pages), b" ".join(pages))
    return data + added + _trailer(b"%d 0 R" % root, highest + 3)


def _trailer(root: bytes, size: int) -> bytes:
    return b"\ntrailer\n<< /Root %s /Size %d >>\nstartxref\n0\n%%%%EOF\n" % (root, size)
