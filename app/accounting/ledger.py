"""The ledger: a row for every model call, written by a thread of its own so that no request waits for the disk."""

import asyncio
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import msgspec
import structlog

from app.accounting.ledger_file import changes_of_others, open_for_writing, read_spending, reading, write
from app.accounting.records import CallRecord
from app.accounting.spending import Cell, Tally, period_of, tallied
from app.errors import ConfigError

PATIENCE_S = 0.05
"""How long the end of a call waits for its row."""

log = structlog.get_logger()


class LedgerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`pending` rows are kept while the disk fails; more are lost, and counted. `batch` rows are one commit.

    After a failure the next attempt comes `retry_s` later. Every `refresh_s` it looks for other processes' rows;
    `busy_s` it waits for one that is writing.
    """

    pending: int = 100_000
    batch: int = 1000
    retry_s: float = 1.0
    refresh_s: float = 2.0
    busy_s: float = 5.0


class LedgerHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Counts this process's calls. `failure` says why they are not written just now; "" when all is well."""

    written: int
    pending: int
    lost: int
    failure: str


class _Waiter(msgspec.Struct, frozen=True):
    """Somebody who wants to know that a row is written."""

    loop: asyncio.AbstractEventLoop
    done: "asyncio.Future[None]"


class Ledger:
    """Takes the rows of one process. Nothing is opened before `open` or the first row; `close` writes what is left.

    A full or failing disk fails no call: rows wait in memory, and `health` tells. `now`: seconds since 1970.
    """

    def __init__(self, path: Path, limits: LedgerLimits | None = None, now: Callable[[], float] = time.time) -> None:
        self.path = path
        self._limits = limits or LedgerLimits()
        self._file = _File(path, self._limits, now)
        self._stirred = threading.Condition()
        # What follows is the lock's: rows with who waits for them, those that are being written among them.
        self._pending: deque[tuple[CallRecord, _Waiter | None]] = deque()
        self._written = 0
        self._lost = 0
        self._failure = ""
        self._closing = False
        self._thread: threading.Thread | None = None

    @property
    def others(self) -> Tally:
        """What other processes, and this one's predecessors, spent today and this month; a few seconds old."""
        return self._file.others

    def open(self) -> None:
        """Open the file and read what was spent. Blocks for milliseconds. Raises ConfigError when it is none of ours.

        A disk that fails is no error here either: it is tried again.
        """
        try:
            self._file.open()
        except (sqlite3.Error, OSError) as exc:
            self._fail(exc)
        with self._stirred:
            self._start()

    def peek(self) -> None:
        """Read what was spent, without making a file: for who only wants to look. Blocks. Raises StoreUnavailable."""
        self._file.peek()

    async def append(self, call: CallRecord) -> None:
        """Take a row, at once; then wait until it is safe from a kill of this process, but only briefly."""
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop, loop.create_future())
        if self._take(call, waiter):
            await asyncio.wait((waiter.done,), timeout=PATIENCE_S)

    def health(self) -> LedgerHealth:
        """How the writing goes."""
        with self._stirred:
            return LedgerHealth(
                written=self._written, pending=len(self._pending), lost=self._lost, failure=self._failure
            )

    def close(self) -> None:
        """Write what is left and end. Blocks. What cannot be written even now is lost, and logged."""
        with self._stirred:
            self._closing = True
            if self._pending:
                self._start()
            self._stirred.notify_all()
        if self._thread is not None:
            self._thread.join()
        self._file.close()
        if left := len(self._pending):
            log.error("calls were lost: the ledger could not be written", calls=left, why=self._failure)

    def _take(self, call: CallRecord, waiter: _Waiter) -> bool:
        """Whether it is worth waiting."""
        with self._stirred:
            if self._closing or len(self._pending) >= self._limits.pending:
                self._lost += 1
                return False
            self._pending.append((call, waiter))
            self._start()
            self._stirred.notify()
            return not self._failure

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._stirred:
                self._stirred.wait_for(self._has_work, timeout=self._limits.refresh_s)
                batch = list(islice(self._pending, self._limits.batch))
                closing = self._closing
            if closing and not batch:
                return
            try:
                self._file.write([call for call, _ in batch])
            except (sqlite3.Error, OSError, ConfigError) as exc:
                self._fail(exc)
                if closing:
                    return
                with self._stirred:
                    self._stirred.wait_for(lambda: self._closing, timeout=self._limits.retry_s)
            else:
                self._succeed(batch)

    def _has_work(self) -> bool:
        return bool(self._pending) or self._closing

    def _succeed(self, batch: Sequence[tuple[CallRecord, _Waiter | None]]) -> None:
        with self._stirred:
            for _ in batch:
                self._pending.popleft()
            self._written += len(batch)
            recovered, self._failure = self._failure, ""
        if recovered:
            log.info("the ledger is written again", path=str(self.path))
        waiting: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        for _, waiter in batch:
            if waiter is not None:
                waiting.setdefault(waiter.loop, []).append(waiter.done)
        for loop, futures in waiting.items():
            with suppress(RuntimeError):  # that loop has ended, and nobody waits in it
                loop.call_soon_threadsafe(_tell, futures)

    def _fail(self, exc: Exception) -> None:
        with self._stirred:
            known, self._failure = self._failure, str(exc)
        if not known:
            log.error("the ledger cannot be written: calls are kept in memory", path=str(self.path), why=str(exc))


def _tell(futures: Sequence["asyncio.Future[None]"]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


class _File:
    """The file as the writing thread knows it, and how its sums divide between us and others."""

    def __init__(self, path: Path, limits: LedgerLimits, now: Callable[[], float]) -> None:
        self._path = path
        self._limits = limits
        self._now = now
        self._db: sqlite3.Connection | None = None
        self._own: Counter[Cell] = Counter()
        self._seen: tuple[object, ...] = ()
        self._look_at = 0.0
        self.others: Tally = {}

    def open(self) -> None:
        """Raises ConfigError, sqlite3.Error, OSError."""
        if self._db is None:
            self._db = open_for_writing(self._path, self._limits.busy_s)
            self._seen = ()
            self._look(self._db)

    def peek(self) -> None:
        """Raises StoreUnavailable."""
        at = self._now()
        with reading(self._path) as db:
            self.others = read_spending(db, (period_of(at, "day"), period_of(at, "month"))) if db else {}

    def write(self, calls: Sequence[CallRecord]) -> None:
        """Commit them, all or none; now and then look for others'. Raises like `open`."""
        try:
            self.open()
            assert self._db is not None  # noqa: S101 - for mypy
            if calls:
                costs = tallied((call.at_ms / 1000, call.backend, call.key, call.pico) for call in calls)
                write(self._db, calls, costs)
                self._own.update(costs)
            if time.monotonic() >= self._look_at:
                self._look(self._db)
        except (sqlite3.Error, OSError):
            self.close()  # the next attempt begins afresh
            raise

    def close(self) -> None:
        """Also after an error."""
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _look(self, db: sqlite3.Connection) -> None:
        self._look_at = time.monotonic() + self._limits.refresh_s
        at = self._now()
        periods = period_of(at, "day"), period_of(at, "month")
        seen = changes_of_others(db), *periods
        if seen == self._seen:
            return
        for cell in [cell for cell in self._own if cell.period not in periods]:
            del self._own[cell]
        held = read_spending(db, periods)
        self.others = {cell: pico - self._own[cell] for cell, pico in held.items() if pico > self._own[cell]}
        self._seen = seen
