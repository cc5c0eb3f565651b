"""A data set of ../shared/data as something to search and ask: its own small index, apart from the service's."""

import hashlib
import math
import random
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.domain import ANONYMOUS, BackendUse, Caller, Hit, LaterPages, Query, Scores, SearchResult
from app.evaluation.data import read_qrels, read_rows
from indexing.documents import Candidate, Passage
from indexing.embedding.calibration import dense_unit
from indexing.embedding.loading import load_embedder
from indexing.embedding.model import Embedder
from indexing.retrieval.bm25 import Lexical
from indexing.retrieval.fusion import REFERENCE_RANK, fuse, sparse_bound
from indexing.settings import EmbeddingSettings
from indexing.store.base import Retrieved, SparseVector


class Vectorizer:
    """all-MiniLM-L6-v2 with every vector remembered; between runs too when given a directory."""

    def __init__(self, cache: Path | None) -> None:
        self._file = cache / "answers-vectors.npz" if cache else None
        self._known: dict[str, NDArray[np.float32]] = {}
        if self._file and self._file.exists():
            stored = np.load(self._file)
            self._known = dict(zip(stored["keys"].tolist(), stored["vectors"], strict=True))

    @cached_property
    def model(self) -> Embedder:
        """The quick start's."""
        return load_embedder(EmbeddingSettings())

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Rows of unit length, in order."""
        return self.vectors(texts)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Rows of unit length, in order, made by the model whether known or not."""
        return self.model.embed_documents(texts)

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        keys = [hashlib.blake2b(text.encode(), digest_size=12).hexdigest() for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        if new:
            self._known.update(zip(new, self.encode(list(new.values())), strict=True))
        return np.array([self._known[key] for key in keys], dtype=np.float32)

    def save(self) -> None:
        if self._file:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(self._file, keys=np.array(list(self._known)), vectors=np.array(list(self._known.values())))


class DataSet:
    """The passages and questions of one directory. One without passages can only be asked elsewhere."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.name = "/".join(directory.parts[-2:]) if directory.parent.name == "xquad" else directory.name
        self._directory = directory
        asked = list(read_rows(directory / "queries.jsonl"))
        self.questions = _shuffled(asked, seed)
        with_answers = [record for record in asked if record.get("answers")]
        self.answerable = _shuffled(with_answers, seed)
        unanswerable = (
            list(read_rows(directory / "unanswerable.jsonl")) if (directory / "unanswerable.jsonl").exists() else []
        )
        self.unanswerable = _shuffled([r for r in unanswerable if r["label_source"] == "gold"], seed)

    @cached_property
    def passages(self) -> list[dict[str, Any]]:
        """All of them."""
        return list(read_rows(self._directory / "corpus.jsonl"))

    @cached_property
    def gold(self) -> dict[str, str]:
        """The passage that answers, by question."""
        return {query: next(reversed(grades)) for query, grades in read_qrels(self._directory).items()}

    def elsewhere(self, count: int, *, fitting: bool) -> list[dict[str, Any]]:
        """Questions to ask of a corpus that has nothing on them, one half for fitting and the other for reporting."""
        middle = len(self.questions) // 2
        return self.questions[middle : middle + count] if fitting else self.questions[: min(count, middle)]

    def to_report(self, count: int) -> list[dict[str, Any]]:
        """The first questions in seeded order, at most 40 % of all."""
        return self.answerable[: min(count, len(self.answerable) * 2 // 5)]

    def to_fit(self, count: int) -> list[dict[str, Any]]:
        """The last questions in seeded order, at most 60 % of all: never one that is reported."""
        return self.answerable[-min(count, len(self.answerable) * 3 // 5) :]

    def in_first_half(self, passage: dict[str, Any]) -> bool:
        """Whole articles fall into one half: by title, or by what the passage ids of an article share."""
        article = passage["title"] or passage["_id"].rpartition("-")[0]
        if article.startswith("cmrc"):  # each passage is an article there
            article = passage["_id"]
        return hashlib.blake2b(article.encode(), digest_size=1).digest()[0] < 128

    def half(self) -> list[dict[str, Any]]:
        return [passage for passage in self.passages if self.in_first_half(passage)]

    def without_article(self, questions: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those of the questions that `half` cannot answer."""
        there = {passage["_id"] for passage in self.half()}
        return [question for question in questions if self.gold[question["_id"]] not in there]


class Corpus:
    """Passages to search as the service does it: both sides and `indexing.retrieval.fusion`, held in memory."""

    def __init__(self, passages: Sequence[dict[str, Any]], vectorizer: Vectorizer) -> None:
        self._vectorizer = vectorizer
        texts = [f"{p['title']}\n{p['text']}".strip() for p in passages]
        self._dense = vectorizer.vectors(texts)
        self._unit = dense_unit(vectorizer.model)
        self._passages = [_passage(record) for record in passages]
        self._lexical = Lexical()
        self._postings: dict[int, list[tuple[int, float]]] = {}
        for number, text in enumerate(texts):
            if sparse := self._lexical.document(text):
                for term, weight in zip(sparse.indices, sparse.values, strict=True):
                    self._postings.setdefault(term, []).append((number, weight))

    async def check(self, query: Query, caller: Caller) -> None:
        """Whatever is asked can be done."""

    async def find(self, query: Query, caller: Caller = ANONYMOUS) -> tuple[SearchResult, LaterPages]:
        """The search that the answerer asks for."""
        sparse = self._lexical.query(query.text)
        retrieved = Retrieved(
            dense=self._best(self._dense @ self._vectorizer.vectors([query.text])[0], -1.0),
            sparse=self._best(self._bm25(sparse), 0.0) if sparse else [],
        )
        bound = sparse_bound(math.fsum(sparse.values), len(self._passages)) if sparse else 0.0
        found = fuse(retrieved, dense_unit=self._unit, bound=bound)[: query.limit]
        use = BackendUse(requested="none", used="none")
        hits = tuple(map(_hit, found))
        return SearchResult(query=query.text, collection=query.collection, results=hits, backend=use), {}

    def _best(self, scores: NDArray[Any], above: float) -> list[Candidate]:
        order = np.argsort(-scores, kind="stable")[:REFERENCE_RANK]
        return [Candidate(self._passages[number], float(scores[number])) for number in order if scores[number] > above]

    def _bm25(self, query: SparseVector) -> NDArray[np.float64]:
        scores = np.zeros(len(self._passages))
        for term in query.indices:
            postings = self._postings.get(term, [])
            idf = np.log1p((len(scores) - len(postings) + 0.5) / (len(postings) + 0.5))
            for number, weight in postings:
                scores[number] += weight * idf
        return scores


def _passage(record: dict[str, Any]) -> Passage:
    text, key = record["text"], record["_id"]
    title = record["title"]
    return Passage(
        id=key, document_id=key, version="", ordinal=0, start=0, end=len(text), text=text, source="", title=title
    )


def _hit(found: Candidate) -> Hit:
    passage = found.passage
    return Hit(
        id=passage.id,
        document_id=passage.document_id,
        score=found.score,
        text=passage.text,
        title=passage.title,
        source=passage.source,
        page=None,
        heading=(),
        start=passage.start,
        end=passage.end,
        metadata={},
        scores=Scores(dense=found.dense, sparse=found.sparse, fused=found.fused),
    )


def _shuffled(records: Sequence[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """A copy in seeded order; the order decides what is fitted and what is reported."""
    copy = list(records)
    random.Random(seed).shuffle(copy)
    return copy
