"""Files made with the libraries that people make them with, for tests to read back."""

import io
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import docx
import openpyxl
import pptx
import pptx.util
import pypdf
from docx.document import Document as WordDocument
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

from indexing.documents import Document
from indexing.readers import ReadLimits, read


def read_one(data: bytes, name: str, **limits: Any) -> Document:
    """The only document in the file, with its invariants checked."""
    (document,) = read(data, name, ReadLimits(**limits))
    check_blocks(document)
    return document


def check_blocks(document: Document) -> None:
    """What `documents.Block` and `PageStart` promise."""
    position = 0
    for block in document.blocks:
        assert position <= block.start < block.end <= len(document.text)
        assert not document.text[position : block.start].strip()
        assert document.text[block.start : block.end].strip() == document.text[block.start : block.end]
        assert (1 <= block.level <= 6) == (block.kind == "heading")
        position = block.end
    assert not document.text[position:].strip()
    starts = [page.start for page in document.pages]
    assert starts == sorted(starts)
    assert all(0 <= start <= len(document.text) for start in starts)
    document.text.encode("utf-8")
    assert document.content_hash()


def texts(document: Document, kind: str | None = None) -> list[str]:
    """The texts of all blocks, or of those of one kind."""
    return [document.text[block.start : block.end] for block in document.blocks if kind in (None, block.kind)]


def word(build: Callable[[WordDocument], object]) -> bytes:
    """A docx."""
    document = docx.Document()
    build(document)
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def workbook(**sheets: Sequence[Sequence[Any]]) -> bytes:
    """An xlsx with rows per sheet."""
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(list(row))
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def slides(*contents: tuple[str, Sequence[str], str]) -> bytes:
    """A pptx of slides with title, bullets and speaker notes."""
    deck = pptx.Presentation()
    for title, bullets, notes in contents:
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = "\n".join(bullets)
        if notes:
            slide.notes_slide.notes_text_frame.text = notes
    file = io.BytesIO()
    deck.save(file)
    return file.getvalue()


Line = tuple[float, float, str]


def pdf(*pages: Sequence[Line], size: float = 11, **headings: float) -> bytes:
    """A PDF of lines (x, y from the top, text); a text named in `headings` has that size."""
    file = io.BytesIO()
    canvas = Canvas(file, pagesize=A4)
    for lines in pages:
        for x, y, text in lines:
            canvas.setFont("Helvetica", headings.get(text, size))
            canvas.drawString(x, A4[1] - y, text)
        canvas.showPage()
    canvas.save()
    return file.getvalue()


def encrypted(data: bytes, user_password: str) -> bytes:
    """The PDF, encrypted."""
    writer = pypdf.PdfWriter(io.BytesIO(data))
    writer.encrypt(user_password=user_password, owner_password="owner", algorithm="AES-256")
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


def zipped(members: dict[str, str | bytes]) -> bytes:
    """A zip of these members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            # As the standards want it, and as file types are told apart by.
            packing = zipfile.ZIP_STORED if name == "mimetype" else zipfile.ZIP_DEFLATED
            archive.writestr(name, content, packing)
    return file.getvalue()


def epub(chapters: dict[str, str], rename: dict[str, str] | None = None) -> bytes:
    """An EPUB with these XHTML chapters, the spine in their order; `rename` gives members other names than it says."""
    items = "".join(f'<item id="{name}" href="{name}.xhtml" media-type="application/xhtml+xml"/>' for name in chapters)
    spine = "".join(f'<itemref idref="{name}"/>' for name in chapters)
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>'
        "<dc:title>The Book</dc:title><dc:creator>A. Writer</dc:creator><dc:language>en</dc:language></metadata>"
        f"<manifest>{items}</manifest><spine>{spine}</spine></package>"
    )
    container = '<container><rootfiles><rootfile full-path="OEBPS/content.opf"/></rootfiles></container>'
    members: dict[str, str | bytes] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": container,
        "OEBPS/content.opf": package,
    }
    # Written in reverse: the spine, not the zip, says which chapter comes first.
    for name, body in reversed(chapters.items()):
        members[f"OEBPS/{name}.xhtml"] = f"<html><head><title>{name}</title></head><body>{body}</body></html>"
    return zipped({(rename or {}).get(name, name): content for name, content in members.items()})


def odt(body: str) -> bytes:
    """An ODT with this content of office:text."""
    names = " ".join(
        f'xmlns:{prefix}="urn:oasis:names:tc:opendocument:xmlns:{prefix}:1.0"'
        for prefix in ("office", "text", "table", "draw", "meta")
    )
    content = (
        f"<office:document-content {names}><office:body><office:text>{body}</office:text></office:body>"
        "</office:document-content>"
    )
    meta = (
        f'<office:document-meta {names} xmlns:dc="http://purl.org/dc/elements/1.1/"><office:meta>'
        "<dc:title>Minutes</dc:title></office:meta></office:document-meta>"
    )
    return zipped({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content, "meta.xml": meta})
