"""The layout of PDF pages: fragments of text -> paragraphs, lists and tables in reading order. Pure.

    rows_of (lines.py)          fragments that stand on one line
    without_running_lines       page numbers go, headers and footers after the first page, line numbers
    in_columns                  rows across two columns become one column after the other
    table_at                    runs of rows whose cells share columns
    _PageWriter                 the other rows become paragraphs and list items; those that the outline names, headings

Nothing in a PDF says any of this but its outline: every step judges by positions and sizes, relative to the document's
own. What is large or bold is no heading for that: guessed headings cost more pages than they find (docs/decisions.md).
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from itertools import chain, dropwhile, pairwise, takewhile
from statistics import median
from typing import Literal

import msgspec

from indexing.readers.builder import TextWriter
from indexing.readers.pdf.lines import CJK, Fragment, Page, Row, Vocabulary, joined, rows_of

_BULLET = re.compile(r"^(?:[•‣◦▪▫■□●○◆◇➢➤✓✔❖–—＊*·-]|\(?(?:\d{1,2}|[a-zA-Z]|[ivx]{1,4})[.)])(?:\s+\S|$)")
_TERMINATORS = frozenset(".!?:;。！？：؟۔…")
_CLOSING = "\"'”’)]"
_LETTER = re.compile(r"[^\W\d_]")
_HEADING_LINES = 3
_TITLE_CHARACTERS = 160
_LARGE = 1.12  # times the size of most of the text
# Lines that begin within about this many points of each other belong to one column.
_NEAR = 40


Outline = Mapping[int, Mapping[str, int]]
"""By page, from 1: the `letters` of each heading on it, and its level, from 1."""


def write_pages(pages: Sequence[Page], writer: TextWriter, outline: Outline | None = None) -> str:
    """Writes every page in reading order; headers, footers and stamps that run through the document once.

    Returns the title that the first page shows, "" if none stands out.
    """
    outline = outline or {}
    rows_by_page = [downwards(rows_of(without_line_numbers(page))) for page in pages]
    rows_by_page = without_running_lines(rows_by_page, [page.height for page in pages])
    words = Vocabulary(row.text for rows in rows_by_page for row in rows)
    stamps: set[str] = set()
    for number, (page, rows) in enumerate(zip(pages, rows_by_page, strict=True), 1):
        writer.page(number)
        _PageWriter(writer, words, outline.get(number, {})).write(in_columns(rows, page.width))
        for stamp in [one.text.strip() for one in page.fragments if one.askew]:
            if stamp not in stamps:
                stamps.add(stamp)
                writer.add("paragraph", stamp)
    return _title(rows_by_page)


def letters(text: str) -> str:
    """What two spellings of a heading have in common: letters and digits, all small."""
    return "".join(filter(str.isalnum, text.casefold()))


def _title(rows_by_page: Sequence[Sequence[Row]]) -> str:
    """The first lines of the first page with text that are set in its largest type, if that is larger than the text."""
    weights: Counter[float] = Counter()
    for row in chain.from_iterable(rows_by_page):
        weights[row.size] += len(row.text)
    first = [row for row in next(filter(None, rows_by_page), ()) if _LETTER.search(row.text) and not _is_upright(row)]
    largest = max((row.size for row in first), default=0.0)
    if largest < _LARGE * max(weights, key=weights.__getitem__, default=1.0):
        return ""
    lines = takewhile(lambda row: row.size >= largest * 0.96, dropwhile(lambda row: row.size < largest * 0.96, first))
    title = " ".join(row.text.strip() for row in lines)
    return title if len(title) <= _TITLE_CHARACTERS else ""


def downwards(rows: list[Row]) -> list[Row]:
    """The rows from top to bottom: reversed if the file has nearly all of them from bottom to top."""
    steps = [below.top - above.top for above, below in pairwise(rows)]
    return rows[::-1] if sum(step < 0 for step in steps) > 0.7 * len(steps) else rows


def in_columns(rows: list[Row], width: float) -> list[Row]:
    """Rows that run across two columns of prose, reordered to one column after the other."""
    gutter = _gutter(rows, width)
    if gutter is None:
        return rows
    ordered: list[Row] = []
    left: list[Row] = []
    right: list[Row] = []
    for row in rows:
        if row.left < gutter < row.right and any(cell.left < gutter < cell.right for cell in row.cells):
            ordered += [*left, *right, row]
            left, right = [], []
            continue
        for side, cells in (
            (left, [cell for cell in row.cells if cell.right <= gutter]),
            (right, [cell for cell in row.cells if cell.left >= gutter]),
        ):
            if cells:
                side.append(Row(cells))
    return [*ordered, *left, *right]


def _gutter(rows: list[Row], width: float) -> float | None:
    """The middle of the gap between two columns of prose; None where there are none."""
    pairs = [row.cells for row in rows if len(row.cells) == 2 and all(_is_prose(cell, width) for cell in row.cells)]
    if len(pairs) < 5 or len(pairs) < 0.4 * len(rows):
        return None
    left_edge = max(min(pair, key=lambda cell: cell.left).right for pair in pairs)
    right_edge = min(max(pair, key=lambda cell: cell.left).left for pair in pairs)
    return (left_edge + right_edge) / 2 if left_edge < right_edge else None


def _is_prose(cell: Fragment, width: float) -> bool:
    return cell.right - cell.left > 0.25 * width and cell.text.count(" ") >= 3


def table_at(rows: Sequence[Row], position: int) -> tuple[list[list[str]], int]:
    """The table that begins with row `position` as cells by column, and the index after it; [] where none begins.

    A table is a run of rows, close to one another, whose cells stand in common columns. A lone cell under a column
    other than the first goes on with what is above it.
    """
    columns: list[Fragment] = []
    table: list[list[str]] = []
    index = position
    while index < len(rows):
        row = rows[index]
        places = [_column(cell, columns) for cell in row.cells]
        if table and not _belongs(rows[index - 1], row, places):
            break
        if not table and not _is_tabular(row):
            break
        if table and len(row.cells) == 1:
            column = places[0] or 0
            table[-1][column] = f"{table[-1][column]} {row.cells[0].text.strip()}".strip()
        else:
            _place(row, places, columns, table)
        index += 1
    ordered = sorted(range(len(columns)), key=lambda column: columns[column].left)
    cells = [[row[column] if column < len(row) else "" for column in ordered] for row in table]
    return (cells, index) if len(table) > 1 else ([], position)


def _place(row: Row, places: list[int | None], columns: list[Fragment], table: list[list[str]]) -> None:
    for number, (cell, place) in enumerate(zip(row.cells, places, strict=True)):
        if place is None:
            places[number] = len(columns)
            columns.append(cell)
    texts = [""] * len(columns)
    for cell, place in zip(row.cells, places, strict=True):
        texts[place or 0] = f"{texts[place or 0]} {cell.text.strip()}".strip()
    for earlier in table:
        earlier.extend([""] * (len(columns) - len(earlier)))
    table.append(texts)


def _column(cell: Fragment, columns: list[Fragment]) -> int | None:
    """The column of a cell: the one with the same left edge, right edge or middle."""
    near, least = None, 0.8 * cell.size
    for index, column in enumerate(columns):
        from_left, from_right = cell.left - column.left, cell.right - column.right
        distance = min(abs(from_left), abs(from_right), abs(from_left + from_right) / 2)
        if distance < least:
            near, least = index, distance
    return near


def _is_tabular(row: Row) -> bool:
    # A bullet and its text, or a number and its heading, stand apart as well.
    return len(row.cells) > 2 or (len(row.cells) == 2 and len(row.cells[0].text.strip()) > 3)


def _belongs(above: Row, row: Row, places: list[int | None]) -> bool:
    """True if `row` continues the table whose last row is `above`."""
    if row.top <= above.top or row.top - above.bottom > 2 * above.size:
        return False
    in_columns_above = sum(place is not None for place in places)
    if len(row.cells) == 1:
        return bool(places[0]) and row.top - above.bottom < 0.6 * above.size
    return in_columns_above >= 2 or in_columns_above == len(places)


class _PageWriter:
    """Gathers lines into paragraphs and rows into tables."""

    def __init__(self, writer: TextWriter, words: Vocabulary, headings: Mapping[str, int]) -> None:
        self._writer = writer
        self._words = words
        self._headings = headings
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
            if after := self._heading_at(rows, position):
                position = after
                continue
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

    def _heading_at(self, rows: Sequence[Row], position: int) -> int:
        """Writes the heading that stands there by the outline; the index after it, 0 if there is none."""
        if not self._headings:
            return 0
        text = ""
        for after in range(position + 1, min(position + _HEADING_LINES, len(rows)) + 1):
            text = f"{text} {rows[after - 1].text.strip()}"
            level = self._headings.get(letters(text))
            if level:
                self._flush()
                self._writer.add("heading", text, level=level)
                return after
        return 0

    def _begins_anew(self, above: Row, row: Row) -> bool:
        """True when `row` opens another paragraph than the one that `above` belongs to."""
        if _is_upright(above) != _is_upright(row):
            return True
        if _BULLET.match(row.text.strip()) or abs(row.size - above.size) > 0.08 * above.size:
            return True
        step = row.top - above.top
        if step < -0.5 * row.size or step > 6 * row.size:
            # A new column: the sentence goes on if it was not over.
            return _is_terminated(above.text) or not _continues(row.text.strip())
        leading = max(self._pitch, 1.05 * row.size)
        if step > 1.35 * leading:
            return True
        ended = _is_terminated(above.text)
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
        text = joined([line.text for line in lines], breaks, self._words)
        self._writer.add("list_item" if _BULLET.match(text) else "paragraph", text)


def _is_upright(row: Row) -> bool:
    return row.bottom - row.top > 3 * row.size and row.right - row.left < 2 * row.size


def _is_terminated(text: str) -> bool:
    return text.rstrip().rstrip(_CLOSING)[-1:] in _TERMINATORS


def _continues(text: str) -> bool:
    return bool(text) and (text[0].islower() or bool(CJK.match(text)) or unicodedata.category(text[0]) == "Lo")


_NUMBER = re.compile(r"\d+|\b[ivxlc]+\b")
_BARE_NUMBER = re.compile(r"^[-–—\s]*(?:\d{1,4}|[ivxlc]+)[-–—\s]*$")
_LINE_NUMBER = re.compile(r"\d{1,4}")
_MARGIN = 0.15  # of the page's height
_MOST = 0.4  # of the pages: left and right pages may have headers of their own
_OFFSET = 30  # how far the number on a page may be from its place in the file: covers and forewords
_ROMAN = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}
_NUMBERED_LINES = 8
_SAME_EDGE = 4.0  # points


class _Place(msgspec.Struct, frozen=True):
    """A row near the edge of a page, and the numbers in it."""

    page: int
    row: Row
    numbers: tuple[int, ...]


def without_running_lines(pages: list[list[Row]], heights: Sequence[float]) -> list[list[Row]]:
    """Takes away page numbers, and headers and footers after their first page."""
    alike: defaultdict[tuple[bool, str], list[_Place]] = defaultdict(list)
    for page, (rows, height) in enumerate(zip(pages, heights, strict=True), 1):
        for row in rows:
            at_top = row.bottom < _MARGIN * height
            if at_top or row.top > (1 - _MARGIN) * height:
                text = row.text.lower().strip()
                numbers = tuple(_value(number) for number in _NUMBER.findall(text))
                alike[at_top, _NUMBER.sub("\0", text)].append(_Place(page, row, numbers))
    most = max(3, _MOST * sum(1 for rows in pages if rows))
    running = {id(row) for places in alike.values() for row in _running(places, most)}
    return [_peeled(rows, running) for rows in pages]


def _value(number: str) -> int:
    if number.isdigit():
        return int(number)
    values = [_ROMAN[letter] for letter in number]
    return sum(-one if one < after else one for one, after in zip(values, [*values[1:], 0], strict=True))


def _running(places: list[_Place], most: float) -> list[Row]:
    """Of rows that differ in their numbers at most, those that may go."""
    numbered = False
    for position in range(len(places[0].numbers)):
        ((value, times),) = Counter(place.numbers[position] for place in places).most_common(1)
        ((offset, steps),) = Counter(place.numbers[position] - place.page for place in places).most_common(1)
        if steps > times and abs(offset) <= _OFFSET:
            numbered = True
            places = [place for place in places if place.numbers[position] - place.page == offset]
        else:
            places = [place for place in places if place.numbers[position] == value]
    if numbered and _BARE_NUMBER.match(places[0].row.text.lower()):
        return [place.row for place in places] if len(places) > 1 else []
    return [place.row for place in places[1:]] if len(places) >= most else []


def _peeled(rows: list[Row], running: Set[int]) -> list[Row]:
    """The rows without those running ones that only other running ones divide from the edge."""
    ordered = sorted(rows, key=lambda row: row.top)
    above = list(takewhile(lambda row: id(row) in running, ordered))
    below = list(takewhile(lambda row: id(row) in running, reversed(ordered)))
    peeled = {id(row) for row in (*above, *below)}
    return [row for row in rows if id(row) not in peeled] if peeled else rows


def without_line_numbers(page: Page) -> Page:
    """The page without the numbers that stand before its lines in the margin, as in contracts, bills and pleadings."""
    numbers = [one for one in page.fragments if _LINE_NUMBER.fullmatch(one.text.strip())]
    if len(numbers) < _NUMBERED_LINES:
        return page
    column = max(_aligned(numbers, "left"), _aligned(numbers, "right"), key=len)
    counted = {id(one) for one in column}
    others = [one for one in page.fragments if not one.askew and id(one) not in counted]
    if not _counts_lines(column, others):
        return page
    kept = [one for one in page.fragments if id(one) not in counted]
    return msgspec.structs.replace(page, fragments=tuple(kept))


def _aligned(numbers: Sequence[Fragment], side: Literal["left", "right"]) -> list[Fragment]:
    """Most of them, from top to bottom: those that stand under one another by this edge."""
    edges = [getattr(one, side) for one in numbers]
    ((place, _),) = Counter(round(edge / _SAME_EDGE) for edge in edges).most_common(1) or [(0, 0)]
    column = [one for one, edge in zip(numbers, edges, strict=True) if abs(edge / _SAME_EDGE - place) <= 1]
    return sorted(column, key=lambda one: one.top)


def _counts_lines(column: Sequence[Fragment], others: Sequence[Fragment]) -> bool:
    """Whether these numbers, from top to bottom, count the lines of running text beside them."""
    if len(column) < _NUMBERED_LINES or not others:
        return False
    values = [int(one.text) for one in column]
    steps = Counter(after - before for before, after in pairwise(values))
    ((step, times),) = steps.most_common(1)
    edge = max(one.right for one in column)
    beside = sum(one.left >= edge for one in others)
    running_on = sum(one.text[:1].islower() for one in others)
    return (
        step in (1, 5)
        and times >= 0.8 * (len(column) - 1)
        and beside >= 0.8 * len(others)
        # Sentences go on from line to line; the rows of a numbered table begin with capitals and figures.
        and running_on >= 0.2 * len(others)
    )
