"""How well each sentence of the passages answers a question, and whether any of them does. Pure.

A sentence is judged by six clues. Words: the share of the question's content words in it, rare ones counting more.
Context: the same with the sentence before it, the title and the headings. Shape: whether it holds a number, a date or
a name where the question asks for one. Passage: the share of the question's words in its passage. Rank: how high
retrieval put its passage. Closeness: the cosine of its vector to the question's. Their weighted sum orders the
sentences. Whether to answer at all is decided by `relevance`, a logistic function of three clues of the best sentence
that mean the same for every question: context with all words counting alike, passage, closeness. Fused retrieval
scores do not enter: they depend on ranks alone, and there is always a first rank. An embedder that cannot read a
language finds all its sentences alike, so that the words decide.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.answering.clues import shape_clue
from app.answering.questions import Reading
from app.answering.terms import terms
from app.domain import Hit
from indexing.sentences import sentence_spans

Scores = NDArray[np.float64]

# Fitted by `python -m benchmarks.answers --fit`, all-MiniLM-L6-v2, on 1,500 questions of SQuAD 2.0 dev, 601 of CMRC
# 2018 trial, 714 each of XQuAD de and zh, the sets weighing the same; the benchmark reports other questions. The order:
# softmax over a question's sentences. The relevance: logistic regression, these questions against those among them
# whose article is not in the corpus asked. Rounded.
WEIGHTS = {"words": 4.7, "context": 3.8, "shape": 1.1, "passage": 3.0, "rank": 2.7, "closeness": 2.7}
RELEVANCE = {"context": 5.2, "passage": 5.3, "closeness": 7.0, "bias": -8.6}
_CLUES = ("words", "context", "shape", "passage", "rank")
_PASSAGE = _CLUES.index("passage")
_LEXICAL = np.array([WEIGHTS[clue] for clue in _CLUES])


class Sentence(msgspec.Struct, frozen=True, kw_only=True):
    """A sentence of a passage: `text == hits[hit].text[start:end]`.

    `terms` are its own; `context` are those with the sentence before it, the title and the headings.
    """

    hit: int
    start: int
    end: int
    text: str
    terms: frozenset[str]
    context: frozenset[str]


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """`scores`, shape (sentences,), compare sentences of one question; `relevance` in [0,1] compares questions."""

    scores: Scores
    relevance: float


def split(hits: Sequence[Hit]) -> list[Sentence]:
    """All sentences of all passages, in order; one that came before, word for word, is left out."""
    sentences: list[Sentence] = []
    seen: set[str] = set()
    for number, hit in enumerate(hits):
        for sentence in _sentences(number, hit):
            folded = " ".join(sentence.text.split())
            if folded not in seen:
                seen.add(folded)
                sentences.append(sentence)
    return sentences


def _sentences(number: int, hit: Hit) -> list[Sentence]:
    text = hit.text or ""
    above = terms(" ".join((hit.title, *hit.heading)))
    found: list[Sentence] = []
    before: frozenset[str] = frozenset()
    for span in sentence_spans(text):
        piece = text[span.start : span.end]
        own = terms(piece)
        context = own | before | above
        found.append(Sentence(hit=number, start=span.start, end=span.end, text=piece, terms=own, context=context))
        before = own
    return found


def lexical_clues(question: Reading, sentences: Sequence[Sentence]) -> Scores:
    """Shape (sentences, 5): words, context, shape, passage, rank."""
    rarity = _rarity(question.terms, sentences)
    equal = dict.fromkeys(question.terms, 1.0)
    passages: dict[int, frozenset[str]] = {}
    for sentence in sentences:
        passages[sentence.hit] = passages.get(sentence.hit, frozenset()) | sentence.context
    covered = {hit: _share(equal, found) for hit, found in passages.items()}
    rows = [
        (
            _share(rarity, sentence.terms),
            _share(rarity, sentence.context),
            shape_clue(question, sentence.text),
            covered[sentence.hit],
            1 / (1 + sentence.hit),
        )
        for sentence in sentences
    ]
    return np.array(rows, dtype=np.float64).reshape(len(sentences), 5)


def promising(clues: Scores, limit: int) -> list[int]:
    """Indices of the `limit` sentences worth an embedding, in their order."""
    best = np.argsort(-(clues @ _LEXICAL), kind="stable")[:limit]
    return sorted(int(index) for index in best)


def _rarity(wanted: frozenset[str], sentences: Sequence[Sentence]) -> dict[str, float]:
    """BM25's idf, over the sentences at hand: what all of them share does not tell them apart."""
    count = len(sentences)
    frequency = Counter(term for sentence in sentences for term in sentence.terms & wanted)
    return {term: math.log1p((count - frequency[term] + 0.5) / (frequency[term] + 0.5)) for term in sorted(wanted)}


def _share(weights: Mapping[str, float], found: frozenset[str]) -> float:
    total = math.fsum(weights.values())
    return math.fsum(weight for term, weight in weights.items() if term in found) / total if total else 0.0


def judge(question: Reading, sentences: Sequence[Sentence], clues: Scores, cosines: Scores) -> Judgement:
    """`clues`, shape (sentences, 5), and `cosines`, shape (sentences,), in the order of `sentences`; at least one."""
    scores: Scores = clues @ _LEXICAL + WEIGHTS["closeness"] * cosines
    best = int(np.argmax(scores))
    found = relevance_clues(question, sentences[best], clues[best], float(cosines[best]))
    evidence = RELEVANCE["bias"] + math.fsum(RELEVANCE[clue] * value for clue, value in found.items())
    return Judgement(scores=scores, relevance=1 / (1 + math.exp(-evidence)))


def relevance_clues(question: Reading, best: Sentence, clues: Scores, cosine: float) -> dict[str, float]:
    """What `relevance` is made from; `clues` has shape (5,)."""
    return {
        "context": _share(dict.fromkeys(question.terms, 1.0), best.context),
        "passage": float(clues[_PASSAGE]),
        "closeness": cosine,
    }
