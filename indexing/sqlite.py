"""A SQLite file for an event loop: a thread of its own, migrations, and one seam for its errors."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from indexing.disk import disk_error
from indexing.errors import DiskFull, StoreUnavailable
from indexing.tables import Tables, earlier

T = TypeVar("T")

_BUSY_S = 30
_MOST_CHECKED = 500_000_000
"""Bytes of a file that are checked before it is opened: a second or two."""


class SqliteConnection(sqlite3.Connection):
    """`indexing.tables.Connection` to a file. Without an isolation level sqlite3 begins no transactions of its own."""

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """All of the block or nothing. `durable`: its commit waits for the disk, and survives a power cut."""
        self.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")  # cannot be changed inside a transaction
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            if self.in_transaction:  # where the disk is full, SQLite has rolled back already
                self.execute("ROLLBACK")
            raise


class SqliteFile(Tables):
    """One connection in WAL mode. Several processes may read the file while one writes. Raises StoreUnavailable,
    and DiskFull.

    A thread of its own holds the connection, and every call waits for it: SQLite may wait for a disk or read 50,000
    rows (160 ms), and an event loop must not. sqlite3 refuses the connection to any other thread, so a call that
    strays from it fails in the tests instead of blocking in production.

    A transaction that has returned survives a power cut (`synchronous=FULL`); one that need not passes `durable=False`.
    """

    def __init__(self, path: Path, what: str, migrations: Sequence[str], *, migrates: bool = True) -> None:
        """Create the file or bring its schema up to date: `migrations[n]` makes version n + 1 of version n. Unless it
        `migrates`, an earlier version raises NotPrepared.

        `what` names the file in errors ("the manifest"). Blocks: open it in a thread. Raises StoreUnavailable, also
        where the disk is full: whoever opens it first may only want to read.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise StoreUnavailable(str(disk_error(exc, f"{what} {path} cannot be created"))) from exc
        self.path = path
        self._what = what
        self._migrations, self._migrates = migrations, migrates
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"winnow-{path.stem}")
        try:
            self._db = self._thread.submit(self._connect).result()
        except DiskFull as exc:
            self._thread.shutdown(wait=False)
            raise StoreUnavailable(str(exc)) from exc
        except BaseException:
            self._thread.shutdown(wait=False)
            raise

    async def close(self) -> None:
        """Finish the calls under way, then close the file."""
        if not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._db.close)
            self._thread.shutdown(wait=False)

    async def run(self, work: Callable[[SqliteConnection], T]) -> T:
        """`work` in the thread that holds the connection. A caller that is cancelled does not stop it."""
        if self._closed:
            raise StoreUnavailable(f"{self._what} {self.path} has been closed")

        def in_thread() -> T:
            with self._sqlite_errors():
                return work(self._db)

        return await asyncio.get_running_loop().run_in_executor(self._thread, in_thread)

    def _connect(self) -> SqliteConnection:
        with self._sqlite_errors():
            db = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, factory=SqliteConnection)
            try:
                db.execute("PRAGMA journal_mode=WAL")
                self._migrate(db)
            except BaseException:
                db.close()
                raise
            return db

    def _migrate(self, db: SqliteConnection) -> None:
        newest, version = len(self._migrations), _version(db)
        if version == newest:
            return  # without a transaction: another process may be in the middle of a long one
        if version < newest and not self._migrates:
            raise earlier(f"{self._what} {self.path}", version, newest)
        with db.transaction():  # of two processes that start at the same time, the second finds the work done
            version = _version(db)
            if version > newest:
                raise StoreUnavailable(
                    f"{self._what} {self.path} was written by a newer Winnow (version {version}, this one knows "
                    f"{newest}): upgrade, or restore a snapshot of the earlier version"
                )
            for migration in self._migrations[version:]:
                for statement in filter(str.strip, migration.split(";")):
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {newest}")

    @contextmanager
    def _sqlite_errors(self) -> Iterator[None]:
        """The one seam for SQLite's errors."""
        try:
            yield
        except sqlite3.Error as exc:
            code = getattr(exc, "sqlite_errorcode", None)
            if code == sqlite3.SQLITE_FULL:
                raise DiskFull(
                    f"{self._what} {self.path} cannot be written: the disk is full; free some space"
                ) from exc
            # Readers need room, too: 32 KB of shared memory beside the file.
            why = "the disk is full; free some space" if code == sqlite3.SQLITE_IOERR_SHMSIZE else exc
            raise StoreUnavailable(f"{self._what} {self.path} cannot be used: {why}") from exc


def set_aside_if_damaged(path: Path, quarantine: Path) -> Path | None:
    """Move a file that SQLite cannot read to the directory `quarantine`; where it is now, None if nothing is wrong.

    Blocks. Raises StoreUnavailable, as for a quarantine that cannot be made.
    """
    if not _is_damaged(path):
        return None
    moved = quarantine / f"{path.name}.{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    try:
        quarantine.mkdir(parents=True, exist_ok=True, mode=0o700)
        for suffix in ("-wal", "-shm", ""):
            file = path.with_name(path.name + suffix)
            if file.exists():
                file.rename(moved.with_name(moved.name + suffix))
    except OSError as exc:
        raise StoreUnavailable(str(disk_error(exc, f"{path} is damaged, and cannot be moved to {quarantine}"))) from exc
    return moved


def _is_damaged(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size > _MOST_CHECKED:
        return False
    try:
        db = sqlite3.connect(path, timeout=_BUSY_S)
        try:
            return [str(row[0]) for row in db.execute("PRAGMA quick_check(1)")] != ["ok"]
        finally:
            db.close()
    except sqlite3.DatabaseError as exc:
        return getattr(exc, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])
