"""Use case: what a backend's scores are worth, measured on judged documents, and put right from then on."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random

import msgspec

from app.domain import Caller, Query, RankingOptions, SearchResult
from app.errors import InvalidRequest, MissingCapability
from app.evaluation.data import Asked, DataSet, SourceDocument, digest_of, sample
from app.evaluation.models import CalibrateOptions
from app.evaluation.runner import Journal, Record, Tell, ask_all, failing_softly, index_documents, tell_nobody
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

CALLER = Caller(key="calibrate")

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
    """What a model said of one query's documents: z before calibration, and whether the document is relevant."""

    model: str = ""
    zs: tuple[float, ...] = ()
    relevant: tuple[bool, ...] = ()
    unread: int = 0


async def calibrate(
    services: Services, data: DataSet, options: CalibrateOptions, folder: Path, tell: Tell = tell_nobody
) -> CalibrationReport:
    """Ask, fit, keep in the home. `services` rank without calibration; `folder` keeps what was found out so far.

    Raises UnknownBackend, MissingCapability, Ended, and InvalidRequest where nothing can be fitted.
    """
    began = time.perf_counter()
    await _check(services, options)
    queries = sample(data.judged, options.queries, options.seed)
    collection = options.collection
    if collection is None:
        parts = options.seed, options.queries, options.passages, services.embedder.fingerprint
        collection = f"calibrate-{digest_of(*parts)}"
        await index_documents(services, collection, _subset(data, queries, options), tell)
    asking = _Asking(services, data, options, collection)
    journal = Journal(folder / f"calibrate-{asking.key(services.embedder.fingerprint)}.jsonl", Graded)
    found = await ask_all(
        f"grading with {options.backend}", queries, asking.ask, journal,
        concurrency=options.concurrency, fresh=options.fresh, tell=tell,
    )  # fmt: skip
    graded = [found[query.id] for query in queries]
    model, judgements = _one_model(graded), judgements_hash(_judgements(data, queries))
    fit = fit_calibration(*_observed(graded), judgements)
    kept_in = services.settings.index.home / FITS_FILE
    store_fit(kept_in, StoredFit(model=model, prompt_version=PROMPT_VERSION, fit=fit))
    return _result(options, model, fit, graded, time.perf_counter() - began, kept_in)


class _Asking:
    def __init__(self, services: Services, data: DataSet, options: CalibrateOptions, collection: str) -> None:
        self._services, self._data, self._options = services, data, options
        self._collection = collection

    def key(self, fingerprint: str) -> str:
        """Of all that the grades depend on."""
        options = msgspec.structs.replace(self._options, fresh=False, concurrency=1)
        told = self._services.settings.backends.get(options.backend)
        return digest_of(self._data.digest, options, told and told.model, fingerprint, PROMPT_VERSION)

    async def ask(self, asked: Asked) -> Graded:
        """What the model says of one query's documents."""
        return await failing_softly(self._ask(asked), lambda code: Graded(id=asked.id, error=code))

    async def _ask(self, asked: Asked) -> Graded:
        depth = self._options.depth
        ranking = RankingOptions(strategy="graded", depth=depth, deadline_ms=_DEADLINE_MS, on_failure="fail")
        query = Query(
            text=asked.text,
            collection=self._collection,
            backend=self._options.backend,
            limit=depth,
            candidates=depth,
            ranking=ranking,
            group_by_document=True,
            include_text=False,
        )
        return _graded(asked.id, await self._services.searcher.search(query, CALLER), self._data)


def _graded(query: str, found: SearchResult, data: DataSet) -> Graded:
    """A document counts with its best passage. A score without calibration is sigmoid(z)."""
    relevant = data.grades.get(query, {})
    read = [hit for hit in found.results if hit.ranked_by == found.backend.used]
    return Graded(
        id=query,
        usage=found.usage,
        model=found.backend.model or "",
        zs=tuple(math.log(hit.score / (1 - hit.score)) for hit in read),
        relevant=tuple(hit.document_id in relevant for hit in read),
        unread=len(found.results) - len(read),
    )


async def _check(services: Services, options: CalibrateOptions) -> None:
    who = await services.rankers.select(options.backend)
    if who.requested not in services.settings.backends:
        known = ", ".join(services.settings.backends) or "none is configured"
        raise MissingCapability(f"calibrate needs the name of one model's backend, not {options.backend!r}: {known}")


def _subset(data: DataSet, queries: Sequence[Asked], options: CalibrateOptions) -> list[SourceDocument]:
    """The relevant ones, and others drawn by the seed, in the corpus' order."""
    wanted = {document for query in queries for document in data.grades[query.id]} & data.documents.keys()
    if not wanted:
        raise InvalidRequest(f"{data.folder}: none of the relevant documents is in the corpus; compare their _id")
    others = sorted(data.documents.keys() - wanted)
    room = min(max(0, options.passages - len(wanted)), len(others))
    wanted.update(Random(f"distractors {options.seed}").sample(others, room))  # noqa: S311
    return [document for key, document in data.documents.items() if key in wanted]


def _judgements(data: DataSet, queries: Iterable[Asked]) -> Iterator[tuple[str, str, int]]:
    return ((query.id, document, grade) for query in queries for document, grade in data.grades[query.id].items())


def _one_model(graded: Iterable[Graded]) -> str:
    models = sorted({one.model for one in graded if not one.error})
    if len(models) > 1:
        raise InvalidRequest(f"the backend's model changed in between ({', '.join(models)}); --fresh begins anew")
    if not models:
        codes = ", ".join(sorted({one.error for one in graded}))
        raise InvalidRequest(f"no query could be graded ({codes}); `winnow doctor` shows the state of the backends")
    return models[0]


def _observed(graded: Iterable[Graded]) -> tuple[list[float], list[bool]]:
    pairs = [pair for one in graded for pair in zip(one.zs, one.relevant, strict=True)]
    return [z for z, _ in pairs], [label for _, label in pairs]


def held_out(graded: Sequence[Graded], seed: int) -> HeldOut | None:
    """Halves of the queries, not of their documents: those of one query are alike."""
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
    options: CalibrateOptions, model: str, fit: Fit, graded: Sequence[Graded], seconds: float, kept_in: Path
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
        kept_in=str(kept_in),
    )
