"""Queries with their first 100 passages by BM25, and what the judgements say of them."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.evaluating.data import read_qrels, read_rows
from app.ranking.preparing import prepare
from app.ranking.shapes import Candidate
from indexing.lexical import Lexical

SATURATED = 2.2
"""What a term's weight tends to in the vectors of `indexing.lexical` (k1 + 1)."""

LEXICAL_EVIDENCE = 0.6
"""How often what makes a passage relevant stands where the product's cut looks for it; else it is anywhere.

Measured with SQuAD dev's gold answers in passages of 1.5 times the cut or more: `app.ranking.preparing` kept 73, 81 and
87 % of them in 64, 96 and 160 tokens, where it showed 34, 47 and 52 % of the text: 0.59, 0.64, 0.73 of the way from a
cut at random to one that knows.
"""

RUN = 4
CUTS = (160, 256)
"""What the product's cut shows at both of these lengths is where it looks."""


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


def load_set(data: Path, name: str, *, depth: int, limit: int = 0) -> RerankSet:
    """`name` is a folder in `data`; `limit` takes its first queries only."""
    folder = data / name
    qrels = read_qrels(folder)
    corpus = {row["_id"]: row for row in read_rows(folder / "corpus.jsonl")}
    index = Bm25Index([f"{row.get('title', '')} {row['text']}" for row in corpus.values()])
    ids = list(corpus)
    queries = [row for row in read_rows(folder / "queries.jsonl") if row["_id"] in qrels]
    tasks = []
    for row in queries[: limit or None]:
        found = [
            Candidate(id=ids[n], text=corpus[ids[n]]["text"], title=corpus[ids[n]].get("title", ""), prior=score)
            for n, score in index.best(row["text"], depth)
        ]
        tasks.append(task_of(row["_id"], row["text"], found, qrels[row["_id"]]))
    top = max(grade for grades in qrels.values() for grade in grades.values())
    return RerankSet(name=name, tasks=tuple(tasks), top_grade=top)


def task_of(task_id: str, query: str, candidates: Sequence[Candidate], grades: Mapping[str, int]) -> Task:
    """With a place for the evidence of each relevant candidate, the same one every time."""
    evidence = {}
    for candidate in candidates:
        if grades.get(candidate.id):
            words = words_of(f"{candidate.title} {candidate.text}")
            chance = Random(f"evidence {task_id} {candidate.id}")
            lexical = _core(query, candidate, words, chance) if chance.random() < LEXICAL_EVIDENCE else None
            evidence[candidate.id] = chance.randrange(max(1, len(words))) if lexical is None else lexical
    return Task(id=task_id, query=query, candidates=tuple(candidates), grades=grades, evidence=evidence)


def _core(query: str, candidate: Candidate, words: Sequence[str], chance: Random) -> int | None:
    """A place in the text that the cut shows at both lengths; None where there is none."""
    text = range(len(words_of(candidate.title)), len(words) - RUN + 1)
    core = set(text)
    for tokens in CUTS:
        shown = words_of(prepare(query, [candidate], tokens=tokens)[0].text)
        runs = {tuple(shown[start : start + RUN]) for start in range(len(shown) - RUN + 1)}
        core &= {place for place in text if tuple(words[place : place + RUN]) in runs}
    return chance.choice(sorted(core)) if core else None


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
