"""Documents from blocks of text with exact offsets. Pure.

    TextWriter    for formats that become text: blocks are appended, and the document is what was written
    covering      for formats that are text: blocks are ranges of the file, and cover all of it

Both keep the invariants of `documents.Block`.
"""

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from indexing.documents import Block, BlockKind, Document, PageStart

_DROPPED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\u00ad\u200b\ufeff\ufffe\uffff\ud800-\udfff]")
_LINE_BREAKS = re.compile("\r\n?|[\u2028\u2029\x85\x0b\x0c]")
_BLANKS = re.compile("[ \t\xa0\u2000-\u200a\u202f\u205f]+")
_AROUND_BREAK = re.compile(" ?\n ?")
_MANY_BREAKS = re.compile("\n{2,}")
_CLOSE_TOGETHER = ("list_item", "table_row")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_PARAGRAPH = re.compile(r"\S[^\r\n]*(?:(?:\r\n|\r|\n)(?![ \t]*(?:\r|\n|\Z))[^\r\n]*)*")


class TextWriter:
    """Collects blocks and page starts; keeps the invariants of `documents.Block`."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._blocks: list[Block] = []
        self._pages: list[PageStart] = []
        self._waiting_pages: list[int] = []

    def add(self, kind: BlockKind, text: str, level: int = 0, *, header: bool = False, indent: int = 0) -> None:
        """Appends a block; blank text is left out. `indent` spaces before it belong to no block."""
        text = tidy_code(text) if kind == "code" else tidy(text)
        if not text:
            return
        self._separate(kind, indent)
        self._start_waiting_pages()
        start = self._length
        self._append(text)
        if kind != "heading":
            level = 0
        self._blocks.append(Block(kind, start, self._length, level=min(level, 6), header=header))

    def add_table(self, rows: list[list[str]], *, header: bool) -> None:
        """Appends rows; the first one that is not blank is the header row when `header` is true."""
        rows = [row for row in without_empty_columns(rows) if any(cell.strip() for cell in row)]
        if header and len(rows) > 2 and _is_caption(rows):
            self.add("paragraph", row_text(rows.pop(0)))
        for cells in rows:
            if text := row_text(cells):
                self.add("table_row", text, header=header)
                header = False

    def page(self, number: int) -> None:
        """What is added next is on page `number`."""
        self._waiting_pages.append(number)

    def first_heading(self) -> str:
        """The first heading of the lowest level number, or ""."""
        headings = [block for block in self._blocks if block.kind == "heading"]
        if not headings:
            return ""
        best = min(headings, key=lambda block: block.level)
        return one_line("".join(self._parts)[best.start : best.end])

    @property
    def is_empty(self) -> bool:
        """Nothing has been written yet."""
        return not self._blocks

    def document(
        self, *, title: str, media_type: str, metadata: Mapping[str, Any], warnings: Sequence[str] = ()
    ) -> Document:
        """The finished document. An empty title is replaced by the first heading."""
        self._start_waiting_pages()
        return Document(
            text="".join(self._parts),
            title=one_line(title) or self.first_heading(),
            media_type=media_type,
            blocks=tuple(self._blocks),
            pages=tuple(self._pages),
            metadata={key: value for key, value in metadata.items() if value not in ("", None, [])},
            warnings=tuple(dict.fromkeys(warnings)),
        )

    def _separate(self, kind: BlockKind, indent: int) -> None:
        if self._blocks:
            close = kind in _CLOSE_TOGETHER and self._blocks[-1].kind == kind
            self._append("\n" if close else "\n\n")
            self._append(" " * indent)

    def _start_waiting_pages(self) -> None:
        self._pages.extend(PageStart(self._length, number) for number in self._waiting_pages)
        self._waiting_pages.clear()

    def _append(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)


def _is_caption(rows: list[list[str]]) -> bool:
    """True when the first row is one cell over a table of several columns."""
    filled = [sum(bool(cell.strip()) for cell in row) for row in rows]
    return filled[0] == 1 and filled[1] > 1 and bool(rows[0][0].strip())


def covering(text: str, blocks: Iterable[Block]) -> tuple[Block, ...]:
    """The blocks, with paragraphs for whatever they leave out; one that overlaps an earlier one is cut or dropped."""
    whole: list[Block] = []
    position = 0
    for block in blocks:
        fitting = trimmed(text, max(block.start, position), block.end, block.kind, block.level, header=block.header)
        if block.end <= position or fitting is None:
            continue
        whole.extend(paragraphs(text, position, fitting.start))
        whole.append(fitting)
        position = fitting.end
    whole.extend(paragraphs(text, position))
    return tuple(whole)


def paragraphs(text: str, start: int = 0, end: int | None = None) -> Iterator[Block]:
    """Paragraphs between empty lines of text[start:end]."""
    end = len(text) if end is None else end
    for match in _PARAGRAPH.finditer(text, start, end):
        if block := trimmed(text, *match.span(), "paragraph"):
            yield block


def trimmed(text: str, start: int, end: int, kind: BlockKind, level: int = 0, *, header: bool = False) -> Block | None:
    """The block without the white space around it; None when nothing is left."""
    part = text[start:end]
    lead = len(part) - len(part.lstrip())
    if lead == len(part):
        return None
    return Block(kind, start + lead, start + len(part.rstrip()), level=level, header=header)


def line_spans(text: str) -> list[tuple[int, int]]:
    """[start, end) of every line with its terminator; only CR, LF and CRLF end a line."""
    return [match.span() for match in _LINE.finditer(text) if match.end() > match.start()]


def tidy(text: str) -> str:
    """Prose with single spaces, plain line breaks and no invisible characters."""
    # Most texts are tidy: `isprintable` is false for every odd space, break and invisible character.
    if text.isprintable() and "  " not in text:
        return text.strip()
    text = _DROPPED.sub("", _LINE_BREAKS.sub("\n", text))
    return _MANY_BREAKS.sub("\n", _AROUND_BREAK.sub("\n", _BLANKS.sub(" ", text))).strip()


def one_line(text: str) -> str:
    """The text on a single line: for titles and table cells."""
    return tidy(text).replace("\n", " ")


def tidy_code(text: str) -> str:
    """Code keeps its indentation and its empty lines."""
    lines = _DROPPED.sub("", _LINE_BREAKS.sub("\n", text)).split("\n")
    return textwrap.dedent("\n".join(line.rstrip() for line in lines)).strip("\n")


def row_text(cells: list[str]) -> str:
    """One table row on one line, `a | b | c`, without the empty cells at its end."""
    lines = [one_line(cell) for cell in cells]
    while lines and not lines[-1]:
        lines.pop()
    return " | ".join(lines)


def without_empty_columns(rows: list[list[str]]) -> list[list[str]]:
    """The table without the columns that hold nothing: spacers of a layout, or the margin of a sheet."""
    used = {column for row in rows for column, cell in enumerate(row) if cell.strip()}
    width = max(used, default=-1) + 1
    if len(used) == width:
        return [row[:width] for row in rows]
    return [[cell for column, cell in enumerate(row) if column in used] for row in rows]


def stem(name: str) -> str:
    """A file's name without folder and suffix: the title of a document that has no other."""
    return PurePath(name.replace("\\", "/")).stem
