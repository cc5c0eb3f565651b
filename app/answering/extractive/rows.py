"""The rows of a table in a passage, and what of a row answers a question. Pure.

site,employees,head          "How many employees are there in Görlitz?" is answered by the row that has the name
Bautzen,97,Ruth Adler        and the column that is asked for: "site: Görlitz; employees: 214". A row of another
Görlitz,214,Marek Nowak      name is no answer, nor is one of a table without such a column.
"""

import csv
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from app.answering.models import ParsedQuestion
from app.domain import Hit
from app.text.stopwords import attribute_words, attributes_named, attributes_told
from app.text.terms import fold, terms
from indexing.chunking.sentences import sentence_spans
from indexing.documents import Span

Cells = tuple[str, ...]

_MARKS = "\t;,"
_LEAST = {"\t": 4, ";": 5, ",": 5}
"""Lines and fields together, below which a text may be lines by chance."""
_REGULAR = 0.9
"""Share of the lines that have the same number of fields where the text is a file of fields."""
_RULE = re.compile(r"[\s|:+=-]*[-=]{2,}[\s|:+=-]*")
_PIPE = re.compile(r"(?<!\\)\|")


class Row(msgspec.Struct, frozen=True):
    """A row of a table whose columns have names."""

    cells: Cells
    columns: Cells
    header: bool = False


Piece = tuple[Span, Row | None]


def pieces(hit: Hit, spans: Sequence[Span] | None = None) -> list[Piece]:
    """The sentences of a passage in order, which are `spans` where they are known, and the rows of its tables."""
    text = hit.text or ""
    above = hit.heading[-1] if hit.heading else ""
    if (mark := _delimiter(text, above)) is not None:
        return list(_records(text, mark, above, begins=hit.start == 0))
    spans = sentence_spans(text) if spans is None else spans
    if "|" not in text:
        return [(span, None) for span in spans]
    return list(_piped(text, spans, above))


def _delimiter(text: str, above: str) -> str | None:
    """What divides the fields of a text that is nothing but lines of as many fields; None for any other."""
    for mark in _MARKS:
        # Prose has a space behind most of its commas.
        if text.count(f"{mark} ") * 2 >= text.count(mark):
            continue
        try:
            widths = Counter(len(cells) for _, cells in _read(text, mark))
            widths[len(_fields(above, mark))] += mark in above
        except csv.Error:
            continue
        width, count = widths.most_common(1)[0]
        if width > 1 and count > 1 and count >= _REGULAR * widths.total() and count + width >= _LEAST[mark]:
            return mark
    return None


def _read(text: str, mark: str) -> Iterator[tuple[Span, Cells]]:
    """Each record with its place; a quoted field may hold line breaks."""
    lines = text.splitlines(keepends=True)
    ends = [0]
    for line in lines:
        ends.append(ends[-1] + len(line))
    reader, first = csv.reader(lines, delimiter=mark), 0
    for fields in reader:
        start, end = ends[first], ends[reader.line_num]
        raw, first = text[start:end], reader.line_num
        if raw.strip():
            start += len(raw) - len(raw.lstrip())
            yield Span(start, start + len(raw.strip())), tuple(field.strip() for field in fields)


def _fields(line: str, mark: str) -> Cells:
    return next((cells for _, cells in _read(line, mark)), ())


def _records(text: str, mark: str, above: str, *, begins: bool) -> Iterator[Piece]:
    columns = _fields(above, mark) if mark in above else ()
    for number, (span, cells) in enumerate(_read(text, mark)):
        header = number == 0 and begins and not columns
        columns = cells if header else columns
        yield span, Row(cells, columns, header) if columns else None


def _piped(text: str, spans: Sequence[Span], above: str) -> Iterator[Piece]:
    """Lines with "|" between their cells; the head of a table is above a rule or the passage, or told by its look."""
    columns = _cells(above)
    lines = [text[span.start : span.end] for span in spans]
    by_line = [() if _RULE.fullmatch(line) else _cells(line) for line in lines]
    for at, (span, cells) in enumerate(zip(spans, by_line, strict=True)):
        if _RULE.fullmatch(lines[at]):
            continue
        ruled = at + 1 < len(lines) and bool(_RULE.fullmatch(lines[at + 1]))
        header = bool(cells) and (ruled or (not columns and _heads(by_line[at:])))
        columns = cells if header or not cells else columns
        yield span, Row(cells, columns, header) if len(columns) > 1 else None


def _heads(lines: Sequence[Cells]) -> bool:
    """Whether the first of these lines is the head of a table: it has no number, most of those under it have one."""
    first, *rows = itertools.takewhile(lambda cells: len(cells) == len(lines[0]), lines)
    numbered = [any(map(str.isdigit, "".join(row))) for row in rows]
    return len(numbered) > 1 and 2 * sum(numbered) >= len(numbered) and not any(map(str.isdigit, "".join(first)))


def _cells(line: str) -> Cells:
    line = line.strip()
    if "\n" in line or not _PIPE.search(line):
        return ()
    return tuple(cell.strip() for cell in _PIPE.split(line.removeprefix("|").removesuffix("|")))


def attribute_terms(question: ParsedQuestion) -> frozenset[str]:
    """The question's terms that name an attribute: a row that is shown has it, in whatever words."""
    return terms(attribute_words(fold(question.text))) & question.terms.keys()


def answering(question: ParsedQuestion, table: Sequence[Row], above: str) -> list[str]:
    """For each row of one table what of it answers the question, with the names of its columns; "" if nothing does.

    `above` has the title and headings of the passage.
    """
    by_cell = [[_matched(question, cell) for cell in row.cells] for row in table]
    matched = [frozenset().union(*cells) for cells in by_cell]
    shared = frozenset.intersection(*matched) if len(table) > 1 else frozenset()
    named = [some - shared for some in matched]
    if shared and not any(named):
        # "the kettle", of which all rows are kinds; but not where another word of the question is nowhere.
        around = _matched(question, " ".join((above, *table[0].columns)))
        named = matched if question.terms.keys() <= shared | around else named
    return [
        _told(question, row, cells, above) if some and not any(some < other for other in named) else ""
        for row, cells, some in zip(table, by_cell, named, strict=True)
    ]


def _matched(question: ParsedQuestion, text: str) -> frozenset[str]:
    """The question's terms that a text has."""
    present = terms(text)
    return frozenset(term for term in question.terms if question.has(term, present))


def _told(question: ParsedQuestion, row: Row, by_cell: Sequence[frozenset[str]], above: str) -> str:
    """The cells that name the row and those of the column asked for; all, if no column is known to be asked for."""
    pairs = [(column.replace("_", " "), cell) for column, cell in zip(row.columns, row.cells, strict=False)]
    named = {index for index, some in enumerate(by_cell[: len(pairs)]) if some}
    asked = attributes_named(fold(question.text))
    wanted = {index for index, pair in enumerate(pairs) if asked & attributes_told(fold(" ".join(pair)))}
    if asked and not wanted and not asked & attributes_named(fold(above)):
        return ""
    if not wanted:
        by_column = [_matched(question, column) for column, _ in pairs]
        wanted = {index for index, some in enumerate(by_column) if some}
    shown = [pairs[index] for index in sorted(named | wanted)] if wanted else pairs
    return "; ".join(f"{column}: {cell}" if column else cell for column, cell in shown if cell)
