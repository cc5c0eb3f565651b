"""Where text stands on PDF pages -> paragraphs, headings, lists and table rows. Pure: no PDF library here.

PDFium gives lines in the order of the content stream, which most producers write in reading order. That order is
kept; geometry only decides what belongs together, finds columns that were written across, and repeated margins.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from statistics import median

import msgspec

from indexing.readers.writing import TextWriter

HYPHEN = "\ufffe"
_ALEFS = frozenset("اأإآٱ")
_SYMBOL_BULLET = re.compile(r"^[\x80-\x9f\ue000-\uf8ff](?=\s|$)")
_BULLET = re.compile(r"^(?:[•‣◦▪▫■□●○◆◇➢➤✓✔❖–—＊*·-]|\(?(?:\d{1,2}|[a-zA-Z]|[ivx]{1,4})[.)])(?:\s+\S|$)")
_TERMINATED = re.compile(r"[.!?:;。！？：؟۔…][\"'”’)\]]*$")
_DIGITS = re.compile(r"\d+|\b[ivxlc]+\b")
_CJK = re.compile(r"[\u1100-\u11ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]")
_LATIN_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_LETTER = re.compile(r"[^\W\d_]")
_LIGATURES = {
    code: unicodedata.normalize("NFKC", chr(code))
    for code in (*range(0xFB00, 0xFB07), *range(0xFB50, 0xFE00), *range(0xFE70, 0xFEFD))
    if unicodedata.normalize("NFKC", chr(code)) != chr(code)
}
# PDFium loses the space where writing turns back from left-to-right to right-to-left.
_LATIN_THEN_ARABIC = re.compile(r"(?<=[A-Za-z])(?=[\u0620-\u064a\u05d0-\u05ea])")
_PAGE_NUMBER = re.compile(r"^[-–—\s]*\d{1,4}[-–—\s]*$")
_HEADING_CHARACTERS = 160
_MARGIN_LINES = 3
# A gap of this many font heights separates columns or cells.
_WIDE = 1.4

Glyph = tuple[str, float, float, float, float, int]


class Fragment(msgspec.Struct, frozen=True):
    """Text on one line without a wide gap in it. Points from the page's top left; `size` is the height of its font."""

    text: str
    left: float
    top: float
    right: float
    bottom: float
    size: float
    bold: bool = False


class Page(msgspec.Struct, frozen=True):
    """A page's size in points and its fragments in the order of the file."""

    width: float
    height: float
    fragments: tuple[Fragment, ...]


class _Row(msgspec.Struct):
    """Fragments that stand on one line."""

    cells: list[Fragment]

    @property
    def text(self) -> str:
        # White space at the end tells whether a word ends there, in scripts that divide words anywhere.
        return " ".join([cell.text.strip() for cell in self.cells[:-1]] + [self.cells[-1].text.lstrip()])

    @property
    def first(self) -> Fragment:
        return self.cells[0]

    @property
    def left(self) -> float:
        return min(cell.left for cell in self.cells)

    @property
    def right(self) -> float:
        return max(cell.right for cell in self.cells)

    @property
    def top(self) -> float:
        return min(cell.top for cell in self.cells)

    @property
    def bottom(self) -> float:
        return max(cell.bottom for cell in self.cells)

    @property
    def size(self) -> float:
        return max(self.cells, key=lambda cell: len(cell.text)).size


def fragments_of_line(line: Sequence[Glyph], bold: bool) -> Iterator[Fragment]:
    """Cuts a line of glyphs where it has a wide gap, and puts Arabic ligatures right."""
    part: list[Glyph] = []
    inked: Glyph | None = None
    right_to_left = any("\u0590" <= glyph[0] <= "\u08ff" for glyph in line)
    for glyph in line:
        if not glyph[0].isspace():
            if inked is not None and _gap(inked, glyph) > _WIDE * max(inked[4] - inked[2], glyph[4] - glyph[2], 1.0):
                # Where writing turns round, neighbours in the text are far apart on the page.
                if not (right_to_left and _is_filled(line, inked, glyph)):
                    yield from _fragment(part, bold)
                    part = []
            inked = glyph
        part.append(glyph)
    yield from _fragment(part, bold)


def _is_filled(line: Sequence[Glyph], one: Glyph, other: Glyph) -> bool:
    """True when other glyphs stand in the gap."""
    start, end = min(one[3], other[3]), max(one[1], other[1])
    return any(start < (glyph[1] + glyph[3]) / 2 < end and not glyph[0].isspace() for glyph in line)


def _gap(one: Glyph, other: Glyph) -> float:
    return max(other[1] - one[3], one[1] - other[3])


def _fragment(glyphs: list[Glyph], bold: bool) -> Iterator[Fragment]:
    inked = [glyph for glyph in glyphs if not glyph[0].isspace()]
    if not inked:
        return
    text = _spelled(glyphs)
    size = round(median(glyph[4] - glyph[2] for glyph in inked) * 2) / 2
    left, top = min(glyph[1] for glyph in inked), min(glyph[2] for glyph in inked)
    right, bottom = max(glyph[3] for glyph in inked), max(glyph[4] for glyph in inked)
    yield Fragment(text, left, top, right, bottom, size, bold)


def _spelled(glyphs: list[Glyph]) -> str:
    """The characters; a lam-alef glyph, which PDFium turns round with its line, is turned back."""
    characters = [glyph[0] for glyph in glyphs]
    for index in range(len(glyphs) - 1):
        one, other = glyphs[index], glyphs[index + 1]
        if one[0] in _ALEFS and other[0] == "ل" and one[1:5] == other[1:5]:
            characters[index], characters[index + 1] = other[0], one[0]
    text = "".join(characters).translate(_LIGATURES)
    # Surrogates come in pairs of characters.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _SYMBOL_BULLET.sub("•", _LATIN_THEN_ARABIC.sub(" ", text.lstrip()))


def write_pages(pages: Sequence[Page], writer: TextWriter) -> None:
    """Writes every page in reading order, without running headers and footers."""
    rows_by_page = [_rows(page) for page in pages]
    rows_by_page = without_running_margins(rows_by_page, [page.height for page in pages])
    scale = _Scale(row for rows in rows_by_page for row in rows)
    for number, (page, rows) in enumerate(zip(pages, rows_by_page, strict=True), 1):
        writer.page(number)
        _PageWriter(writer, scale).write(_in_columns(rows, page.width))


class _Scale:
    """What the document's own sizes mean: body text, headings by rank; and its vocabulary."""

    def __init__(self, rows: Iterable[_Row]) -> None:
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


def _rows(page: Page) -> list[_Row]:
    """Neighbours in the file that stand on one line form a row."""
    rows: list[_Row] = []
    for fragment in page.fragments:
        if rows and _same_line(rows[-1].cells[-1], fragment):
            rows[-1].cells[-1:] = _apart_or_together(rows[-1].cells[-1], fragment)
        else:
            rows.append(_Row([fragment]))
    return rows


def _apart_or_together(one: Fragment, other: Fragment) -> list[Fragment]:
    """Two cells, or one fragment that a raised or lowered sign had divided."""
    gap = max(other.left - one.right, one.left - other.right)
    if gap > _WIDE * max(one.size, other.size):
        return [one, other]
    space = " " if gap > 0.2 * min(one.size, other.size) and not one.text.endswith(" ") else ""
    whole = Fragment(
        one.text + space + other.text,
        min(one.left, other.left),
        min(one.top, other.top),
        max(one.right, other.right),
        max(one.bottom, other.bottom),
        max(one, other, key=lambda part: len(part.text)).size,
        one.bold and other.bold,
    )
    return [whole]


def _same_line(one: Fragment, other: Fragment) -> bool:
    overlap = min(one.bottom, other.bottom) - max(one.top, other.top)
    apart = other.left >= one.right - 1 or other.right <= one.left + 1
    return apart and overlap > 0.6 * min(one.bottom - one.top, other.bottom - other.top)


def without_running_margins(pages: list[list[_Row]], heights: list[float]) -> list[list[_Row]]:
    """Drops the lines at the top and bottom that stand on most pages, page numbers in them aside."""
    pages = [_without_page_number(rows, height) for rows, height in zip(pages, heights, strict=True)]
    if len(pages) < 3:
        return pages
    seen: Counter[tuple[str, int]] = Counter()
    for rows, height in zip(pages, heights, strict=True):
        seen.update({_margin_key(row, height) for row in _margin(rows)})
    needed = max(3, 0.4 * sum(1 for rows in pages if rows))
    kept = []
    for rows, height in zip(pages, heights, strict=True):
        margin = [row for row in _margin(rows) if _times_seen(seen, _margin_key(row, height)) >= needed]
        kept.append([row for row in rows if not any(row is dropped for dropped in margin)])
    return kept


def _without_page_number(rows: list[_Row], height: float) -> list[_Row]:
    """Drops a bare number at the very top or bottom of a page."""
    edges = [min(rows, key=lambda row: row.top), max(rows, key=lambda row: row.bottom)] if len(rows) > 1 else []
    numbers = [row for row in edges if _PAGE_NUMBER.match(row.text) and not 0.1 * height < row.top < 0.88 * height]
    return [row for row in rows if not any(row is number for number in numbers)]


def _margin(rows: list[_Row]) -> list[_Row]:
    ordered = sorted(rows, key=lambda row: row.top)
    return ordered if len(ordered) <= 2 * _MARGIN_LINES else ordered[:_MARGIN_LINES] + ordered[-_MARGIN_LINES:]


def _margin_key(row: _Row, height: float) -> tuple[str, int]:
    return _DIGITS.sub("#", row.text.lower()), round(40 * row.top / max(height, 1.0))


def _times_seen(seen: Counter[tuple[str, int]], key: tuple[str, int]) -> int:
    text, place = key
    return sum(seen[text, nearby] for nearby in (place - 1, place, place + 1))


def _in_columns(rows: list[_Row], width: float) -> list[_Row]:
    """Rows that were written straight across two columns of prose, put one column after the other."""
    gutter = _gutter(rows, width)
    if gutter is None:
        return rows
    ordered: list[_Row] = []
    left: list[_Row] = []
    right: list[_Row] = []
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
                side.append(_Row(cells))
    return [*ordered, *left, *right]


def _gutter(rows: list[_Row], width: float) -> float | None:
    """The middle of the gap between two columns of prose; None where there are none."""
    pairs = [row.cells for row in rows if len(row.cells) == 2 and all(_is_prose(cell, width) for cell in row.cells)]
    if len(pairs) < 5 or len(pairs) < 0.4 * len(rows):
        return None
    left_edge = max(min(pair, key=lambda cell: cell.left).right for pair in pairs)
    right_edge = min(max(pair, key=lambda cell: cell.left).left for pair in pairs)
    return (left_edge + right_edge) / 2 if left_edge < right_edge else None


def _is_prose(cell: Fragment, width: float) -> bool:
    return cell.right - cell.left > 0.25 * width and cell.text.count(" ") >= 3


class _PageWriter:
    """Gathers lines into paragraphs and rows into tables."""

    def __init__(self, writer: TextWriter, scale: _Scale) -> None:
        self._writer = writer
        self._scale = scale
        self._lines: list[_Row] = []
        self._pitch = 0.0
        self._page: list[_Row] = []

    def write(self, rows: list[_Row]) -> None:
        """Writes one page."""
        steps = [below.top - above.top for above, below in pairwise(rows) if 0 < below.top - above.top < 4 * below.size]
        self._pitch = median(steps) if steps else 0.0
        self._page = rows
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

    def _begins_anew(self, above: _Row, row: _Row) -> bool:
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

    def _has_room(self, above: _Row, row: _Row) -> bool:
        """True when the first word of `row` would have fitted behind `above`: someone broke the line on purpose."""
        near = 4 * above.size
        edges = sorted((line.right for line in self._page if abs(line.left - above.left) < near), reverse=True)
        # A few lines run on over the next column: titles, tables.
        edge = edges[len(edges) // 8] if edges else above.right
        text = row.text.strip()
        word = 1 if _CJK.match(text) else len(text.split(" ", 1)[0])
        return edge - above.right > 1.1 * (word + 1) * (row.right - row.left) / max(1, len(text))

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

    def _heading_level(self, lines: list[_Row], text: str) -> int:
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


def _is_upright(row: _Row) -> bool:
    return row.bottom - row.top > 3 * row.size and row.right - row.left < 2 * row.size


def _continues(text: str) -> bool:
    return bool(text) and (text[0].islower() or bool(_CJK.match(text)) or unicodedata.category(text[0]) == "Lo")


def table_at(rows: Sequence[_Row], position: int) -> tuple[list[list[str]], int]:
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


def _place(row: _Row, places: list[int | None], columns: list[Fragment], table: list[list[str]]) -> None:
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
    """The column in which a cell stands: the same left edge, right edge or middle."""
    tolerance = 0.8 * cell.size

    def distance(column: Fragment) -> float:
        middles = abs(cell.left + cell.right - column.left - column.right) / 2
        return min(abs(cell.left - column.left), abs(cell.right - column.right), middles)

    near = min(range(len(columns)), key=lambda index: distance(columns[index]), default=None)
    return near if near is not None and distance(columns[near]) < tolerance else None


def _is_tabular(row: _Row) -> bool:
    # A bullet and its text, or a number and its heading, stand apart as well.
    return len(row.cells) > 2 or (len(row.cells) == 2 and len(row.cells[0].text.strip()) > 3)


def _belongs(above: _Row, row: _Row, places: list[int | None]) -> bool:
    """True when `row` goes on with the table whose last row is `above`."""
    if row.top <= above.top or row.top - above.bottom > 2 * above.size:
        return False
    known = sum(place is not None for place in places)
    if len(row.cells) == 1:
        return bool(places[0]) and row.top - above.bottom < 0.6 * above.size
    return known >= 2 or known == len(places)


def joined(lines: list[str], breaks: list[bool], words: Counter[str]) -> str:
    """Lines -> one paragraph; a line break stays where `breaks` says so, divided words are put together again."""
    text = lines[0]
    for line, on_purpose in zip(lines[1:], breaks, strict=True):
        hyphenated = text.rstrip().endswith(HYPHEN)
        text = f"{text}\n{line.lstrip()}" if on_purpose and not hyphenated else _join(text, line.lstrip(), words)
    return text.replace(HYPHEN, "-")


def _join(text: str, line: str, words: Counter[str]) -> str:
    stripped = text.rstrip()
    if stripped.endswith(HYPHEN) or (
        stripped.endswith(("-", "\u2010")) and line[:1].islower() and stripped[-2:-1].isalpha()
    ):
        return stripped[:-1] + _hyphen_between(stripped[:-1], line, words) + line
    if stripped and line and _CJK.match(stripped[-1]) and _CJK.match(line[0]):
        return text + line
    return f"{stripped} {line}"


def _hyphen_between(text: str, line: str, words: Counter[str]) -> str:
    """ "-" where the document writes the word with a hyphen elsewhere and never without; else ""."""
    before, after = re.search(r"[^\W\d_]+$", text), re.match(r"[^\W\d_]+", line)
    if not before or not after:
        return "-"
    one, other = before[0].lower(), after[0].lower()
    apart, together = words[f"{one}-{other}"], words[one + other]
    if apart == together == 0:
        # "high" and "dimensional", both known, are more likely a compound than one divided word.
        return "-" if words[one] and words[other] else ""
    return "-" if apart > together else ""
