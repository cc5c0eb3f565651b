"""Tables on PDF pages, found by cells that stand under one another."""

from collections.abc import Sequence

from indexing.readers.pdf.lines import Fragment, Row


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
    """The column in which a cell stands: the same left edge, right edge or middle."""
    tolerance = 0.8 * cell.size

    def distance(column: Fragment) -> float:
        middles = abs(cell.left + cell.right - column.left - column.right) / 2
        return min(abs(cell.left - column.left), abs(cell.right - column.right), middles)

    near = min(range(len(columns)), key=lambda index: distance(columns[index]), default=None)
    return near if near is not None and distance(columns[near]) < tolerance else None


def _is_tabular(row: Row) -> bool:
    # A bullet and its text, or a number and its heading, stand apart as well.
    return len(row.cells) > 2 or (len(row.cells) == 2 and len(row.cells[0].text.strip()) > 3)


def _belongs(above: Row, row: Row, places: list[int | None]) -> bool:
    """True when `row` goes on with the table whose last row is `above`."""
    if row.top <= above.top or row.top - above.bottom > 2 * above.size:
        return False
    known = sum(place is not None for place in places)
    if len(row.cells) == 1:
        return bool(places[0]) and row.top - above.bottom < 0.6 * above.size
    return known >= 2 or known == len(places)
