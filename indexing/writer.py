"""What one replica at a time may write to: the tables of the index in the database, and the lock that says who."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Lock
from typing import NamedTuple, TypeVar

from indexing.errors import DiskFull, IndexBusy, StoreUnavailable
from indexing.postgres import Database, Part, PostgresConnection
from indexing.tables import Connection, Tables

T = TypeVar("T")


class PostgresTables(Tables):
    """`indexing.tables.Tables` in a database. As with a file, one thread does the work of a process, in its order."""

    def __init__(
        self,
        database: Database,
        part: str,
        migrations: Sequence[str],
        guard: Callable[[PostgresConnection], None] | None = None,
    ) -> None:
        """Create the tables of the part, or bring them up to date. Blocks. `guard` may refuse what is to be written."""
        database.prepare(part, migrations)
        self._guard = guard
        self._database, self._what = database, part
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"winnow-{part}")

    async def close(self) -> None:
        """Finish the calls under way."""
        if not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, int)
            self._thread.shutdown(wait=False)

    async def run(self, work: Callable[[PostgresConnection], T]) -> T:
        """`work` in the thread. A caller that is cancelled does not stop it."""
        if self._closed:
            raise StoreUnavailable(f"{self._what} in database {self._database.address.shown} has been closed")

        def in_thread() -> T:
            with self._database.connected() as db:
                db.guard = self._guard
                try:
                    return work(db)
                finally:
                    db.guard = None

        return await asyncio.get_running_loop().run_in_executor(self._thread, in_thread)


MIGRATIONS = (
    "CREATE TABLE writer (token BIGINT NOT NULL); INSERT INTO writer VALUES (0)",
    "ALTER TABLE writer ADD COLUMN url TEXT NOT NULL DEFAULT '', ADD COLUMN secret TEXT NOT NULL DEFAULT ''",
)
PART = ("writer", MIGRATIONS)
_TAKE = "UPDATE writer SET token=token+1, url='', secret='' RETURNING token"
_LEAVE = "UPDATE writer SET url='', secret='' WHERE token=?"
_LOCK = "SELECT pg_try_advisory_lock(hashtextextended('winnow writer', 0))"
_UNLOCK = "SELECT pg_advisory_unlock(hashtextextended('winnow writer', 0))"
_HOLDER = """SELECT host(client_addr)
  FROM pg_locks LEFT JOIN pg_stat_activity USING (pid), hashtextextended('winnow writer', 0) AS key
  WHERE locktype = 'advisory' AND granted AND objsubid = 1
    AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND CAST(classid AS BIGINT) = key >> 32 & 4294967295 AND CAST(objid AS BIGINT) = key & 4294967295"""
HELD = "another replica writes to the index; this one takes over when that one ends"
_KEEPALIVE = "SET tcp_keepalives_idle TO 10; SET tcp_keepalives_interval TO 5; SET tcp_keepalives_count TO 3"


class Writer(NamedTuple):
    """Where the replica that writes can be reached, and what shows it that another replica asks; "" before it says."""

    url: str
    secret: str


def writer_in(db: Connection) -> Writer:
    """Who said so last. It may have ended since."""
    return Writer(*db.execute("SELECT url, secret FROM writer").fetchone())


def holder(db: Connection) -> str | None:
    """The address of the process that has the lock, as the database sees it; "" if hidden, None if nobody has it."""
    row = db.execute(_HOLDER).fetchone()
    return None if row is None else str(row[0] or "")


class WriterLock:
    """One replica at a time writes to the index: the one that has this lock, as long as its connection lasts.

    Whoever gets it counts a token up. What is written to shared tables asks for the token (`guard`): a replica that
    lost its connection, and does not know yet that another took over, writes nothing. Every method blocks.
    """

    def __init__(self, database: Database, parts: Sequence[Part] = ()) -> None:
        """Raises IndexBusy, and StoreUnavailable, also where a newer Winnow has written one of the `parts`: whoever
        cannot write them must not keep others from it.
        """
        database.prepare(*PART)
        self._database, self._one_asks = database, Lock()
        with database.errors():
            self._connection = self._locked()
            try:
                for part in parts:
                    database.check(self._connection, *part)
                with self._connection.transaction():
                    row = self._connection.execute(_TAKE).fetchone()
            except BaseException:
                self._connection.close()
                raise
        self._token = int(row[0])

    def announce(self, writer: Writer) -> None:
        """Let the other replicas know. Raises StoreUnavailable."""
        with self._database.connected() as db:
            db.execute("UPDATE writer SET url=?, secret=? WHERE token=?", (*writer, self._token))

    def guard(self, db: PostgresConnection) -> None:
        """Raises IndexBusy where another replica has taken over; until the transaction ends none can."""
        if db.execute("SELECT token FROM writer WHERE token=? FOR SHARE", (self._token,)).fetchone() is None:
            raise IndexBusy("another replica has taken over writing to the index; start this one again")

    def keep(self) -> None:
        """Get it back if the connection was lost. Raises IndexBusy where another replica has it, StoreUnavailable."""
        with self._one_asks:
            try:
                with self._database.errors():
                    self._connection.execute("SELECT 1")
            except StoreUnavailable:
                self._connection.close()
                with self._database.errors():
                    self._connection = self._locked()
            with self._database.errors():
                self.guard(self._connection)

    def release(self) -> None:
        """Let another replica write, which need not wait for this one."""
        with self._one_asks:
            with suppress(StoreUnavailable, DiskFull), self._database.errors():
                self._connection.execute(_LEAVE, (self._token,))
                self._connection.execute(_UNLOCK)  # the server ends the connection a moment after it is closed
            self._connection.close()

    def _locked(self) -> PostgresConnection:
        connection = PostgresConnection(self._database.connect())
        try:
            connection.script(_KEEPALIVE)  # a machine that vanished lets go within half a minute
            if connection.execute(_LOCK).fetchone()[0]:
                return connection
        except BaseException:
            connection.close()
            raise
        connection.close()
        raise IndexBusy(HELD)
