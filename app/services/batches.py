"""Use case: judge many texts with the options of one request, a few at once, in order, with constant memory.

    entries ──▶ reader ──▶ line of places, in order ──▶ outcomes
                  │  takes a slot                │  waits for the first place
                  ▼                              ▼
              one task for each text that is not judged already

The reader stops while all slots are taken or the line is full: who reads the outcomes slowly is sent no further, and
who sends the entries is read no further.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from app.backends.base import Call, call_of
from app.domain import BackendUse, Caller, Usage
from app.errors import BudgetExceeded, Overloaded, Resting, UpstreamRateLimited, WinnowError
from indexing.concurrency import BackgroundTasks, pauses

DEFAULT_CONCURRENCY = 32
"""Half of what a backend lets in by default: the other half is for those who wait for one answer."""

MAX_CONCURRENCY = 256

AHEAD = 4
"""For each text that may be judged at once, so many may be read before the first of them is done."""

REMEMBERED_CHARACTERS = 4_000_000
REMEMBERED_TEXTS = 4_096
"""The latest texts, so long as they are no more than this in all, are not judged again."""

FIRST_PAUSE_S = 1.0
"""Before a text is tried again where nobody said when; twice as long each time."""

LONGEST_PAUSE_S = 30.0

Result = TypeVar("Result")
Options = TypeVar("Options", contravariant=True)


class Judged(msgspec.Struct, Generic[Result], frozen=True, kw_only=True):
    """What came of one text, and which backend it is from."""

    result: Result
    backend: BackendUse


class TextJudge(Protocol[Result]):
    """Judges texts one by one with the options of one request, which were checked when it was made."""

    async def one(self, text: str, call: Call) -> Judged[Result]:
        """Raises WinnowError if this text fails."""
        ...


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A text to be judged, or why there is none, under the id that its outcome will have."""

    id: int | str
    text: str = ""
    problem: WinnowError | None = None


class Outcome(msgspec.Struct, Generic[Result], frozen=True, kw_only=True):
    """What came of an entry: `judged`, or `error`. The same text again is `repeated`, and used nothing."""

    id: int | str
    judged: Judged[Result] | None = None
    error: Exception | None = None
    usage: Usage = Usage()
    repeated: bool = False


class _Work(msgspec.Struct, Generic[Result], frozen=True, kw_only=True):
    """How the judging of a text ended."""

    judged: Judged[Result] | None = None
    error: Exception | None = None
    usage: Usage = Usage()


class _Place(msgspec.Struct, Generic[Result], frozen=True):
    """In the line of outcomes: an entry, and the task on its text, which may have been begun for an earlier one."""

    entry: Entry
    work: "asyncio.Task[_Work[Result]] | None"
    repeated: bool = False


class _Recent(Generic[Result]):
    """The tasks on the latest texts, by text."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[str, asyncio.Task[_Work[Result]]] = OrderedDict()
        self._characters = 0

    def find(self, text: str) -> "asyncio.Task[_Work[Result]] | None":
        """The task on that text; one that failed is not worth having."""
        task = self._tasks.get(text)
        if task is None or (task.done() and (task.cancelled() or task.result().error is not None)):
            return None
        self._tasks.move_to_end(text)
        return task

    def keep(self, text: str, task: "asyncio.Task[_Work[Result]]") -> None:
        """Remember it, and forget the oldest beyond the limits."""
        if text not in self._tasks:
            self._characters += len(text)
        self._tasks[text] = task
        self._tasks.move_to_end(text)
        while len(self._tasks) > REMEMBERED_TEXTS or self._characters > REMEMBERED_CHARACTERS:
            oldest, _ = self._tasks.popitem(last=False)
            self._characters -= len(oldest)


class Batch(Generic[Result]):
    """Judges the texts of one request, at most `concurrency` at once; `open_call` makes the call of each.

    A text that fails is an outcome with its error, never the end of the batch. One that is refused for want of room
    waits, as long as its call may last. Once the budget is spent, the texts that are left get that error unasked.
    """

    def __init__(self, judge: TextJudge[Result], open_call: Callable[[], Call], concurrency: int) -> None:
        self._judge, self._open_call = judge, open_call
        self._slots = asyncio.Semaphore(concurrency)
        self._ahead = AHEAD * concurrency
        self._recent: _Recent[Result] = _Recent()
        self._running = BackgroundTasks()
        self._spent: BudgetExceeded | None = None

    async def run(self, entries: AsyncGenerator[Entry, None]) -> AsyncGenerator[Outcome[Result], None]:
        """The outcomes, in the order of the entries. Raises what `entries` raises, after what came before it.

        Closing it cancels the calls that are under way, and closes `entries`.
        """
        line: asyncio.Queue[_Place[Result] | Exception | None] = asyncio.Queue(self._ahead)
        self._running.start(self._read(entries, line))
        try:
            while (place := await line.get()) is not None:
                if isinstance(place, Exception):
                    raise place
                yield await _outcome(place)
        finally:
            await self._running.cancel()
            await entries.aclose()

    async def _read(
        self, entries: AsyncGenerator[Entry, None], line: "asyncio.Queue[_Place[Result] | Exception | None]"
    ) -> None:
        last: Exception | None = None
        try:
            async for entry in entries:
                await line.put(await self._begin(entry))
        except Exception as exc:  # noqa: BLE001 - `run` raises it
            last = exc
        await line.put(last)

    async def _begin(self, entry: Entry) -> _Place[Result]:
        if entry.problem is not None:
            return _Place(entry, None)
        if (earlier := self._recent.find(entry.text)) is not None:
            return _Place(entry, earlier, repeated=True)
        await self._slots.acquire()
        task = self._running.start(self._work(entry.text))
        task.add_done_callback(lambda _: self._slots.release())
        self._recent.keep(entry.text, task)
        return _Place(entry, task)

    async def _work(self, text: str) -> _Work[Result]:
        if self._spent is not None:
            return _Work(error=self._spent)
        call = self._open_call()
        try:
            return _Work(judged=await self._patiently(text, call), usage=call.account.usage())
        except BudgetExceeded as exc:
            self._spent = exc
            return _Work(error=exc, usage=call.account.usage())
        except Exception as exc:  # noqa: BLE001 - a fault of ours is this text's, too; who shows it logs it
            return _Work(error=exc, usage=call.account.usage())

    async def _patiently(self, text: str, call: Call) -> Judged[Result]:
        """Try again while there is no room, as long as the call may last: nobody waits for this one text."""
        waits = pauses(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while True:
            try:
                return await self._judge.one(text, call)
            except (Overloaded, Resting, UpstreamRateLimited) as exc:
                pause_s = next(waits)
                wait_s = exc.retry_after or pause_s
                for_today = isinstance(exc, UpstreamRateLimited) and exc.quota == "day"
                if for_today or wait_s >= call.deadline.left() or self._spent is not None:
                    raise
            await asyncio.sleep(wait_s)


class Judging(Protocol[Options, Result]):
    """A use case over texts: its stage, and what makes the judge of a request."""

    @property
    def stage(self) -> str: ...

    async def judge(self, options: Options) -> TextJudge[Result]:
        """Raises InvalidRequest, UnknownBackend, MissingCapability."""
        ...


async def batch_of(
    service: Judging[Options, Result], options: Options, caller: Caller, *, concurrency: int, deadline_s: float
) -> Batch[Result]:
    """A batch with these options, each text of which may take so long. Raises what making the judge raises."""
    judge = await service.judge(options)
    return Batch(judge, lambda: call_of(service.stage, deadline_s, caller), concurrency)


async def _outcome(place: _Place[Result]) -> Outcome[Result]:
    if place.work is None:
        return Outcome(id=place.entry.id, error=place.entry.problem)
    work = await asyncio.shield(place.work)
    usage = Usage() if place.repeated else work.usage
    return Outcome(id=place.entry.id, judged=work.judged, error=work.error, usage=usage, repeated=place.repeated)


async def judge_list(batch: Batch[Result], texts: Sequence[str]) -> list[Outcome[Result]]:
    """The outcomes of texts that are all there, in order; their ids count from 0."""
    return [outcome async for outcome in batch.run(_entries(texts))]


async def _entries(texts: Sequence[str]) -> AsyncGenerator[Entry, None]:
    for number, text in enumerate(texts):
        yield Entry(id=number, text=text)
