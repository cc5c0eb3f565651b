"""Runs the questions of a data set through the use cases, and resumes interrupted runs."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from app.config.settings import Settings
from app.domain import BackendUse, Usage
from app.errors import BudgetExceeded, InvalidRequest, MissingCapability, UnknownBackend, WinnowError
from app.evaluation.data import DataSet, EvalQuestion
from app.evaluation.models import EvaluationProgress
from app.ranking.calibration import Fits
from app.wiring import Services, build_services
from indexing.concurrency import together
from indexing.documents import EVERYTHING, Document
from indexing.pipeline.ingest import SubmittedDocument

FOLDER = "evals"


def folder_of(settings: Settings, data: DataSet) -> Path:
    """The folder in the home directory with the index of this data and the results of earlier runs."""
    return settings.index.home / FOLDER / data.digest[:16]


@asynccontextmanager
async def evaluation_services(
    settings: Settings, folder: Path, collection: str | None, fits: Fits | None = None
) -> AsyncIterator[tuple[Services, DataSet, Path]]:
    """Services for an evaluation, the data in `folder`, and the folder for results.

    The index is a separate one for this data, or with a `collection` the user's own. Scores are cached only within this
    run: one that an earlier request has paid for would seem to cost nothing.
    """
    data = DataSet(folder)
    results = folder_of(settings, data)
    ranking = msgspec.structs.replace(settings.ranking, cache="memory")
    settings = msgspec.structs.replace(settings, ranking=ranking)
    services = build_services(settings, index_home=None if collection else results, fits=fits, patient=True)
    try:
        yield services, data, results
    finally:
        await services.close()


T = TypeVar("T", bound=msgspec.Struct)


class Journal(Generic[T]):
    """A file of records, one per line. A line that was cut off when the process was killed is dropped."""

    def __init__(self, path: Path, kind: type[T]) -> None:
        self.path = path
        self._decoder = msgspec.json.Decoder(kind)

    def begin(self, *, fresh: bool) -> list[T]:
        """Repair the end of the file and return its records; if `fresh`, empty it. Raises InvalidRequest."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            file.seek(0)
            whole, end, _ = b"".partition(b"\n") if fresh else file.read().rpartition(b"\n")
            file.truncate(len(whole) + len(end))
        try:
            return [self._decoder.decode(line) for line in whole.splitlines()]
        except msgspec.MsgspecError as exc:
            raise InvalidRequest(f"{self.path} cannot be read; use --fresh to start again") from exc

    def append(self, record: T) -> None:
        """The record is written when this returns."""
        with self.path.open("ab") as file:
            file.write(msgspec.json.encode(record) + b"\n")


ShowProgress = Callable[[EvaluationProgress], None]


def show_nothing(_: EvaluationProgress) -> None:
    """For callers who do not show progress."""


BATCH = 256
"""Documents that are indexed between two reports of progress."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of every question. `error` is the code of what went wrong, or ""."""

    id: str
    error: str = ""
    usage: Usage = Usage()


R = TypeVar("R", bound=Record)


async def ask_all(
    step: str,
    questions: Sequence[EvalQuestion],
    ask: Callable[[EvalQuestion], Awaitable[R]],
    journal: Journal[R],
    *,
    concurrency: int,
    fresh: bool = False,
    show: ShowProgress = show_nothing,
) -> dict[str, R]:
    """The record of each question. Those in the journal are not asked again, except where they failed.

    An exception of `ask` ends the run. BudgetExceeded is raised only after the questions in progress have ended, so
    that what was paid for is kept.
    """
    ids = {question.id for question in questions}
    records: dict[str, R] = {}
    usd, failed = 0.0, 0
    spent: list[BudgetExceeded] = []

    def add(*new: R) -> None:
        nonlocal usd, failed
        for record in new:
            records[record.id] = record
            usd += record.usage.cost_usd
            failed += bool(record.error)
        show(EvaluationProgress(step=step, done=len(records), total=len(questions), usd=usd, failed=failed))

    async def work() -> None:
        for question in remaining:
            try:
                record = await ask(question)
            except BudgetExceeded as exc:
                spent.append(exc)
            else:
                journal.append(record)
                add(record)
            if spent:
                return

    add(*(record for record in journal.begin(fresh=fresh) if record.id in ids and not record.error))
    # One iterator for all workers: each takes the next question.
    remaining = iter([question for question in questions if question.id not in records])
    await together(work() for _ in range(concurrency))
    if spent:
        raise BudgetExceeded(
            f"{spent[0]}; the results of {len(records)} of {len(questions)} questions are kept: raise the budget (see "
            "winnow usage) and run the same command again to continue",
            spent[0].retry_after,
        )
    return records


async def with_error_record(work: Awaitable[R], failed: Callable[[str], R]) -> R:
    """The result of `work`, or the record of its error code where it says nothing about other questions."""
    try:
        return await work
    except (BudgetExceeded, MissingCapability, UnknownBackend):
        raise
    except WinnowError as exc:
        return failed(exc.code)


def check_budget(use: BackendUse) -> None:
    """Raise BudgetExceeded if a search was served without its backend because of a budget."""
    for fallback in use.fallbacks:
        if fallback.backend == use.requested and fallback.reason == BudgetExceeded.code:
            raise BudgetExceeded(f"the budget of {use.requested} is spent")


async def index_documents(
    services: Services, collection: str, documents: Mapping[str, Document], show: ShowProgress = show_nothing
) -> int:
    """Index documents by id; those that are indexed already are not embedded again. Returns how many failed."""
    submitted = [SubmittedDocument(document=document, id=key, writer=EVERYTHING) for key, document in documents.items()]
    failed = 0
    for start in range(0, len(submitted), BATCH):
        show(EvaluationProgress(step="indexing", done=start, total=len(submitted), failed=failed))
        outcomes = await services.documents.put(collection, submitted[start : start + BATCH])
        failed += sum(outcome.status == "failed" for outcome in outcomes)
    show(EvaluationProgress(step="indexing", done=len(submitted), total=len(submitted), failed=failed))
    return failed
