"""The part of a text that speaks most about a query. Pure."""

import math
import re
from collections import Counter
from collections.abc import Sequence

from ahocorasick_rs import AhoCorasick

from app.answering.terms import fold, terms
from app.backends.estimating import BYTES_PER_TOKEN, tokens_of

_MOST_TERMS = 32
"""Of a long query the longest terms are looked for."""

_AGAIN = 0.02
"""What a term's second mention in a window counts, against its first."""

_LEAD = 3
"""One part in this many of a window is kept for what stands around the mentions, and of that as much before them."""

_SENTENCE_END = re.compile(r"[.!?…؟।][\"'”’»)\]]*\s+|[。！？][」』”]*|\n+")
_SPACE = re.compile(r"\s+")


Mention = tuple[int, int]
"""A place in a text, and the index of the query's term there. A plain tuple: a long passage has a hundred."""


class Search:
    """Where texts speak about a query. Words are compared by their stems, unspaced scripts by characters and pairs."""

    def __init__(self, query: str) -> None:
        self.terms = _looked_for(query)
        self._inside = [_stands_inside(term) for term in self.terms]
        self._finder = AhoCorasick(self.terms)

    def mentions(self, text: str) -> list[Mention]:
        """By place. Places are about right: folding may change a text's length a little."""
        folded = fold(text)
        scale = len(text) / len(folded) if folded else 1.0
        return [
            (int(start * scale), term)
            for term, start, _ in self._finder.find_matches_as_indexes(folded, overlapping=True)
            if self._inside[term] or start == 0 or not folded[start - 1].isalnum()
        ]

    def known(self, text: str) -> frozenset[int]:
        """The terms that the text holds."""
        return frozenset(term for _, term in self.mentions(text))

    def weights(self, mentioned: Sequence[Sequence[Mention]]) -> list[float]:
        """What each term counts, given its mentions in each text: the fewer texts, the more."""
        texts = Counter(term for mentions in mentioned for term in {term for _, term in mentions})
        return [
            math.log1p(len(mentioned) / max(1, texts[index])) - math.log(2) + 1e-3 for index in range(len(self.terms))
        ]


def _looked_for(query: str) -> list[str]:
    found = {term for term in terms(query) if not term.startswith("~")}
    paired = {letter for term in found if len(term) == 2 and _stands_inside(term) for letter in term}
    return sorted(found - paired, key=lambda term: (-len(term), term))[:_MOST_TERMS]


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
    first, last = _densest(mentions, weights, width - width // _LEAD)
    wished = min(max(0, first - (width - (last - first)) // _LEAD), max(0, len(text) - width))
    start = _border_near(text, wished, min(wished, max(0, last - width + width // _LEAD)), first)
    rest = text[start:]
    window = rest.encode("utf-8", "replace")[: tokens * BYTES_PER_TOKEN].decode("utf-8", "ignore")
    return (window if len(window) == len(rest) else _to_border(window, last - start)).strip()


def _densest(mentions: Sequence[Mention], weights: Sequence[float], width: int) -> tuple[int, int]:
    """The first and the last place of mentions within `width` that weigh most together; the first such window.

    Mentions at its ends that repeat others inside are left out.
    """
    best, span = 0.0, (0, 0)
    inside = [0] * len(weights)
    weight, low = 0.0, 0
    for high, (place, term) in enumerate(mentions):
        weight += weights[term] * (_AGAIN if inside[term] else 1.0)
        inside[term] += 1
        while place - mentions[low][0] > width:
            gone = mentions[low][1]
            inside[gone] -= 1
            weight -= weights[gone] * (_AGAIN if inside[gone] else 1.0)
            low += 1
        if weight > best + 1e-9:
            best, span = weight, (low, high)
    return _core(mentions[span[0] : span[1] + 1])


def _core(mentions: Sequence[Mention]) -> tuple[int, int]:
    times = Counter(term for _, term in mentions)
    low, high = 0, len(mentions) - 1
    while low < high and times[mentions[high][1]] > 1:
        times[mentions[high][1]] -= 1
        high -= 1
    while low < high and times[mentions[low][1]] > 1:
        times[mentions[low][1]] -= 1
        low += 1
    return (mentions[low][0], mentions[high][0]) if mentions else (0, 0)


def _border_near(text: str, wished: int, least: int, most: int) -> int:
    """The beginning of a sentence, else of a word, in [least, most]: the first at `wished` or later, else the last."""
    if wished == 0:
        return 0
    for border in (_SENTENCE_END, _SPACE):
        starts = [found.end() for found in border.finditer(text, max(0, least - 1), most)]
        if starts:
            return next((start for start in starts if start >= wished), starts[-1])
    return wished


def _to_border(window: str, after: int) -> str:
    """The window up to its last end of a sentence behind `after`, else of a word."""
    for border in (_SENTENCE_END, _SPACE):
        ends = [found.end() for found in border.finditer(window, max(0, min(after, len(window))))]
        if ends:
            return window[: ends[-1]]
    return window
