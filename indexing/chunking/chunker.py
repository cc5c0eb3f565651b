"""Cuts a document into passages along its structure. Pure; linear time; the document is tokenised once.

A document becomes *segments* (headings, sentences, list items, table rows; parts of a sentence only where one is too
long), and neighbouring segments become chunks. Between two segments lies a boundary of some rank; a chunk ends where
a high rank and a size near the target meet.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from math import inf
from operator import itemgetter
from typing import NamedTuple

import msgspec

from indexing.chunking.sentences import Part, Rank, blocks_of, lines, parts_of, sentences
from indexing.documents import Block, Chunk, Document, PageStart, page_at

CHUNKER_VERSION = 1
"""Part of the embedder's fingerprint: raise it whenever the same document would be cut or embedded differently."""

TokenSpans = Callable[[str], Sequence[tuple[int, int]]]
"""[start, end) offsets of a model's tokens in a text, in order, special tokens not counted."""

_TITLE_BYTES = 96  # no tokeniser makes more than one token of a byte: a title leaves room in any window of 128
_CONTEXT_BYTES = 240
_HEADING_BYTES = 120
_CHARACTERS_PER_TOKEN = 8  # what a token may stand for at most: some tokenisers make one of any unknown word
_MARKS = re.compile(r"^#{1,6}[ \t]+|[ \t]+#+$|\n[=-]+$")

_ATTRACTION = {
    Rank.CHARACTER: -3.0,
    Rank.GRAPHEME: -2.0,
    Rank.WORD: -1.0,
    Rank.SENTENCE: 0.0,
    Rank.ITEM: 0.1,
    Rank.BLOCK: 0.25,
    Rank.PAGE: 0.4,
    Rank.SECTION: 1.0,
}
"""How far off the target, as a share of it, a boundary may lie to be as good as the end of a sentence right at it."""
_REACH = 1.5  # how far beyond the target a boundary is looked for, as a multiple of it
_TOO_SMALL = 1.0  # what it costs to cut off less than the minimum
_LEFTOVER = 0.5  # what it costs to leave less than the minimum for the rest of the section


class ChunkOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in tokens of the embedding model.

    `max_tokens`: what the model reads, context and lead included (at least 128). `target`: what a chunk's text should
    measure. `minimum`: below this, sections and remainders join their neighbours where they can. `lead`: how much of
    the text before a chunk, in whole sentences of the same section, is embedded with it.
    """

    max_tokens: int = 256
    target: int = 144
    minimum: int = 48
    lead: int = 64

    def __post_init__(self) -> None:
        if self.max_tokens < 128 or not 0 < self.minimum <= self.target or self.lead < 0:
            raise ValueError("chunk sizes need max_tokens >= 128, 0 < minimum <= target and lead >= 0")

    @property
    def aim(self) -> int:
        """The target, or what a model with a small window has room for."""
        return min(self.target, self.max_tokens * 9 // 16)

    @property
    def limit(self) -> int:
        """The most tokens of text that are put into one chunk; the rest is left for the context."""
        return self.max_tokens * 3 // 4


def chunk(document: Document, tokens: TokenSpans, options: ChunkOptions) -> list[Chunk]:
    """The document's chunks in order; every character that is not white space is in exactly one.

    `embedding_text` of each holds at most `options.max_tokens` tokens, unless a single character holds more.
    """
    counter = _TokenCounter(tokens(document.text))
    grouper = _Grouper(list(_segments(document, counter, options)), counter, options)
    fitter = _Fitter(document, tokens, counter, options.max_tokens)
    chunks = [piece for group, lead_start in grouper.groups() for piece in fitter.fit(group, lead_start)]
    return [msgspec.structs.replace(piece, ordinal=ordinal) for ordinal, piece in enumerate(chunks)]


def embedding_text(title: str, chunk: Chunk) -> str:
    """What is embedded and what BM25 reads: title and headings as far as the text does not say them, lead, text."""
    context = _context(title, chunk)
    body = chunk.lead + chunk.text
    return f"{context}\n{body}" if context else body


def _context(title: str, chunk: Chunk) -> str:
    title = _clipped(title, _TITLE_BYTES)
    parts = [part for part in dict.fromkeys((title, *chunk.heading)) if part and part not in chunk.text]
    while len(" > ".join(parts).encode("utf-8", "replace")) > _CONTEXT_BYTES:
        parts.pop(1 if parts[0] == title else 0)
    return " > ".join(parts)


class _TokenCounter:
    """Measures ranges of one text in tokens."""

    def __init__(self, spans: Sequence[tuple[int, int]]) -> None:
        self._starts = [start for start, _ in spans]
        self._ends = [end for _, end in spans]

    def size(self, start: int, end: int) -> int:
        """Tokens that overlap [start, end), at least one for every eight characters."""
        tokens = bisect_left(self._starts, end) - bisect_right(self._ends, start)
        return max(tokens, -(-(end - start) // _CHARACTERS_PER_TOKEN))


class _Segment(NamedTuple):
    """A range of text that is not divided between chunks, and the rank of the boundary before it."""

    start: int
    end: int
    rank: Rank
    size: int
    level: int = 0  # of the heading above, 0 before the first
    path: tuple[str, ...] = ()
    heading: bool = False
    columns: str = ""  # the header row of the table that this row belongs to


def _segments(document: Document, counter: _TokenCounter, options: ChunkOptions) -> Iterator[_Segment]:
    outline: list[tuple[int, str]] = []
    columns, before = "", None
    page_starts = [page.start for page in document.pages]
    for block in blocks_of(document):
        if block.kind == "heading":
            outline = [entry for entry in outline if entry[0] < block.level]
            outline.append((block.level, _heading_text(document.text[block.start : block.end])))
        if block.kind != "table_row" or block.header:
            columns = ""
        rank = _rank(before, block, page_starts)
        for start, end, part_rank in _parts(document.text, block, rank, counter, options):
            yield _Segment(
                start,
                end,
                part_rank,
                size=counter.size(start, end),
                level=outline[-1][0] if outline else 0,
                path=tuple(text for _, text in outline if text),
                heading=block.kind == "heading" and (start, end) == (block.start, block.end),
                columns=columns,
            )
        if block.header:
            columns = _heading_text(document.text[block.start : block.end].partition("\n")[0])
        before = block


def _rank(before: Block | None, block: Block, page_starts: Sequence[int]) -> Rank:
    """The rank of the boundary between two neighbouring blocks."""
    if block.kind == "heading":
        return Rank.SECTION
    if before is None:
        return Rank.BLOCK
    if bisect_right(page_starts, before.start) < bisect_right(page_starts, block.start):
        return Rank.PAGE
    return Rank.ITEM if before.kind == block.kind in ("list_item", "table_row") else Rank.BLOCK


def _parts(text: str, block: Block, rank: Rank, counter: _TokenCounter, options: ChunkOptions) -> Iterator[Part]:
    """A block whole if it is small or one thing, otherwise its sentences (its lines, if it is code)."""
    ranges = [(block.start, block.end)]
    if block.kind not in ("heading", "table_row") and counter.size(block.start, block.end) > options.minimum:
        ranges = (lines if block.kind == "code" else sentences)(text, block.start, block.end)
    for start, end in ranges:
        yield from parts_of(text, (start, end, rank), lambda a, b: counter.size(a, b) <= options.limit)
        rank = Rank.SENTENCE


def _heading_text(raw: str) -> str:
    """A heading without its Markdown marks, on one line. Tabs stay: they divide the columns of a table."""
    cells = _MARKS.sub("", raw.strip()).split("\t")
    return _clipped("\t".join(" ".join(cell.split()) for cell in cells), _HEADING_BYTES)


def _clipped(text: str, size: int) -> str:
    """At most `size` bytes of the text (UTF-8)."""
    return text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore").strip()


class _Grouper:
    """Decides which neighbouring segments make a chunk."""

    def __init__(self, segments: Sequence[_Segment], counter: _TokenCounter, options: ChunkOptions) -> None:
        self._segments = segments
        self._counter = counter
        self._options = options
        self._rest = _rest_of_section(segments)

    def groups(self) -> Iterator[tuple[Sequence[_Segment], int]]:
        """The segments of each chunk, and where its lead begins."""
        first = 0
        while first < len(self._segments):
            end = self._end(first)
            yield self._segments[first:end], self._lead_start(first)
            first = end

    def _lead_start(self, first: int) -> int:
        """A few whole segments before the chunk; none before a heading or a row whose header is its context."""
        begin, stop = first, self._segments[first].start
        while begin and self._segments[begin].rank != Rank.SECTION and not self._segments[begin - 1].heading:
            if (
                self._segments[first].columns
                or self._counter.size(self._segments[begin - 1].start, stop) > self._options.lead
            ):
                break
            begin -= 1
        return self._segments[begin].start

    def _end(self, first: int) -> int:
        """The index after the last segment of the chunk that begins at `first`."""
        best, best_score = first + 1, -inf
        for end in range(first + 1, len(self._segments) + 1):
            size = self._counter.size(self._segments[first].start, self._segments[end - 1].end)
            after_heading = self._segments[end - 1].heading  # never a place to cut, unless nothing else is left
            if size > self._options.limit and end > first + 1 and (best_score > -inf or after_heading):
                break
            closes = end == len(self._segments) or self._closes(first, end, size)
            if closes or not (after_heading or self._segments[end].rank == Rank.SECTION):
                score = self._score(Rank.SECTION if closes else self._segments[end].rank, size, 0 if closes else end)
                best, best_score = max((best, best_score), (end, score), key=itemgetter(1))
            elif best_score == -inf:
                best = end
            if closes or (size > self._options.aim * _REACH and best_score > -inf):
                break
        return best

    def _closes(self, first: int, index: int, size: int) -> bool:
        """Whether the section at `index` is kept apart from the segments before it, which measure `size`.

        It joins a heading without text, and whole sections that are too small: siblings, or the start of its parent.
        """
        begins, opens = self._segments[first], self._segments[index]
        if opens.rank != Rank.SECTION or self._segments[index - 1].heading:
            return False
        whole = first == 0 or begins.rank == Rank.SECTION
        small = size < self._options.minimum and size + self._rest[index] <= self._options.aim
        return not (whole and small and opens.level >= begins.level)

    def _score(self, rank: Rank, size: int, index: int) -> float:
        """How well a chunk of that size ends before the segment at `index` (0: at the end of a section)."""
        score = _ATTRACTION[rank] - abs(size - self._options.aim) / self._options.aim
        if size < self._options.minimum:
            score -= _TOO_SMALL
        if index and self._rest[index] < self._options.minimum:
            score -= _LEFTOVER
        return score


def _rest_of_section(segments: Sequence[_Segment]) -> list[int]:
    """For each segment the tokens from there to the next heading."""
    rest = [segment.size for segment in segments]
    for index in reversed(range(len(segments) - 1)):
        if segments[index + 1].rank != Rank.SECTION:
            rest[index] += rest[index + 1]
    return rest


class _Fitter:
    """Makes chunks that the model reads to their end."""

    def __init__(self, document: Document, tokens: TokenSpans, counter: _TokenCounter, max_tokens: int) -> None:
        self._document = document
        self._counter = counter
        self._tokens = tokens
        self._max_tokens = max_tokens
        self._page_starts = [page.start for page in document.pages]
        self._context_sizes: dict[str, int] = {}

    def fit(self, segments: Sequence[_Segment], lead_start: int) -> list[Chunk]:
        """The segments as one chunk; where it is too long, its lead goes first, then its headings, then it is cut."""
        chunk = self._chunk(segments, lead_start)
        if self._surely_fits(chunk, segments):
            return [chunk]
        for shorter in _shortened(chunk):
            if len(self._tokens(embedding_text(self._document.title, shorter))) <= self._max_tokens:
                return [shorter]
        halves = self._halves(segments)
        if len(halves) == 1:
            return [msgspec.structs.replace(chunk, lead="", heading=())]
        (left, right), start = halves, halves[1][0].start
        return self.fit(left, lead_start) + self.fit(right, start)

    def _chunk(self, segments: Sequence[_Segment], lead_start: int) -> Chunk:
        start, end = segments[0].start, segments[-1].end
        heading = _common_path([segment.path for segment in segments if not segment.heading] or [segments[-1].path])
        return Chunk(
            ordinal=0,
            start=start,
            end=end,
            text=self._document.text[start:end],
            page=page_at(self._document.pages, start),
            later_pages=self._pages_within(start + 1, end),
            heading=(*heading, segments[0].columns) if segments[0].columns else heading,
            lead=self._document.text[lead_start:start],
        )

    def _pages_within(self, start: int, end: int) -> tuple[PageStart, ...]:
        """Those that begin in [start, end)."""
        return self._document.pages[bisect_left(self._page_starts, start) : bisect_left(self._page_starts, end)]

    def _surely_fits(self, chunk: Chunk, segments: Sequence[_Segment]) -> bool:
        """Whether the tokens counted once in the whole text tell enough: room to spare, and no word cut."""
        begin = chunk.start - len(chunk.lead)
        size = self._counter.size(begin, chunk.end)
        if (
            min(segment.rank for segment in segments) < Rank.WORD
            or size * _CHARACTERS_PER_TOKEN < chunk.end - begin + 8
        ):
            return False
        context = _context(self._document.title, chunk)
        if context not in self._context_sizes:
            self._context_sizes[context] = len(self._tokens(context))
        return size * 9 // 8 + self._context_sizes[context] + 4 <= self._max_tokens

    def _halves(self, segments: Sequence[_Segment]) -> list[Sequence[_Segment]]:
        """Two parts of about the same length, the first not ending in a heading; or one, if there is nothing to cut."""
        cuts = [index for index in range(1, len(segments)) if not segments[index - 1].heading]
        if not cuts:
            *headings, last = segments
            parts = self._smaller(last)
            if len(parts) == 1:
                return [segments[:-1], parts] if headings else [parts]
            segments = [*headings, *parts]
            cuts = list(range(len(headings) + 1, len(segments)))
        middle = (segments[0].start + segments[-1].end) / 2
        cut = min(cuts, key=lambda index: abs(segments[index].start - middle))
        return [segments[:cut], segments[cut:]]

    def _smaller(self, segment: _Segment) -> list[_Segment]:
        half = (segment.end - segment.start) / 2
        parts = parts_of(self._document.text, segment[:3], lambda start, end: end - start <= half)
        return [segment._replace(start=start, end=end, rank=rank, heading=False) for start, end, rank in parts]


def _shortened(chunk: Chunk) -> Iterator[Chunk]:
    """The chunk with less and less around its text."""
    yield chunk
    for outermost in range(len(chunk.heading) + 1):
        yield msgspec.structs.replace(chunk, lead="", heading=chunk.heading[outermost:])


def _common_path(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The headings that all the paths share."""
    shared = takewhile(lambda level: len(set(level)) == 1, zip(*paths, strict=False))
    return tuple(level[0] for level in shared)
