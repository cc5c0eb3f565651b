"""Asks many questions, a few at once, and keeps what came of each as soon as it is known."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Generic, TypeVar

import msgspec

from app.concurrency import together
from app.domain import BackendUse, Usage
from app.errors import BudgetExceeded, MissingCapability, UnknownBackend, WinnowError
from app.evaluation.data import Asked, SourceDocument
from app.evaluation.journal import Journal
from app.evaluation.progress import Progress, Tell, tell_nobody
from app.wiring import Services
from indexing.documents import Document
from indexing.errors import IndexingError
from indexing.pipeline.ingest import Handed

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
    at_once: int,
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
    await together(run.work(left, ask) for _ in range(at_once))
    if run.spent:
        raise _ended(run.spent, len(run.found), len(questions))
    return run.found


class _Run(Generic[R]):
    """What has come of the questions so far."""

    def __init__(self, step: str, total: int, journal: Journal[R], known: dict[str, R], tell: Tell) -> None:
        self._progress = Progress(step=step, done=0, total=total)
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
    except IndexingError as exc:
        return failed(type(exc).__name__)


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
        tell(Progress(step="indexing", done=start, total=len(documents), failed=failed))
        some = [
            Handed(document=Document(text=one.text, title=one.title), id=one.id)
            for one in documents[start : start + SLICE]
        ]
        failed += sum(outcome.status == "failed" for outcome in await services.library.put(collection, some))
    tell(Progress(step="indexing", done=len(documents), total=len(documents), failed=failed))
    return failed


def _ended(cause: BudgetExceeded, done: int, total: int) -> Ended:
    return Ended(
        f"{cause}; what came of {done} of {total} questions is kept: raise the budget (winnow usage shows it), and the "
        "same command goes on from there",
        cause.retry_after,
    )
