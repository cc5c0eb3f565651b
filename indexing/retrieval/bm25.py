"""BM25 sparse vectors for both stores, by Qdrant's own tokeniser and term weighting.

The store multiplies by idf (modifier IDF); here a document's terms get their saturated frequency and a query's terms 1.
`Multilingual` also segments Chinese, Japanese and Thai; the default word tokeniser takes a run of CJK for one token.
"""

from qdrant_edge import Bm25, Bm25Config, TokenizerType
from qdrant_edge import SparseVector as EdgeSparseVector

from indexing.store.base import SparseVector

LEXICAL_VERSION = "bm25-multilingual-en-fold-1"
"""Part of a collection's fingerprint: vectors of two versions must not be mixed."""


class Lexical:
    """Sparse vectors of documents and queries. Thread-safe."""

    def __init__(self) -> None:
        self._bm25 = Bm25(Bm25Config(tokenizer=TokenizerType.Multilingual, language="english", ascii_folding=True))

    def document(self, text: str) -> SparseVector | None:
        """Term weights of a passage; None for a text without a token."""
        return _vector(self._bm25.embed_document(text))

    def query(self, text: str) -> SparseVector | None:
        """The distinct terms of a query, each with weight 1; None for a text without a token."""
        return _vector(self._bm25.embed_query(text))


def _vector(raw: EdgeSparseVector) -> SparseVector | None:
    return SparseVector(list(raw.indices), list(raw.values)) if raw.indices else None
