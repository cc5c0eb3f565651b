"""Which rows of PDF pages are content, and in which order they are read."""

import re
from collections import Counter
from itertools import pairwise

from indexing.readers.pdf.lines import Fragment, Row

_DIGITS = re.compile(r"\d+|\b[ivxlc]+\b")
_PAGE_NUMBER = re.compile(r"^[-–—\s]*\d{1,4}[-–—\s]*$")
_MARGIN_LINES = 3


def without_running_margins(pages: list[list[Row]], heights: list[float]) -> list[list[Row]]:
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


def _without_page_number(rows: list[Row], height: float) -> list[Row]:
    """Drops a bare number at the very top or bottom of a page."""
    edges = [min(rows, key=lambda row: row.top), max(rows, key=lambda row: row.bottom)] if len(rows) > 1 else []
    numbers = [row for row in edges if _PAGE_NUMBER.match(row.text) and not 0.1 * height < row.top < 0.88 * height]
    return [row for row in rows if not any(row is number for number in numbers)]


def _margin(rows: list[Row]) -> list[Row]:
    ordered = sorted(rows, key=lambda row: row.top)
    return ordered if len(ordered) <= 2 * _MARGIN_LINES else ordered[:_MARGIN_LINES] + ordered[-_MARGIN_LINES:]


def _margin_key(row: Row, height: float) -> tuple[str, int]:
    return _DIGITS.sub("#", row.text.lower()), round(40 * row.top / max(height, 1.0))


def _times_seen(seen: Counter[tuple[str, int]], key: tuple[str, int]) -> int:
    text, place = key
    return sum(seen[text, nearby] for nearby in (place - 1, place, place + 1))


def downwards(rows: list[Row]) -> list[Row]:
    """The rows as they are, or turned round when nearly every one of them stands above the one before it."""
    steps = [below.top - above.top for above, below in pairwise(rows)]
    return rows[::-1] if sum(step < 0 for step in steps) > 0.7 * len(steps) else rows


def in_columns(rows: list[Row], width: float) -> list[Row]:
    """Rows that were written straight across two columns of prose, put one column after the other."""
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
