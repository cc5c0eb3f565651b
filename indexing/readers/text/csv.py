"""CSV and TSV: the text of the file unchanged, a block for each record; large files as documents of some records."""

import csv
import io
import re
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from indexing.documents import POSITION, Block, Document
from indexing.readers.builder import covering, line_spans, stem, trimmed
from indexing.readers.limits import ReadLimits
from indexing.readers.text.encoding import decoded, streamed_encoding, without_payloads

_STATED = re.compile(r"sep=([^\r\n])\r?\n", re.IGNORECASE)
_DELIMITERS = ",;\t|"
_SAMPLE = 64 * 1024
_PART = 128 * 1024
"""Characters of the records that become a document of their own."""
_LONGEST_RECORD = 2**20
"""Characters. What is longer begins with a stray quotation mark, and is taken line by line."""


def read_csv(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """One document: the decoded file; the delimiter is detected, or stated as Excel does in a first line `sep=;`."""
    text, warnings = decoded(data)
    stated = _STATED.match(text)
    if stated:
        text = text[stated.end() :]
    return [_document(text, stated[1] if stated else _delimiter(text), "text/csv", warnings)]


def read_tsv(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """One document: the decoded file, delimited by tabs."""
    text, warnings = decoded(data)
    return [_document(text, "\t", "text/tab-separated-values", warnings)]


def stream_csv(file: BinaryIO, name: str, limits: ReadLimits) -> Iterator[Document] | None:
    """A large table in any encoding but UTF-16 without a mark: a document for each part of some 128 K characters.

    A part is the header and whole records, and one of the files in its file (`indexing.readers.members`): an earlier
    version that was one document is replaced by the parts, and parts that are no more go.
    """
    return _streamed(file, name, None)


def stream_tsv(file: BinaryIO, name: str, limits: ReadLimits) -> Iterator[Document] | None:
    """As of CSV, delimited by tabs."""
    return _streamed(file, name, "\t")


def _streamed(file: BinaryIO, name: str, delimiter: str | None) -> Iterator[Document] | None:
    encoding = streamed_encoding(file)
    if encoding is None:
        return None
    file.seek(0)
    return _parts(file, name, delimiter, *encoding)


def _parts(
    file: BinaryIO, name: str, delimiter: str | None, encoding: str, warnings: tuple[str, ...]
) -> Iterator[Document]:
    text = io.TextIOWrapper(file, encoding, "replace", newline="")
    try:
        media_type = "text/csv" if delimiter is None else "text/tab-separated-values"
        if delimiter is None:
            sample = text.read(_SAMPLE)
            stated = _STATED.match(sample)
            delimiter = stated[1] if stated else _delimiter(sample)
            text.seek(0)
            if stated:
                text.readline()
        records = (without_payloads(record) for record in _texts_of_records(text, delimiter))
        for number, (part, rows) in enumerate(_parted(records), 1):
            document = _document(part, delimiter, media_type, warnings)
            yield msgspec.structs.replace(
                document, key=f"{POSITION}/{number}", title=stem(name), metadata={"rows": rows}
            )
    finally:
        text.detach()  # else it would close the file, which is its opener's


def _parted(records: Iterator[str]) -> Iterator[tuple[str, str]]:
    """The texts of the parts, and which rows they hold, counted from 1, the header's."""
    header = next((record for record in records if record.strip()), "")
    repeated = header if len(header) <= _PART // 4 else ""
    part, size, first = [header], len(header), 2
    row = 1
    for row, record in enumerate(records, 2):
        if size + len(record) > _PART and row > first:
            yield "".join(part), f"{first}-{row - 1}"
            part, size, first = [repeated], len(repeated), row
        part.append(record)
        size += len(record)
    yield "".join(part), f"{first}-{row}"


def _texts_of_records(text: io.TextIOWrapper, delimiter: str) -> Iterator[str]:
    """Each record with its line breaks, as it stands in the file."""
    csv.field_size_limit(2**31 - 1)
    taken: list[str] = []

    def lines() -> Iterator[str]:
        size = 0
        while line := text.readline(_LONGEST_RECORD):
            size = len(line) + (size if taken else 0)
            taken.append(line)
            if size > _LONGEST_RECORD and len(taken) > 1:
                raise csv.Error("a quotation mark that nothing closes")
            yield line

    reader = csv.reader(lines(), delimiter=delimiter)
    while True:
        try:
            next(reader)
        except StopIteration:
            if taken:
                yield "".join(taken)
            return
        except csv.Error:
            yield from taken
            reader = csv.reader(lines(), delimiter=delimiter)
        else:
            yield "".join(taken)
        taken.clear()


def _document(text: str, delimiter: str, media_type: str, warnings: tuple[str, ...]) -> Document:
    blocks = covering(text, _records(text, delimiter))
    return Document(text=text, blocks=blocks, media_type=media_type, warnings=warnings)


def _delimiter(text: str) -> str:
    """The one that splits the first lines into the most equal rows of more than one field."""
    lines = [text[start:end] for start, end in line_spans(text[:_SAMPLE])[:50]]
    counts = {mark: [line.count(mark) for line in lines if line.strip()] for mark in _DELIMITERS}

    def agreement(mark: str) -> tuple[int, int]:
        first = counts[mark][0] if counts[mark] else 0
        return (sum(count == first for count in counts[mark]) if first else 0, first)

    return max(_DELIMITERS, key=agreement)


def _records(text: str, delimiter: str) -> Iterator[Block]:
    """A quoted field may hold line breaks, so a record may span lines."""
    lines = line_spans(text)
    reader = csv.reader((text[start:end] for start, end in lines), delimiter=delimiter)
    csv.field_size_limit(2**31 - 1)
    first, header = 0, True
    while True:
        try:
            next(reader)
        except StopIteration:
            return
        except csv.Error:
            # Not CSV after all: `covering` makes paragraphs of the rest.
            return
        last = min(reader.line_num, len(lines))
        if block := trimmed(text, lines[first][0], lines[last - 1][1], "table_row", header=header):
            yield block
            header = False
        first = last
