"""The outcome of one question with one backend, and the measures computed from it. Pure.

Whether a citation supports its sentence is `Citation.verified`: by rules (the numbers, dates and names of the sentence
are in the quote) or by a model, whichever was requested. ALCE's entailment model is not used.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import ir_measures
import msgspec
from ir_measures import RR, Measure, Qrel, R, ScoredDoc, nDCG

from app.domain import Answer, Citation, SearchResult
from app.evaluation.data import EvalQuestion, Grades
from app.evaluation.metrics import citation_precision, citation_recall, exact_match, f1
from app.evaluation.models import Fate
from app.evaluation.runner import Record
from app.ranking.models import Ranked
from indexing.documents import Candidate, Document

NDCG, MRR = "nDCG@10", "MRR@10"
EXACT, F1, QUOTED = "exact match", "F1", "gold in a quote"
CITATION_RECALL, CITATION_PRECISION = "citation recall", "citation precision"
VERBATIM = "quotes verbatim"
ABSTAINED, REFUSED = "abstained, unanswerable", "abstained, answerable"
DEGRADED = "degraded"

SHARES = (QUOTED, VERBATIM, REFUSED, ABSTAINED, DEGRADED)
"""Measures that are shown in percent."""

UNCOMPARED = (VERBATIM, DEGRADED)
"""Measures whose difference to the baseline says nothing."""


class AnswerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of an answer. `sentences`: for each sentence with a statement, which of its citations support it."""

    text: str
    abstained: bool
    quotes: tuple[str, ...]
    verbatim: tuple[bool, ...]
    sentences: tuple[tuple[bool, ...], ...]
    used: str


class Outcome(Record, frozen=True, kw_only=True):
    """`documents` are in ranked order. Times are in milliseconds; `rank_ms` is None if no backend ranked.

    `best_score` is that of the first result, 0 without one. `fate` is None where no relevant document is known.
    """

    documents: tuple[str, ...] = ()
    best_score: float = 0.0
    model: str | None = None
    degraded: bool = False
    rank_ms: float | None = None
    total_ms: float = 0.0
    reply: AnswerRecord | None = None
    fate: Fate | None = None


def search_outcome(question: EvalQuestion, result: SearchResult, fate: Fate | None = None) -> Outcome:
    """The outcome of a search, without an answer."""
    return Outcome(
        id=question.id,
        usage=result.usage,
        documents=tuple(dict.fromkeys(hit.document_id for hit in result.results)),
        best_score=max((hit.score for hit in result.results), default=0.0),
        model=result.backend.model,
        degraded=bool(result.degraded),
        rank_ms=result.timings_ms.get("rank"),
        total_ms=result.timings_ms["total"],
        fate=fate,
    )


def fate_of(
    question: EvalQuestion,
    relevant: Collection[str],
    order: Sequence[tuple[Candidate, Ranked]],
    documents: Mapping[str, Document],
) -> Fate | None:
    """What became of the answer among the candidates in their `order`.

    The answer is any passage of a document in `relevant`; where one of `documents` holds a correct answer in its
    spelling, only a passage that holds one too.
    """
    if not relevant:
        return None
    texts = [documents[key].text for key in relevant if key in documents]
    golds = tuple(gold.casefold() for gold in question.answers if any(_holds(text, gold.casefold()) for text in texts))
    places = [
        place
        for place, (candidate, _) in enumerate(order)
        if candidate.passage.document_id in relevant
        and (not golds or any(_holds(candidate.passage.text, gold) for gold in golds))
    ]
    if not places:
        return "not_found"
    if places[0] == 0:
        return "right"
    return "misjudged" if any(order[place][1].read for place in places) else "not_read"


def _holds(text: str, gold: str) -> bool:
    return gold in text.casefold()


def answer_record(answer: Answer) -> AnswerRecord:
    """What is kept of an answer."""
    hits = {hit.id: hit for hit in answer.results}

    def is_verbatim(one: Citation) -> bool:
        hit = hits.get(one.result_id)
        return hit is not None and (hit.text or "")[one.start - hit.start : one.end - hit.start] == one.quote

    by_sentence: dict[tuple[int, int], list[bool]] = {}
    for citation in answer.citations:
        by_sentence.setdefault((citation.answer_start, citation.answer_end), []).append(citation.verified)
    for span in answer.unsupported:
        by_sentence[span.start, span.end] = [False] * len(by_sentence.get((span.start, span.end), ()))
    return AnswerRecord(
        text=answer.answer,
        abstained=not answer.answerable,
        quotes=tuple(citation.quote for citation in answer.citations),
        verbatim=tuple(map(is_verbatim, answer.citations)),
        sentences=tuple(tuple(flags) for flags in by_sentence.values()),
        used=answer.answer_backend.used,
    )


def measures_of(
    outcomes: Mapping[str, Outcome], questions: Mapping[str, EvalQuestion], grades: Grades, k: int
) -> dict[str, dict[str, float]]:
    """The value of every measure for each question it applies to."""
    values: dict[str, dict[str, float]] = retrieval(outcomes, grades, k)
    for key, outcome in outcomes.items():
        measures = _answer_measures(outcome.reply, questions[key]) if outcome.reply else {}
        for measure, value in {**measures, DEGRADED: float(outcome.degraded)}.items():
            values.setdefault(measure, {})[key] = value
    return values


def retrieval(outcomes: Mapping[str, Outcome], grades: Grades, k: int) -> dict[str, dict[str, float]]:
    """nDCG@10, recall@k and MRR@10 of the questions that have a relevant document, by ir_measures."""
    judged = [key for key in outcomes if grades.get(key)]
    measures: dict[Measure, str] = {nDCG @ 10: NDCG, R @ k: f"recall@{k}", RR @ 10: MRR}
    values: dict[str, dict[str, float]] = {name: {} for name in measures.values()} if judged else {}
    qrels = [Qrel(key, document, grade) for key in judged for document, grade in grades[key].items()]
    # Scored by rank: the backend's scores may tie, and the order is what is measured.
    run = [
        ScoredDoc(key, document, -float(rank))
        for key in judged
        for rank, document in enumerate(outcomes[key].documents)
    ]
    for metric in ir_measures.iter_calc(list(measures), qrels, run) if judged else ():
        values[measures[metric.measure]][metric.query_id] = metric.value
    return values


def _answer_measures(reply: AnswerRecord, question: EvalQuestion) -> dict[str, float]:
    measures: dict[str, float] = {}
    if question.answerable and question.answers:
        text = "" if reply.abstained else reply.text
        measures |= {EXACT: exact_match(text, question.answers), F1: f1(text, question.answers)}
        measures[QUOTED] = float(any(gold in quote for gold in question.answers for quote in reply.quotes))
    if not reply.abstained:
        # Each citation of a sentence has its own flag, so a set of them supports it if any does.
        citations = [frozenset(range(len(flags))) for flags in reply.sentences]

        def supports(number: int, cited: Iterable[int]) -> bool:
            return any(reply.sentences[number][citation] for citation in cited)

        measures[CITATION_RECALL] = citation_recall(citations, supports)
        measures[CITATION_PRECISION] = citation_precision(citations, supports)
    if reply.verbatim:
        measures[VERBATIM] = sum(reply.verbatim) / len(reply.verbatim)
    return {**measures, (REFUSED if question.answerable else ABSTAINED): float(reply.abstained)}
