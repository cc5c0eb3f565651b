"""Where a text may be cut: blocks -> sentences -> words -> graphemes -> characters. Pure, linear time.

blocks_of        the document's own blocks, and paragraphs for text that lies in none
parts_of         the largest parts of a range that fit, cut at the best place (`Rank`) that will do
sentence_spans   sentences of any text: sentencex, with its mistakes mended
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from itertools import pairwise

import regex
import sentencex

from indexing.documents import Block, Document, Span

Range = tuple[int, int]
"""[start, end) in code points."""


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
_NON_EMPTY_LINE = re.compile(r"[^\n]+")
_WORD = re.compile(
    r"[^\s，、；：。！？]*[，、；：。！？]+|[^\s，、；：。！？]+"
)  # a clause mark ends a word where no spaces do
_GRAPHEME = regex.compile(r"\X")

Part = tuple[int, int, Rank]
"""A range without white space at its edges, and the rank of the boundary before it."""


def blocks_of(document: Document) -> Iterator[Block]:
    """The document's blocks, in order and disjoint; text outside of them comes as paragraphs."""
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
    """The lines that are not blank."""
    matches = _NON_EMPTY_LINE.finditer(text, start, end)
    return [line for match in matches for line in _trimmed(text, *match.span())]


def sentences(text: str, start: int, end: int) -> list[Range]:
    """The sentences of text[start:end], by offsets into `text`."""
    return [(start + span.start, start + span.end) for span in sentence_spans(text[start:end])]


Split = Callable[[str, int, int], list[Range]]
_FINER: tuple[tuple[Rank, Split], ...] = (
    (Rank.SENTENCE, sentences),
    (Rank.WORD, lambda text, start, end: [match.span() for match in _WORD.finditer(text, start, end)]),
    (Rank.GRAPHEME, lambda text, start, end: [match.span() for match in _GRAPHEME.finditer(text, start, end)]),
    (Rank.CHARACTER, lambda text, start, end: list(pairwise(range(start, end + 1)))),
)


def parts_of(
    text: str, whole: Part, fits: Callable[[int, int], bool], ways: Sequence[tuple[Rank, Split]] = _FINER
) -> Iterator[Part]:
    """The largest parts of `whole` that fit, cut at the best places that do; a single character is never cut."""
    start, end, rank = whole
    if not ways or fits(start, end):
        yield whole
        return
    (finer, split), *rest = ways
    for part_start, part_end in _grown(split(text, start, end), fits):
        yield from parts_of(text, (part_start, part_end, rank), fits, rest)
        rank = finer


def _grown(ranges: Iterable[Range], fits: Callable[[int, int], bool]) -> Iterator[Range]:
    """Neighbouring ranges, joined for as long as the whole fits."""
    joined: Range | None = None
    for start, end in ranges:
        if joined and not fits(joined[0], end):
            yield joined
            joined = None
        joined = (joined[0] if joined else start, end)
    if joined:
        yield joined


_WINDOW = 2_000  # code points; sentencex takes quadratic time in a paragraph that is not ASCII
_LONG = 400  # a "sentence" beyond this is looked at again: sentencex never cuts within quotes or brackets

_LINE = re.compile(r"[^\n]*\n?")
_OWN_LINE = re.compile(r"\s*(?:[-*+•‣◦–—#>|]|\(?\d{1,3}[.)])\s|\s*\||.*(?:\s\|\s|\t\S)")
_UNDERLINE = re.compile(r"\s*(?:=+|-+|\*{3,}|_{3,}|[-:| ]{3,})\s*$")
_FULL_STOP = re.compile(r"""(\b\w+|[)%\]])[.!?]+["'”’»)\]]*\s+(?=["'“‘«(\[]?[^\W\d_])""")
_RUN_ON = re.compile(r"""[」』”"][とのをがはにでもへやっな]""")
_NOT_YET = re.compile(r"\s*(?:[-*+•|]\s*)?\(?(?:\d{1,3}|[A-Za-z])[.)]\s*")
_INITIAL = re.compile(r"(?:^|\s)[ء-ي]\.$")
_LETTER_PAIR = re.compile(r"[^\W\d_]{2}")

_SCRIPTS = (
    ("ja", re.compile(r"[ぁ-ヿ]")),
    ("zh", re.compile(r"[㐀-鿿]")),
    ("ko", re.compile(r"[가-힣]")),
    ("ar", re.compile(r"[؀-ۿ]")),
    ("hi", re.compile(r"[ऀ-ॿ]")),
    ("ru", re.compile(r"[Ѐ-ӿ]")),
    ("el", re.compile(r"[Ͱ-Ͽ]")),
)
_SCRIPTED = re.compile("[" + "".join(script.pattern[1:-1] for _, script in _SCRIPTS) + "]")
"""Of any of them: most texts have no such character."""
FUNCTION_WORDS = {
    "en": "the of and to in is was for that with on are it as by at from be this",
    "de": "der die das und ist von den mit nicht ein eine für auf im dem des zu sich auch siehe",
    "fr": "le les des et est une dans que pour du qui sur pas au par avec cette",
    "es": "el los las y es una en que por del con para se como al su",
    "it": "il gli di che è una per del della con non sono nel alla",
    "pt": "o os as e é uma em que para do da com não na no ao",
    "nl": "het een van en is dat op te voor met niet zijn aan ook",
}
_LANGUAGE_OF_WORD = {
    word: [language for language, words in FUNCTION_WORDS.items() if word in words.split()]
    for words in FUNCTION_WORDS.values()
    for word in words.split()
}
_ABBREVIATION = re.compile(
    r"(?i:etc|inc|corp|ltd|approx|dept|est|figs?|vol|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|usw|bzw|evtl|inkl"
    r"|prof|abs|str|nos|pag|art|sec|eds|min|max|cit|ibid)"
)


def sentence_spans(text: str) -> list[Span]:
    """The sentences of `text`: in order, none empty or blank, only white space between and around them.

    A list item, a table row and a heading begin a sentence of their own. Linear time.
    """
    encodable = text.encode("utf-8", "replace").decode("utf-8")  # one "?" per lone surrogate: offsets stay
    language = language_of(encodable)
    spans: list[Span] = []
    for start, end in _pieces(encodable):
        cuts = [start, *_cuts(encodable, start, end, language), end]
        spans.extend(Span(*trimmed) for a, b in pairwise(cuts) for trimmed in _trimmed(encodable, a, b))
    return spans


def language_of(text: str) -> str:
    """The language whose abbreviations fit best, judged by the first 2,000 code points; English without evidence."""
    sample = text[:2_000]
    if not sample.isascii() and _SCRIPTED.search(sample):
        letters = max(1, sum(map(str.isalpha, sample)))
        for language, script in _SCRIPTS:
            if len(script.findall(sample)) > letters * 0.1:
                return language
    votes = dict.fromkeys(FUNCTION_WORDS, 0)
    for languages in filter(None, map(_LANGUAGE_OF_WORD.get, sample.lower().split())):
        for language in languages:
            votes[language] += 1
    return max(votes, key=lambda language: votes[language])


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    """Runs of lines that a sentence cannot leave: paragraphs, list items, table rows, headings."""
    start = end = 0
    alone = True  # nothing goes on from the line before
    for match in _LINE.finditer(text):
        line = match.group()
        ends_itself = not line.strip() or bool(_UNDERLINE.match(line)) or line.lstrip().startswith("#")
        own = bool(_OWN_LINE.match(line))
        if (alone or own or ends_itself) and start < end:
            yield start, end
            start = end
        # A table row ends with its line; the text of a list item may go on in the next.
        alone = ends_itself or (own and ("|" in line or "\t" in line))
        end = match.end()
    if start < end:
        yield start, end


def _cuts(text: str, start: int, end: int, language: str) -> Iterator[int]:
    """Offsets inside (start, end) at which a sentence ends, rising."""
    while start < end:
        stop = min(start + _WINDOW, end)
        cuts = [cut for cut in _window_cuts(text, start, stop, language) if start < cut < stop]
        yield from cuts
        start = cuts[-1] if cuts and stop < end else stop


def _window_cuts(text: str, start: int, stop: int, language: str) -> Iterator[int]:
    """What sentencex finds in one window, without the ends that are none, and with those that it misses."""
    last = start
    for boundary in sentencex.get_sentence_boundaries(language, text[start:stop]):
        cut = start + boundary["end_index"]
        if cut < stop and not _ends_well(text, last, cut):
            continue
        yield from _full_stops(text, last, cut)
        yield cut
        last = cut


def _full_stops(text: str, start: int, end: int) -> Iterator[int]:
    """Plain full stops within what sentencex takes for one sentence, where it is too long or has no capitals."""
    if end - start <= _LONG and not text[start:end].islower():
        return
    for match in _FULL_STOP.finditer(text, start, end):
        word = match.group(1)
        if not _ABBREVIATION.fullmatch(word) and (not word.isalpha() or _LETTER_PAIR.search(word)):
            yield match.end()


def _ends_well(text: str, start: int, cut: int) -> bool:
    """Whether text[start:cut] is more than a list marker or an initial, and what follows can begin a sentence."""
    if unicodedata.category(text[cut]) in ("Mn", "Mc", "Me", "Cf"):  # a mark of the character before
        return False
    # Of an Arabic initial only the end is looked at: a pattern for all of it would try every place.
    end = text[start:cut].rstrip()[-3:]
    return not (_RUN_ON.match(text, cut - 1) or _NOT_YET.fullmatch(text, start, cut) or _INITIAL.search(end))
