"""Sheets -> text, a page per sheet, a line per row: Excel (xlsx, xlsm) by openpyxl; Excel 97 (xls), binary Excel (xlsb)
and OpenDocument sheets (ods) by calamine.
"""

import datetime
import io
import itertools
import re
import warnings
import zipfile
from collections import deque
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from lxml import etree

from indexing.documents import Document
from indexing.errors import UnreadableDocument
from indexing.readers.builder import TextWriter, one_line, stem
from indexing.readers.limits import ReadLimits
from indexing.readers.office.parts import write_chart
from indexing.readers.zip_xml import (
    Package,
    attribute,
    child,
    core_properties,
    corrupt,
    descendants,
    parse_xml,
    relationships,
)

_MEDIA_TYPES = {"xls": "application/vnd.ms-excel", "xlsb": "application/vnd.ms-excel.sheet.binary.macroEnabled.12"}


def read_sheets(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """One document, a page per sheet. Number formats are not known: a share of 25 % is 0.25."""
    import python_calamine  # a library of 7 MB that only old sheets need

    if data.startswith(b"PK"):
        Package(data, limits)  # refuses what unpacks to too much
    try:
        workbook = python_calamine.load_workbook(io.BytesIO(data))
    except python_calamine.PasswordError as exc:
        raise UnreadableDocument("password", "It is encrypted; save it without a password and index it again.") from exc
    except (python_calamine.CalamineError, OSError, ValueError) as exc:  # OSError for one that is cut off
        raise corrupt("Its workbook cannot be read.") from exc
    if len(workbook.sheet_names) > limits.max_pages:
        raise UnreadableDocument(
            "too_many_pages", f"It has {len(workbook.sheet_names)} sheets; at most {limits.max_pages} are read."
        )
    writer = TextWriter()
    for number, title in enumerate(workbook.sheet_names, 1):
        writer.page(number)
        sheet = workbook.get_sheet_by_name(title)
        write_sheet(title, ([shown(value) for value in row] for row in sheet.iter_rows()), writer)
    media_type = _MEDIA_TYPES.get(name.rpartition(".")[2].lower(), "application/vnd.oasis.opendocument.spreadsheet")
    return [writer.document(title=stem(name), media_type=media_type, metadata={"sheets": workbook.sheet_names})]


_MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_CELL_CHARACTERS = 32_767
# Beyond this many rows a table's empty columns are judged by its first rows alone.
_TABLE_ROWS = 5_000
# Wider sheets are not searched for tables side by side.
_WIDTH = 1_000


def read_xlsx(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """One document. Numbers are shown as in the sheet; hidden sheets are read as well. What merged cells say stands in
    each of their rows.

    Formulas count as the value that was last computed; one that never was is shown as a formula.
    """
    package = Package(data, limits)
    properties = core_properties(package)
    workbook = _open(data, package)
    try:
        if len(workbook.worksheets) > limits.max_pages:
            raise UnreadableDocument(
                "too_many_pages", f"It has {len(workbook.worksheets)} sheets; at most {limits.max_pages} are read."
            )
        parts = _parts(package)
        formulas = _loaded_or_none(data) if any(part.uncomputed for part in parts) else None
        return [_written(workbook, formulas, package, parts, properties, name)]
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


def _open(data: bytes, package: Package) -> Any:
    try:
        return _loaded(data, values=True)
    except _DAMAGE:
        pass  # mostly for a broken style
    try:
        return _loaded(_with_plain_styles(package), values=True)
    except _DAMAGE as exc:
        raise corrupt("Its workbook part cannot be read.") from exc


def _loaded(data: bytes, *, values: bool) -> Any:
    import openpyxl  # 0.2 s that only a workbook is worth

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=values, keep_links=False)


def _with_plain_styles(package: Package) -> bytes:
    """The workbook with its number formats and no other style: fonts and colours are what breaks."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as plain:
        for member in package.names():
            data = package.read(member)
            plain.writestr(member, _plain_styles(data) if member.endswith("/styles.xml") else data)
    return file.getvalue()


def _plain_styles(data: bytes) -> bytes:
    root = parse_xml(data)
    formats = child(root, "numFmts")
    cells = child(root, "cellXfs")
    numbers = [cell.get("numFmtId", "0") for cell in (cells if cells is not None else ())]
    kept = b"" if formats is None or not len(formats) else etree.tostring(formats)
    styles = "".join(f'<xf numFmtId="{number if number.isdigit() else 0}"/>' for number in numbers or ["0"])
    return (
        b'<styleSheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
        + kept
        + b"<fonts><font/></fonts><fills><fill><patternFill/></fill></fills><borders><border/></borders>"
        + f"<cellStyleXfs><xf/></cellStyleXfs><cellXfs>{styles}</cellXfs></styleSheet>".encode()
    )


_NOT_COMPUTED = re.compile(rb"<f\b[^>]*(?:/>|>[^<]*</f>)\s*(?:<v\s*/>|<v>\s*</v>)?\s*</c>")


_MERGE = re.compile(rb'<(?:\w+:)?mergeCell\b[^>]*\bref="([A-Z]{1,3})(\d{1,7}):([A-Z]{1,3})(\d{1,7})"')
_MERGES, _MERGES_AT_ONCE = 100_000, 100
_MERGED_COLUMNS = 100


class _Merge(NamedTuple):
    """Cells that are one: rows from 1, columns from 0, both ends included."""

    top: int
    bottom: int
    left: int
    right: int


class _Part(NamedTuple):
    """A sheet's part of the package: what openpyxl does not tell when it reads row by row."""

    title: str
    name: str
    kind: str
    uncomputed: bool = False
    merges: tuple[_Merge, ...] = ()


def _parts(package: Package) -> list[_Part]:
    """Of all sheets, in order."""
    main = next((part for kind, part in relationships(package, "").values() if kind == "officeDocument"), "")
    root = package.xml_or_none(main)
    sheets = child(root, "sheets") if root is not None else None
    targets = relationships(package, main)
    parts = []
    for sheet in sheets if sheets is not None else ():
        kind, name = targets.get(attribute(sheet, "id") or "", ("", ""))
        title = sheet.get("name", "")
        if kind == "worksheet" and name in package:
            data = package.read(name)
            merges = (_merge(*found.groups()) for found in itertools.islice(_MERGE.finditer(data), _MERGES))
            parts.append(_Part(title, name, kind, bool(_NOT_COMPUTED.search(data)), tuple(sorted(merges))))
        else:
            parts.append(_Part(title, name, kind))
    return parts


def _merge(left: bytes, top: bytes, right: bytes, bottom: bytes) -> _Merge:
    first = _column(left)
    return _Merge(int(top), int(bottom), first, min(_column(right), first + _MERGED_COLUMNS - 1))


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = 26 * number + letter - 64
    return number - 1


def _loaded_or_none(data: bytes) -> Any:
    """The workbook with formulas for values: a second reading has its price."""
    try:
        return _loaded(data, values=False)
    except _DAMAGE:
        return None


def _written(
    workbook: Any, formulas: Any, package: Package, parts: list[_Part], properties: dict[str, str], name: str
) -> Document:
    writer = TextWriter()
    uncomputed = 0
    merges = {part.title: part.merges for part in parts}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, sheet in enumerate(workbook.worksheets, 1):
            writer.page(number)
            rows = _Rows(sheet, formulas.worksheets[number - 1] if formulas is not None else None)
            write_sheet(sheet.title, _merged(rows, merges.get(sheet.title, ())), writer)
            uncomputed += rows.uncomputed
    charts = _write_chart_sheets(package, parts, len(workbook.worksheets) + 1, writer)
    for part in package.names():
        root = package.xml_or_none(part) if part.startswith("xl/charts/chart") and part not in charts else None
        if root is not None:
            write_chart(root, writer)
        comments = package.xml_or_none(part) if part.startswith("xl/comments") else None
        for comment in descendants(comments, "comment") if comments is not None else ():
            text = "".join(run.text or "" for run in descendants(comment, "t"))
            writer.add("paragraph", f"Comment on {comment.get('ref', 'a cell')}: {text}" if text.strip() else "")
    metadata: dict[str, Any] = {**properties, "sheets": [part.title for part in parts]}
    title = metadata.pop("title", "") or stem(name)
    said = () if not uncomputed else (_never_computed(uncomputed),)
    return writer.document(title=title, media_type=_MEDIA_TYPE, metadata=metadata, warnings=said)


def _never_computed(count: int) -> str:
    formulas = "1 formula was" if count == 1 else f"{count} formulas were"
    return f"{formulas} never computed, and shown as written; save it in a spreadsheet program."


def _write_chart_sheets(package: Package, parts: list[_Part], number: int, writer: TextWriter) -> set[str]:
    """A page for each sheet that is a chart, the first one `number`; returns the parts of their charts."""
    written: set[str] = set()
    for page, sheet in enumerate((part for part in parts if part.kind == "chartsheet"), number):
        drawings = [target for kind, target in relationships(package, sheet.name).values() if kind == "drawing"]
        writer.page(page)
        writer.add("heading", sheet.title, level=1)
        for kind, target in itertools.chain(*(relationships(package, drawing).values() for drawing in drawings)):
            root = package.xml_or_none(target) if kind == "chart" else None
            if root is not None:
                written.add(target)
                write_chart(root, writer)
    return written


def _merged(rows: Iterable[list[str]], merges: tuple[_Merge, ...]) -> Iterator[list[str]]:
    """The rows with the text of merged cells in all of them, where a row says more: a title stays alone."""
    waiting, current = deque(merges), list[tuple[_Merge, str]]()
    for number, row in enumerate(rows, 1):
        while waiting and waiting[0].top <= number:
            merge = waiting.popleft()
            text = row[merge.left] if merge.top == number and merge.left < len(row) else ""
            if text and len(current) < _MERGES_AT_ONCE:
                current.append((merge, text))
        current = [(merge, text) for merge, text in current if merge.bottom >= number]
        own = {column for column, text in enumerate(row) if text}
        for merge, text in current:
            columns = range(merge.left, merge.right + 1)
            if own.difference(columns):
                row += [""] * (merge.right + 1 - len(row))
                row[merge.left : merge.right + 1] = [text] * len(columns)
        yield row


class _Rows:
    """The rows of a sheet as texts; `uncomputed` counts the formulas without a value."""

    def __init__(self, values: Any, formulas: Any) -> None:
        self._values, self._formulas = values, formulas
        self.uncomputed = 0

    def __iter__(self) -> Iterator[list[str]]:
        # Files often declare wrong dimensions, and openpyxl would pad or cut every row to them.
        self._values.reset_dimensions()
        if self._formulas is None:
            for row in self._values.iter_rows():
                yield [shown(cell.value, cell.number_format) if cell.value is not None else "" for cell in row]
            return
        self._formulas.reset_dimensions()
        for row, with_formulas in zip(self._values.iter_rows(), self._formulas.iter_rows(), strict=False):
            yield [self._text(cell, other.value) for cell, other in zip(row, with_formulas, strict=False)]

    def _text(self, cell: Any, formula: Any) -> str:
        if cell.value is None and isinstance(formula, str) and formula.startswith("="):
            self.uncomputed += 1
            return one_line(formula[:_CELL_CHARACTERS])
        return shown(cell.value, cell.number_format) if cell.value is not None else ""


def write_sheet(title: str, rows: Iterable[list[str]], writer: TextWriter) -> None:
    """A heading, then the tables of a sheet. An empty sheet writes nothing."""
    for place, table in enumerate(_tables(rows)):
        if place == 0:
            writer.add("heading", title, level=1)
        for part in side_by_side(table):
            writer.add_table(part, header=len(part) > 1)


def _tables(rows: Iterable[list[str]]) -> Iterator[list[list[str]]]:
    """Runs of rows without an empty row between them."""
    table: list[list[str]] = []
    for cells in rows:
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


_ZEROS = re.compile(r"0+")
_PERCENT = re.compile(r"[#,0]*0(?:\.(0+))?\\? ?%")


def shown(value: Any, number_format: str = "General") -> str:
    """A cell as the sheet shows it: leading zeros, shares, durations and dates; other numbers with all their digits."""
    match value:
        case None:
            return ""
        case bool():
            return "TRUE" if value else "FALSE"
        case int() | float() if (percent := _PERCENT.fullmatch(number_format)) and abs(value) < 1e15:
            return f"{value * 100:.{len(percent[1] or '')}f}%"
        case int() | float() if _ZEROS.fullmatch(number_format) and value >= 0 and float(value).is_integer():
            return str(int(value)).zfill(len(number_format))
        case int() | float() if (unit := _unit(number_format)) and abs(value) < 1e15:
            return _with_unit(value, *unit)
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.12g}"
        case datetime.datetime():
            return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ", "seconds")
        case datetime.timedelta():
            return _duration(value)
    return one_line(str(value)[:_CELL_CHARACTERS])


_LITERAL = re.compile(r"""\[[^\]]*\]|"[^"]*"|\\.""")
_PLACES = re.compile(r"[#0?][#0?,]*(?:\.([#0?]*))?")
_UNIT = re.compile(r"""\[\$([^\]-]{1,5})(?:-[^\]]*)?\]|"\s*([^\W\d_]{1,5}\.?|[^\w\s])\s*"|([$€£¥])""")


@lru_cache(maxsize=1000)
def _unit(number_format: str) -> tuple[str, bool, int] | None:
    """Of a format of money or of a measure: its sign, whether that comes first, and the decimal places."""
    positive = number_format.partition(";")[0]
    unit = _UNIT.search(positive)
    places = _PLACES.search(_LITERAL.sub(lambda found: " " * len(found[0]), positive))
    if unit is None or places is None:
        return None
    return next(filter(None, unit.groups())), unit.start() < places.start(), (places[1] or "").count("0")


def _with_unit(value: float, unit: str, first: bool, places: int) -> str:
    """With all its digits, and at least as many as are shown; without signs between thousands."""
    digits = f"{abs(value):.12g}"
    if "e" not in digits and len(digits.partition(".")[2]) < places:
        digits = f"{abs(value):.{places}f}"
    gap = " " if unit[0].isalpha() else ""
    return f"{'-' if value < 0 else ''}" + (f"{unit}{gap}{digits}" if first else f"{digits} {unit}")


def _duration(value: datetime.timedelta) -> str:
    """Hours beyond a day too, as in a time sheet."""
    seconds = round(abs(value.total_seconds()))
    sign = "-" if value < datetime.timedelta() else ""
    return f"{sign}{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
