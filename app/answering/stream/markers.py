"""Markers in a model's text: parsed, found in a stream, and resolved to sentences of the passages. Pure.

[2.3] is sentence 3 of passage 2. Small models do not copy markers exactly, so [2], [2.3, 4.1], [2.3-2.5], [2.3–5],
[ 2.3 ], [[2.3]], 【2.3】, ［２．３］, [passage 2.3] and [passage 2, sentence 3] are understood too. Round brackets
are no markers: (2.3) may be a number in the answer itself.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec

from app.answering.models import Source
from app.text.languages import detect_language
from app.text.terms import content_terms, terms
from indexing.documents import Span

DECLINE = "NO_ANSWER"
"""The word with which a model says that the passages do not answer the question."""

OPENING_BRACKETS = "[［【〔"
CLOSING_BRACKETS = "]］】〕"

MAX_MARKER_LENGTH = 48
"""Characters between the brackets. Longer text is no marker, so that a bracket that is never closed holds nothing back
for long."""

_MAX_PASSAGE_NUMBER = 999
_MAX_RANGE = 48
"""Passages that a range such as [1-9] may span; a reply could name millions."""
_JOINER = "\u200c\u200d\ufe0f"
_JOINERS = re.compile(f"[{_JOINER}]")
_NOUN = r"(?:(?:passages?|sources?|documents?|docs?|refs?|texts?|quellen?|文档|文書|来源|出典|段落?|第)[ .:]*)?[#^§]?"
_SENTENCE = re.compile(r"\s*[,;]?\s*\b(?:sentences?|sent\.|satz|s\.)\s*(?=\d)", re.IGNORECASE)
_REF = r"(\d{1,4})(?:\s*[.:]\s*(\d{1,4}))?"
_LINK = re.compile(
    rf"\s*(?P<link>-|to\b|bis\b|[,;、&/+]|and\b|und\b|和|と)?\s*{_NOUN}\s*{_REF}(?![\d.])", re.IGNORECASE
)
_RANGES = frozenset({"-", "to", "bis"})
_DASHES = str.maketrans(dict.fromkeys("‐‑‒–—―−〜~", "-"))
_NUMBERS = re.compile(r"[\d\s.,;:-]*\d[\d\s.,;:-]*")
_PARENTHESES = str.maketrans(dict.fromkeys(OPENING_BRACKETS, "(") | dict.fromkeys(CLOSING_BRACKETS, ")"))
_ALMOST = re.compile(rf"[{re.escape(OPENING_BRACKETS)}][{_JOINER}]*\d[\d,;–{_JOINER}-]*$")


class Reference(msgspec.Struct, frozen=True):
    """Sentences `first` to `last` of a passage, counted from 1. Both are 0 where no sentence is named."""

    passage: int
    first: int = 0
    last: int = 0


def parse_marker(body: str) -> tuple[Reference, ...]:
    """The references between a marker's brackets; () if it is no marker."""
    text = unicodedata.normalize("NFKC", _JOINERS.sub("", body)).translate(_DASHES)
    text = _SENTENCE.sub(".", text).partition("†")[0].rstrip()
    references: list[Reference] = []
    position = 0
    while position < len(text):
        match = _LINK.match(text, position)
        if not match or not int(match[2]) or (match["link"] and not references):
            return ()
        references = _append(references, match)
        position = match.end()
    # [2019] is a year rather than a passage.
    if any(not reference.first and reference.passage > _MAX_PASSAGE_NUMBER for reference in references):
        return ()
    return tuple(references)


def _append(references: list[Reference], match: re.Match[str]) -> list[Reference]:
    """Add the next reference, or widen the last one to a range."""
    one, two = int(match[2]), int(match[3] or 0)
    if (match["link"] or "").lower() not in _RANGES:
        return [*references, Reference(one, two, two)]
    *before, begin = references
    if begin.first and (not two or one == begin.passage):  # [2.3-5], [2.3-2.5]
        return [*before, Reference(begin.passage, begin.first, max(begin.first, two or one))]
    between = range(begin.passage + 1, min(one, begin.passage + _MAX_RANGE))
    return [*references, *map(Reference, between), Reference(one, two, two)]


def without_marker(text: str) -> str:
    """Bracketed text that is no marker, so that it does not look like one: [2019] becomes (2019)."""
    plain = unicodedata.normalize("NFKC", _JOINERS.sub("", text)).translate(_DASHES)
    return text.translate(_PARENTHESES) if _NUMBERS.fullmatch(plain.strip("[]【】〔〕")) else text


def would_close(before: str) -> bool:
    """Whether a closing bracket after `before` would complete what looks like one of our markers."""
    return bool(_ALMOST.search(before[-MAX_MARKER_LENGTH:]))


_CODE_FENCES = ("```", "~~~")


class Token(msgspec.Struct, frozen=True):
    """A marker's `references`, or else text without any marker. `in_code`: the text is part of a block of code."""

    text: str = ""
    references: tuple[Reference, ...] = ()
    in_code: bool = False


class MarkerScanner:
    """Splits a stream of characters into text and markers.

    Holds text back from an opening bracket on, at most `MAX_MARKER_LENGTH` characters, since it may become a marker.
    Within code a bracketed number is an index: it gets spaces, so that it does not look like a marker. A block of code
    holds no markers.
    """

    def __init__(self) -> None:
        self._held = ""  # from an opening bracket on
        self._line_start = ""  # the first characters of the current line, in which a fence would stand
        self._in_block = self._block_closes = self._in_inline_code = False

    def feed(self, character: str) -> list[Token]:
        """Take one more character; return the tokens that are complete."""
        self._track_code(character)
        return self._take(character)

    def finish(self) -> list[Token]:
        """Return what was held back, at the end of the stream."""
        return self._close_inner() if self._is_half_closed() else self._release()

    def _take(self, character: str) -> list[Token]:
        if self._is_half_closed() and character not in CLOSING_BRACKETS:
            return [*self._close_inner(), *self._take(character)]
        if character in OPENING_BRACKETS:
            released = self._release() if len(self._held) > 1 else []
            self._held += character
            return released
        if not self._held:
            return [self._text(character)]
        self._held += character
        if character in CLOSING_BRACKETS:
            return [] if self._is_half_closed() else self._close()
        return self._release() if character == "\n" or len(self._held) > MAX_MARKER_LENGTH else []

    def _is_half_closed(self) -> bool:
        """Whether two brackets were opened and one was closed, as in "[[2.3]"."""
        held = self._held
        return (
            len(held) > 2
            and held[1] in OPENING_BRACKETS
            and held[-1] in CLOSING_BRACKETS
            and held[-2] not in CLOSING_BRACKETS
        )

    def _close_inner(self) -> list[Token]:
        """Take the inner brackets for a marker, and the outer one for text, since nothing closes it."""
        outer, self._held = self._held[0], self._held[1:]
        return [self._text(outer), *self._close()]

    def _close(self) -> list[Token]:
        text, self._held = self._held, ""
        width = 2 if text[1] in OPENING_BRACKETS else 1
        body = text[width:-width]
        if (self._in_block or self._in_inline_code) and body.strip().isdecimal():
            return [self._text(f"{text[:width]} {body} {text[-width:]}")]
        if self._in_block:
            return [self._text(text)]
        references = parse_marker(body)
        return [Token(references=references)] if references else [self._text(without_marker(text))]

    def _release(self) -> list[Token]:
        text, self._held = self._held, ""
        return [self._text(text)] if text else []

    def _text(self, text: str) -> Token:
        return Token(text, in_code=self._in_block)

    def _track_code(self, character: str) -> None:
        """Keep track of fences at the beginning of lines, and of backticks within lines."""
        if character == "\n":
            # The line that holds the closing fence is still a part of the block.
            self._in_block = self._in_block and not self._block_closes
            self._line_start, self._block_closes, self._in_inline_code = "", False, False
            return
        if character == "`" and not self._in_block:
            self._in_inline_code = not self._in_inline_code
        if len(self._line_start) < len(_CODE_FENCES[0]) and (self._line_start or not character.isspace()):
            self._line_start += character
            if self._line_start in _CODE_FENCES:
                self._block_closes, self._in_block, self._in_inline_code = self._in_block, True, False


_MAX_CLOSEST = 3
"""The most sentences that a marker without a sentence number stands for, in a passage that has more."""
_SENTENCE_COST = 0.15
"""What one more sentence must add, as a share of the claim's terms."""


_SAME = 0.8
"""The share of a claim's terms that a sentence must have to say the same, and of at least how many terms."""
_MIN_CLAIMED = 4


_OF_PASSAGES = re.compile(r"(?:the|this|these) passages?\b", re.IGNORECASE)
"""How a claim begins that is about what the model was shown ("The passage is from ..."), and not about the matter."""


class ReferenceResolver:
    """Turns references into spans of the passages; counts those that name no passage or sentence in `unknown`."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = {source.number: source for source in sources if source.sentences}
        self._terms: dict[int, list[frozenset[str]]] = {}
        self._keys: dict[int, list[str]] = {}
        self.unknown = 0

    def resolve(self, references: Iterable[Reference], claim: str) -> list[tuple[Source, Span]]:
        """The spans that are named, neighbouring sentences as one, by passage in the order of their first mention.

        A passage without a sentence number stands for those of its sentences that are closest to `claim`.
        """
        named: dict[int, set[int]] = {}
        for reference in references:
            if indices := self._indices(reference, claim):
                named.setdefault(reference.passage, set()).update(indices)
        return [
            (self._sources[number], Span(sentences[run[0]].start, sentences[run[-1]].end))
            for number, indices in named.items()
            for sentences in (self._sources[number].sentences,)
            for run in _runs(sorted(indices))
        ]

    def saying(self, claim: str) -> list[Reference]:
        """The sentence that says what the claim says: in the same words, or with nearly all of those that matter."""
        key = _key(claim)
        sentences = [(source, index) for source in self._sources.values() for index in range(len(source.sentences))]
        for source, index in sentences:
            if key and key == self._keys_of(source)[index]:
                return [Reference(source.number, index + 1, index + 1)]
        claimed = frozenset(content_terms(claim, detect_language(claim)))
        if len(claimed) < _MIN_CLAIMED or not sentences or _OF_PASSAGES.match(claim):
            return []
        source, index = max(sentences, key=lambda place: len(claimed & self._terms_of(place[0])[place[1]]))
        shared = len(claimed & self._terms_of(source)[index])
        return [Reference(source.number, index + 1, index + 1)] if shared >= _SAME * len(claimed) else []

    def holds(self, text: str) -> bool:
        """Whether a passage has the words of the text in a row."""
        key = _key(text)
        return any(key in "".join(self._keys_of(source)) for source in self._sources.values())

    def _keys_of(self, source: Source) -> list[str]:
        if source.number not in self._keys:
            text = source.hit.text or ""
            self._keys[source.number] = [_key(text[span.start : span.end]) for span in source.sentences]
        return self._keys[source.number]

    def _terms_of(self, source: Source) -> list[frozenset[str]]:
        if source.number not in self._terms:
            text = source.hit.text or ""
            self._terms[source.number] = [terms(text[span.start : span.end]) for span in source.sentences]
        return self._terms[source.number]

    def _indices(self, reference: Reference, claim: str) -> range:
        """The passage's sentences that are named, by their index."""
        source = self._sources.get(reference.passage)
        count = len(source.sentences) if source else 0
        if not source or max(reference.first, reference.last) > count:
            self.unknown += 1
        if not source or reference.first > count:
            return range(0)
        if not reference.first:
            return self._closest(source, claim)
        return range(reference.first - 1, min(reference.last, count))

    def _closest(self, source: Source, claim: str) -> range:
        """The run of sentences that shares most with the claim; the whole passage if it has one, or shares nothing."""
        count = len(source.sentences)
        claimed = frozenset(content_terms(claim, detect_language(claim)))
        by_sentence = self._terms_of(source)
        if count <= 1 or not any(claimed & offered for offered in by_sentence):
            return range(count)

        def gain(run: range) -> float:
            shared = claimed & frozenset().union(*(by_sentence[index] for index in run))
            return len(shared) - _SENTENCE_COST * len(claimed) * (len(run) - 1)

        widths = range(1, _MAX_CLOSEST + 1)
        return max((range(at, at + width) for width in widths for at in range(count - width + 1)), key=gain)


def _runs(numbers: Sequence[int]) -> list[Sequence[int]]:
    """Split rising numbers where one is missing."""
    cuts = [0, *(at for at, (one, two) in enumerate(pairwise(numbers), start=1) if two > one + 1), len(numbers)]
    return [numbers[start:end] for start, end in pairwise(cuts)]


def _key(text: str) -> str:
    """Letters and digits alone, whatever their case."""
    return "".join(filter(str.isalnum, text)).casefold()
