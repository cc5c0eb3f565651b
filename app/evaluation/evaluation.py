"""Use case: the same questions to several backends, and how each of them did."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from app.answering import prompts as prompting
from app.answering.verification import model_check as check_prompts
from app.backends.router import EXTRACTIVE, NONE
from app.domain import BackendUse, Caller, Query, Question
from app.errors import InvalidRequest, MissingCapability, WinnowError
from app.evaluation.data import Asked, DataSet, Grades, digest_of, sample
from app.evaluation.metrics import figure, gain
from app.evaluation.models import BackendReport, EvalOptions, Latency, Report
from app.evaluation.records import UNCOMPARED, Outcome, measured, outcome_of, replied
from app.evaluation.runner import (
    Journal,
    Tell,
    ask_all,
    check_budget,
    failing_softly,
    index_documents,
    tell_nobody,
)
from app.ranking import prompts as ranking
from app.wiring import Services

CALLER = Caller(key="eval")
BASELINE = NONE.name

CANDIDATES = 50
"""As /search has it."""

OWN_DOING = frozenset(("timeout", "bad_reply", "refused"))
"""Reasons for which a backend does not rank that are part of how it does. The others may pass, and are asked again."""


class _Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of everyone."""

    asked: Mapping[str, Asked]
    grades: Grades
    collection: str
    notes: tuple[str, ...]


class Passed(WinnowError):
    """The backend did not rank, for a reason that says nothing about it."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the backend did not rank: {code}")
        self.code = code


async def evaluate(
    services: Services, data: DataSet, options: EvalOptions, folder: Path, tell: Tell = tell_nobody
) -> Report:
    """Ask all; "none" with its extractive answers is always there, as the baseline.

    `folder` keeps what came of each question, so that a run that was stopped goes on from there. Raises UnknownBackend,
    MissingCapability, Ended, and InvalidRequest where the data cannot be used.
    """
    names = tuple(dict.fromkeys((BASELINE, *(name for name in options.backends if name != EXTRACTIVE.name))))
    for name in names:
        await services.rankers.select(name)
    plan = await _planned(services, data, options, tell)
    runs: dict[str, dict[str, Outcome]] = {}
    for name in names:
        asking = _Asking(services, options, plan.collection, name)
        journal = Journal(folder / f"eval-{name}-{await asking.key(data)}.jsonl", Outcome)
        questions = list(plan.asked.values())
        runs[name] = await ask_all(
            name, questions, asking.ask, journal, concurrency=options.concurrency, fresh=options.fresh, tell=tell
        )
    return Report(
        data=data.folder.name,
        digest=data.digest,
        options=options,
        documents=None if options.collection else len(data.documents),
        answerable=sum(asked.answerable for asked in plan.asked.values()),
        unanswerable=sum(not asked.answerable for asked in plan.asked.values()),
        backends=tuple(_reports(runs, plan, options)),
        notes=plan.notes,
    )


async def _planned(services: Services, data: DataSet, options: EvalOptions, tell: Tell) -> _Plan:
    answerable = sample(_answerable(data, options), options.questions, options.seed)
    without = sample(tuple(data.unanswerable.values()), options.questions, options.seed) if options.answers else ()
    asked = {one.id: one for one in (*answerable, *without)}
    if len(asked) < len(answerable) + len(without):
        raise InvalidRequest(f"{data.folder}: a question has the same _id as an unanswerable one; each needs its own")
    grades = data.grades if data.has_grades else {}
    if options.collection is not None:
        await (await services.store.get()).info(options.collection)
        return _Plan(asked=asked, grades=grades, collection=options.collection, notes=())
    collection = f"corpus-{digest_of(services.embedder.fingerprint)}"
    failed = await index_documents(services, collection, list(data.documents.values()), tell)
    notes = tuple(_notes(data, grades, answerable, failed))
    return _Plan(asked=asked, grades=grades, collection=collection, notes=notes)


def _answerable(data: DataSet, options: EvalOptions) -> tuple[Asked, ...]:
    """Those that can be judged: by a relevant document, or with `answers` by a right answer."""
    if not options.answers:
        return data.judged
    grades = data.grades if data.has_grades else {}
    judged = tuple(asked for asked in data.questions.values() if asked.answers or grades.get(asked.id))
    return judged or data.judged


def _notes(data: DataSet, grades: Grades, questions: Sequence[Asked], failed: int) -> Iterator[str]:
    if failed:
        yield f"{failed} of {len(data.documents)} documents have no text, and are not indexed"
    wanted = {document for asked in questions for document in grades.get(asked.id, ())}
    if missing := wanted - data.documents.keys():
        yield f"{len(missing)} of {len(wanted)} relevant documents are not in the corpus: nobody can find them"


class _Asking:
    """Asks one backend."""

    def __init__(self, services: Services, options: EvalOptions, collection: str, backend: str) -> None:
        self._services, self._options = services, options
        self._collection, self._backend = collection, backend

    async def key(self, data: DataSet) -> str:
        """Of all that an outcome depends on but the questions themselves: these may become more."""
        settings, options = self._services.settings, self._options
        info = await (await self._services.store.get()).info(self._collection)
        told = settings.backends.get(self._backend)
        return digest_of(
            data.digest, options.answers, options.check, options.k, info.spec.embedder, info.spec.lineage,
            told and (told.kind, told.model, told.url), settings.ranking, settings.answer,
            ranking.PROMPT_VERSION, prompting.PROMPT_VERSION, check_prompts.CHECK_PROMPT_VERSION,
        )  # fmt: skip

    async def ask(self, asked: Asked) -> Outcome:
        """What came of it."""
        return await failing_softly(self._ask(asked), lambda code: Outcome(id=asked.id, error=code))

    async def _ask(self, asked: Asked) -> Outcome:
        k = max(self._options.k, 10)
        query = Query(
            text=asked.text,
            collection=self._collection,
            backend=self._backend,
            limit=k,
            candidates=max(CANDIDATES, k),
            group_by_document=True,
            include_text=False,
        )
        found = await self._services.searcher.search(query, CALLER)
        check_served(found.backend)
        outcome = outcome_of(asked, found)
        return await self._answered(asked, outcome) if self._options.answers else outcome

    async def _answered(self, asked: Asked, outcome: Outcome) -> Outcome:
        """As /answer does it. What was said of the passages is known by now, so that only the answer is paid for."""
        answer = await self._services.answerer.answer(
            Question(
                search=Query(text=asked.text, collection=self._collection, backend=self._backend),
                answer_backend=EXTRACTIVE.name if self._backend == BASELINE else None,
                check_citations="structural" if self._backend == BASELINE else self._options.check,
            ),
            CALLER,
        )
        check_served(answer.answer_backend)
        spent = answer.timings_ms.get("answer", 0.0) + answer.timings_ms.get("check", 0.0)
        return msgspec.structs.replace(
            outcome,
            usage=outcome.usage + answer.usage,
            degraded=outcome.degraded or bool(answer.degraded),
            total_ms=outcome.total_ms + spent,
            reply=replied(answer),
        )


def check_served(use: BackendUse) -> None:
    """Raises Passed or BudgetExceeded when someone else did it, and that says nothing about the one who was asked."""
    check_budget(use)
    reasons = {fallback.reason for fallback in use.fallbacks if fallback.backend == use.requested}
    if passing := sorted(reasons - OWN_DOING - {MissingCapability.code}):
        raise Passed(passing[0])


def _reports(runs: Mapping[str, Mapping[str, Outcome]], plan: _Plan, options: EvalOptions) -> Iterator[BackendReport]:
    baseline: Mapping[str, Mapping[str, float]] = {}
    for name, outcomes in runs.items():
        good = {key: outcome for key, outcome in outcomes.items() if not outcome.error}
        values = measured(good, plan.asked, plan.grades, options.k)
        yield _report(name, outcomes, values, baseline, options.seed)
        baseline = baseline or values


def _report(
    name: str,
    outcomes: Mapping[str, Outcome],
    values: Mapping[str, Mapping[str, float]],
    baseline: Mapping[str, Mapping[str, float]],
    seed: int,
) -> BackendReport:
    good = [outcome for outcome in outcomes.values() if not outcome.error]
    measures = {measure: figure(found, seed) for measure, found in values.items()}
    compared = [measure for measure in values if measure in baseline and measure not in UNCOMPARED]
    gains = {measure: gain(values[measure], baseline[measure], seed) for measure in compared}
    usd = sum(outcome.usage.cost_usd for outcome in good)
    ranked = [outcome.rank_ms for outcome in good if outcome.rank_ms is not None]
    return BackendReport(
        backend=name,
        model=", ".join(sorted({outcome.model for outcome in good if outcome.model})) or None,
        questions=len(good),
        failed=Counter(outcome.error for outcome in outcomes.values() if outcome.error),
        measures={measure: found for measure, found in measures.items() if found},
        gains={measure: found for measure, found in gains.items() if found},
        latency_ms={
            stage: _latency(times)
            for stage, times in (("rank", ranked), ("total", [outcome.total_ms for outcome in good]))
            if times
        },
        requests=sum(outcome.usage.requests for outcome in good),
        input_tokens=sum(outcome.usage.input_tokens for outcome in good),
        cached_tokens=sum(outcome.usage.cached_tokens for outcome in good),
        output_tokens=sum(outcome.usage.output_tokens for outcome in good),
        cost_usd=usd,
        usd_per_1000=1000 * usd / max(len(good), 1),
        answered_by=Counter(outcome.reply.used for outcome in good if outcome.reply),
    )


def _latency(times: Sequence[float]) -> Latency:
    p50, p95 = np.quantile(times, (0.5, 0.95))
    return Latency(p50=round(float(p50), 1), p95=round(float(p95), 1))
