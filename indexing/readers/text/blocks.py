"""Blocks over a text that is kept as it is."""

import re
from collections.abc import Iterable, Iterator

from indexing.documents import Block, BlockKind

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_PARAGRAPH = re.compile(r"\S[^\r\n]*(?:(?:\r\n|\r|\n)(?![ \t]*(?:\r|\n|\Z))[^\r\n]*)*")


def line_spans(text: str) -> list[tuple[int, int]]:
    """[start, end) of every line with its terminator; only CR, LF and CRLF end a line."""
    return [match.span() for match in _LINE.finditer(text) if match.end() > match.start()]


def trimmed(text: str, start: int, end: int, kind: BlockKind, level: int = 0, *, header: bool = False) -> Block | None:
    """The block without the white space around it; None when nothing is left."""
    part = text[start:end]
    lead = len(part) - len(part.lstrip())
    if lead == len(part):
        return None
    return Block(kind, start + lead, start + len(part.rstrip()), level=level, header=header)


def paragraphs(text: str, start: int = 0, end: int | None = None) -> Iterator[Block]:
    """Paragraphs between empty lines of text[start:end]."""
    end = len(text) if end is None else end
    for match in _PARAGRAPH.finditer(text, start, end):
        if block := trimmed(text, *match.span(), "paragraph"):
            yield block


def covering(text: str, blocks: Iterable[Block]) -> tuple[Block, ...]:
    """The blocks, with paragraphs for whatever they leave out; one that overlaps an earlier one is cut or dropped."""
    whole: list[Block] = []
    position = 0
    for block in blocks:
        fitting = trimmed(text, max(block.start, position), block.end, block.kind, block.level, header=block.header)
        if block.end <= position or fitting is None:
            continue
        whole.extend(paragraphs(text, position, fitting.start))
        whole.append(fitting)
        position = fitting.end
    whole.extend(paragraphs(text, position))
    return tuple(whole)
