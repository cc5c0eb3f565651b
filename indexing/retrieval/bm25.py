"""BM25 sparse vectors for both stores: words by Qdrant's own tokeniser and term weighting, codes by ours.

The store multiplies by idf (modifier IDF); here a document's terms get their saturated frequency and a query's terms 1.
`Multilingual` also segments Chinese, Japanese and Thai; the default word tokeniser takes a run of CJK for one token.
It drops every token made of digits, so numbers and codes are terms of their own (`indexing.retrieval.codes`).
"""

import re
from collections import Counter
from collections.abc import Set
from functools import lru_cache
from hashlib import blake2b

from qdrant_edge import Bm25, Bm25Config, TokenizerType

from indexing.retrieval.codes import Code, codes, normalized
from indexing.store.base import SparseVector

LEXICAL_VERSION = "bm25-multilingual-en-fold-codes-2"
"""Part of a collection's fingerprint: vectors of two versions must not be mixed."""

K1, B, AVERAGE_LENGTH = 1.2, 0.75, 256.0
"""The engine's own constants (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009)."""
_PARTS = 0.5
"""The weight of all parts of a code in a query."""
FIRST_CODE = 1 << 31
"""The engine's term ids are below; those of codes are not."""
_WORD = re.compile(r"\w+")


class Lexical:
    """Sparse vectors of documents and queries. Thread-safe."""

    def __init__(self) -> None:
        self._bm25 = Bm25(
            Bm25Config(
                tokenizer=TokenizerType.Multilingual,
                language="english",
                ascii_folding=True,
                k=K1,
                b=B,
                avg_len=AVERAGE_LENGTH,
            )
        )

    def document(self, text: str) -> SparseVector | None:
        """Term weights of a passage; None for a text without a term."""
        words, found = _split(text)
        vector = self._bm25.embed_document(words)
        frequencies = Counter(_code_id(term) for code in found for term in (*code.wholes, *code.parts))
        length = len(_WORD.findall(words)) + len(found) if found else 0
        norm = K1 * (1 - B + B * length / AVERAGE_LENGTH)
        weights = [count * (K1 + 1) / (count + norm) for count in frequencies.values()]
        return _vector([*vector.indices, *frequencies], [*vector.values, *weights])

    def matching(self, text: str, terms: Set[int]) -> dict[int, float]:
        """The weights of these terms in a passage's `document`. Codes are weighed only if one is asked for."""
        vector = (
            self.document(text) if max(terms, default=0) >= FIRST_CODE else self._bm25.embed_document(_split(text)[0])
        )
        if vector is None:
            return {}
        return {term: weight for term, weight in zip(vector.indices, vector.values, strict=True) if term in terms}

    def query(self, text: str) -> SparseVector | None:
        """The distinct terms of a query: words with weight 1, codes with 1 for the whole and half of it for all parts.

        So a passage that has the code is before one that shares all parts with it. None for a text without a term.
        """
        words, found = _split(text)
        vector = self._bm25.embed_query(words)
        weights: dict[int, float] = {}
        for code in found:
            for terms, weight in ((code.wholes, 1.0), (code.parts, _PARTS)):
                for term in terms:
                    weights[_code_id(term)] = max(weights.get(_code_id(term), 0.0), weight / len(terms))
        return _vector([*vector.indices, *weights], [*vector.values, *weights.values()])


def _split(text: str) -> tuple[str, list[Code]]:
    """The text with nothing but the words of its codes in their places, and its codes."""
    text = normalized(text)
    found = codes(text)
    pieces, end = [], 0
    for code in found:
        pieces += [text[end : code.start], " ", " ".join(code.words), " "]
        end = code.end
    return "".join([*pieces, text[end:]]), found


@lru_cache(100_000)
def _code_id(term: str) -> int:
    return FIRST_CODE | int.from_bytes(blake2b(term.encode("utf-8", "surrogatepass"), digest_size=4).digest()) >> 1


def _vector(indices: list[int], values: list[float]) -> SparseVector | None:
    return SparseVector(indices, values) if indices else None
