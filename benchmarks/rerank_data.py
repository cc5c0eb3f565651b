"""Queries with their first 100 passages by BM25, and what the judgements say of them."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.evaluation.data import read_qrels, read_rows
from app.ranking.models import candidate_of
from indexing.documents import Candidate
from indexing.retrieval.bm25 import Lexical

SATURATED = 2.2
"""What a term's weight tends to in the vectors of `indexing.retrieval.bm25` (k1 + 1)."""

SAYS, BESIDE = 8.0, 3.0
"""Where the evidence of a relevant passage stands: in sentence i with a probability in proportion to

    exp(SAYS * g_i + BESIDE * max(g_(i-1), g_(i+1))),   g = the share of the query's words in it, each by its rarity.

Close to the likeliest values for the gold spans of chunking_eval in passages of 380 tokens, where they say of our cut
what is true of it within .05; SQuAD's answers say 13 and 4: they stand even closer to the query's words, and our cut
keeps more of them than these values expect. `benchmarks.rerank_cut` fits and compares.
"""

STEM = 5
"""Letters of a word that count."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


Part = Literal["all", "even", "odd"]
PARTS: Mapping[Part, slice] = {"all": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}
"""What was chosen on one half is to be shown on the other."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A query and its candidates, best first by BM25; `grades` (above 0) in the set's own units.

    `evidence`: at which word of a candidate (title and text) stands what makes it relevant.
    """

    id: str
    query: str
    candidates: tuple[Candidate, ...]
    grades: Mapping[str, int]
    evidence: Mapping[str, int]


class RerankSet(msgspec.Struct, frozen=True, kw_only=True):
    """`top_grade` is the highest that the judgements give."""

    name: str
    tasks: tuple[Task, ...]
    top_grade: int


def words_of(text: str) -> list[str]:
    """Lower-case words."""
    return re.findall(r"\w+", text.lower())


def load_set(data: Path, name: str, *, depth: int, limit: int = 0, part: Part = "all") -> RerankSet:
    """`name` is a folder in `data`; `limit` takes its first queries only, `part` every other one of them."""
    folder = data / name
    qrels = read_qrels(folder)
    corpus = {row["_id"]: row for row in read_rows(folder / "corpus.jsonl")}
    index = Bm25Index([f"{row.get('title', '')} {row['text']}" for row in corpus.values()])
    ids = list(corpus)
    queries = [row for row in read_rows(folder / "queries.jsonl") if row["_id"] in qrels]
    tasks = []
    for row in queries[: limit or None][PARTS[part]]:
        found = [
            candidate_of(id=ids[n], text=corpus[ids[n]]["text"], title=corpus[ids[n]].get("title", ""), prior=score)
            for n, score in index.best(row["text"], depth)
        ]
        tasks.append(task_of(row["_id"], row["text"], found, qrels[row["_id"]]))
    top = max(grade for grades in qrels.values() for grade in grades.values())
    return RerankSet(name=name, tasks=tuple(tasks), top_grade=top)


def task_of(task_id: str, query: str, candidates: Sequence[Candidate], grades: Mapping[str, int]) -> Task:
    """With a place for the evidence of each relevant candidate, the same one every time."""
    rarity, evidence = rarity_of(query, [candidate.passage.text for candidate in candidates]), {}
    for passage in (candidate.passage for candidate in candidates):
        if grades.get(passage.id):
            chance = Random(f"evidence {task_id} {passage.id}")
            sentences = [sentence for sentence in sentences_of(passage.text) if words_of(sentence)] or [""]
            drawn = chance.choices(range(len(sentences)), likelihoods(sentences, rarity))[0]
            before = len(words_of(f"{passage.title} {' '.join(sentences[:drawn])}"))
            evidence[passage.id] = before + chance.randrange(max(1, len(words_of(sentences[drawn]))))
    return Task(id=task_id, query=query, candidates=tuple(candidates), grades=grades, evidence=evidence)


def rarity_of(query: str, texts: Sequence[str]) -> dict[str, float]:
    """What each word of the query counts: the fewer texts hold it, the more; 1 in sum."""
    holding = Counter(stem for text in texts for stem in _stems(text))
    counts = {stem: max(0.0, math.log((len(texts) + 1) / (holding[stem] + 0.5))) for stem in _stems(query)}
    total = math.fsum(counts.values()) or 1.0
    return {stem: count / total for stem, count in counts.items()}


def sentences_of(text: str) -> list[str]:
    """By their final marks and by lines."""
    return _SENTENCE_END.split(text)


def likelihoods(
    sentences: Sequence[str], rarity: Mapping[str, float], says: float = SAYS, beside: float = BESIDE
) -> list[float]:
    """How likely each holds the evidence, against the others."""
    g = [math.fsum(rarity.get(stem, 0.0) for stem in _stems(sentence)) for sentence in sentences]
    near = [max(pair) for pair in zip([0.0, *g], [*g[1:], 0.0], strict=False)]
    return [math.exp(says * one + beside * other) for one, other in zip(g, near, strict=True)]


def _stems(text: str) -> set[str]:
    return {word[:STEM] for word in words_of(text)}


class Bm25Index:
    """All of a corpus in memory; the same vectors and the same idf as the product's lexical side."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._lexical = Lexical()
        postings: dict[int, list[tuple[int, float]]] = {}
        for number, text in enumerate(texts):
            vector = self._lexical.document(text)
            for term, weight in zip(vector.indices, vector.values, strict=True) if vector else ():
                postings.setdefault(term, []).append((number, weight))
        self._size = len(texts)
        self._postings: dict[int, tuple[NDArray[np.intp], NDArray[np.float64]]] = {
            term: (np.array([n for n, _ in found]), np.array([w for _, w in found])) for term, found in postings.items()
        }

    def best(self, query: str, depth: int) -> list[tuple[int, float]]:
        """(number of the text, score over the highest possible one), best first; texts without a hit are left out."""
        vector = self._lexical.query(query)
        scores, most = np.zeros(self._size), 1e-9
        for term in vector.indices if vector else ():
            if term in self._postings:
                numbers, weights = self._postings[term]
                idf = math.log(1 + (self._size - len(numbers) + 0.5) / (len(numbers) + 0.5))
                scores[numbers] += idf * weights
                most += idf * SATURATED
        order = np.argsort(-scores, kind="stable")[:depth]
        return [(int(n), min(1.0, float(scores[n] / most))) for n in order if scores[n] > 0]
