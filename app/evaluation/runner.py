"""Runs the questions of a data set through the real use cases, and resumes where it was stopped."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from app.config.settings import Settings
from app.domain import BackendUse, Usage
from app.errors import BudgetExceeded, InvalidRequest, MissingCapability, UnknownBackend, WinnowError
from app.evaluation.data import Asked, DataSet, SourceDocument
from app.evaluation.models import EvaluationProgress
from app.ranking.calibration import Fits
from app.wiring import Services, build_services
from indexing.concurrency import together
from indexing.documents import Document
from indexing.pipeline.ingest import SubmittedDocument

FOLDER = "evals"


def folder_of(settings: Settings, data: DataSet) -> Path:
    """Where in the home the index of this data and what was found out are kept, for the next run."""
    return settings.index.home / FOLDER / data.digest[:16]


@asynccontextmanager
async def evaluation_services(
    settings: Settings, folder: Path, collection: str | None, fits: Fits | None = None
) -> AsyncIterator[tuple[Services, DataSet, Path]]:
    """With the data in `folder`, and where what is found out of it is kept.

    The index is a new one of that data, or with a `collection` the user's own. Scores are remembered within this run
    alone: one that an earlier request has paid for would seem to cost nothing.
    """
    data = DataSet(folder)
    kept = folder_of(settings, data)
    ranking = msgspec.structs.replace(settings.ranking, cache="memory")
    settings = msgspec.structs.replace(settings, ranking=ranking)
    services = build_services(settings, index_home=None if collection else kept, fits=fits)
    try:
        yield services, data, kept
    finally:
        await services.close()


T = TypeVar("T", bound=msgspec.Struct)


class Journal(Generic[T]):
    """Records, one a line. A line that was being written when the process ended is forgotten."""

    def __init__(self, path: Path, kind: type[T]) -> None:
        self.path = path
        self._decoder = msgspec.json.Decoder(kind)

    def begin(self, *, fresh: bool) -> list[T]:
        """What is in it, in order, after its end is mended; nothing any more if `fresh`. Raises InvalidRequest."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            file.seek(0)
            whole, end, _ = b"".partition(b"\n") if fresh else file.read().rpartition(b"\n")
            file.truncate(len(whole) + len(end))
        try:
            return [self._decoder.decode(line) for line in whole.splitlines()]
        except msgspec.MsgspecError as exc:
            raise InvalidRequest(f"{self.path} cannot be read; --fresh begins anew") from exc

    def append(self, record: T) -> None:
        """Written when this returns."""
        with self.path.open("ab") as file:
            file.write(msgspec.json.encode(record) + b"\n")


Tell = Callable[[EvaluationProgress], None]


def tell_nobody(_: EvaluationProgress) -> None:
    """For callers who do not listen."""


SLICE = 256
"""Documents that are indexed between two reports of progress."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to keep of any question. `error` is the code of what went wrong, "" if nothing did."""

    id: str
    error: str = ""
    usage: Usage = Usage()


R = TypeVar("R", bound=Record)


class Ended(BudgetExceeded):
    """A budget ended the run; all that was asked before is kept."""


async def ask_all(
    step: str,
    questions: Sequence[Asked],
    ask: Callable[[Asked], Awaitable[R]],
    journal: Journal[R],
    *,
    concurrency: int,
    fresh: bool = False,
    tell: Tell = tell_nobody,
) -> dict[str, R]:
    """What came of each, by id. What the journal holds is not asked again, but for what failed.

    `ask` raises what ends everything. Raises Ended when that is a spent budget, after what is under way has ended.
    """
    wanted = {asked.id for asked in questions}
    known = {record.id: record for record in journal.begin(fresh=fresh) if record.id in wanted and not record.error}
    run = _Run(step, len(questions), journal, known, tell)
    left = iter([asked for asked in questions if asked.id not in known])
    await together(run.work(left, ask) for _ in range(concurrency))
    if run.spent:
        raise _ended(run.spent, len(run.found), len(questions))
    return run.found


class _Run(Generic[R]):
    """What has come of the questions so far."""

    def __init__(self, step: str, total: int, journal: Journal[R], known: dict[str, R], tell: Tell) -> None:
        self._progress = EvaluationProgress(step=step, done=0, total=total)
        self._journal, self._tell = journal, tell
        self.found: dict[str, R] = {}
        self.spent: BudgetExceeded | None = None
        self._note(*known.values())

    async def work(self, left: Iterator[Asked], ask: Callable[[Asked], Awaitable[R]]) -> None:
        """Ask one after another, as long as there are some and the budget allows it."""
        for asked in left:
            try:
                record = await ask(asked)
            except BudgetExceeded as exc:
                self.spent = exc
            else:
                self._journal.append(record)
                self._note(record)
            if self.spent:
                return

    def _note(self, *records: R) -> None:
        self.found |= {record.id: record for record in records}
        before = self._progress
        self._progress = msgspec.structs.replace(
            before,
            done=len(self.found),
            usd=before.usd + sum(record.usage.cost_usd for record in records),
            failed=before.failed + sum(bool(record.error) for record in records),
        )
        self._tell(self._progress)


async def failing_softly(work: Awaitable[R], failed: Callable[[str], R]) -> R:
    """What `work` comes to; if it fails in a way that says nothing about other questions, what `failed` makes of it."""
    try:
        return await work
    except (BudgetExceeded, MissingCapability, UnknownBackend):
        raise
    except WinnowError as exc:
        return failed(exc.code)


def check_budget(use: BackendUse) -> None:
    """Raises BudgetExceeded when a search went without its backend for want of money."""
    for fallback in use.fallbacks:
        if fallback.backend == use.requested and fallback.reason == BudgetExceeded.code:
            raise BudgetExceeded(f"the budget of {use.requested} is spent")


async def index_documents(
    services: Services, collection: str, documents: Sequence[SourceDocument], tell: Tell = tell_nobody
) -> int:
    """Put them in an index of one's own, where those that are there are not embedded again. How many cannot be."""
    failed = 0
    for start in range(0, len(documents), SLICE):
        tell(EvaluationProgress(step="indexing", done=start, total=len(documents), failed=failed))
        some = [
            SubmittedDocument(document=Document(text=one.text, title=one.title), id=one.id)
            for one in documents[start : start + SLICE]
        ]
        failed += sum(outcome.status == "failed" for outcome in await services.documents.put(collection, some))
    tell(EvaluationProgress(step="indexing", done=len(documents), total=len(documents), failed=failed))
    return failed


def _ended(cause: BudgetExceeded, done: int, total: int) -> Ended:
    return Ended(
        f"{cause}; what came of {done} of {total} questions is kept: raise the budget (winnow usage shows it), and the "
        "same command goes on from there",
        cause.retry_after,
    )
