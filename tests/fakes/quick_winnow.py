"""`python -m tests.fakes.quick_winnow serve --port 0`: the command line as it is, over an embedder that needs no model.

WINNOW_TEST_LOAD_S is how long it takes to load, WINNOW_TEST_PASSAGE_MS how long it embeds each passage.
"""

import os
import time
from collections.abc import Sequence
from functools import partial

import app.wiring
from app.cli.main import main
from indexing.embedding.batching import LazyEmbedder
from indexing.embedding.model import Embedder, Lane, Vectors
from indexing.settings import EmbeddingSettings
from tests.fakes.embedder import HashEmbedder


class TimedEmbedder(HashEmbedder):
    """Takes its time for documents, and remembers none: services that are attacked embed many."""

    def __init__(self, passage_s: float) -> None:
        super().__init__()
        self._passage_s = passage_s

    def embed_documents(self, texts: Sequence[str], lane: Lane = "texts") -> Vectors:
        time.sleep(self._passage_s * len(texts))
        vectors = super().embed_documents(texts, lane)
        self.embedded.clear()
        return vectors

    def embed_queries(self, texts: Sequence[str], lane: Lane = "queries") -> Vectors:
        vectors = super().embed_queries(texts, lane)
        self.query_calls.clear()
        return vectors


# Taken out of the environment, which refuses settings that it does not know.
LOAD_S = float(os.environ.pop("WINNOW_TEST_LOAD_S", "0"))
PASSAGE_S = float(os.environ.pop("WINNOW_TEST_PASSAGE_MS", "0")) / 1000


def load(_: EmbeddingSettings) -> Embedder:
    """In the place of `load_embedder`; blocks."""
    time.sleep(LOAD_S)
    return TimedEmbedder(PASSAGE_S)


if __name__ == "__main__":
    app.wiring.LazyEmbedder = partial(LazyEmbedder, load=load)
    main()
