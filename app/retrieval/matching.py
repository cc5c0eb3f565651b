"""How well texts match a query, where no index tells: by their words, and by their vectors. Pure.

Both are absolute: a text's match depends on the text and the query, and hardly on the texts beside it (only a word's
rarity does). In [0,1]; nothing is scaled by the best or the worst of the list.

    words_j   = 1 - exp(-sum_t idf_t * weight_tj / sum_t idf_t)        t: the query's words; weight: BM25's
    vectors_j = min(1, max(0, (cos_j - unrelated) / unit))             see indexing.embedding.calibration

A word's rarity is that among the texts and BACKGROUND more that do not hold it, so that a short list
says little about it.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from indexing.embedding.calibration import Contrast
from indexing.embedding.model import Vectors
from indexing.retrieval.bm25 import Lexical
from indexing.store.base import Vector

BACKGROUND = 100
"""Texts."""


def match_words(lexical: Lexical, query: str, texts: Sequence[str]) -> list[float]:
    """Of each text. All 0 for a query without a word."""
    asked = lexical.query(query)
    if asked is None:
        return [0.0] * len(texts)
    terms = frozenset(asked.indices)
    weights = [_weights(lexical, text, terms) for text in texts]
    holding = Counter(term for found in weights for term in found)
    rarity = {term: _idf(len(texts) + BACKGROUND, holding[term]) for term in terms}
    most = math.fsum(rarity.values())
    return [
        -math.expm1(-math.fsum(rarity[term] * weight for term, weight in found.items()) / most) for found in weights
    ]


def match_vectors(query: Vector, texts: Vectors, contrast: Contrast) -> list[float]:
    """Of unit vectors; `texts` has a row for each text."""
    evidence = (texts @ query - contrast.unrelated) / contrast.unit
    return [float(value) for value in np.clip(evidence, 0.0, 1.0)]


def both(words: Sequence[float], vectors: Sequence[float]) -> list[float]:
    """The mean of the two."""
    return [(by_word + by_vector) / 2 for by_word, by_vector in zip(words, vectors, strict=True)]


def _weights(lexical: Lexical, text: str, terms: frozenset[int]) -> dict[int, float]:
    found = lexical.document(text)
    if found is None:
        return {}
    return {term: weight for term, weight in zip(found.indices, found.values, strict=True) if term in terms}


def _idf(texts: int, holding: int) -> float:
    """Robertson's, as the store's."""
    return math.log1p((texts - holding + 0.5) / (holding + 0.5))
