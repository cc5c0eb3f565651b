"""Embedders that need no model."""

import hashlib
import re
import threading
from collections.abc import Sequence

import numpy as np

from indexing.embedding.model import Lane, Vectors

WORD = re.compile(r"\w+")


class HashEmbedder:
    """Hashed bags of words as unit vectors: texts that share words are near. Remembers what it embedded.

    A query call sets `called`, waits for `gate` when one is given, and raises `failure` when one is set.
    """

    model_id = "hash-words"
    max_tokens = 256

    def __init__(self, dimension: int = 64, gate: threading.Event | None = None) -> None:
        self.dimension = dimension
        self.fingerprint = f"hash-words:{dimension}"
        self.gate = gate
        self.called = threading.Event()
        self.failure: Exception | None = None
        self.query_calls: list[list[str]] = []
        self.lanes: list[Lane] = []
        self.embedded: list[str] = []
        self.document_calls = 0

    def embed_documents(self, texts: Sequence[str], lane: Lane = "texts") -> Vectors:
        self.embedded += texts
        self.document_calls += 1
        return np.stack([self._vector(text) for text in texts])

    def embed_queries(self, texts: Sequence[str], lane: Lane = "queries") -> Vectors:
        self.query_calls.append(list(texts))
        self.lanes.append(lane)
        self.called.set()
        if self.gate is not None:
            self.gate.wait(timeout=60)
        if self.failure is not None:
            raise self.failure
        return np.stack([self._vector(text) for text in texts])

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in WORD.finditer(text)]

    def _vector(self, text: str) -> Vectors:
        vector = np.full(self.dimension, 1e-3, dtype=np.float32)
        for word in WORD.findall(text.lower()):
            digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=4).digest()
            vector[int.from_bytes(digest, "little") % self.dimension] += 1
        return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)
