"""The texts of a file: its lines, the rows of JSON lines, or a column of a table."""

import csv
import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from app.errors import Conflict, InvalidRequest

MAX_TEXT_BYTES = 250_000
"""What one line of the service's streams has room for."""

_CHARACTER_BYTES = 6
"""What a character may take in JSON, as \\u0001 does."""

MAX_ID = 512

JSON_LINES, TABLES = (".jsonl", ".ndjson"), {".csv": ",", ".tsv": "\t"}

_PIECE = 1 << 20


class Item(msgspec.Struct, frozen=True):
    """A text under its id; or why there is none, or the row that it has already."""

    id: int | str
    text: str = ""
    problem: str = ""
    row: bytes = b""

    @property
    def settled(self) -> bool:
        """Whether nobody need be asked."""
        return bool(self.problem or self.row)


class Fingerprint(msgspec.Struct, frozen=True):
    """What a file held: so many bytes, of that digest."""

    bytes: int
    sha256: str

    def begins(self, path: Path) -> bool:
        """Whether the file still begins with that; more lines may have been added."""
        size = path.stat().st_size
        if size < self.bytes or fingerprint(path, self.bytes) != self:
            return False
        return size == self.bytes or self.bytes == 0 or self._ended_a_line(path)

    def _ended_a_line(self, path: Path) -> bool:
        """Else what was added has become a part of its last text."""
        with path.open("rb") as file:
            file.seek(self.bytes - 1)
            last, following = file.read(1), file.read(1)
        return last == b"\n" or following in b"\r\n"


def fingerprint(path: Path, size: int | None = None) -> Fingerprint:
    """Of the whole file, or of its first `size` bytes."""
    left = path.stat().st_size if size is None else size
    digest, seen = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(min(_PIECE, left - seen)):
            digest.update(piece)
            seen += len(piece)
    return Fingerprint(seen, digest.hexdigest())


def items_of(path: Path, field: str) -> Iterator[Item]:
    """The texts in their order. An id is the row's own, or the number of its line (in a table, of its row).

    By the ending of the file's name: rows of JSON, whose `field` is the text (a row may also be a string); a table,
    whose column it is; else each line is a text. Blank lines are none. Raises InvalidRequest for a table without the
    column.
    """
    ending = path.suffix.lower()
    if ending in TABLES:
        yield from _of_table(path, field, TABLES[ending])
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if line.strip():
                yield _checked(_of_json(number, line, field) if ending in JSON_LINES else _of_line(number, line))


def _of_line(number: int, line: bytes) -> Item:
    try:
        return Item(number, line.rstrip(b"\r\n").decode())
    except UnicodeDecodeError:
        return Item(number, problem=f"line {number} is not UTF-8")


def _of_json(number: int, line: bytes, field: str) -> Item:
    try:
        row: Any = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        return Item(number, problem=f"line {number} is not JSON: {exc}")
    except RecursionError:
        return Item(number, problem=f"line {number} is nested too deeply")
    if isinstance(row, str):
        return Item(number, row)
    if not isinstance(row, dict) or not isinstance(row.get(field), str):
        return Item(_id_of(row, number), problem=f"line {number} has no text in {field!r}; --field names another one")
    return Item(_id_of(row, number), row[field])


def _id_of(row: Any, number: int) -> int | str:
    given = row.get("id") if isinstance(row, dict) else None
    if isinstance(given, str) and 0 < len(given) <= MAX_ID:
        return given
    return given if isinstance(given, int) and not isinstance(given, bool) and abs(given) <= 2**53 else number


def _of_table(path: Path, field: str, delimiter: str) -> Iterator[Item]:
    csv.field_size_limit(10_000_000)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            # Not strict, a quotation mark without its second one would make one text of all that follow.
            rows = csv.DictReader(file, delimiter=delimiter, strict=True)
            columns = [name for name in rows.fieldnames or () if name]
            if field not in columns:
                known = f"--field names one of {', '.join(columns)}" if columns else "it is empty"
                raise InvalidRequest(f"{path} has no column {field!r}; {known}")
            for number, row in enumerate(rows, 1):
                yield _checked(Item(_id_of(row, number), row[field] or ""))
    except (UnicodeDecodeError, csv.Error) as exc:
        raise InvalidRequest(f"{path} cannot be read as a table in UTF-8: {exc}") from exc


def _checked(item: Item) -> Item:
    """With a problem if the service would not take it."""
    if item.problem or len(item.text) * _CHARACTER_BYTES < MAX_TEXT_BYTES:
        return item
    size = len(msgspec.json.encode(item.text))
    return item if size <= MAX_TEXT_BYTES else Item(item.id, problem=f"this text has {size:,} bytes, which is too long")


def rest_of(path: Path, field: str, done: int, last_id: int | str | None) -> Iterator[Item]:
    """The texts after the first `done`, of which the last one has that id. Raises Conflict."""
    items = items_of(path, field)
    last = next(islice(items, done - 1, None), None) if done else None
    if done and (last is None or last.id != last_id):
        raise Conflict(f"the output has {done:,} rows, but not of the first texts of {path}; --restart begins again")
    return items
