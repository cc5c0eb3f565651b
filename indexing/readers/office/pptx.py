"""PowerPoint (pptx) -> text: a page per slide, with its tables, charts and notes."""

from collections.abc import Iterator
from typing import Any

from lxml import etree

from indexing.documents import Document
from indexing.errors import UnreadableDocument
from indexing.readers.builder import TextWriter, tidy
from indexing.readers.limits import ReadLimits
from indexing.readers.office.parts import equation_text, write_chart, write_diagram
from indexing.readers.zip_xml import (
    Package,
    attribute,
    child,
    core_properties,
    corrupt,
    descendants,
    local,
    relationships,
)

_MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
_FURNITURE = frozenset({"sldNum", "dt", "ftr", "hdr", "sldImg"})
_DEPTH = 30


def read_pptx(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """One document; each slide's title is a heading, speaker notes follow the slide."""
    package = Package(data, limits)
    main = next(
        (part for kind, part in relationships(package, "").values() if kind == "officeDocument"), "ppt/presentation.xml"
    )
    slides = _slides(package, main)
    if len(slides) > limits.max_pages:
        raise UnreadableDocument("too_many_pages", f"It has {len(slides)} slides; at most {limits.max_pages} are read.")
    writer = TextWriter()
    for number, part in enumerate(slides, 1):
        writer.page(number)
        _write_slide(package, part, writer)
    metadata: dict[str, Any] = dict(core_properties(package))
    title = metadata.pop("title", "")
    return [
        writer.document(
            title="" if title == "PowerPoint Presentation" else title, media_type=_MEDIA_TYPE, metadata=metadata
        )
    ]


def _slides(package: Package, main: str) -> list[str]:
    """Member names of the slides, in the order in which they are shown."""
    parts = relationships(package, main)
    order = child(package.xml(main), "sldIdLst")
    named = [_relation(slide) for slide in (order if order is not None else ())]
    slides = [parts[identifier][1] for identifier in named if identifier in parts]
    if named and not slides:
        raise corrupt("Its slides are missing.")
    return slides


def _relation(element: etree._Element) -> str:
    """The `r:id`; there is a plain `id` beside it."""
    return next((str(value) for key, value in element.attrib.items() if str(key).endswith("}id")), "")


def _write_slide(package: Package, part: str, writer: TextWriter) -> None:
    parts = relationships(package, part)
    tree = child(package.xml(part), "cSld", "spTree")
    shapes = sorted(_shapes(tree), key=lambda shape: not _is_title(shape)) if tree is not None else []
    for shape in shapes:
        _write_shape(package, parts, shape, writer)
    notes = next((target for kind, target in parts.values() if kind == "notesSlide"), "")
    root = package.xml_or_none(notes)
    for shape in descendants(root, "sp") if root is not None else ():
        if _placeholder(shape) == "body":
            _write_text(shape, writer, heading=False)
    for kind, target in parts.values():
        root = package.xml_or_none(target) if kind == "comments" else None
        for comment in descendants(root, "cm") if root is not None else ():
            texts = [text.text or "" for text in descendants(comment, "text", "t")]
            writer.add("paragraph", f"Comment: {' '.join(texts)}" if any(texts) else "")


def _shapes(tree: etree._Element, depth: int = 0) -> Iterator[etree._Element]:
    for element in tree:
        name = local(element)
        if name in ("sp", "graphicFrame", "cxnSp"):
            yield element
        elif name in ("grpSp", "AlternateContent", "Choice") and depth < _DEPTH:
            yield from _shapes(element, depth + 1)


def _placeholder(shape: etree._Element) -> str | None:
    """The placeholder's type ("body" when it does not say); None for a free shape."""
    placeholder = child(shape, "nvSpPr", "nvPr", "ph")
    return None if placeholder is None else attribute(placeholder, "type") or "body"


def _is_title(shape: etree._Element) -> bool:
    return _placeholder(shape) in ("title", "ctrTitle")


def _write_shape(
    package: Package, parts: dict[str, tuple[str, str]], shape: etree._Element, writer: TextWriter
) -> None:
    if local(shape) != "graphicFrame":
        if _placeholder(shape) not in _FURNITURE:
            _write_text(shape, writer, heading=_is_title(shape))
        return
    for table in descendants(shape, "tbl"):
        writer.add_table(_table_rows(table), header=True)
    for chart in descendants(shape, "chart"):
        target = parts.get(_relation(chart))
        root = package.xml_or_none(target[1]) if target else None
        if root is not None:
            write_chart(root, writer)
    for kind, target_name in parts.values():
        if kind == "diagramData" and next(descendants(shape, "relIds"), None) is not None:
            root = package.xml_or_none(target_name)
            if root is not None:
                write_diagram(root, writer)


def _write_text(shape: etree._Element, writer: TextWriter, *, heading: bool) -> None:
    body = child(shape, "txBody")
    paragraphs = [element for element in (body if body is not None else ()) if local(element) == "p"]
    if heading:
        writer.add("heading", " ".join(_paragraph_text(paragraph) for paragraph in paragraphs), level=1)
        return
    # The layout gives the paragraphs of a body bullets, which they may decline; elsewhere they ask for them.
    several = sum(bool(_paragraph_text(paragraph).strip()) for paragraph in paragraphs) > 1
    number = 0
    for paragraph in paragraphs:
        text = tidy(_paragraph_text(paragraph))
        mark = _mark(paragraph, by_default=several and _placeholder(shape) == "body")
        number = number + 1 if mark == "#" and text else 0
        if text and mark:
            writer.add("list_item", f"{f'{number}.' if number else mark} {text}", indent=2 * _level(paragraph))
        else:
            writer.add("paragraph", text)


def _mark(paragraph: etree._Element, *, by_default: bool) -> str:
    """A hyphen for a bullet, "#" for a number, "" for neither."""
    properties = child(paragraph, "pPr")
    own = {local(element) for element in properties} if properties is not None else set()
    if "buNone" in own:
        return ""
    if "buAutoNum" in own:
        return "#"
    return "-" if by_default or "buChar" in own else ""


def _level(paragraph: etree._Element) -> int:
    properties = child(paragraph, "pPr")
    level = (attribute(properties, "lvl") if properties is not None else None) or "0"
    return min(int(level), 8) if level.isdigit() and len(level) < 4 else 0


def _paragraph_text(paragraph: etree._Element) -> str:
    parts: list[str] = []
    for element in paragraph.iter():
        name = local(element)
        if name == "t" and "math" not in str(element.tag):
            parts.append(element.text or "")
        elif name == "br":
            parts.append("\n")
        elif name == "oMath":
            parts.append(f" {equation_text(element)} ")
    return "".join(parts)


def _table_rows(table: etree._Element) -> list[list[str]]:
    """Cell texts; a cell that spans rows is repeated in each of them."""
    rows: list[list[str]] = []
    for row in table:
        if local(row) != "tr":
            continue
        texts: list[str] = []
        for cell in row:
            if local(cell) != "tc":
                continue
            above = rows[-1][len(texts)] if rows and len(texts) < len(rows[-1]) else ""
            texts.append(above if attribute(cell, "vMerge") in ("1", "true") else _cell_text(cell))
        rows.append(texts)
    return rows


def _cell_text(cell: etree._Element) -> str:
    return " ".join(_paragraph_text(paragraph) for paragraph in descendants(cell, "p"))
