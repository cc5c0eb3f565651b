"""Dense vectors: the port, and sentence-transformers behind it."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""Shape (texts, dimension), rows of unit length."""


class Embedder(Protocol):
    """Turns texts into vectors. Blocking: call it from a thread. Safe to call from several threads."""

    @property
    def model_id(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    @property
    def max_tokens(self) -> int:
        """Longest input that the model reads, special tokens not counted."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever vectors of before and after must not be mixed."""

    def embed_documents(self, texts: Sequence[str]) -> Vectors: ...

    def embed_queries(self, texts: Sequence[str]) -> Vectors: ...

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """[start, end) offsets of the model's tokens in `text`, in order, special tokens not counted."""
