"""Asks many questions, a few at once, and keeps what came of each as soon as it is known."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import msgspec

from app.domain import BackendUse, Usage
from app.errors import BudgetExceeded, MissingCapability, UnknownBackend, WinnowError
from app.evaluating.data import Asked, SourceDocument
from app.evaluating.journal import Journal
from app.evaluating.progress import Progress, Tell, tell_nobody
from app.wiring import Services
from indexing.documents import Document
from indexing.errors import IndexingError
from indexing.intake import Handed

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
    found = {record.id: record for record in journal.begin(fresh=fresh) if record.id in wanted and not record.error}
    left = iter([asked for asked in questions if asked.id not in found])
    spent: list[BudgetExceeded] = []

    def report() -> None:
        usd = sum(record.usage.cost_usd for record in found.values())
        failed = sum(bool(record.error) for record in found.values())
        tell(Progress(step=step, done=len(found), total=len(questions), usd=usd, failed=failed))

    async def work() -> None:
        for asked in left:
            try:
                record = await ask(asked)
            except BudgetExceeded as exc:
                spent.append(exc)
            if spent:
                return
            journal.append(record)
            found[record.id] = record
            report()

    report()
    await together(work() for _ in range(at_once))
    if spent:
        raise _ended(spent[0], len(found), len(questions))
    return found


async def together(works: Iterable[Awaitable[None]]) -> None:
    """All of them. When one breaks or this is cancelled, none goes on; the first error is raised as it is."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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
) -> None:
    """Put them in an index of one's own; those that are there are not embedded again."""
    for start in range(0, len(documents), SLICE):
        tell(Progress(step="indexing", done=start, total=len(documents)))
        some = documents[start : start + SLICE]
        await services.library.put(
            collection,
            [Handed(document=Document(text=one.text, title=one.title), id=one.id) for one in some],
        )
    tell(Progress(step="indexing", done=len(documents), total=len(documents)))


def _ended(cause: BudgetExceeded, done: int, total: int) -> Ended:
    return Ended(
        f"{cause}; what came of {done} of {total} questions is kept: raise the budget (winnow usage shows it), and the "
        "same command goes on from there",
        cause.retry_after,
    )
