"""Use case: calibrate a backend's scores on judged documents."""

import asyncio
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random

import msgspec

from app.domain import ANONYMOUS, Query, RankingOptions, SearchResult
from app.errors import InvalidRequest, MissingCapability
from app.evaluation.data import DataSet, EvalQuestion, digest_of, sample
from app.evaluation.models import CalibrateOptions
from app.evaluation.runner import (
    Journal,
    Record,
    ShowProgress,
    ask_all,
    index_documents,
    show_nothing,
    with_error_record,
)
from app.ranking import shared
from app.ranking.calibration import (
    FITS_FILE,
    Bin,
    Fit,
    StoredFit,
    calibration_error,
    fit_calibration,
    judgements_hash,
    log_loss,
    reliability,
    store_fit,
)
from app.ranking.models import Calibration
from app.ranking.prompts import PROMPT_VERSION
from app.ranking.scoring import score_of
from app.wiring import Services
from indexing.documents import Document

CALLER = msgspec.structs.replace(ANONYMOUS, key="calibrate")

_DEADLINE_MS = 60_000


class HeldOut(msgspec.Struct, frozen=True, kw_only=True):
    """A fit on one half of the queries, seen on the other half. Log losses in nats per document."""

    n: int
    ece_before: float
    ece_after: float
    log_loss_before: float
    log_loss_after: float


class CalibrationReport(msgspec.Struct, frozen=True, kw_only=True):
    """The fit that is now kept, and how far to trust it. `held_out` None: too few queries to hold some out.

    `before` and `after` are the reliability of all documents, in bins of the score.
    """

    backend: str
    model: str
    prompt_version: str
    fit: Fit
    held_out: HeldOut | None
    before: tuple[Bin, ...]
    after: tuple[Bin, ...]
    queries: int
    failed: int
    unread: int
    requests: int
    cost_usd: float
    seconds: float
    kept_in: str


class Graded(Record, frozen=True, kw_only=True):
    """A model's grades of one query's documents: z before calibration, and whether each document is relevant."""

    model: str = ""
    zs: tuple[float, ...] = ()
    relevant: tuple[bool, ...] = ()
    unread: int = 0


async def calibrate(
    services: Services, data: DataSet, options: CalibrateOptions, folder: Path, show: ShowProgress = show_nothing
) -> CalibrationReport:
    """Grade, fit, and save the fit in the home directory. `services` rank without calibration.

    `folder` keeps the grades, so that an interrupted run can be resumed. Raises UnknownBackend, MissingCapability,
    BudgetExceeded, and InvalidRequest if nothing can be fitted.
    """
    began = time.perf_counter()
    await _check(services, options)
    queries = sample(data.judged, options.queries, options.seed)
    collection = options.collection
    if collection is None:
        parts = options.seed, options.queries, options.passages, services.embedder.fingerprint
        collection = f"calibrate-{digest_of(*parts)}"
        await index_documents(services, collection, _subset(data, queries, options), show)
    backend = services.settings.backends.get(options.backend)
    key = digest_of(
        data.digest,
        msgspec.structs.replace(options, fresh=False, concurrency=1),
        backend and backend.model,
        services.embedder.fingerprint,
        PROMPT_VERSION,
    )
    records = await ask_all(
        f"grading with {options.backend}",
        queries,
        partial(_ask, services, data, options, collection),
        Journal(folder / f"calibrate-{key}.jsonl", Graded),
        concurrency=options.concurrency,
        fresh=options.fresh,
        show=show,
    )
    graded = [records[query.id] for query in queries]
    model, judgements = _one_model(graded), judgements_hash(_judgements(data, queries))
    fit = fit_calibration(*_observed(graded), judgements)
    kept_in = await asyncio.to_thread(_store, services, StoredFit(model=model, prompt_version=PROMPT_VERSION, fit=fit))
    return _result(options, model, fit, graded, time.perf_counter() - began, kept_in)


def _store(services: Services, fit: StoredFit) -> str:
    """For all replicas if there are several, else in the home; where, for people. Blocks."""
    if (database := services.database) is not None:
        shared.store_fit(database, fit)
        return f"database {database.address.shown}"
    path = services.settings.index.home / FITS_FILE
    store_fit(path, fit)
    return str(path)


async def _ask(
    services: Services, data: DataSet, options: CalibrateOptions, collection: str, question: EvalQuestion
) -> Graded:
    """The model's grades of the documents retrieved for one query."""
    depth = options.depth
    query = Query(
        text=question.text,
        collection=collection,
        backend=options.backend,
        limit=depth,
        candidates=depth,
        ranking=RankingOptions(strategy="graded", depth=depth, deadline_ms=_DEADLINE_MS, on_failure="fail"),
        group_by_document=True,
        include_text=False,
    )

    async def grade() -> Graded:
        return _graded(question.id, await services.searcher.search(query, CALLER), data)

    return await with_error_record(grade(), lambda code: Graded(id=question.id, error=code))


def _graded(query: str, result: SearchResult, data: DataSet) -> Graded:
    """A document counts with its best passage. Without calibration a score is sigmoid(z)."""
    relevant = data.grades.get(query, {})
    graded = [hit for hit in result.results if hit.ranked_by == result.backend.used]
    return Graded(
        id=query,
        usage=result.usage,
        model=result.backend.model or "",
        zs=tuple(math.log(hit.score / (1 - hit.score)) for hit in graded),
        relevant=tuple(hit.document_id in relevant for hit in graded),
        unread=len(result.results) - len(graded),
    )


async def _check(services: Services, options: CalibrateOptions) -> None:
    ranker = await services.rankers.select(options.backend)
    if ranker.requested not in services.settings.backends:
        names = ", ".join(services.settings.backends) or "none"
        raise MissingCapability(
            f"calibrate needs the name of a configured backend, not {options.backend!r}; configured are: {names}"
        )


def _subset(data: DataSet, queries: Sequence[EvalQuestion], options: CalibrateOptions) -> dict[str, Document]:
    """The relevant documents and others drawn by the seed, in the order of the corpus."""
    chosen = {document for query in queries for document in data.grades[query.id]} & data.documents.keys()
    if not chosen:
        raise InvalidRequest(f"{data.folder}: none of the relevant documents is in the corpus; check their _id")
    others = sorted(data.documents.keys() - chosen)
    room = min(max(0, options.passages - len(chosen)), len(others))
    chosen.update(Random(f"distractors {options.seed}").sample(others, room))  # noqa: S311
    return {key: document for key, document in data.documents.items() if key in chosen}


def _judgements(data: DataSet, queries: Iterable[EvalQuestion]) -> Iterator[tuple[str, str, int]]:
    return ((query.id, document, grade) for query in queries for document, grade in data.grades[query.id].items())


def _one_model(graded: Iterable[Graded]) -> str:
    models = sorted({one.model for one in graded if not one.error})
    if len(models) > 1:
        raise InvalidRequest(
            f"the backend's model changed during the run ({', '.join(models)}); use --fresh to start again"
        )
    if not models:
        codes = ", ".join(sorted({one.error for one in graded}))
        raise InvalidRequest(f"no query could be graded ({codes}); `winnow doctor` shows the state of the backends")
    return models[0]


def _observed(graded: Iterable[Graded]) -> tuple[list[float], list[bool]]:
    pairs = [pair for one in graded for pair in zip(one.zs, one.relevant, strict=True)]
    return [z for z, _ in pairs], [label for _, label in pairs]


def held_out(graded: Sequence[Graded], seed: int) -> HeldOut | None:
    """A fit on half of the queries, tested on the others. Documents of one query are alike, and stay together."""
    shuffled = list(graded)
    Random(f"halves {seed}").shuffle(shuffled)  # noqa: S311
    middle = len(shuffled) // 2
    zs, relevant = _observed(shuffled[middle:])
    try:
        fitted = fit_calibration(*_observed(shuffled[:middle]), "").calibration
    except InvalidRequest:
        return None
    before, after = _scores(zs, Calibration()), _scores(zs, fitted)
    return HeldOut(
        n=len(zs),
        ece_before=calibration_error(reliability(before, relevant)),
        ece_after=calibration_error(reliability(after, relevant)),
        log_loss_before=log_loss(before, relevant),
        log_loss_after=log_loss(after, relevant),
    )


def _scores(zs: Iterable[float], calibration: Calibration) -> list[float]:
    return [score_of(z, calibration) for z in zs]


def _result(
    options: CalibrateOptions, model: str, fit: Fit, graded: Sequence[Graded], seconds: float, kept_in: str
) -> CalibrationReport:
    zs, relevant = _observed(graded)
    return CalibrationReport(
        backend=options.backend,
        model=model,
        prompt_version=PROMPT_VERSION,
        fit=fit,
        held_out=held_out(graded, options.seed),
        before=reliability(_scores(zs, Calibration()), relevant),
        after=reliability(_scores(zs, fit.calibration), relevant),
        queries=len(graded),
        failed=sum(bool(one.error) for one in graded),
        unread=sum(one.unread for one in graded),
        requests=sum(one.usage.requests for one in graded),
        cost_usd=sum(one.usage.cost_usd for one in graded),
        seconds=seconds,
        kept_in=kept_in,
    )
