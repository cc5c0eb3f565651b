"""OpenDocument texts (odt) and slides (odp) -> text."""

from collections.abc import Iterable
from typing import Any

from lxml import etree

from indexing.documents import Document
from indexing.errors import UnreadableDocument
from indexing.readers.builder import TextWriter, tidy
from indexing.readers.limits import ReadLimits
from indexing.readers.zip_xml import Package, attribute, child, corrupt, descendants, local

_BREAKS = {"line-break": "\n", "tab": "\t"}
_PASSED_OVER = frozenset(
    {"annotation", "annotation-end", "tracked-changes", "change", "note-citation", "sequence-decls", "forms"}
)
_DEPTH = 60
_FURNITURE = frozenset({"page-number", "date-time", "footer", "header"})


def read_odt(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """One document: headings, paragraphs, lists, tables, text frames, notes."""
    package = Package(data, limits)
    body = child(package.xml("content.xml"), "body", "text")
    if body is None:
        raise corrupt("It has no text body.")
    writer = TextWriter()
    _write(body, writer, 0, 0)
    return [_document(package, writer, "application/vnd.oasis.opendocument.text")]


def read_odp(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """One document, a page for each slide; its title is a heading, the notes follow it."""
    package = Package(data, limits)
    body = child(package.xml("content.xml"), "body", "presentation")
    if body is None:
        raise corrupt("It has no slides.")
    slides = [element for element in body if local(element) == "page"]
    if len(slides) > limits.max_pages:
        raise UnreadableDocument("too_many_pages", f"It has {len(slides)} slides; at most {limits.max_pages} are read.")
    writer = TextWriter()
    for number, slide in enumerate(slides, 1):
        writer.page(number)
        for shape in sorted(slide, key=_order):
            if _class(shape) == "title":
                text = " ".join(_inline(paragraph) for paragraph in descendants(shape, "p"))
                writer.add("heading", text.replace("\n", " "), level=2 if number > 1 else 1)
            elif local(shape) != "forms":
                _write_shape(shape, writer)
    return [_document(package, writer, "application/vnd.oasis.opendocument.presentation")]


def _class(shape: etree._Element) -> str:
    """What a placeholder of a slide is for; "" for a free shape."""
    return attribute(shape, "class") or ""


def _order(shape: etree._Element) -> int:
    return 0 if _class(shape) == "title" else 2 if local(shape) == "notes" else 1


def _write_shape(shape: etree._Element, writer: TextWriter) -> None:
    for part in shape if local(shape) == "notes" else (shape,):
        if _class(part) not in _FURNITURE:
            _write((part,), writer, 0, 0)


def _document(package: Package, writer: TextWriter, media_type: str) -> Document:
    metadata = _metadata(package)
    title = metadata.pop("title", "")
    return writer.document(title=title, media_type=media_type, metadata=metadata)


def _metadata(package: Package) -> dict[str, Any]:
    root = package.xml_or_none("meta.xml")
    names = {"title": "title", "creator": "author", "creation-date": "created", "date": "modified", "language": "lang"}
    fields = {}
    for element in root.iter() if root is not None else ():
        if (name := names.get(local(element))) and (element.text or "").strip():
            fields[name] = (element.text or "").strip()
    return fields


def _write(container: Iterable[etree._Element], writer: TextWriter, depth: int, listing: int) -> None:
    if depth > _DEPTH:
        return
    for element in container:
        name = local(element)
        if name == "h":
            level = attribute(element, "outline-level") or "1"
            writer.add("heading", _inline(element).replace("\n", " "), level=int(level) if level.isdigit() else 1)
        elif name == "p":
            _write_paragraph(element, writer, depth, listing)
        elif name == "list":
            for item in element:
                _write(item, writer, depth + 1, listing + 1)
        elif name == "table":
            rows = [_cells(row) for row in descendants(element, "table-row")]
            writer.add_table(rows, header=len(rows) > 1)
        elif name not in _PASSED_OVER:
            _write(element, writer, depth + 1, listing)


def _write_paragraph(element: etree._Element, writer: TextWriter, depth: int, listing: int) -> None:
    text = tidy(_inline(element))
    if listing and text:
        writer.add("list_item", f"- {text}", indent=2 * min(listing - 1, 8))
    else:
        writer.add("paragraph", text)
    for box in descendants(element, "text-box"):
        if next((owner for owner in box.iterancestors() if local(owner) == "p"), None) is element:
            _write(box, writer, depth + 1, 0)


def _inline(element: etree._Element, depth: int = 0) -> str:
    parts = [element.text or ""]
    for inner in element:
        name = local(inner)
        if name in _BREAKS:
            parts.append(_BREAKS[name])
        elif name == "s":
            parts.append(" ")
        elif name == "note":
            parts.append(f" ({_inline(inner, depth + 1).strip()})")
        elif name not in _PASSED_OVER and name != "text-box" and depth < _DEPTH:
            parts.append(_inline(inner, depth + 1))
        parts.append(inner.tail or "")
    return "".join(parts)


def _cells(row: etree._Element) -> list[str]:
    cells: list[str] = []
    for cell in row:
        if local(cell) not in ("table-cell", "covered-table-cell"):
            continue
        text = "\n".join(_inline(paragraph) for paragraph in descendants(cell, "p", "h"))
        repeated = attribute(cell, "number-columns-repeated") or "1"
        # Blank cells are repeated up to the sheet's last column.
        count = min(int(repeated), 100) if repeated.isdigit() and text and len(repeated) < 6 else 1
        cells.extend([text] * count)
    return cells
