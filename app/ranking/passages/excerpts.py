"""The sentences of a text that speak most about a query. Pure."""

import re
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import chain, groupby, pairwise

from ahocorasick_rs import AhoCorasick

from app.backends.base import BYTES_PER_TOKEN, tokens_of
from app.text.terms import STEM_LENGTH, fold, terms

_MOST_TERMS = 32
"""Of a long query the longest terms are looked for."""

_AGAIN = 0.5
"""What a term counts in a sentence, for each sentence with it that is shown already."""

_BESIDE = 0.3
"""What a sentence gets of each neighbour's terms: an answer often stands beside what the question repeats."""

_GAP = " … "
_GAP_BYTES = len(_GAP.encode())

_SENTENCE_END = re.compile(r"[.!?…؟।][\"'”’»)\]]*\s+|[。！？][」』”]*\s*|\n\s*")

Mention = tuple[int, int]
"""A place in a text, and the index of the query's term there. A plain tuple: a long passage has a hundred."""


class Search:
    """Where texts speak about a query. Words are compared by their stems, unspaced scripts by characters and pairs.

    A text is searched for itself alone, so that what is shown of it does not depend on other texts.
    """

    def __init__(self, query: str) -> None:
        self.terms = _looked_for(query)
        self.weights = [_weight(term) for term in self.terms]
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


def _looked_for(query: str) -> list[str]:
    found = {term for term in terms(query) if not term.startswith("~")}
    paired = {letter for term in found if len(term) == 2 and _stands_inside(term) for letter in term}
    return sorted(found - paired, key=lambda term: (-len(term), term))[:_MOST_TERMS]


def _stands_inside(term: str) -> bool:
    """Whether its script has no spaces: letters without case."""
    return not term[0].isdigit() and term.lower() == term.upper()


def _weight(term: str) -> float:
    """The longer, the rarer: nearly as good as how few texts hold it, and the same whatever else was found."""
    if _stands_inside(term):
        return STEM_LENGTH**2 if len(term) > 1 else STEM_LENGTH
    return STEM_LENGTH**2 if term.isdigit() else len(term) ** 2


def cut(search: Search, text: str, tokens: int) -> str:
    """The text if it has at most `tokens` (estimated), else as many of its sentences, in their order, with … for gaps.

    One after another, those are taken that say most of the query: each term by its weight, less if it is shown already,
    and a share of what the neighbours say. Among equals the first, so that a text without a mention keeps its head.
    """
    size = tokens_of(text)
    if size <= tokens:
        return text
    sentences = list(_sentences(text, len(text) * tokens // size or 1))
    sizes = [len(text[start:end].encode("utf-8", "replace")) for start, end in sentences]
    shown = _chosen(sizes, _said(sentences, search.mentions(text)), tokens * BYTES_PER_TOKEN, search.weights)
    if not shown:  # a single sentence, in letters of more bytes than the text's others
        return text.encode("utf-8", "replace")[: tokens * BYTES_PER_TOKEN].decode("utf-8", "ignore")
    runs = groupby(enumerate(shown), lambda found: found[1] - found[0])
    return _GAP.join("".join(text[slice(*sentences[at])] for _, at in run).strip() for _, run in runs)


def _sentences(text: str, most: int) -> Iterator[tuple[int, int]]:
    """Where they begin and end, one after another; one of more than `most` characters is taken apart between words."""
    ends = (found.end() for found in _SENTENCE_END.finditer(text))
    for start, end in pairwise(chain((0,), ends, (len(text),))):
        while end - start > most:
            space = text.rfind(" ", start + most // 2, start + most) + 1
            yield start, space or start + most
            start = space or start + most
        if start < end:
            yield start, end


def _said(sentences: Sequence[tuple[int, int]], mentions: Sequence[Mention]) -> list[set[int]]:
    """The terms in each sentence."""
    said: list[set[int]] = [set() for _ in sentences]
    at = 0
    for place, term in mentions:
        while place >= sentences[at][1] and at + 1 < len(sentences):
            at += 1
        said[at].add(term)
    return said


def _chosen(sizes: Sequence[int], said: Sequence[set[int]], room: int, weights: Sequence[float]) -> list[int]:
    """Sentences by index. Hopes only fall, so that only the best one need be looked at anew (lazy greedy choice)."""
    worth = list(weights)

    def hope(at: int) -> float:
        near = chain(*said[max(0, at - 1) : at], *said[at + 1 : at + 2])
        return sum(worth[term] for term in said[at]) + _BESIDE * sum(worth[term] for term in near)

    hopes = [(-hope(at), at) for at in range(len(said))]
    heapify(hopes)
    chosen: set[int] = set()
    while hopes:
        _, at = heappop(hopes)
        size = sizes[at] + (_GAP_BYTES if chosen and chosen.isdisjoint((at - 1, at + 1)) else 0)
        if (now := -hope(at)) > (hopes[0][0] if hopes else now):
            heappush(hopes, (now, at))
        elif size <= room:
            room -= size
            chosen.add(at)
            for term in said[at]:
                worth[term] *= _AGAIN
    return sorted(chosen)
