"""What an answerer stands on, without an index and without a model."""

import hashlib
from collections.abc import Sequence

import numpy as np

from app.answering.models import Source
from app.domain import ANONYMOUS, BackendUse, Caller, Hit, LaterPages, Query, Scores, SearchResult
from app.text.terms import terms
from indexing.chunking.sentences import sentence_spans
from indexing.embedding.model import Vectors

_DIMENSION = 64


def hit(text: str, number: int = 0, start: int = 0, title: str = "") -> Hit:
    """A passage `text` that stands at `start` in document d<number>."""
    return Hit(
        id=f"p{number}",
        document_id=f"d{number}",
        score=0.5,
        text=text,
        title=title,
        source=f"{number}.txt",
        page=None,
        heading=(),
        start=start,
        end=start + len(text),
        metadata={},
        scores=Scores(fused=0.5),
    )


def source(text: str, number: int, title: str = "") -> Source:
    """Passage `number` as a model sees it; it stands at 100 times its number in its document."""
    return Source(
        number=number, hit=hit(text, number, start=100 * number, title=title), sentences=tuple(sentence_spans(text))
    )


class FoundPassages:
    """A search that always finds these, as many as the query asks for, and remembers the queries."""

    def __init__(self, *texts: str) -> None:
        self._hits = tuple(hit(text, number, start=1000 * number) for number, text in enumerate(texts))
        self.queries: list[Query] = []

    async def check(self, query: Query, caller: Caller) -> None:
        """Whatever is asked can be done."""

    async def find(self, query: Query, caller: Caller = ANONYMOUS) -> tuple[SearchResult, LaterPages]:
        self.queries.append(query)
        result = SearchResult(
            query=query.text,
            collection=query.collection,
            results=self._hits[: query.limit],
            backend=BackendUse(requested=query.backend or "none", used="none"),
            degraded=("a search's own note",),
            timings_ms={"embed": 1.0, "retrieve": 2.0, "total": 3.0},
        )
        return result, {}


class WordVectors:
    """An embedder for which texts are as close as the words they share; counts the texts that it was given."""

    def __init__(self) -> None:
        self.texts = 0

    async def embed(self, texts: Sequence[str]) -> Vectors:
        self.texts += len(texts)
        rows = np.stack([sum((_direction(term) for term in terms(text)), _direction("")) for text in texts])
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


class BlindVectors:
    """An embedder that cannot read: it finds all texts nearly alike."""

    async def embed(self, texts: Sequence[str]) -> Vectors:
        rows = np.stack([5 * _direction("") + _direction(text) for text in texts])
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def _direction(word: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big")
    vector = np.random.default_rng(seed).normal(size=_DIMENSION)
    return np.asarray(vector / np.linalg.norm(vector))
