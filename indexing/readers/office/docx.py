"""Word (docx) -> text: headings, lists, tables, text boxes, equations, notes, comments; no hidden text."""

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec
from lxml import etree

from indexing.documents import BlockKind, Document
from indexing.readers.builder import TextWriter, one_line, tidy
from indexing.readers.limits import ReadLimits
from indexing.readers.office.parts import equation_text, symbol, write_chart, write_diagram
from indexing.readers.text.encoding import decode
from indexing.readers.text.html import declared_charset, write_html
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

_HEADING_STYLE = re.compile(
    r"(?:heading|überschrift|titre|título|titolo|kop|заголовок|标题|見出し)\s*([1-9])$", re.IGNORECASE
)
_CODE_STYLE = re.compile(
    r"^(source code|code|code block|html preformatted|preformatted( text)?|macro|plain code)$", re.IGNORECASE
)
_QUOTE_STYLE = re.compile(r"^(intense )?quote$|^block ?text$", re.IGNORECASE)
_CODE_MARKS = re.compile(r"[=;{}<>()\[\]]|^\s*(?:def|import|return|SELECT|\$) ")
_BREAKS = {"br": "\n", "cr": "\n", "tab": "\t", "noBreakHyphen": "-", "softHyphen": "", "ptab": "\t"}
_PASSED_OVER = frozenset(
    [
        *("del", "moveFrom", "pPr", "rPr", "instrText", "fldChar", "commentReference", "annotationRef", "delText"),
        *("sectPr", "rt", "rubyPr"),
    ]
)
_DEPTH = 60
_WORD = re.compile(r"[^\W\d_]{3}|[^\W\d_]\W?\d")


class _Style(msgspec.Struct, frozen=True):
    name: str
    based_on: str | None
    outline: int | None
    numbering: str | None
    depth: int | None


class _Paragraph(msgspec.Struct, frozen=True):
    kind: BlockKind
    text: str
    level: int = 0
    depth: int = 0


def read_docx(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """One document. A comment follows what it is about; notes follow the body, then what its pages bear at head and
    foot, once.
    """
    package = Package(data, limits)
    main = next(
        (part for kind, part in relationships(package, "").values() if kind == "officeDocument"), "word/document.xml"
    )
    if main not in package:
        raise corrupt("It has no main document part.")
    body = child(package.xml(main), "body")
    if body is None:
        raise corrupt("Its main document part has no body.")
    parts = dict(relationships(package, main).values())
    writer = TextWriter()
    targets = {identifier: part for identifier, (_, part) in relationships(package, main).items()}
    reader = _BodyReader(writer, _styles(package, parts), _number_formats(package, parts), package, targets)
    reader.comments = _comments(package, parts)
    reader.read(body)
    for kind in ("footnotes", "endnotes"):
        notes = package.xml_or_none(parts.get(kind, ""))
        for note in notes if notes is not None else ():
            if attribute(note, "type") is None:
                reader.read(note)
    for comment in reader.comments.values():  # on nothing that is read
        writer.add("paragraph", comment)
    _write_running_heads(package, main, writer)
    metadata: dict[str, Any] = dict(core_properties(package))
    title = metadata.pop("title", "") or reader.title
    media_type = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
    return [writer.document(title=title, media_type=media_type, metadata=metadata)]


def _comments(package: Package, parts: dict[str, str]) -> dict[str, str]:
    """By id: who says what."""
    root = package.xml_or_none(parts.get("comments", ""))
    comments = {}
    for comment in root if root is not None else ():
        if text := tidy(" ".join(inline_text(paragraph) for paragraph in descendants(comment, "p"))):
            author = attribute(comment, "author") or "somebody"
            comments[attribute(comment, "id") or ""] = f"Comment by {author}: {text}"
    return comments


def _write_running_heads(package: Package, main: str, writer: TextWriter) -> None:
    """What stands at the head or foot of pages, each text once; page numbers alone say nothing."""
    seen: set[str] = set()
    for kind, part in relationships(package, main).values():
        root = package.xml_or_none(part) if kind in ("header", "footer") else None
        lines = (tidy(inline_text(paragraph)) for paragraph in (descendants(root, "p") if root is not None else ()))
        text = "\n".join(line for line in lines if line)
        if text not in seen and _WORD.search(text):
            seen.add(text)
            writer.add("paragraph", text)


def _styles(package: Package, parts: dict[str, str]) -> dict[str, _Style]:
    root = package.xml_or_none(parts.get("styles", ""))
    return {
        attribute(style, "styleId") or "": _Style(
            name=_value(style, "name") or "",
            based_on=_value(style, "basedOn"),
            outline=_integer(_value(style, "pPr", "outlineLvl")),
            numbering=_value(style, "pPr", "numPr", "numId"),
            depth=_integer(_value(style, "pPr", "numPr", "ilvl")),
        )
        for style in (root if root is not None else ())
        if local(style) == "style"
    }


def _number_formats(package: Package, parts: dict[str, str]) -> dict[str, list[str]]:
    """List id -> number format per depth ("bullet", "decimal", "none" ...)."""
    root = package.xml_or_none(parts.get("numbering", ""))
    if root is None:
        return {}
    abstract = {
        attribute(element, "abstractNumId"): [
            _value(level, "numFmt") or "decimal" for level in element if local(level) == "lvl"
        ]
        for element in root
        if local(element) == "abstractNum"
    }
    return {
        attribute(element, "numId") or "": abstract.get(_value(element, "abstractNumId"), [])
        for element in root
        if local(element) == "num"
    }


def _value(element: etree._Element, *path: str) -> str | None:
    inner = child(element, *path)
    return None if inner is None else attribute(inner, "val")


def _integer(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() and len(text) < 9 else None


class _BodyReader:
    """Walks a body; lists are numbered as Word would number them."""

    def __init__(
        self,
        writer: TextWriter,
        styles: dict[str, _Style],
        formats: dict[str, list[str]],
        package: Package,
        targets: dict[str, str],
    ) -> None:
        self._writer = writer
        self._package = package
        self._targets = targets
        self._styles = styles
        self._formats = formats
        self._counters: defaultdict[str, list[int]] = defaultdict(list)
        self._code: list[str] = []
        self.title = ""
        self.comments: dict[str, str] = {}
        """Those that are still to be written, by id."""

    def read(self, container: etree._Element) -> None:
        """Writes every paragraph and table of a body, a note or a text box."""
        for element in _flat(container):
            if local(element) == "tbl":
                self._end_code()
                self._table(element)
            elif local(element) == "altChunk":
                self._end_code()
                self._chunk(self._targets.get(attribute(element, "id") or "", ""))
            else:
                self._paragraph(element)
                self._drawings(element)
            for mark in descendants(element, "commentReference") if self.comments else ():
                if comment := self.comments.pop(attribute(mark, "id") or "", ""):
                    self._end_code()
                    self._writer.add("paragraph", comment)
        self._end_code()

    def _chunk(self, part: str) -> None:
        """A file of another format that Word shows as a part of this one."""
        data = self._package.read(part) if part in self._package else b""
        if part.endswith((".htm", ".html", ".xhtml", ".mht")):
            write_html(decode(data, declared_charset(data)), self._writer)
        elif part.endswith(".txt"):
            self._writer.add("paragraph", decode(data))
        elif data.startswith(b"PK"):
            inner = Package(data, ReadLimits(max_expanded_bytes=max(1, self._package.left)))
            root = inner.xml_or_none("word/document.xml")
            body = child(root, "body") if root is not None else None
            if body is not None:
                _BodyReader(self._writer, self._styles, self._formats, inner, {}).read(body)

    def _drawings(self, paragraph: etree._Element) -> None:
        """The charts and the diagrams that are anchored here."""
        for name in ("chart", "relIds"):
            for drawing in descendants(paragraph, name):
                target = self._targets.get(attribute(drawing, "dm" if name == "relIds" else "id") or "", "")
                root = self._package.xml_or_none(target)
                if root is not None and name == "chart":
                    write_chart(root, self._writer)
                elif root is not None:
                    write_diagram(root, self._writer)

    def _paragraph(self, element: etree._Element) -> None:
        paragraph = self._parsed(element)
        if paragraph.kind == "code":
            self._code.append(paragraph.text)
            return
        self._end_code()
        if self._style_name(element).lower() == "title" and not self.title:
            self.title = one_line(paragraph.text)
        self._writer.add(paragraph.kind, paragraph.text, level=paragraph.level, indent=2 * paragraph.depth)
        for box in _text_boxes(element):
            self.read(box)

    def _end_code(self) -> None:
        """Join lines of code, which are paragraphs to Word. Typewriter text without any mark of code is prose."""
        lines, self._code = self._code, []
        looks_like_code = any(_CODE_MARKS.search(line) for line in lines)
        for block in ["\n".join(lines)] if looks_like_code else lines:
            self._writer.add("code" if looks_like_code else "paragraph", block)

    def _parsed(self, element: etree._Element) -> _Paragraph:
        text = inline_text(element)
        if not text.strip():
            return _Paragraph("paragraph", "")
        style = self._style_name(element)
        if level := self._heading_level(element, style):
            return _Paragraph("heading", one_line(self._mark(element)[0].replace("- ", "") + text), level=level)
        if _CODE_STYLE.match(style) or _is_typewritten(element):
            return _Paragraph("code", text)
        if _QUOTE_STYLE.match(style):
            return _Paragraph("quote", text)
        mark, depth = self._mark(element)
        return _Paragraph("list_item", mark + tidy(text), depth=depth) if mark else _Paragraph("paragraph", text)

    def _style_name(self, element: etree._Element) -> str:
        identifier = _value(element, "pPr", "pStyle") or ""
        style = self._styles.get(identifier)
        return style.name if style else identifier

    def _lineage(self, element: etree._Element) -> Iterator[_Style]:
        identifier = _value(element, "pPr", "pStyle")
        for _ in range(20):
            style = self._styles.get(identifier or "")
            if style is None:
                return
            yield style
            identifier = style.based_on

    def _heading_level(self, element: etree._Element, style: str) -> int:
        """1..6, or 0 if it is not a heading."""
        if style.lower() == "title":
            return 1
        own = _integer(_value(element, "pPr", "outlineLvl"))
        if own is not None:
            return min(own + 1, 6) if own < 9 else 0
        for ancestor in self._lineage(element):
            if heading := _HEADING_STYLE.match(ancestor.name):
                return min(int(heading[1]), 6)
            if ancestor.outline is not None:
                return min(ancestor.outline + 1, 6) if ancestor.outline < 9 else 0
        return 0

    def _mark(self, element: etree._Element) -> tuple[str, int]:
        """The bullet or number before a list item and its depth; ("", 0) if it is not a list item."""
        own = _value(element, "pPr", "numPr", "numId")
        number = own or next((style.numbering for style in self._lineage(element) if style.numbering), None)
        formats = self._formats.get(number or "")
        if not number or number == "0" or not formats:
            return "", 0
        stated = _integer(_value(element, "pPr", "numPr", "ilvl"))
        if stated is None:
            stated = next((style.depth for style in self._lineage(element) if style.depth is not None), 0)
        depth = min(stated, len(formats) - 1, 8)
        if formats[depth] == "bullet":
            return "- ", depth
        counters = self._counters[number]
        del counters[depth + 1 :]
        counters.extend([0] * (depth + 1 - len(counters)))
        counters[depth] += 1
        if formats[depth] == "none":
            return "", 0
        return ".".join(str(max(1, count)) for count in counters) + (". " if depth == 0 else " "), depth

    def _table(self, table: etree._Element) -> None:
        rows = list(self._rows(table))
        if max((len(row) for row in rows), default=0) == 1 and len(rows) == 1:
            # One cell is a frame around text, not a table.
            for cell in descendants(table, "tc"):
                return self.read(cell)
        self._writer.add_table(rows, header=len(rows) > 1)
        return None

    def _rows(self, table: etree._Element) -> Iterator[list[str]]:
        above: list[str] = []
        for row in _flat(table, "tr"):
            texts: list[str] = []
            for cell in _flat(row, "tc"):
                merged = child(cell, "tcPr", "vMerge")
                column = len(texts)
                continues = merged is not None and attribute(merged, "val") != "restart"
                texts.append(above[column] if continues and column < len(above) else self._cell(cell))
                texts.extend([""] * (min(_integer(_value(cell, "tcPr", "gridSpan")) or 1, 100) - 1))
            above = texts
            yield texts

    def _cell(self, cell: etree._Element, nesting: int = 0) -> str:
        parts: list[str] = []
        for element in _flat(cell):
            if local(element) == "tbl":
                rows = [[self._cell(inner, nesting + 1) for inner in _flat(row, "tc")] for row in _flat(element, "tr")]
                parts.extend(", ".join(row) for row in rows if nesting < 5)
            else:
                parts.append(self._parsed(element).text)
                parts.extend(" ".join(self._parsed(inner).text for inner in _flat(box)) for box in _text_boxes(element))
        return "\n".join(part for part in parts if part.strip())


def _flat(container: etree._Element, *tags: str, depth: int = 0) -> Iterator[etree._Element]:
    """Paragraphs and tables (or `wanted`) right inside, through content controls and tracked insertions."""
    names = tags or ("p", "tbl", "altChunk")
    for element in container:
        name = local(element)
        if name in names:
            yield element
        elif (
            name in ("sdt", "sdtContent", "ins", "moveTo", "customXml", "smartTag", "AlternateContent", "Choice")
            and depth < _DEPTH
        ):
            yield from _flat(element, *names, depth=depth + 1)


def _text_boxes(paragraph: etree._Element) -> Iterator[etree._Element]:
    """The text boxes anchored here. Word writes each one twice: the fallback for old readers is passed over."""
    for box in descendants(paragraph, "txbxContent"):
        owners = [local(owner) for owner in box.iterancestors()]
        own = owners[: owners.index("p")] if "p" in owners else owners
        nearest = next((owner for owner in box.iterancestors() if local(owner) == "p"), None)
        if nearest is paragraph and "Fallback" not in own:
            yield box


def inline_text(element: etree._Element, depth: int = 0) -> str:
    """The text of a paragraph without its text boxes, deleted runs and field codes."""
    parts: list[str] = []
    for inner in element:
        name = local(inner)
        if name in _PASSED_OVER or name in ("txbxContent", "Fallback") or depth > _DEPTH:
            continue
        if name == "r" and _is_hidden(inner):
            continue
        if name == "t":
            parts.append(inner.text or "")
        elif name == "oMath":
            parts.append(f" {equation_text(inner).strip()} ")
        elif name in _BREAKS:
            parts.append(_BREAKS[name])
        elif name == "sym":
            parts.append(symbol(attribute(inner, "font") or "", attribute(inner, "char") or ""))
        elif name == "checkbox":
            continue
        else:
            parts.append(inline_text(inner, depth + 1))
    return "".join(parts)


def _is_hidden(run: etree._Element) -> bool:
    vanish = child(run, "rPr", "vanish")
    return vanish is not None and (attribute(vanish, "val") or "true") not in ("0", "false", "off")


def _is_typewritten(paragraph: etree._Element) -> bool:
    runs = [run for run in descendants(paragraph, "r") if any(True for _ in descendants(run, "t"))]
    return bool(runs) and all(_is_typewriter(run) for run in runs)


def _is_typewriter(run: etree._Element) -> bool:
    fonts = child(run, "rPr", "rFonts")
    face = (attribute(fonts, "ascii") or "") if fonts is not None else ""
    return bool(re.match(r"courier|consolas|menlo|monaco|.*\bmono\b|lucida console|source code", face, re.IGNORECASE))
