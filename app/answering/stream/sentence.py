"""Sentences of an answer: where they end, what they claim, what they cite. Pure."""

import re

import msgspec

from app.answering.citations import STOPS
from app.answering.markers import Ref
from app.answering.models import Source
from app.answering.verification.numbers import is_month
from app.answering.verification.tables import courtesies, offers
from app.text.languages import DEFAULT
from app.text.terms import content_terms, fold
from indexing.chunking.sentences import sentence_spans
from indexing.documents import Span

BULLET = re.compile(r"\s*(?:(?:[-*+•‣◦–—>|]+|#{1,6})(?=\s|$)\s*)*(?:\(?\d{1,3}[.)](?=\s|$)\s*)?")
"""The mark of a list item, a quotation or a heading; it may be empty."""

_HEADING = re.compile(r"\s*#{1,6}\s|\s*(\*\*|__)[^*_]*[^*_.!?。！？؟]\1\s*$")
_EMPHASIS = "*_`~ "
_MARKS = re.compile(r"[\s,.!;:…，。！；：、،]+")


def states_something(sentence: str) -> bool:
    """Whether a sentence would need support: it is no question, heading, courtesy or announcement of a list."""
    text = BULLET.sub("", sentence, count=1).strip(_EMPHASIS)
    if _HEADING.match(sentence) or text.endswith(("?", "？", "؟", ":", "：")) or not content_terms(text, DEFAULT):
        return False
    folded = fold(text)
    return _MARKS.sub(" ", folded).strip() not in courtesies() and not offers().match(folded)


CONTEXT = 300
"""Characters of a line that tell whether a sentence ends after them."""
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")

_CLOSERS = "\"'”’»)）」』*_"
_FULL_WIDTH = frozenset("。！？")
_ORDINAL = re.compile(r"\b\d{1,2}\.$")
_LETTERS = re.compile(r"[^\W\d_]+")

Key = tuple[int, Span]
"""A passage's number, and a span of its text."""


class Sentence(msgspec.Struct):
    """Its words without markers, [start, end) of the answer where they stand, and what it cites, by marker number."""

    start: int = 0
    end: int = 0
    words: list[str] = []
    size: int = 0
    cited: dict[Key, tuple[Source, int]] = {}
    code: bool = False

    def add(self, text: str) -> None:
        self.words.append(text)
        self.size += len(text)


class Tail(msgspec.Struct):
    """What follows the last word: stops, white space `before` markers, the markers, and white space again.

    `split`: the markers came after the stops.
    """

    stops: str = ""
    before: str = ""
    refs: list[Ref] = []
    gap: str = ""
    split: bool = False

    def add(self, refs: tuple[Ref, ...]) -> None:
        if not self.refs:
            self.before, self.split = self.gap, bool(self.stops)
        self.gap = ""
        self.refs.extend(refs)

    def takes(self, character: str) -> bool:
        """Whether the character belongs to the stops rather than to the next word."""
        if character in STOPS:
            near = not self.gap or (bool(self.refs) and not self.stops)
            return near and not self.breaks() and not self.split
        return character in _CLOSERS and bool(self.stops) and not self.gap and not self.refs

    def is_plain(self) -> bool:
        """Whether the stops hold no closing quotes or the like, so that markers may stand before them."""
        return not self.stops.strip(STOPS)

    def breaks(self) -> bool:
        """Whether a line ends here."""
        return "\n" in self.before or "\n" in self.gap

    def may_end(self) -> bool:
        """Whether it takes the next word to know if the sentence ends here."""
        return bool(self.stops) and bool(self.gap or self.split or not _FULL_WIDTH.isdisjoint(self.stops))

    def ends(self, line: str, ahead: str) -> bool:
        """Whether the sentence ends here, with `line` before the stops and the word `ahead` after them."""
        if len(self.stops) > CONTEXT:
            return True
        context = line + self.stops
        word = _LETTERS.match(ahead)
        if _ORDINAL.search(context) and word and is_month(word.group()):  # am 3. Mai
            return False
        places = range(len(line) + 1, len(context) + 1)
        spans = sentence_spans(f"{context}{self.gap or self.before or ' '}{ahead}")
        return any(span.end in places for span in spans)


def says_nothing(line: str) -> bool:
    """Whether a line has only begun: with nothing, or with the mark of a list."""
    return not any(map(str.isalnum, BULLET.sub("", line, count=1)))
