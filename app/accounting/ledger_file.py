"""The ledger's file: one SQLite database (WAL) that several processes may write, and any may read.

`calls` has a row for every model call, `spending` their sums by period and purse, kept in the same transaction: what
budgets need, without reading the calls. Money is picodollars (see `spending`).
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from app.accounting.records import CallRecord
from app.accounting.spending import Cell, Purse, Tally
from app.errors import ConfigError
from indexing.errors import StoreUnavailable

LEDGER_FILE = "ledger.sqlite3"

APPLICATION_ID = 0x574E4C47
"""Says that a SQLite file is ours: "WNLG"."""

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
)
"""How a file of version n (0: a new one) becomes one of version n + 1. Only ever added to."""

COLUMNS = CallRecord.__struct_fields__

_INSERT = f"INSERT INTO calls ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608
_ADD = (
    "INSERT INTO spending (period, scope, name, pico) VALUES (?, ?, ?, ?) "
    "ON CONFLICT DO UPDATE SET pico = pico + excluded.pico"
)


def open_for_writing(path: Path, busy_s: float = 5.0) -> sqlite3.Connection:
    """Make the file, or bring it up to date. Blocks. Raises ConfigError when it is none of ours, sqlite3.Error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
    try:
        _check(db, path)
        db.execute("PRAGMA journal_mode=WAL")
        # A commit is then safe from a kill, though not from a power cut, and waits for no disk.
        db.execute("PRAGMA synchronous=NORMAL")
        with _transaction(db):
            _migrate(db)
    except BaseException as exc:
        db.close()
        if isinstance(exc, sqlite3.DatabaseError) and exc.sqlite_errorcode in (sqlite3.SQLITE_NOTADB, _CORRUPT):
            raise ConfigError(f"{path} is damaged, or no ledger: {_FIX}") from exc
        raise
    return db


_CORRUPT = sqlite3.SQLITE_CORRUPT
_FIX = "restore it from a copy, or move it away and a new one is made"


def write(db: sqlite3.Connection, calls: Iterable[CallRecord], costs: Tally) -> None:
    """Add calls and what they cost, both or neither. Raises sqlite3.Error."""
    with _transaction(db):
        db.executemany(_INSERT, map(_row, calls))
        db.executemany(_ADD, [(cell.period, cell.purse.scope, _text(cell.purse.name), costs[cell]) for cell in costs])


def read_spending(db: sqlite3.Connection, periods: Iterable[str]) -> dict[Cell, int]:
    """The cells of these periods. Raises sqlite3.Error."""
    wanted = tuple(periods)
    sql = f"SELECT period, scope, name, pico FROM spending WHERE period IN ({', '.join('?' * len(wanted))})"  # noqa: S608
    return {Cell(period, Purse(scope, name)): pico for period, scope, name, pico in db.execute(sql, wanted)}


def changes_of_others(db: sqlite3.Connection) -> int:
    """A number that changes when another connection has written."""
    return int(db.execute("PRAGMA data_version").fetchone()[0])


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing. Waits for another process's to end."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection | None]:
    """A connection for queries, and the one seam for their errors; None when there is no ledger yet.

    Raises StoreUnavailable.
    """
    try:
        if not path.exists():
            yield None
            return
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as db:
            _check(db, path)
            yield db if _version(db) else None
    except (sqlite3.Error, ConfigError) as exc:
        raise StoreUnavailable(f"the ledger {path} cannot be read: {exc}") from exc


def _row(call: CallRecord) -> tuple[object, ...]:
    return tuple(_text(value) if isinstance(value, str) else value for value in msgspec.structs.astuple(call))


def _text(value: str) -> str:
    """A lone surrogate, as in a damaged header, is no UTF-8 and must not stop the ledger."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def _check(db: sqlite3.Connection, path: Path) -> None:
    whose = int(db.execute("PRAGMA application_id").fetchone()[0])
    tables = int(db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    if whose != APPLICATION_ID and (whose or tables):
        raise ConfigError(f"{path} is another program's database: move it away, or choose another WINNOW_HOME")
    if _version(db) > len(MIGRATIONS):
        raise ConfigError(f"{path} was written by a newer Winnow: upgrade, or move it away and a new one is made")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _migrate(db: sqlite3.Connection) -> None:
    """Inside a transaction: of two processes that start at once, one finds the work done."""
    for migration in MIGRATIONS[_version(db) :]:
        for statement in filter(str.strip, migration.split(";")):
            db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
