"""Excel (xlsx, xlsm) -> text: a page per sheet, a line per row."""

import datetime
import io
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

from indexing.documents import Document
from indexing.errors import UnreadableDocument
from indexing.readers.builder import TextWriter, one_line, stem
from indexing.readers.limits import ReadLimits
from indexing.readers.zip_xml import Package, core_properties, corrupt

_MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_CELL_CHARACTERS = 32_767
# Beyond this many rows a table's empty columns are judged by its first rows alone.
_TABLE_ROWS = 5_000
# Wider sheets are not searched for tables side by side.
_WIDTH = 1_000


def read_xlsx(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """One document. Formulas count as the value that was last computed; hidden sheets are read as well."""
    properties = core_properties(Package(data, limits))
    workbook = _open(data)
    try:
        if len(workbook.worksheets) > limits.max_pages:
            raise UnreadableDocument(
                "too_many_pages", f"It has {len(workbook.worksheets)} sheets; at most {limits.max_pages} are read."
            )
        return [_written(workbook, properties, name)]
    except UnreadableDocument:
        raise
    except _DAMAGE as exc:
        raise corrupt("One of its sheets cannot be read.") from exc
    finally:
        workbook.close()


_DAMAGE = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    SyntaxError,
    OSError,
    EOFError,
    zipfile.BadZipFile,
    OverflowError,
)


def _open(data: bytes) -> Any:
    import openpyxl  # 0.2 s that only a workbook is worth
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
    except (*_DAMAGE, InvalidFileException) as exc:
        raise corrupt("Its workbook part cannot be read.") from exc


def _written(workbook: Any, properties: dict[str, str], name: str) -> Document:
    writer = TextWriter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, sheet in enumerate(workbook.worksheets, 1):
            writer.page(number)
            tables = list(_tables(sheet))
            if tables:
                writer.add("heading", sheet.title, level=1)
            for table in tables:
                for part in side_by_side(table):
                    writer.add_table(part, header=len(part) > 1)
    metadata: dict[str, Any] = {**properties, "sheets": [sheet.title for sheet in workbook.worksheets]}
    title = metadata.pop("title", "") or stem(name)
    return writer.document(title=title, media_type=_MEDIA_TYPE, metadata=metadata)


def _tables(sheet: Any) -> Iterator[list[list[str]]]:
    """Runs of rows without an empty row between them."""
    # Files often declare wrong dimensions, and openpyxl would pad or cut every row to them.
    sheet.reset_dimensions()
    table: list[list[str]] = []
    for row in sheet.iter_rows(values_only=True):
        cells = [_cell_text(value) for value in row] if row else []
        if any(cells):
            table.append(cells)
        if table and (not any(cells) or len(table) >= _TABLE_ROWS):
            yield table
            table = []
    if table:
        yield table


def side_by_side(table: list[list[str]]) -> list[list[list[str]]]:
    """The tables that stand next to one another in the same rows: an empty column parts two of two columns or more."""
    width = max((len(row) for row in table), default=0)
    if width > _WIDTH:
        return [table]
    filled = [any(column < len(row) and row[column] for row in table) for column in range(width)]
    groups: list[list[int]] = [[]]
    for column in range(width):
        if filled[column]:
            groups[-1].append(column)
        elif groups[-1]:
            groups.append([])
    groups = [group for group in groups if group]
    if any(len(group) < 2 for group in groups):
        return [table]
    parts = [[[row[column] if column < len(row) else "" for column in group] for row in table] for group in groups]
    return [[row for row in part if any(row)] for part in parts]


def _cell_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.12g}"
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ", "seconds")
    return one_line(str(value)[:_CELL_CHARACTERS])
