"""Markers in a stream of text: found as they pass, and resolved to sentences of the passages. Pure."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec

from app.answering.markers import CLOSING, LONGEST, OPENING, Ref, read_marker, without_marker
from app.answering.models import Source
from app.text.languages import detect_language
from app.text.terms import content_terms, terms
from indexing.documents import Span

_FENCES = ("```", "~~~")


class Words(msgspec.Struct, frozen=True):
    """Text that holds no marker. `code`: it stands in a block of code."""

    text: str
    code: bool = False


class Marker(msgspec.Struct, frozen=True):
    """What one marker names; at least one."""

    refs: tuple[Ref, ...]


class Scanner:
    """Holds back what may become a marker: from an opening bracket on, `LONGEST` characters at most.

    Within code a bracketed number is an index: it is kept, with spaces, so that it does not look like a marker. In a
    block of code there are no markers at all.
    """

    def __init__(self) -> None:
        self._held = ""
        self._line = ""  # its first characters
        self._block = self._closing = self._inline = False

    def read(self, character: str) -> list[Words | Marker]:
        """What is certain after one more character."""
        self._notice(character)
        return self._take(character)

    def finish(self) -> list[Words | Marker]:
        """What was held back, when nothing more comes."""
        return self._half_closed() if self._is_half_closed() else self._release()

    def _take(self, character: str) -> list[Words | Marker]:
        if self._is_half_closed() and character not in CLOSING:
            return [*self._half_closed(), *self._take(character)]
        if character in OPENING:
            released = self._release() if len(self._held) > 1 else []
            self._held += character
            return released
        if not self._held:
            return [self._words(character)]
        self._held += character
        if character in CLOSING:
            return [] if self._is_half_closed() else self._close()
        return self._release() if character == "\n" or len(self._held) > LONGEST else []

    def _is_half_closed(self) -> bool:
        """Two brackets were opened and one closed."""
        held = self._held
        return len(held) > 2 and held[1] in OPENING and held[-1] in CLOSING and held[-2] not in CLOSING

    def _half_closed(self) -> list[Words | Marker]:
        """The outer bracket stays open for ever."""
        outer, self._held = self._held[0], self._held[1:]
        return [self._words(outer), *self._close()]

    def _close(self) -> list[Words | Marker]:
        text, self._held = self._held, ""
        width = 2 if text[1] in OPENING else 1
        body = text[width:-width]
        if (self._block or self._inline) and body.strip().isdecimal():
            return [self._words(f"{text[:width]} {body} {text[-width:]}")]
        if self._block:
            return [self._words(text)]
        refs = read_marker(body)
        return [Marker(refs)] if refs else [self._words(without_marker(text))]

    def _release(self) -> list[Words | Marker]:
        text, self._held = self._held, ""
        return [self._words(text)] if text else []

    def _words(self, text: str) -> Words:
        return Words(text, self._block)

    def _notice(self, character: str) -> None:
        """Keeps track of ``` at the beginning of lines and ` within them."""
        if character == "\n":
            self._block = self._block and not self._closing
            self._line, self._closing, self._inline = "", False, False
            return
        if character == "`" and not self._block:
            self._inline = not self._inline
        if len(self._line) < len(_FENCES[0]) and (self._line or not character.isspace()):
            self._line += character
            if self._line in _FENCES:
                self._closing, self._block, self._inline = self._block, True, False


_WIDEST = 3
"""Sentences that a marker without a sentence number stands for, at most, in a passage that has more than that."""
_PRICE = 0.15
"""What one more sentence must add, as a share of the claim's terms."""


class Resolver:
    """Knows the passages by their numbers, and counts what they do not have in `unknown`."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = {source.number: source for source in sources if source.sentences}
        self._terms: dict[int, list[frozenset[str]]] = {}
        self.unknown = 0

    def resolve(self, refs: Iterable[Ref], claim: str) -> list[tuple[Source, Span]]:
        """The spans that `refs` name together, neighbouring sentences as one, in the order of their passages' mention.

        A passage without a sentence number stands for those of its sentences that are closest to `claim`.
        """
        named: dict[int, set[int]] = {}
        for ref in refs:
            if places := self._places(ref, claim):
                named.setdefault(ref.passage, set()).update(places)
        return [
            (self._sources[number], Span(sentences[run[0]].start, sentences[run[-1]].end))
            for number, places in named.items()
            for sentences in (self._sources[number].sentences,)
            for run in _runs(sorted(places))
        ]

    def _places(self, ref: Ref, claim: str) -> range:
        """Places in the passage's tuple of sentences."""
        source = self._sources.get(ref.passage)
        count = len(source.sentences) if source else 0
        if not source or max(ref.first, ref.last) > count:
            self.unknown += 1
        if not source or ref.first > count:
            return range(0)
        return range(ref.first - 1, min(ref.last, count)) if ref.first else self._closest(source, claim)

    def _closest(self, source: Source, claim: str) -> range:
        """The run of sentences that shares most with the claim; the whole passage if that is short, or none does."""
        count = len(source.sentences)
        wanted, offered = frozenset(content_terms(claim, detect_language(claim))), self._offered(source)
        if count <= 1 or not any(wanted & some for some in offered):
            return range(count)
        runs = [range(at, at + width) for width in range(1, _WIDEST + 1) for at in range(count - width + 1)]
        return max(runs, key=lambda run: _gain(wanted, [offered[place] for place in run]))

    def _offered(self, source: Source) -> list[frozenset[str]]:
        if source.number not in self._terms:
            text = source.hit.text or ""
            self._terms[source.number] = [terms(text[span.start : span.end]) for span in source.sentences]
        return self._terms[source.number]


def _gain(wanted: frozenset[str], offered: Sequence[frozenset[str]]) -> float:
    shared = len(wanted & frozenset().union(*offered))
    return shared - _PRICE * len(wanted) * (len(offered) - 1)


def _runs(places: Sequence[int]) -> list[Sequence[int]]:
    """Rising numbers, cut where one is left out."""
    cuts = [0, *(at for at, (one, two) in enumerate(pairwise(places), start=1) if two > one + 1), len(places)]
    return [places[start:end] for start, end in pairwise(cuts)]
