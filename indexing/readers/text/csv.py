"""CSV and TSV: the text of the file unchanged, a block for each record."""

import csv
import re
from collections.abc import Iterator

from indexing.documents import Block, Document
from indexing.readers.builder import covering, line_spans, trimmed
from indexing.readers.limits import ReadLimits
from indexing.readers.text.encoding import decoded

_STATED = re.compile(r"sep=([^\r\n])\r?\n", re.IGNORECASE)
_DELIMITERS = ",;\t|"
_SAMPLE = 64 * 1024


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
