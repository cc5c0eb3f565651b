from collections.abc import Sequence

import numpy as np
import pytest

from indexing.embedding.calibration import MIN_UNIT, PAIRS, dense_unit
from indexing.embedding.model import Lane, Vectors
from tests.fakes.embedder import HashEmbedder

pytestmark = pytest.mark.numeric

TOPIC = {text: topic for pairs in PAIRS.values() for topic, pair in enumerate(pairs) for text in pair}
LANGUAGE = {text: language for language, pairs in PAIRS.items() for pair in pairs for text in pair}


class ReadingEmbedder(HashEmbedder):
    """Knows the topics of the built-in pairs in the languages that it reads; others have cosine `base`."""

    def __init__(self, languages: str, base: float) -> None:
        super().__init__(8)
        self._languages = languages.split()
        self._base = base

    def embed_documents(self, texts: Sequence[str], lane: Lane = "texts") -> Vectors:
        rows = np.zeros((len(texts), 8), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[7] = self._base**0.5
            row[TOPIC[text] if LANGUAGE[text] in self._languages else 6] = (1 - self._base) ** 0.5
        return rows

    def embed_queries(self, texts: Sequence[str], lane: Lane = "queries") -> Vectors:
        return self.embed_documents(texts)


@pytest.mark.parametrize("base", [0.0, 0.5, 0.7])
def test_the_unit_is_how_much_nearer_an_answer_is_than_another_text(base: float) -> None:
    """An embedder whose unrelated texts are already near has a small unit."""
    assert dense_unit(ReadingEmbedder("en de zh es", base)) == pytest.approx(1 - base, abs=1e-5)


@pytest.mark.parametrize("language", list(PAIRS))
def test_the_best_language_counts(language: str) -> None:
    """A model of one language is measured in it."""
    assert dense_unit(ReadingEmbedder(language, 0.2)) == pytest.approx(0.8, abs=1e-5)


def test_an_embedder_that_reads_nothing_gets_the_least_unit() -> None:
    """Noise must not be blown up into evidence."""
    assert dense_unit(ReadingEmbedder("", 0.2)) == MIN_UNIT


def test_there_are_as_many_pairs_in_every_language() -> None:
    """And no question or answer twice: it would count as its own distractor."""
    assert {len(pairs) for pairs in PAIRS.values()} == {6}
    assert len(TOPIC) == sum(2 * len(pairs) for pairs in PAIRS.values())
