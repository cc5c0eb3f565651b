"""Plain text, AsciiDoc and reStructuredText: the text of the file unchanged, its paragraphs and headings marked."""

import re
from collections.abc import Iterator

from indexing.documents import Block, Document
from indexing.readers.builder import covering, line_spans, one_line, trimmed
from indexing.readers.limits import ReadLimits
from indexing.readers.text.encoding import decoded

_ASCIIDOC_HEADING = re.compile(r"(={1,6})[ \t]+\S")
_ADORNMENT = re.compile(r"([=\-`:.'\"~^_*+#])\1{2,}\s*$")
_BULLET = re.compile(r"[ \t]*(?:[-*+•]|\*{1,5}|\.{1,5}|\d{1,3}[.)])[ \t]+\S")


def read_text(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """One document: the decoded file."""
    text, warnings = decoded(data)
    return [Document(text=text, blocks=covering(text, ()), media_type="text/plain", warnings=warnings)]


def read_asciidoc(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """One document: the decoded file; its title is the document title line."""
    text, warnings = decoded(data)
    return [_structured(text, _asciidoc_blocks(text), "text/asciidoc", warnings)]


def read_rst(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """One document: the decoded file; a line with an underline of punctuation is a heading."""
    text, warnings = decoded(data)
    return [_structured(text, _rst_blocks(text), "text/x-rst", warnings)]


def _structured(text: str, headings_and_items: Iterator[Block], media_type: str, warnings: tuple[str, ...]) -> Document:
    blocks = covering(text, headings_and_items)
    first = next((block for block in blocks if block.kind == "heading"), None)
    lines = text[first.start : first.end].splitlines() if first else []
    title = next((one_line(line.strip("= \t")) for line in lines if not _ADORNMENT.match(line)), "")
    return Document(text=text, title=title, blocks=blocks, media_type=media_type, warnings=warnings)


def _asciidoc_blocks(text: str) -> Iterator[Block]:
    in_table = False
    for start, end in line_spans(text):
        line = text[start:end]
        if heading := _ASCIIDOC_HEADING.match(line):
            block = trimmed(text, start, end, "heading", len(heading[1]))
        elif line.startswith("|==="):
            in_table = not in_table
            continue
        elif line.startswith("|"):
            block = trimmed(text, start, end, "table_row")
        elif not in_table and _BULLET.match(line):
            block = trimmed(text, start, end, "list_item")
        else:
            continue
        if block:
            yield block


def _rst_blocks(text: str) -> Iterator[Block]:
    """A title's level is the order in which its adornment first appears (docutils' rule)."""
    lines = line_spans(text)
    styles: list[str] = []
    for above, (start, end), below in zip([(0, 0), *lines], lines, lines[1:], strict=False):
        line, underline = text[start:end].rstrip(), text[slice(*below)].rstrip()
        if not line or _ADORNMENT.match(line) or not _ADORNMENT.match(underline) or len(underline) < len(line.strip()):
            if _BULLET.match(line) and (block := trimmed(text, start, end, "list_item")):
                yield block
            continue
        overlined = text[slice(*above)].rstrip() == underline
        style = underline[0] * (1 + overlined)
        if style not in styles:
            styles.append(style)
        if block := trimmed(
            text, above[0] if overlined else start, below[1], "heading", min(6, styles.index(style) + 1)
        ):
            yield block
