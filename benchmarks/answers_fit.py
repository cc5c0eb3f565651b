"""The constants of app/answering/extractive/evidence.py, fitted. Called by `python -m benchmarks.answers --fit`."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from app.answering.extractive.answerer import MAX_EMBEDDED_LENGTH
from app.answering.extractive.evidence import WEIGHTS, Sentence, lexical_features, relevance_features, split
from app.answering.models import ParsedQuestion
from app.answering.questions import parse_question
from app.domain import Hit, Query
from benchmarks.answers_corpus import Corpus, DataSet, Vectorizer

PER_SET = 600
OFF_TOPIC = 250
_RIDGE = 1e-3
_FEATURES = ("context", "passage", "sentence_cosine", "passage_cosine", "lead")


class Case(NamedTuple):
    """One question with the features of all its sentences, shape (sentences, 6), and which of them answer."""

    question: ParsedQuestion
    hits: Sequence[Hit]
    sentences: list[Sentence]
    features: NDArray[np.float64]
    right: NDArray[np.bool_]
    weight: float


async def fit(sets: Sequence[DataSet], others: Sequence[DataSet], vectorizer: Vectorizer) -> None:
    """Prints WEIGHTS and RELEVANCE. The sets weigh the same, whatever their sizes."""
    there: list[Case] = []
    absent: list[Case] = []
    for data in sets:
        questions = data.to_fit(PER_SET)
        weight = 1 / len(questions)
        full = Corpus(data.passages, vectorizer)
        there += await _cases(data, full, vectorizer, questions, weight)
        half = Corpus(data.half(), vectorizer)
        absent += await _cases(data, half, vectorizer, data.without_article(questions), weight)
        for other in others:
            if other.name != data.name:
                foreign = other.elsewhere(OFF_TOPIC, fitting=True)
                absent += await _cases(data, full, vectorizer, foreign, weight)
    weights = _order(there)
    print("WEIGHTS  ", {feature: round(float(value), 2) for feature, value in zip(WEIGHTS, weights, strict=True)})
    print("RELEVANCE", _relevance(there, absent, weights))


async def _cases(
    data: DataSet, corpus: Corpus, vectorizer: Vectorizer, records: Sequence[dict[str, Any]], weight: float
) -> list[Case]:
    cases = []
    for record in records:
        question = parse_question(record["text"])
        hits = (await corpus.find(Query(text=question.text)))[0].results
        sentences = split(hits)
        if not sentences:
            continue
        cosines = (
            vectorizer.vectors([s.text[:MAX_EMBEDDED_LENGTH] for s in sentences])
            @ vectorizer.vectors([question.text])[0]
        )
        features = np.column_stack([lexical_features(question, sentences), cosines])
        right = [_is_right(data, record, hits[s.hit].id, s.text) for s in sentences]
        cases.append(Case(question, hits, sentences, features, np.array(right), weight))
    return cases


def _is_right(data: DataSet, record: dict[str, Any], passage: str, sentence: str) -> bool:
    return passage == data.gold.get(record["_id"]) and any(answer in sentence for answer in record["answers"])


def _order(cases: Sequence[Case]) -> NDArray[np.float64]:
    """Weights under which, by softmax, the sentences that answer are likeliest."""
    usable = [case for case in cases if case.right.any()]
    total = sum(case.weight for case in usable)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, gradient = _RIDGE * weights @ weights, 2 * _RIDGE * weights
        for case in usable:
            scores = case.features @ weights
            chance = np.exp(scores - scores.max())
            chance /= chance.sum()
            hope = chance[case.right].sum()
            value -= case.weight / total * np.log(hope)
            expected = chance[case.right] @ case.features[case.right] / hope
            gradient -= case.weight / total * (expected - chance @ case.features)
        return float(value), gradient

    found = minimize(loss, np.zeros(len(WEIGHTS)), jac=True, method="L-BFGS-B")
    return np.asarray(found.x, dtype=np.float64)


def _relevance(there: Sequence[Case], absent: Sequence[Case], weights: NDArray[np.float64]) -> dict[str, float]:
    """A logistic regression: questions whose passage is in the corpus against those whose article or corpus is not."""
    rows = [_best_features(case, weights) for case in (*there, *absent)]
    labels = [True] * len(there) + [False] * len(absent)
    share = np.array([case.weight for case in (*there, *absent)])
    model = LogisticRegression(C=1e3, max_iter=2000).fit(rows, labels, sample_weight=share / share.mean())
    return {
        **{feature: round(float(value), 2) for feature, value in zip(_FEATURES, model.coef_[0], strict=True)},
        "bias": round(float(model.intercept_[0]), 2),
    }


def _best_features(case: Case, weights: NDArray[np.float64]) -> list[float]:
    best = int(np.argmax(case.features @ weights))
    *features, cosine = case.features[best]
    found = relevance_features(case.question, case.hits, case.sentences[best], np.array(features), float(cosine))
    return [found[feature] for feature in _FEATURES]
