"""Where a text may be cut: its blocks, and ever finer parts of one that is too long. Pure."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple

import regex

from indexing.chunking.sentences import sentence_spans
from indexing.documents import Block, Document


class Rank(IntEnum):
    """How good it is to cut at a place: the higher, the better."""

    CHARACTER = 0
    GRAPHEME = 1
    WORD = 2
    SENTENCE = 3
    ITEM = 4
    BLOCK = 5
    PAGE = 6
    SECTION = 7


_BLANK_LINES = re.compile(r"\n[^\S\n]*\n\s*")
_LINE = re.compile(r"[^\n]+")
_WORD = re.compile(
    r"[^\s，、；：。！？]*[，、；：。！？]+|[^\s，、；：。！？]+"
)  # a clause mark ends a word where no spaces do
_GRAPHEME = regex.compile(r"\X")

Range = tuple[int, int]


class Part(NamedTuple):
    """A range without white space at its edges, and the rank of the boundary before it."""

    start: int
    end: int
    rank: Rank


def blocks_of(document: Document) -> Iterator[Block]:
    """The document's blocks, in order and disjoint; text that lies in none of them comes as paragraphs."""
    position = 0
    for block in document.blocks:
        begins = max(block.start, position)
        yield from _paragraphs(document.text, position, begins)
        position = max(position, min(block.end, len(document.text)))
        for start, end in _trimmed(document.text, begins, position):
            yield Block(block.kind, start, end, block.level, block.header)
    yield from _paragraphs(document.text, position, len(document.text))


def _paragraphs(text: str, start: int, end: int) -> Iterator[Block]:
    for gap in _BLANK_LINES.finditer(text, start, end):
        yield from (Block("paragraph", *range_) for range_ in _trimmed(text, start, gap.start()))
        start = gap.end()
    yield from (Block("paragraph", *range_) for range_ in _trimmed(text, start, end))


def _trimmed(text: str, start: int, end: int) -> Iterator[Range]:
    """The range without white space at its edges; nothing for a blank one."""
    piece = text[start:end]
    if stripped := piece.strip():
        start += len(piece) - len(piece.lstrip())
        yield start, start + len(stripped)


def lines(text: str, start: int, end: int) -> list[Range]:
    return [found for match in _LINE.finditer(text, start, end) for found in _trimmed(text, *match.span())]


def sentences(text: str, start: int, end: int) -> list[Range]:
    return [(start + span.start, start + span.end) for span in sentence_spans(text[start:end])]


def _words(text: str, start: int, end: int) -> list[Range]:
    return [match.span() for match in _WORD.finditer(text, start, end)]


def _graphemes(text: str, start: int, end: int) -> list[Range]:
    return [match.span() for match in _GRAPHEME.finditer(text, start, end)]


def _characters(text: str, start: int, end: int) -> list[Range]:
    return list(pairwise(range(start, end + 1)))


Split = Callable[[str, int, int], list[Range]]
_FINER: tuple[tuple[Rank, Split], ...] = (
    (Rank.SENTENCE, sentences),
    (Rank.WORD, _words),
    (Rank.GRAPHEME, _graphemes),
    (Rank.CHARACTER, _characters),
)


def parts_of(
    text: str, whole: Part, fits: Callable[[int, int], bool], ways: Sequence[tuple[Rank, Split]] = _FINER
) -> Iterator[Part]:
    """The largest parts of `whole` that fit, cut at the best places that do; a single character is never cut."""
    if not ways or fits(whole.start, whole.end):
        yield whole
        return
    (finer, split), *rest = ways
    rank = whole.rank
    for start, end in _grown(split(text, whole.start, whole.end), fits):
        yield from parts_of(text, Part(start, end, rank), fits, rest)
        rank = finer


def _grown(ranges: Iterable[Range], fits: Callable[[int, int], bool]) -> Iterator[Range]:
    """Neighbours joined for as long as they fit."""
    joined: Range | None = None
    for start, end in ranges:
        if joined and not fits(joined[0], end):
            yield joined
            joined = None
        joined = (joined[0] if joined else start, end)
    if joined:
        yield joined
