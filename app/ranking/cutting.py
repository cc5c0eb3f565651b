"""The part of a text that speaks most about a query. Pure."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ahocorasick_rs import AhoCorasick

from app.answering.terms import fold, terms
from app.backends.estimating import BYTES_PER_TOKEN, tokens_of

_MOST_TERMS = 32
"""Of a long query the longest terms are looked for."""

_AGAIN = 0.02
"""What a term's second mention in a window counts, against its first."""

_LEAD = 3
"""One part in this many of the room that is left goes before the first mention, the rest after the last."""

_SENTENCE_END = re.compile(r"[.!?…؟।][\"'”’»)\]]*\s+|[。！？][」』”]*|\n+")
_SPACE = re.compile(r"\s+")


class Mention(NamedTuple):
    """A term of the query, by its index, at a place in a text."""

    place: int
    term: int


class Search:
    """Where texts speak about a query. Words are compared by their stems, unspaced scripts by characters and pairs."""

    def __init__(self, query: str) -> None:
        found = (term for term in terms(query) if not term.startswith("~"))
        self.terms = sorted(found, key=lambda term: (-len(term), term))[:_MOST_TERMS]
        self._inside = [_stands_inside(term) for term in self.terms]
        self._finder = AhoCorasick(self.terms)

    def mentions(self, text: str) -> list[Mention]:
        """By place. Places are about right: folding may change a text's length a little."""
        folded = fold(text)
        scale = len(text) / len(folded) if folded else 1.0
        return [
            Mention(int(start * scale), term)
            for term, start, _ in self._finder.find_matches_as_indexes(folded, overlapping=True)
            if self._inside[term] or start == 0 or not folded[start - 1].isalnum()
        ]

    def known(self, text: str) -> frozenset[int]:
        """The terms that the text holds."""
        return frozenset(mention.term for mention in self.mentions(text))

    def weights(self, mentioned: Sequence[Sequence[Mention]]) -> list[float]:
        """What each term counts, given its mentions in each text: the fewer texts, the more."""
        texts = Counter(term for mentions in mentioned for term in {mention.term for mention in mentions})
        return [
            math.log1p(len(mentioned) / max(1, texts[index])) - math.log(2) + 1e-3 for index in range(len(self.terms))
        ]


def _stands_inside(term: str) -> bool:
    """Whether its script has no spaces: letters without case."""
    return not term[0].isdigit() and term.lower() == term.upper()


def cut(text: str, tokens: int, mentions: Sequence[Mention], weights: Sequence[float]) -> str:
    """The text if it has at most `tokens` (estimated), else the window of that size that mentions most.

    Windows begin and end between sentences if they can, else between words. A text without a mention keeps its head.
    """
    size = tokens_of(text)
    if size <= tokens:
        return text
    width = max(1, len(text) * tokens // size)
    first, last = _densest(mentions, weights, width)
    start = min(max(0, first - (width - (last - first)) // _LEAD), max(0, len(text) - width))
    start = _next_border(text, start, first) if start else 0
    rest = text[start:]
    window = rest.encode("utf-8", "replace")[: tokens * BYTES_PER_TOKEN].decode("utf-8", "ignore")
    return (window if len(window) == len(rest) else _to_border(window, last - start)).strip()


def _densest(mentions: Sequence[Mention], weights: Sequence[float], width: int) -> tuple[int, int]:
    """The first and the last place of the mentions within `width` that weigh most together; the first such."""
    best, span = 0.0, (0, 0)
    inside: Counter[int] = Counter()
    weight, low = 0.0, 0
    for mention in mentions:
        weight += weights[mention.term] * (_AGAIN if inside[mention.term] else 1.0)
        inside[mention.term] += 1
        while mention.place - mentions[low].place > width:
            gone = mentions[low].term
            inside[gone] -= 1
            weight -= weights[gone] * (_AGAIN if inside[gone] else 1.0)
            low += 1
        if weight > best + 1e-9:
            best, span = weight, (mentions[low].place, mention.place)
    return span


def _next_border(text: str, start: int, before: int) -> int:
    """The first beginning of a sentence, else of a word, in [start, before]; else `start`."""
    for border in (_SENTENCE_END, _SPACE):
        found = border.search(text, max(0, start - 1), before)
        if found:
            return found.end()
    return start


def _to_border(window: str, after: int) -> str:
    """The window up to its last end of a sentence behind `after`, else of a word."""
    for border in (_SENTENCE_END, _SPACE):
        ends = [found.end() for found in border.finditer(window, max(0, min(after, len(window))))]
        if ends:
            return window[: ends[-1]]
    return window
