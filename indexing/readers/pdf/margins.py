"""What stands beside the text of PDF pages: running headers and footers, page numbers, line numbers, stamps. Pure.

A running line stays where it stands first, so that nothing is lost. It is one only if all that differs from page to
page is the number of the page: invoices that are built alike are not each other's headers.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence, Set
from itertools import pairwise, takewhile
from typing import Literal

import msgspec

from indexing.readers.pdf.lines import Fragment, Page, Row

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
    column = max(_column(numbers, "left"), _column(numbers, "right"), key=len)
    counted = {id(one) for one in column}
    others = [one for one in page.fragments if not one.askew and id(one) not in counted]
    if not _counts_lines(column, others):
        return page
    kept = [one for one in page.fragments if id(one) not in counted]
    return msgspec.structs.replace(page, fragments=tuple(kept))


def _column(numbers: Sequence[Fragment], side: Literal["left", "right"]) -> list[Fragment]:
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
