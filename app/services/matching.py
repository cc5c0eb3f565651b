"""How well texts match a query, by words and by vectors, without an index."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain

import numpy as np

from indexing.embedding.model import Vectors
from indexing.retrieval.bm25 import AVERAGE_LENGTH, FIRST_CODE, K1, B, Lexical
from indexing.retrieval.codes import codes, month_numbers, normalized
from indexing.store.base import Vector

BACKGROUND = 100
"""Texts without any of the query's words that are added to the list, so that a short list does not decide rarity."""

REMEMBERED, LONGEST_REMEMBERED = 32_768, 40
"""Pieces of texts whose terms are kept, words mostly, and their characters at most. Some 10 MB."""

_EDGES = ".,;:!?()[]\"'“”‘’"
_LATIN = re.compile("[\0-\x7f\u00a1-\u024f\u2010-\u2027\u2030-\u205e\u20a0-\u20bf\u2100-\u2bff]*")
"""Scripts that put spaces between words, and what stands between those."""
_YEAR = re.compile(r"\d{4}(?!\w)")
_LONGEST_MONTH_AND_DAY, _WORDS_BEHIND_MONTH = 30, 2
"""Characters before a year, and words between the two."""
_BEGINS_ACCOUNT = re.compile(r"\b[a-z]{2}\d\d$")
_LAST_LETTERS = re.compile(r"[^\W\d_]+$")

_MOST_WORDS = 64
"""Words of a piece between spaces whose repetitions are looked for."""
_FEW_TERMS = 8


class WordMatcher:
    """Matches by words, as a search does. Thread-safe.

    The weight of a term in a text is that of `Lexical.matching`, to the last bit, which cuts, stems and counts all of
    the text. Here the terms of each piece between spaces are remembered, since texts repeat their words. What pieces do
    not tell, as in Chinese, is left to it.
    """

    def __init__(self, lexical: Lexical) -> None:
        self._lexical = lexical
        self._terms: Callable[[str], tuple[int, ...] | None] = lru_cache(REMEMBERED)(self._terms_of)

    def match(self, query: str, texts: Sequence[str]) -> list[float]:
        """How well each text matches the query's words, in [0,1]. All 0 for a query without a word."""
        query_vector = self._lexical.query(query)
        if query_vector is None:
            return [0.0] * len(texts)
        asked = dict(zip(query_vector.indices, query_vector.values, strict=True))
        terms = frozenset(asked)
        weigh = self._lexical.matching if codes(normalized(query)) else self._weights
        weights = [weigh(text, terms) for text in texts]
        holding = Counter(term for by_term in weights for term in by_term)
        total = len(texts) + BACKGROUND
        # Robertson's idf, as the store computes it.
        rarity = {
            term: weight * math.log1p((total - holding[term] + 0.5) / (holding[term] + 0.5))
            for term, weight in asked.items()
        }
        most = math.fsum(rarity.values())
        return [
            -math.expm1(-math.fsum(rarity[term] * weight for term, weight in by_term.items()) / most)
            for by_term in weights
        ]

    def _weights(self, text: str, terms: frozenset[int]) -> dict[int, float]:
        """Those of words in a text."""
        lowered = (text if text.isascii() else normalized(text.replace("–", "-").replace("—", "-"))).lower()
        if not (lowered.isascii() or _LATIN.fullmatch(lowered)):
            return self._lexical.matching(text, terms)
        pieces = [piece.strip(_EDGES) for piece in lowered.split()]
        if not month_numbers().keys().isdisjoint(pieces):
            pieces = [piece.strip(_EDGES) for piece in _without_named_dates(lowered).split()]
        if max(map(len, pieces), default=0) > LONGEST_REMEMBERED:
            return self._lexical.matching(text, terms)
        by_piece = list(map(self._terms, pieces))
        if None in by_piece:
            return self._lexical.matching(text, terms)
        present = list(chain.from_iterable(filter(None, by_piece)))
        shared = terms.intersection(present)
        # Counting a term is quicker than counting all, as long as there are few: a query may have a thousand.
        count: Callable[[int], int] = present.count if len(shared) <= _FEW_TERMS else Counter(present).__getitem__
        return {term: _weight(count(term), len(present)) for term in shared}

    def _terms_of(self, piece: str) -> tuple[int, ...] | None:
        """The words' terms of a piece of a text, as often as they are in it; None if that cannot be told.

        An account may begin with the piece, or a date with what is behind its hyphen.
        """
        if piece.isascii() and piece.isalpha():  # one word, or a stopword
            single = self._lexical.query(piece)
            return tuple(single.indices) if single else ()
        last = _LAST_LETTERS.search(piece)
        if _BEGINS_ACCOUNT.search(piece) or (last and last[0] in month_numbers() and last[0] != piece):
            return None
        vector = self._lexical.document(piece)
        words = [
            (term, weight)
            for term, weight in (zip(vector.indices, vector.values, strict=True) if vector else ())
            if term < FIRST_CODE  # a text's words leave codes out
        ]
        for length in range(len(words), _MOST_WORDS):
            norm = K1 * (1 - B + B * length / AVERAGE_LENGTH)
            counts = [round(weight * norm / (K1 + 1 - weight)) for _, weight in words]
            if sum(counts) == length and all(
                _weight(count, length) == weight for count, (_, weight) in zip(counts, words, strict=True)
            ):
                return tuple(term for count, (term, _) in zip(counts, words, strict=True) for _ in range(count))
        return None


def _weight(count: int, length: int) -> float:
    """Of a term that is `count` times in a text of so many words, as the engine rounds it."""
    return float(np.float32(count * (K1 + 1) / (count + K1 * (1 - B + B * length / AVERAGE_LENGTH))))


def _without_named_dates(lowered: str) -> str:
    """A text without the dates that have the name of a month, whose words count as one code."""
    rest, end = list[str](), 0
    for year in _YEAR.finditer(lowered):
        first = max(end, year.start() - _LONGEST_MONTH_AND_DAY)
        near = lowered[first : year.end()]
        words = lowered[first : year.start()].split()[-_WORDS_BEHIND_MONTH - 1 :]
        if any(word.strip("(.,") in month_numbers() for word in words):
            for code in codes(near):
                if " " in near[code.start : code.end]:
                    rest.append(lowered[end : first + code.start])
                    end = first + code.end
    return " ".join([*rest, lowered[end:]]) if rest else lowered


def match_vectors(query: Vector, texts: Vectors, unrelated: float, unit: float) -> list[float]:
    """Of unit vectors; `texts` has a row for each text. `unrelated` and `unit` are the embedder's `contrast`."""
    # Summed row by row: a matrix product gives equal rows sums that differ by 1e-8 with their place, which breaks ties.
    evidence = ((texts * query).sum(axis=1) - unrelated) / unit
    return [float(value) for value in np.clip(evidence, 0.0, 1.0)]


def both(words: Sequence[float], vectors: Sequence[float], share: float = 0.5) -> list[float]:
    """The mean of the two; `share` is that of the vectors."""
    return [by_word + share * (by_vector - by_word) for by_word, by_vector in zip(words, vectors, strict=True)]
