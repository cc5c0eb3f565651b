"""Dollars against tokens as lines of text, readable in 80 columns and without colour."""

from collections.abc import Callable, Sequence

import msgspec

from app.cli.units import dollars, short

HEIGHT = 14
_GUTTER = 10


class Curve(msgspec.Struct, frozen=True):
    """`symbol` draws it; `usd` tells the dollars for so many tokens a month."""

    symbol: str
    label: str
    usd: Callable[[float], float]


class Mark(msgspec.Struct, frozen=True):
    """A point that is shown above all curves."""

    symbol: str
    tokens: float
    usd: float


def draw(
    curves: Sequence[Curve], marks: Sequence[Mark], here: float, right: float, top: float, width: int
) -> list[str]:
    """The lines, none longer than `width`, for [0, right] tokens and [0, top] dollars; what lies above is left out.

    `here` is shown below the axis; it and every mark lie within.
    """
    canvas = _Canvas(max(20, width - _GUTTER - 1), HEIGHT, right, top)
    for curve in curves:
        canvas.trace(curve)
    for mark in marks:
        canvas.put(mark.symbol, mark.tokens, mark.usd)
    return [*canvas.lines(), *_axis(canvas.columns, right, here)]


class _Canvas:
    """Rows from the top down."""

    def __init__(self, columns: int, height: int, right: float, top: float) -> None:
        self.columns = columns
        self._rows = [[" "] * columns for _ in range(height)]
        self._right = right
        self._top = top

    def trace(self, curve: Curve) -> None:
        """A point in every column, and no gap between neighbours."""
        before: int | None = None
        for column in range(self.columns):
            row = self._row(curve.usd(self._right * column / (self.columns - 1)))
            start = row if before is None or row == before else before + (1 if row > before else -1)
            for step in range(min(start, row), max(start, row) + 1):
                if step >= 0:
                    self._rows[step][column] = curve.symbol
            before = row

    def put(self, symbol: str, tokens: float, usd: float) -> None:
        """One point."""
        self._rows[max(0, self._row(usd))][round(tokens / self._right * (self.columns - 1))] = symbol

    def lines(self) -> list[str]:
        """With dollars at the left."""
        last = len(self._rows) - 1
        labels = {0: _label(self._top), last // 2: _label(self._top * (1 - last // 2 / last)), last: "$0"}
        return [f"{labels.get(n, ''):>{_GUTTER - 1}} |{''.join(row).rstrip()}" for n, row in enumerate(self._rows)]

    def _row(self, usd: float) -> int:
        """Negative: above the chart."""
        last = len(self._rows) - 1
        return last - round(min(max(usd / self._top, 0.0), 2.0) * last)


def _label(usd: float) -> str:
    return dollars(usd) if usd < 10_000 else f"${short(usd)}"


def _axis(columns: int, right: float, here: float) -> list[str]:
    indent = " " * _GUTTER
    middle, end = short(right / 2), f"{short(right)} tokens"
    scale = list(f"{'0':<{columns + 1}}")
    for text, at in ((middle, columns // 2 - len(middle) // 2), (end, columns + 1 - len(end))):
        scale[at : at + len(text)] = text
    column = round(here / right * (columns - 1)) + 1
    note = f"^ you: {short(here)}"
    you = f"{' ' * column}{note}" if column + len(note) <= columns + 1 else f"{note[2:] + ' ^':>{column + 1}}"
    return [f"{indent}+{'-' * columns}", f"{indent}{''.join(scale)}", f"{indent}{you}"]
