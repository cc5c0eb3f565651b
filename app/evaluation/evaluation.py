"""Use case: compare backends on the same questions."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import msgspec
import numpy as np

from app.answering import prompts as prompting
from app.answering.verification import model_check as check_prompts
from app.backends.router import EXTRACTIVE, NONE
from app.domain import ANONYMOUS, BackendUse, Query, Question, known_sum, total_usage
from app.errors import InvalidRequest, MissingCapability, WinnowError
from app.evaluation.data import DataSet, EvalQuestion, Grades, digest_of, sample
from app.evaluation.metrics import figure, gain, gate
from app.evaluation.models import BackendReport, EvalOptions, Fate, Report
from app.evaluation.records import DEGRADED, UNCOMPARED, Outcome, answer_record, fate_of, measures_of, search_outcome
from app.evaluation.runner import (
    Journal,
    ShowProgress,
    ask_all,
    check_budget,
    index_documents,
    show_nothing,
    with_error_record,
)
from app.ranking import prompts as ranking
from app.services import expansion
from app.wiring import Services
from indexing.documents import Document

CALLER = msgspec.structs.replace(ANONYMOUS, key="eval")
BASELINE = NONE.name

CANDIDATES = 50
"""The default of /search."""

OWN_FAILURES = frozenset(("timeout", "bad_reply", "refused", "not_trusted"))
"""Reasons for not ranking that count as the backend's result. After others, which may pass, it is asked again."""


class NotServed(WinnowError):
    """The backend did not rank, for a reason that says nothing about its quality."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the backend did not rank: {code}")
        self.code = code


MOST_DEGRADED = 0.5
"""The share of degraded results above which figures are retrieval's rather than a model's."""


class NotMeasured(WinnowError):
    """The figures of a backend are not its own."""


async def evaluate(
    services: Services, data: DataSet, options: EvalOptions, folder: Path, show: ShowProgress = show_nothing
) -> Report:
    """Ask every backend; "none", with extractive answers, is always included as the baseline.

    `folder` keeps the outcome of each question, so that an interrupted run can be resumed. Raises UnknownBackend,
    MissingCapability, BudgetExceeded, and InvalidRequest if the data cannot be used.
    """
    names = tuple(dict.fromkeys((BASELINE, *(name for name in options.backends if name != EXTRACTIVE.name))))
    for name in names:
        await services.rankers.select(name)
    questions = _questions(data, options)
    grades = data.grades if data.has_grades else {}
    collection, notes = options.collection, tuple[str, ...]()
    if collection is None:
        collection = f"corpus-{digest_of(services.embedder.fingerprint)}"
        failed = await index_documents(services, collection, data.documents, show)
        notes = tuple(_notes(data, grades, questions.values(), failed))
    outcomes: dict[str, dict[str, Outcome]] = {}
    for name in names:
        key = await _outcomes_key(services, data, options, collection, name)
        outcomes[name] = await ask_all(
            name,
            list(questions.values()),
            partial(_ask, services, options, collection, name, grades, {} if options.collection else data.documents),
            Journal(folder / f"eval-{name}-{key}.jsonl", Outcome),
            concurrency=options.concurrency,
            fresh=options.fresh,
            show=show,
        )
    return Report(
        data=data.folder.name,
        digest=data.digest,
        options=options,
        documents=None if options.collection else len(data.documents),
        answerable=sum(question.answerable for question in questions.values()),
        unanswerable=sum(not question.answerable for question in questions.values()),
        backends=tuple(_reports(outcomes, questions, grades, options)),
        notes=notes,
    )


def check_measured(report: Report) -> None:
    """Raise NotMeasured for a backend that was never asked, or whose results are retrieval's for the most part.

    The report has its figures all the same, which look like those of a model that does no harm.
    """
    hint = (
        "is its server up and quick enough for `deadline_ms` of [ranking], and is the model trusted (`winnow doctor`)?"
    )
    for backend in report.backends:
        if backend.backend == BASELINE:
            continue
        if not backend.requests:
            raise NotMeasured(f"{backend.backend} was never asked, and its figures are not its own; {hint}")
        if (degraded := backend.measures.get(DEGRADED)) and degraded.mean > MOST_DEGRADED:
            share = f"{degraded.mean:.0%} of the results of {backend.backend}"
            raise NotMeasured(f"{share} are degraded, and its figures are not its own; {hint}")


def _questions(data: DataSet, options: EvalOptions) -> dict[str, EvalQuestion]:
    """The questions to ask, by id."""
    answerable = sample(_answerable(data, options), options.questions, options.seed)
    without = sample(tuple(data.unanswerable.values()), options.questions, options.seed) if options.answers else ()
    questions = {question.id: question for question in (*answerable, *without)}
    if len(questions) < len(answerable) + len(without):
        raise InvalidRequest(f"{data.folder}: an answerable and an unanswerable question have the same _id")
    return questions


def _answerable(data: DataSet, options: EvalOptions) -> tuple[EvalQuestion, ...]:
    """The questions with a relevant document or, if answers are evaluated, with a correct answer."""
    if not options.answers:
        return data.judged
    grades = data.grades if data.has_grades else {}
    judged = tuple(question for question in data.questions.values() if question.answers or grades.get(question.id))
    return judged or data.judged


def _notes(data: DataSet, grades: Grades, questions: Iterable[EvalQuestion], failed: int) -> Iterator[str]:
    if failed:
        yield f"{failed} of {len(data.documents)} documents have no text and are not indexed"
    relevant = {document for question in questions for document in grades.get(question.id, ())}
    if missing := relevant - data.documents.keys():
        yield f"{len(missing)} of {len(relevant)} relevant documents are not in the corpus and cannot be found"


async def _outcomes_key(services: Services, data: DataSet, options: EvalOptions, collection: str, backend: str) -> str:
    """Of everything that an outcome depends on, except the questions: a later run may ask more of them."""
    info = await (await services.store.get()).info(collection)
    settings = services.settings.backends.get(backend)
    return digest_of(
        data.digest, options.answers, options.check, options.k, options.expand_query, get_args(Fate),
        Outcome.__struct_fields__, info.spec.embedder, info.spec.lineage,
        settings and (settings.kind, settings.model, settings.url), services.settings.ranking, services.settings.answer,
        ranking.PROMPT_VERSION, prompting.PROMPT_VERSION, check_prompts.CHECK_PROMPT_VERSION,
    )  # fmt: skip


async def _ask(
    services: Services,
    options: EvalOptions,
    collection: str,
    backend: str,
    grades: Grades,
    documents: Mapping[str, Document],
    question: EvalQuestion,
) -> Outcome:
    """The outcome of one question with one backend."""

    async def outcome() -> Outcome:
        k = max(options.k, 10)
        query = Query(
            text=question.text,
            collection=collection,
            backend=backend,
            limit=k,
            candidates=max(CANDIDATES, k),
            expand_query=options.expand_query,
            group_by_document=True,
            include_text=False,
        )
        result, order = await services.searcher.ranked(query, CALLER)
        check_served(result.backend)
        fate = fate_of(question, grades.get(question.id, ()), order[: query.candidates], documents)
        searched = search_outcome(question, result, fate)
        if not options.answers:
            return searched
        return await _with_answer(services, options, collection, backend, question, searched)

    return await with_error_record(outcome(), lambda code: Outcome(id=question.id, error=code))


async def _with_answer(
    services: Services, options: EvalOptions, collection: str, backend: str, question: EvalQuestion, searched: Outcome
) -> Outcome:
    """Answer the question as /answer does. What the search has paid for is not counted again."""
    is_baseline = backend == BASELINE
    answer = await services.answerer.answer(
        Question(
            search=Query(text=question.text, collection=collection, backend=backend, expand_query=options.expand_query),
            answer_backend=EXTRACTIVE.name if is_baseline else None,
            check_citations="structural" if is_baseline else options.check,
        ),
        CALLER,
    )
    check_served(answer.answer_backend)
    # Scores are cached from the search; an expansion is asked for anew.
    stages = {stage: usage for stage, usage in answer.usage.by_stage.items() if stage != expansion.STAGE}
    answer_ms = answer.timings_ms.get("answer", 0.0) + answer.timings_ms.get("check", 0.0)
    return msgspec.structs.replace(
        searched,
        usage=searched.usage + total_usage(stages),
        degraded=searched.degraded or bool(answer.degraded),
        total_ms=searched.total_ms + answer_ms,
        reply=answer_record(answer),
    )


def check_served(use: BackendUse) -> None:
    """Raise NotServed or BudgetExceeded if another backend ranked, and that says nothing about the requested one."""
    check_budget(use)
    reasons = {fallback.reason for fallback in use.fallbacks if fallback.backend == use.requested}
    if temporary := sorted(reasons - OWN_FAILURES - {MissingCapability.code}):
        raise NotServed(temporary[0])


def _reports(
    runs: Mapping[str, Mapping[str, Outcome]],
    questions: Mapping[str, EvalQuestion],
    grades: Grades,
    options: EvalOptions,
) -> Iterator[BackendReport]:
    baseline: Mapping[str, Mapping[str, float]] = {}
    for name, outcomes in runs.items():
        good = {key: outcome for key, outcome in outcomes.items() if not outcome.error}
        values = measures_of(good, questions, grades, options.k)
        answerable = [outcome.best_score for key, outcome in good.items() if questions[key].answerable]
        unanswerable = [outcome.best_score for key, outcome in good.items() if not questions[key].answerable]
        report = _report(name, outcomes, values, baseline, options.seed)
        yield msgspec.structs.replace(report, gate=gate(answerable, unanswerable))
        baseline = baseline or values


def _report(
    name: str,
    outcomes: Mapping[str, Outcome],
    values: Mapping[str, Mapping[str, float]],
    baseline: Mapping[str, Mapping[str, float]],
    seed: int,
) -> BackendReport:
    good = [outcome for outcome in outcomes.values() if not outcome.error]
    measures = {measure: figure(by_question, seed) for measure, by_question in values.items()}
    compared = [measure for measure in values if measure in baseline and measure not in UNCOMPARED]
    gains = {measure: gain(values[measure], baseline[measure], seed) for measure in compared}
    usd = sum(outcome.usage.cost_usd for outcome in good)
    fates = Counter(outcome.fate for outcome in good if outcome.fate)
    ranked = [outcome.rank_ms for outcome in good if outcome.rank_ms is not None]
    return BackendReport(
        backend=name,
        model=", ".join(sorted({outcome.model for outcome in good if outcome.model})) or None,
        questions=len(good),
        failed=Counter(outcome.error for outcome in outcomes.values() if outcome.error),
        measures={name: figure for name, figure in measures.items() if figure},
        gains={name: figure for name, figure in gains.items() if figure},
        latency_ms={
            stage: _latency(times)
            for stage, times in (("rank", ranked), ("total", [outcome.total_ms for outcome in good]))
            if times
        },
        requests=sum(outcome.usage.requests for outcome in good),
        input_tokens=sum(outcome.usage.input_tokens for outcome in good),
        cached_tokens=_known_sum(outcome.usage.cached_tokens for outcome in good),
        output_tokens=sum(outcome.usage.output_tokens for outcome in good),
        cost_usd=usd,
        usd_per_1000=1000 * usd / max(len(good), 1),
        answered_by=Counter(outcome.reply.used for outcome in good if outcome.reply),
        fates={fate: {"count": fates[fate], "share": fates[fate] / fates.total()} for fate in get_args(Fate) if fates},
        limited_by=limit_of(fates),
    )


def limit_of(fates: Mapping[Fate, int]) -> Literal["recall", "ranking"] | None:
    """Which of the two loses more answers."""
    not_found, behind = fates.get("not_found", 0), fates.get("not_read", 0) + fates.get("misjudged", 0)
    if not not_found + behind:
        return None
    return "recall" if not_found > behind else "ranking"


def _known_sum(counts: Iterable[int | None]) -> int | None:
    total: int | None = 0
    for count in counts:
        total = known_sum(total, count)
    return total


def _latency(times: Sequence[float]) -> dict[str, float]:
    p50, p95 = np.quantile(times, (0.5, 0.95))
    return {"p50": round(float(p50), 1), "p95": round(float(p95), 1)}
