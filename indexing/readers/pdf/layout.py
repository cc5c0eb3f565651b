"""Rows of PDF pages -> paragraphs, headings, lists and tables. Pure: no PDF library here.

PDFium gives lines in the order of the content stream, which most producers write in reading order. That order is
kept; geometry only decides what belongs together, finds columns that were written across, and repeated margins.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median

from indexing.readers.builder import TextWriter
from indexing.readers.pdf.lines import CJK, HYPHEN, Page, Row, joined, rows_of
from indexing.readers.pdf.reading_order import downwards, in_columns, without_running_margins
from indexing.readers.pdf.tables import table_at

_BULLET = re.compile(r"^(?:[•‣◦▪▫■□●○◆◇➢➤✓✔❖–—＊*·-]|\(?(?:\d{1,2}|[a-zA-Z]|[ivx]{1,4})[.)])(?:\s+\S|$)")
_TERMINATED = re.compile(r"[.!?:;。！？：؟۔…][\"'”’)\]]*$")
_LATIN_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_LETTER = re.compile(r"[^\W\d_]")
_HEADING_CHARACTERS = 160
# Lines that begin within about this many points of each other belong to one column.
_NEAR = 40


def write_pages(pages: Sequence[Page], writer: TextWriter) -> None:
    """Writes every page in reading order, without running headers and footers."""
    rows_by_page = [downwards(rows_of(page)) for page in pages]
    rows_by_page = without_running_margins(rows_by_page, [page.height for page in pages])
    scale = _Scale(row for rows in rows_by_page for row in rows)
    for number, (page, rows) in enumerate(zip(pages, rows_by_page, strict=True), 1):
        writer.page(number)
        _PageWriter(writer, scale).write(in_columns(rows, page.width))


class _Scale:
    """What the document's own sizes mean: body text, headings by rank; and its vocabulary."""

    def __init__(self, rows: Iterable[Row]) -> None:
        weights: Counter[float] = Counter()
        self.words: Counter[str] = Counter()
        divided = False
        for row in rows:
            weights[row.size] += len(row.text)
            words = [word.lower() for word in _LATIN_WORD.findall(row.text)]
            # The halves of a divided word are no words.
            begin, divided = int(divided), row.text.rstrip().endswith((HYPHEN, "-"))
            self.words.update(words[begin : len(words) - divided])
        self.body = weights.most_common(1)[0][0] if weights else 1.0
        larger = sorted((size for size in weights if size >= 1.12 * self.body), reverse=True)
        larger = larger[:60]
        self._levels = {size: min(1 + rank, 5) for rank, size in enumerate(_distinct(larger))}
        self._sizes = list(self._levels)
        self.bold_level = min(6, 1 + max(self._levels.values(), default=0))

    def level(self, size: float) -> int:
        """1..5 for a size above body text; 0 for body text."""
        for known in self._sizes:
            if size >= known * 0.96:
                return self._levels[known]
        return 0


def _distinct(sizes: list[float]) -> list[float]:
    """Descending sizes without those that differ by less than four hundredths."""
    kept: list[float] = []
    for size in sizes:
        if not kept or size < kept[-1] * 0.96:
            kept.append(size)
    return kept


class _PageWriter:
    """Gathers lines into paragraphs and rows into tables."""

    def __init__(self, writer: TextWriter, scale: _Scale) -> None:
        self._writer = writer
        self._scale = scale
        self._lines: list[Row] = []
        self._pitch = 0.0
        self._ends: defaultdict[int, list[float]] = defaultdict(list)
        self._edges: dict[int, float] = {}

    def write(self, rows: list[Row]) -> None:
        """Writes one page."""
        steps = [below.top - above.top for above, below in pairwise(rows) if 0 < below.top - above.top < 4 * below.size]
        self._pitch = median(steps) if steps else 0.0
        self._ends.clear()
        self._edges.clear()
        for row in rows:
            self._ends[int(row.left // _NEAR)].append(row.right)
        position = 0
        while position < len(rows):
            table, after = table_at(rows, position)
            if table:
                self._flush()
                self._writer.add_table(table, header=True)
                position = after
                continue
            if self._lines and self._begins_anew(self._lines[-1], rows[position]):
                self._flush()
            self._lines.append(rows[position])
            position += 1
        self._flush()

    def _begins_anew(self, above: Row, row: Row) -> bool:
        """True when `row` opens another paragraph than the one that `above` belongs to."""
        if _is_upright(above) != _is_upright(row):
            return True
        if _BULLET.match(row.text.strip()) or abs(row.size - above.size) > 0.08 * above.size:
            return True
        if row.first.bold != above.first.bold and self._has_room(above, row):
            return True
        step = row.top - above.top
        if step < -0.5 * row.size or step > 6 * row.size:
            # A new column: the sentence goes on if it was not over.
            return bool(_TERMINATED.search(above.text.strip())) or not _continues(row.text.strip())
        leading = max(self._pitch, 1.05 * row.size)
        if step > 1.35 * leading:
            return True
        ended = _TERMINATED.search(above.text.strip()) is not None
        indented = row.left - above.left > 0.8 * row.size and len(self._lines) > 1
        return ended and (self._has_room(above, row) or indented)

    def _has_room(self, above: Row, row: Row) -> bool:
        """True when the first word of `row` would have fitted behind `above`: someone broke the line on purpose."""
        edge = self._edge(above)
        text = row.text.strip()
        word = 1 if CJK.match(text) else len(text.split(" ", 1)[0])
        return edge - above.right > 1.1 * (word + 1) * (row.right - row.left) / max(1, len(text))

    def _edge(self, row: Row) -> float:
        """Where the column ends on the right: the far end of lines that begin about where `row` does."""
        place = int(row.left // _NEAR)
        if place not in self._edges:
            ends = sorted((end for near in (place - 1, place, place + 1) for end in self._ends[near]), reverse=True)
            # A few lines run on over the next column: titles, tables.
            self._edges[place] = ends[len(ends) // 8]
        return self._edges[place]

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        if not lines:
            return
        breaks = [self._has_room(above, below) for above, below in pairwise(lines)]
        text = joined([line.text for line in lines], breaks, self._scale.words)
        level = self._heading_level(lines, text)
        if level:
            self._writer.add("heading", text, level=level)
        else:
            self._writer.add("list_item" if _BULLET.match(text) else "paragraph", text)

    def _heading_level(self, lines: list[Row], text: str) -> int:
        if len(text) > _HEADING_CHARACTERS or len(lines) > 3 or not _LETTER.search(text):
            return 0
        if level := self._scale.level(lines[0].size):
            return level
        all_bold = all(cell.bold for line in lines for cell in line.cells)
        return (
            self._scale.bold_level
            if all_bold and len(text) < 90 and not re.search(r"[.,;:]$", text) and not _BULLET.match(text)
            else 0
        )


def _is_upright(row: Row) -> bool:
    return row.bottom - row.top > 3 * row.size and row.right - row.left < 2 * row.size


def _continues(text: str) -> bool:
    return bool(text) and (text[0].islower() or bool(CJK.match(text)) or unicodedata.category(text[0]) == "Lo")
