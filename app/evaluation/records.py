"""What came of one question with one backend, and what follows from it. Pure.

What supports a sentence is told by `Citation.verified`: by rule (its numbers, dates and names stand in the quote) or by
a model, as it was asked for; ALCE's own model of entailment is not used.
"""

from collections.abc import Iterable, Mapping, Sequence

import ir_measures
import msgspec
from ir_measures import RR, Measure, Qrel, R, ScoredDoc, nDCG

from app.domain import Answer, Citation, SearchResult
from app.evaluation.data import Asked, Grades
from app.evaluation.metrics import citation_precision, citation_recall, exact_match, f1
from app.evaluation.runner import Record

NDCG, MRR = "nDCG@10", "MRR@10"
EXACT, F1, QUOTED = "exact match", "F1", "gold in a quote"
CITATION_RECALL, CITATION_PRECISION = "citation recall", "citation precision"
VERBATIM = "quotes verbatim"
ABSTAINED, REFUSED = "abstained, unanswerable", "abstained, answerable"
DEGRADED = "degraded"

SHARES = (QUOTED, VERBATIM, REFUSED, ABSTAINED, DEGRADED)
"""Those that are told in percent."""

UNCOMPARED = (VERBATIM, DEGRADED)
"""Those whose difference to the baseline says nothing."""


class Replied(msgspec.Struct, frozen=True, kw_only=True):
    """An answer. `sentences` has for each that states something whether each of its citations supports it."""

    text: str
    abstained: bool
    quotes: tuple[str, ...]
    verbatim: tuple[bool, ...]
    sentences: tuple[tuple[bool, ...], ...]
    used: str


class Outcome(Record, frozen=True, kw_only=True):
    """`documents` best first. Times are milliseconds; `rank_ms` None: nobody ranked."""

    documents: tuple[str, ...] = ()
    model: str | None = None
    degraded: bool = False
    rank_ms: float | None = None
    total_ms: float = 0.0
    reply: Replied | None = None


def outcome_of(asked: Asked, found: SearchResult) -> Outcome:
    """Without an answer."""
    return Outcome(
        id=asked.id,
        usage=found.usage,
        documents=tuple(dict.fromkeys(hit.document_id for hit in found.results)),
        model=found.backend.model,
        degraded=bool(found.degraded),
        rank_ms=found.timings_ms.get("rank"),
        total_ms=found.timings_ms["total"],
    )


def replied(answer: Answer) -> Replied:
    """What is kept of it."""
    texts = {hit.id: hit for hit in answer.results}

    def is_verbatim(one: Citation) -> bool:
        hit = texts.get(one.result_id)
        return hit is not None and (hit.text or "")[one.start - hit.start : one.end - hit.start] == one.quote

    by_sentence: dict[tuple[int, int], list[bool]] = {}
    for citation in answer.citations:
        by_sentence.setdefault((citation.answer_start, citation.answer_end), []).append(citation.verified)
    for span in answer.unsupported:
        by_sentence[span.start, span.end] = [False] * len(by_sentence.get((span.start, span.end), ()))
    return Replied(
        text=answer.answer,
        abstained=not answer.answerable,
        quotes=tuple(citation.quote for citation in answer.citations),
        verbatim=tuple(map(is_verbatim, answer.citations)),
        sentences=tuple(tuple(flags) for flags in by_sentence.values()),
        used=answer.answer_backend.used,
    )


def measured(
    outcomes: Mapping[str, Outcome], questions: Mapping[str, Asked], grades: Grades, k: int
) -> dict[str, dict[str, float]]:
    """The values of every measure, by question; a measure that no question has is left out."""
    values: dict[str, dict[str, float]] = retrieval(outcomes, grades, k)
    for key, outcome in outcomes.items():
        reply = _of_reply(outcome.reply, questions[key]) if outcome.reply else {}
        found = {**reply, DEGRADED: float(outcome.degraded)}
        for measure, value in found.items():
            values.setdefault(measure, {})[key] = value
    return values


def retrieval(outcomes: Mapping[str, Outcome], grades: Grades, k: int) -> dict[str, dict[str, float]]:
    """nDCG@10, recall@k and MRR@10 of the questions that have a relevant document, by ir_measures."""
    judged = [key for key in outcomes if grades.get(key)]
    measures: dict[Measure, str] = {nDCG @ 10: NDCG, R @ k: f"recall@{k}", RR @ 10: MRR}
    values: dict[str, dict[str, float]] = {name: {} for name in measures.values()} if judged else {}
    qrels = [Qrel(key, document, grade) for key in judged for document, grade in grades[key].items()]
    # By place: scores may tie, and the order is what is measured.
    run = [
        ScoredDoc(key, document, -float(place))
        for key in judged
        for place, document in enumerate(outcomes[key].documents)
    ]
    for metric in ir_measures.iter_calc(list(measures), qrels, run) if judged else ():
        values[measures[metric.measure]][metric.query_id] = metric.value
    return values


def _of_reply(reply: Replied, asked: Asked) -> dict[str, float]:
    found: dict[str, float] = {}
    if asked.answerable and asked.answers:
        told = "" if reply.abstained else reply.text
        found |= {EXACT: exact_match(told, asked.answers), F1: f1(told, asked.answers)}
        found[QUOTED] = float(any(gold in quote for gold in asked.answers for quote in reply.quotes))
    if not reply.abstained:
        found |= _cited(reply.sentences)
    if reply.verbatim:
        found[VERBATIM] = sum(reply.verbatim) / len(reply.verbatim)
    return {**found, (REFUSED if asked.answerable else ABSTAINED): float(reply.abstained)}


def _cited(sentences: Sequence[Sequence[bool]]) -> dict[str, float]:
    def supports(number: int, citations: Iterable[int]) -> bool:
        return any(sentences[number][citation] for citation in citations)

    cited = [frozenset(range(len(flags))) for flags in sentences]
    return {
        CITATION_RECALL: citation_recall(cited, supports),
        CITATION_PRECISION: citation_precision(cited, supports),
    }
