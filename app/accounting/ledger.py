"""The ledger: one row per model call, written in the background; its file, where one process has it to itself."""

import asyncio
import secrets
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from app.accounting.budgets import BudgetKey, Spending, period_of, spending_of
from app.errors import ConfigError
from indexing.errors import DiskFull, StoreUnavailable
from indexing.sqlite import SqliteConnection, set_aside_if_damaged
from indexing.tables import Connection


class CallRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One model call, in the order of the ledger's columns.

    `at_ms` is when it ended, in milliseconds since 1970. `input` includes `cached`, `output` excludes `thinking`.
    `estimated`: the server did not report the tokens. `pico` is the cost in picodollars. `gpu_s` is None for an API.
    `replica` is the number of the server of a backend that has several, else 0.
    """

    at_ms: int
    request_id: str
    stage: str
    backend: str
    kind: str
    model: str
    key: str
    outcome: str
    requests: int
    input: int
    cached: int
    output: int
    thinking: int
    estimated: bool
    pico: int
    price_source: str
    gpu_s: float | None
    latency_ms: float
    first_token_ms: float | None
    replica: int = 0


LEDGER_FILE = "ledger.sqlite3"

APPLICATION_ID = 0x574E4C47
"""Marks a SQLite file as a ledger of Winnow: "WNLG"."""

MIGRATIONS = (
    """
    CREATE TABLE calls (
      id INTEGER PRIMARY KEY,
      at_ms INTEGER NOT NULL, request_id TEXT NOT NULL, stage TEXT NOT NULL, backend TEXT NOT NULL, kind TEXT NOT NULL,
      model TEXT NOT NULL, key TEXT NOT NULL, outcome TEXT NOT NULL, requests INTEGER NOT NULL,
      input INTEGER NOT NULL, cached INTEGER NOT NULL, output INTEGER NOT NULL, thinking INTEGER NOT NULL,
      estimated INTEGER NOT NULL, pico INTEGER NOT NULL, price_source TEXT NOT NULL, gpu_s REAL,
      latency_ms REAL NOT NULL, first_token_ms REAL);
    CREATE INDEX calls_by_time ON calls (at_ms);
    CREATE TABLE spending (
      period TEXT NOT NULL, scope TEXT NOT NULL, name TEXT NOT NULL, pico INTEGER NOT NULL,
      PRIMARY KEY (period, scope, name)) WITHOUT ROWID;
    """,
    "ALTER TABLE calls ADD COLUMN replica INTEGER NOT NULL DEFAULT 0",
)
"""How a file of version n (0: a new one) becomes one of version n + 1. Append only."""

EARLIER = {1: "CREATE TEMP VIEW calls AS SELECT *, 0 AS replica FROM main.calls"}
"""How the calls of an earlier version look to whoever only reads: with the columns that they lack. A service of that
version may be writing the file.
"""

COLUMNS = CallRecord.__struct_fields__

_INSERT = f"INSERT INTO calls ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608
ADD_SPENDING = (
    "INSERT INTO spending (period, scope, name, pico) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (period, scope, name) DO UPDATE SET pico = spending.pico + excluded.pico"
)


def open_for_writing(path: Path, busy_s: float = 5.0) -> SqliteConnection:
    """Create the file, or migrate it. Blocks. Raises ConfigError if it is not a ledger, sqlite3.Error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False, factory=SqliteConnection)
    try:
        _check(db, path)
        db.execute("PRAGMA journal_mode=WAL")
        with _written(db):
            _migrate(db)
    except BaseException as exc:
        db.close()
        if isinstance(exc, sqlite3.DatabaseError) and exc.sqlite_errorcode in (sqlite3.SQLITE_NOTADB, _CORRUPT):
            raise ConfigError(f"{path} is damaged or not a ledger: {_FIX}") from exc
        raise
    return db


_CORRUPT = sqlite3.SQLITE_CORRUPT
_FIX = "restore it from a backup, or move it away to start a new one"


def write(db: SqliteConnection, calls: Iterable[CallRecord], costs: Spending) -> None:
    """Add calls and what they cost, both or neither. Raises sqlite3.Error."""
    with _written(db):
        db.executemany(_INSERT, map(row_of, calls))
        rows = [(period, key.scope, encodable(key.name), pico) for (period, key), pico in costs.items()]
        db.executemany(ADD_SPENDING, rows)


def read_spending(db: Connection, day: str, month: str) -> dict[tuple[str, BudgetKey], int]:
    """What was spent on this day and in this month. Raises sqlite3.Error."""
    rows = db.execute("SELECT period, scope, name, pico FROM spending WHERE period IN (?, ?)", (day, month))
    return {(period, BudgetKey(scope, name)): pico for period, scope, name, pico in rows}


def changes_of_others(db: sqlite3.Connection) -> int:
    """A number that changes whenever another connection has written."""
    return int(db.execute("PRAGMA data_version").fetchone()[0])


def _written(db: SqliteConnection) -> AbstractContextManager[None]:
    """A commit survives a kill of the process, though not a power cut, and does not wait for the disk."""
    return db.transaction(durable=False)


@contextmanager
def reading(path: Path) -> Iterator[SqliteConnection | None]:
    """A connection for queries, and the one seam for their errors; None when there is no ledger yet.

    Raises StoreUnavailable.
    """
    try:
        if not path.exists():
            yield None
            return
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=5, factory=SqliteConnection)) as db:
            _check(db, path)
            if earlier := EARLIER.get(_version(db)):
                db.execute(earlier)
            db.execute("BEGIN")  # all queries see the ledger at one moment
            yield db if _version(db) else None
    except (sqlite3.Error, ConfigError) as exc:
        raise StoreUnavailable(f"the ledger {path} cannot be read: {exc}") from exc


def row_of(call: CallRecord) -> tuple[object, ...]:
    """The values of the columns."""
    return tuple(encodable(value) if isinstance(value, str) else value for value in msgspec.structs.astuple(call))


def encodable(value: str) -> str:
    """A lone surrogate, as from a damaged header, cannot be written as UTF-8 and must not stop the ledger."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def _check(db: sqlite3.Connection, path: Path) -> None:
    application = int(db.execute("PRAGMA application_id").fetchone()[0])
    tables = int(db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    if application != APPLICATION_ID and (application or tables):
        raise ConfigError(f"{path} belongs to another program: move it away, or choose another WINNOW_HOME")
    if _version(db) > len(MIGRATIONS):
        raise ConfigError(f"{path} was written by a newer Winnow: upgrade, or move it away to start a new one")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _migrate(db: SqliteConnection) -> None:
    """Inside a transaction: of two processes that start at the same time, the second finds the work done."""
    for migration in MIGRATIONS[_version(db) :]:
        for statement in filter(str.strip, migration.split(";")):
            db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


Reading = Callable[[], AbstractContextManager[Connection | None]]
"""Opens a connection for queries, which all see the ledger at one moment; None where there is no ledger yet."""


class Entry(msgspec.Struct, frozen=True):
    """A call that is to be written, and the id of the reservation that it settles (0: none that others know of).

    `id` is its own: whoever does not know whether it was written finds it by that.
    """

    call: CallRecord
    id: int
    reservation: int = 0


class LedgerPlace(Protocol):
    """Where a ledger is written, by one thread. Raises `OF_THE_PLACE`, and ConfigError if it is no ledger."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def others(self) -> Spending:
        """What was spent today and this month by others than this process; a few seconds old."""
        ...

    @property
    def reading(self) -> Reading: ...

    @property
    def commit_wait_s(self) -> float:
        """How long the end of a call waits for its row to be committed."""
        ...

    def open(self) -> None: ...

    def peek(self) -> None:
        """Read what was spent, and create nothing."""
        ...

    def write(self, entries: Sequence[Entry]) -> None:
        """Commit them, all or none; every few seconds read what others spent. With none it only does the latter."""
        ...

    def close(self) -> None:
        """Works also after an error."""
        ...


OF_THE_PLACE = (sqlite3.Error, OSError, StoreUnavailable, DiskFull)

COMMIT_WAIT_S = 0.05
"""How long the end of a call waits for its row to be committed to a file."""

log = structlog.get_logger()


class LedgerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """While the disk fails, up to `pending` rows are kept; more are lost, and counted. A commit has up to `batch` rows.

    After a failure the next attempt is made `retry_s` later. Other processes' rows are read every `refresh_s`; a
    process that is writing is waited for up to `busy_s`.
    """

    pending: int = 100_000
    batch: int = 1000
    retry_s: float = 1.0
    refresh_s: float = 2.0
    busy_s: float = 5.0


class LedgerHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of this process's calls. `failure` says why they cannot be written at the moment, if so."""

    written: int
    pending: int
    lost: int
    failure: str


_PendingRow = tuple[Entry, "asyncio.Future[None]"]
"""A row, and the future that is resolved when it is committed."""


class Ledger:
    """Writes the rows of one process. Nothing is opened before `open` or the first row; `close` writes what is left.

    A full or failing disk fails no call: rows wait in memory, and `health` reports it. `now`: seconds since 1970.
    """

    def __init__(
        self, place: Path | LedgerPlace, limits: LedgerLimits | None = None, now: Callable[[], float] = time.time
    ) -> None:
        """In a file, or elsewhere."""
        self._limits = limits or LedgerLimits()
        self._now = now
        self._place: LedgerPlace = LedgerFile(place, self._limits, now) if isinstance(place, Path) else place
        self.reading = self._place.reading
        self._changed = threading.Condition()
        # Guarded by the condition. `_pending` includes the rows that are being written.
        self._pending: deque[_PendingRow] = deque()
        self._written = 0
        self._lost = 0
        self._failure = ""
        self._closing = False
        self._thread: threading.Thread | None = None

    @property
    def others(self) -> Spending:
        """What other processes and earlier ones have spent today and this month; a few seconds old."""
        return self._place.others

    def open(self) -> None:
        """Open the file and read what was spent. Blocks for milliseconds. Raises ConfigError if it is not a ledger.

        A file that SQLite cannot read is set aside: budgets then begin from nothing, and searching goes on. A failing
        disk is no error here either: opening is tried again.
        """
        try:
            self._place.open()
        except OF_THE_PLACE as exc:
            self._fail(exc)
        with self._changed:
            self._start()

    def peek(self) -> None:
        """Read what was spent, without creating a file. Blocks. Raises StoreUnavailable."""
        self._place.peek()

    async def append(self, call: CallRecord, reservation: int = 0) -> None:
        """Accept a row at once, then wait briefly for it to be committed, so that it survives a kill."""
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._accept(Entry(call, new_id(), reservation), committed):
            await asyncio.wait((committed,), timeout=self._place.commit_wait_s)

    def health(self) -> LedgerHealth:
        """How writing is going."""
        with self._changed:
            return LedgerHealth(
                written=self._written, pending=len(self._pending), lost=self._lost, failure=self._failure
            )

    def lag_s(self) -> float:
        """For how many seconds the oldest call has waited to be written; 0 if none waits."""
        with self._changed:
            return max(0.0, self._now() - self._pending[0][0].call.at_ms / 1000) if self._pending else 0.0

    def close(self) -> None:
        """Write what is left and stop. Blocks. What still cannot be written is lost, and logged."""
        with self._changed:
            self._closing = True
            if self._pending:
                self._start()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        self._place.close()
        if lost := len(self._pending):
            log.error("calls were lost: the ledger could not be written", calls=lost, why=self._failure)

    def _accept(self, entry: Entry, committed: "asyncio.Future[None]") -> bool:
        """Whether it is worth waiting for the commit."""
        with self._changed:
            if self._closing or len(self._pending) >= self._limits.pending:
                self._lost += 1
                return False
            self._pending.append((entry, committed))
            self._start()
            self._changed.notify()
            return not self._failure

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closing, timeout=self._limits.refresh_s)
                batch = list(islice(self._pending, self._limits.batch))
                closing = self._closing
            if closing and not batch:
                return
            try:
                self._place.write([entry for entry, _ in batch])
            except (*OF_THE_PLACE, ConfigError) as exc:
                self._fail(exc)
                if closing:
                    return
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, timeout=self._limits.retry_s)
            else:
                self._succeed(batch)

    def _succeed(self, batch: Sequence[_PendingRow]) -> None:
        with self._changed:
            for _ in batch:
                self._pending.popleft()
            self._written += len(batch)
            recovered, self._failure = self._failure, ""
        if recovered:
            log.info("the ledger is written again", path=self._place.name)
        waiting: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        for _, committed in batch:
            waiting.setdefault(committed.get_loop(), []).append(committed)
        for loop, futures in waiting.items():
            with suppress(RuntimeError):  # that loop has ended, and nobody waits in it
                loop.call_soon_threadsafe(_resolve, futures)

    def _fail(self, exc: Exception) -> None:
        with self._changed:
            earlier, self._failure = self._failure, str(exc)
        if not earlier:
            log.error("the ledger cannot be written: calls are kept in memory", path=self._place.name, why=str(exc))


def new_id() -> int:
    """Of a row that several processes know: 63 random bits."""
    return secrets.randbits(63) or 1


def _resolve(futures: Sequence["asyncio.Future[None]"]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


class LedgerFile:
    """The file, for the writing thread; tells what this process has spent from what others have."""

    def __init__(self, path: Path, limits: LedgerLimits, now: Callable[[], float]) -> None:
        self._path, self.name = path, str(path)
        self.reading: Reading = partial(reading, path)
        self.commit_wait_s = COMMIT_WAIT_S
        self._limits = limits
        self._now = now
        self._db: SqliteConnection | None = None
        self._checked = False
        self._own: Counter[tuple[str, BudgetKey]] = Counter()
        self._seen: tuple[object, ...] = ()
        self._next_refresh = 0.0
        self.others: Spending = {}

    def open(self) -> None:
        """The file is checked once, before it is first opened. Raises ConfigError and `OF_THE_PLACE`."""
        if self._db is None:
            if not self._checked:
                if moved := set_aside_if_damaged(self._path, self._path.parent / "quarantine"):
                    log.error("the ledger was damaged and is made anew; budgets begin at 0", moved_to=str(moved))
                self._checked = True
            self._db = open_for_writing(self._path, self._limits.busy_s)
            self._seen = ()
            self._refresh(self._db)

    def peek(self) -> None:
        """Raises StoreUnavailable."""
        at = self._now()
        with reading(self._path) as db:
            self.others = read_spending(db, period_of(at, "day"), period_of(at, "month")) if db else {}

    def write(self, entries: Sequence[Entry]) -> None:
        """Commit them, all or none; every few seconds read what others spent. Raises like `open`."""
        calls = [entry.call for entry in entries]
        try:
            self.open()
            assert self._db is not None  # noqa: S101 - for mypy
            if calls:
                costs = spending_of((call.at_ms / 1000, call.backend, call.key, call.pico) for call in calls)
                write(self._db, calls, costs)
                self._own.update(costs)
            if time.monotonic() >= self._next_refresh:
                self._refresh(self._db)
        except OF_THE_PLACE:
            self.close()  # the next attempt opens the file again
            raise

    def close(self) -> None:
        """Works also after an error."""
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _refresh(self, db: SqliteConnection) -> None:
        self._next_refresh = time.monotonic() + self._limits.refresh_s
        at = self._now()
        periods = period_of(at, "day"), period_of(at, "month")
        seen = changes_of_others(db), *periods
        if seen == self._seen:
            return
        for earlier in [entry for entry in self._own if entry[0] not in periods]:
            del self._own[earlier]
        spending = read_spending(db, *periods)
        self.others = {entry: pico - self._own[entry] for entry, pico in spending.items() if pico > self._own[entry]}
        self._seen = seen
