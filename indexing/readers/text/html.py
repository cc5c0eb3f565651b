"""HTML and XHTML -> text: what a reader of the page would call its content."""

import re
from collections.abc import Iterator
from typing import Any

from lxml import etree
from lxml import html as lxml_html

from indexing.documents import Document
from indexing.readers.builder import TextWriter, one_line, tidy
from indexing.readers.limits import ReadLimits
from indexing.readers.text.encoding import decoded
from indexing.readers.text.furniture import NEVER_CONTENT, Furniture, speaks, without_storms
from indexing.readers.zip_xml import tags

_META_CHARSET = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9_.:-]+)""", re.IGNORECASE)
_XML_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = tags(
    "address article aside blockquote body button caption center dd details div dl dt fieldset figcaption figure "
    "footer form header hr html legend li main menu ol p pre section summary table tbody td tfoot th thead tr "
    "ul"
)
_EMPTY_LINES = re.compile(r"\n\s*\n")
# Below this depth text is gathered without its structure. A level takes up to four stack frames.
_DEPTH = 150


def read_html(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """One document: the page without its navigation."""
    source, warnings = decoded(data, declared_charset(data))
    writer = TextWriter()
    metadata = write_html(source, writer)
    title = metadata.pop("title", "")
    return [writer.document(title=title, media_type="text/html", metadata=metadata, warnings=warnings)]


def declared_charset(data: bytes) -> str | None:
    """The encoding that the page itself declares."""
    match = _META_CHARSET.search(data[:4096])
    return match[1].decode("ascii") if match else None


def write_html(source: str, writer: TextWriter) -> dict[str, Any]:
    """Writes the page's content; returns its title, author, language and description."""
    root = _parse(source)
    if root is None:
        return {}
    metadata = _metadata(root)
    bodies = root.xpath("//body")
    body = bodies[0] if bodies else root
    before = writer.is_empty
    furniture = Furniture(body)
    _PageWriter(writer, furniture, strict=True).write(body)
    if before and writer.is_empty:
        # Everything matched the boilerplate rules: retry without them.
        _PageWriter(writer, furniture, strict=False).write(body)
    return metadata


def _parse(source: str) -> Any:
    source = without_storms(_XML_DECLARATION.sub("", source).replace("\0", ""))
    if not source.strip():
        return None
    parser = lxml_html.HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
    try:
        return lxml_html.document_fromstring(source.encode("utf-8", "replace"), parser=parser)
    except etree.ParserError:
        return None


def _metadata(root: Any) -> dict[str, Any]:
    named = {
        (meta.get("name") or meta.get("property") or "").lower(): meta.get("content", "").strip()
        for meta in root.iter("meta")
    }
    titles = [one_line(title.text_content()) for title in root.iter("title")]
    fields = {
        "title": next((title for title in titles if title), named.get("og:title", "")),
        "author": named.get("author", ""),
        "description": named.get("description", ""),
        "created": named.get("article:published_time", "") or named.get("date", ""),
        "lang": (root.get("lang") or root.get("{http://www.w3.org/XML/1998/namespace}lang") or "").strip(),
    }
    return {key: value for key, value in fields.items() if value}


class _PageWriter:
    """Walks the tree once. Inline text gathers until a block element begins or ends."""

    def __init__(self, writer: TextWriter, furniture: Furniture, *, strict: bool) -> None:
        self._writer = writer
        self._furniture = furniture
        self._strict = strict
        self._inline: list[str] = []
        self._bullet: tuple[str, int] | None = None
        self._in_content = 0

    def write(self, body: Any) -> None:
        """Writes everything under `body`."""
        self._children(body, "paragraph", 0)
        self._flush("paragraph")

    def _children(self, element: Any, kind: Any, depth: int) -> None:
        self._gather(element.text)
        for inner in element:
            self._element(inner, kind, depth + 1)
            self._gather(inner.tail)

    def _element(self, element: Any, kind: Any, depth: int) -> None:
        tag = element.tag if isinstance(element.tag, str) else ""
        if not tag or tag in NEVER_CONTENT or (tag == "button" and not speaks(element)):
            return
        if self._furniture.covers(element, in_content=self._in_content > 0, strict=self._strict):
            return
        if depth > _DEPTH:
            self._gather(" ".join(element.itertext()))
        elif tag in _BLOCKS or tag in _HEADINGS:
            self._flush(kind)
            self._block(element, tag, kind, depth)
        else:
            self._inline_element(element, tag, kind, depth)

    def _inline_element(self, element: Any, tag: str, kind: Any, depth: int) -> None:
        if tag == "br":
            self._inline.append("\n")
        elif tag == "img":
            self._gather(f" {element.get('alt', '')} ")
        elif tag == "math":
            self._gather(_math_text(element))
        else:
            self._children(element, kind, depth)

    def _block(self, element: Any, tag: str, kind: Any, depth: int) -> None:
        if tag in _HEADINGS:
            text = inline_text(element).split() or inline_text(element, buttons=True).split()
            self._writer.add("heading", " ".join(text), level=_HEADINGS[tag])
        elif tag == "pre":
            self._writer.add("code", inline_text(element, keep_space=True))
        elif tag == "table" and _is_data_table(element):
            self._table(element)
        elif tag == "li":
            self._list_item(element, depth)
        else:
            inner = "quote" if tag == "blockquote" else kind
            self._in_content += tag in ("main", "article")
            self._children(element, inner, depth)
            self._flush(inner)
            self._in_content -= tag in ("main", "article")

    def _list_item(self, element: Any, depth: int) -> None:
        nesting = sum(parent.tag in ("ul", "ol", "menu") for parent in element.iterancestors()) - 1
        self._bullet = (_bullet(element), 2 * max(0, min(nesting, 8)))
        self._children(element, "list_item", depth)
        self._flush("list_item")
        self._bullet = None

    def _table(self, table: Any) -> None:
        for caption in table.iterchildren("caption"):
            self._writer.add("paragraph", " ".join(inline_text(caption).split()))
        rows = _grid(table)
        if rows:
            self._writer.add_table([cells for cells, _ in rows], header=rows[0][1] or _first_row_is_head(table))

    def _gather(self, text: str | None) -> None:
        if text:
            self._inline.append(re.sub(r"\s+", " ", text))

    def _flush(self, kind: Any) -> None:
        text = "".join(self._inline)
        self._inline = []
        for paragraph in _EMPTY_LINES.split(text):
            if not tidy(paragraph):
                continue
            # A list item may begin with a block element: then its bullet waits for the first words.
            mark, indent = self._bullet or ("", 0)
            self._bullet = None
            self._writer.add("list_item" if mark else kind, mark + tidy(paragraph), indent=indent)


def _bullet(item: Any) -> str:
    parent = item.getparent()
    if parent is None or parent.tag != "ol":
        return "- "
    earlier = sum(1 for _ in item.itersiblings("li", preceding=True))
    start = parent.get("start") or "1"
    return f"{earlier + (int(start) if start.isdigit() and len(start) < 9 else 1)}. "


def inline_text(element: Any, *, keep_space: bool = False, buttons: bool = False) -> str:
    """All visible text inside, of `buttons` only if asked; `br` and blocks inside become line breaks."""
    parts: list[str] = []
    passed_over = NEVER_CONTENT if buttons else NEVER_CONTENT | {"button"}
    skipped = None
    for event, inner in etree.iterwalk(element, events=("start", "end")):
        tag = inner.tag if isinstance(inner.tag, str) else ""
        if event == "end":
            if inner is skipped:
                skipped = None
            if skipped is None:
                parts.append("\n" if tag in _BLOCKS and tag != "td" and inner is not element else "")
                parts.append((inner.tail or "") if inner is not element else "")
            continue
        if (
            skipped is None
            and inner is not element
            and (tag in passed_over or "mw-editsection" in (inner.get("class") or ""))
        ):
            skipped = inner
        elif skipped is None:
            parts.append(_opening(inner, tag))
    text = "".join(parts)
    return text if keep_space else re.sub(r"[ \t\r\f\v]+", " ", text)


def _opening(element: Any, tag: str) -> str:
    if tag == "br":
        return "\n"
    if tag == "img":
        return str(element.get("alt") or "")
    return ("- " if tag == "li" else "") + (element.text or "")


def _math_text(element: Any) -> str:
    """TeX where the page carries it, else the formula's own characters."""
    notes = [note.text for note in element.iter("annotation") if note.text]
    return f" {notes[0]} " if notes else str(element.get("alttext") or " ".join(element.itertext()))


def _is_data_table(table: Any) -> bool:
    """False for tables that only lay a page out: one column, or whole sections inside their cells."""
    if table.get("role") == "presentation" or table.find(".//table") is not None:
        return table.find(".//th") is not None and not any(
            inner.find(".//p") is not None for inner in table.iter("table")
        )
    rows = list(table.iter("tr"))
    if not rows or max(len(list(_cells(row))) for row in rows) < 2:
        return table.find(".//th") is not None
    longest = max((len(cell.text_content()) for row in rows for cell in _cells(row)), default=0)
    return longest < 2000 or table.find(".//th") is not None


def _cells(row: Any) -> Iterator[Any]:
    return (cell for cell in row if cell.tag in ("td", "th"))


def _first_row_is_head(table: Any) -> bool:
    return table.find("thead") is not None


def _grid(table: Any) -> list[tuple[list[str], bool]]:
    """Rows of cell texts and whether the row is all `th`; a cell that spans rows is repeated in each of them."""
    rows: list[tuple[list[str], bool]] = []
    open_rowspans: dict[int, tuple[int, str]] = {}
    for row in table.iter("tr"):
        if next(row.iterancestors("table")) is not table:
            continue
        cells = list(_cells(row))
        texts = _row(cells, open_rowspans)
        for column in [column for column, (left, _) in open_rowspans.items() if left <= 1]:
            del open_rowspans[column]
        open_rowspans.update({column: (left - 1, text) for column, (left, text) in open_rowspans.items()})
        # A row that only opens spans says nothing that the rows below it do not repeat.
        if not cells or any(_span(cell, "rowspan") == 1 for cell in cells):
            rows.append((texts, bool(cells) and all(cell.tag == "th" for cell in cells)))
    return rows


def _row(cells: list[Any], open_rowspans: dict[int, tuple[int, str]]) -> list[str]:
    texts: list[str] = []
    for cell in cells:
        _fill(texts, open_rowspans)
        text = one_line(inline_text(cell))
        if (down := _span(cell, "rowspan")) > 1:
            open_rowspans[len(texts)] = (down, text)
        texts.extend([text] + [""] * (_span(cell, "colspan") - 1))
    _fill(texts, open_rowspans)
    return texts


def _fill(texts: list[str], open_rowspans: dict[int, tuple[int, str]]) -> None:
    while len(texts) in open_rowspans:
        texts.append(open_rowspans[len(texts)][1])


def _span(cell: Any, name: str) -> int:
    value = cell.get(name) or "1"
    return max(1, min(int(value), 1000)) if value.isdigit() and len(value) < 6 else 1
