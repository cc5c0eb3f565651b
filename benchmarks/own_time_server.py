"""The service as it is, over an embedder that costs next to nothing; `benchmarks.own_time` starts it, of any checkout.

Only what old checkouts have too is imported: a text's vector counts its words, whose places are remembered.
"""

import re
import zlib
from collections.abc import Sequence
from functools import lru_cache, partial

import numpy as np

import app.wiring
from app.cli.main import main as winnow
from indexing.embedding.batching import LazyEmbedder
from indexing.embedding.model import Lane, Vectors

DIMENSION = 384
WORD = re.compile(r"\w+")


@lru_cache(200_000)
def place(word: str) -> int:
    """Of a word in a vector."""
    return zlib.crc32(word.encode("utf-8", "replace")) % DIMENSION


class CountingEmbedder:
    """Counted words as unit vectors: some ten microseconds a text."""

    model_id, max_tokens, dimension, fingerprint = "counted-words", 256, DIMENSION, "counted-words"

    def embed_documents(self, texts: Sequence[str], lane: Lane = "texts") -> Vectors:
        rows = [
            np.bincount([place(word) for word in WORD.findall(text.lower())], minlength=DIMENSION) for text in texts
        ]
        counts = np.stack(rows).astype(np.float32) + np.float32(1e-3)
        return np.asarray(counts / np.linalg.norm(counts, axis=1, keepdims=True), np.float32)

    def embed_queries(self, texts: Sequence[str], lane: Lane = "queries") -> Vectors:
        return self.embed_documents(texts)

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in WORD.finditer(text)]


if __name__ == "__main__":
    app.wiring.LazyEmbedder = partial(LazyEmbedder, load=lambda _: CountingEmbedder())  # type: ignore[misc]
    winnow()
