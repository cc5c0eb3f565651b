"""PostgreSQL for threads and event loops: a pool of connections, tables in versions, and one seam for its errors.

It looks like `indexing.sqlite` to whoever has queries for it. The driver is imported when a database is opened.
"""

import asyncio
import re
import select
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from indexing.database_url import SETTING, address_of, ssl_context
from indexing.errors import DiskFull, StoreBusy, StoreUnavailable
from indexing.tables import NotPrepared, Rows, WrittenByNewer, earlier

T = TypeVar("T")

Part = tuple[str, Sequence[str]]
"""A name for some tables, and their migrations: `migrations[n]` makes version n + 1 of version n."""

CONNECTIONS = 8
"""Of one process. PostgreSQL lets in 100 by default, of all."""

CONNECT_S, TIMEOUT_S = 5.0, 30.0
"""For a new connection; for a statement, and for a connection of the pool to become free."""

RETRY_S = 2.0
"""When whoever was refused may ask again."""

_SCHEMA = "winnow"
_STATEMENT_TIMEOUT = f"SET statement_timeout TO {int(TIMEOUT_S * 1000)}"
_SETTINGS = (
    f"SET search_path TO {_SCHEMA}, pg_catalog; "
    # A UNION ALL gives the rows of its parts in their order only where one process reads them.
    f"SET max_parallel_workers_per_gather TO 0; {_STATEMENT_TIMEOUT}; SET TIME ZONE 'UTC'"
)

_PARTS = "CREATE TABLE IF NOT EXISTS parts (part TEXT PRIMARY KEY, version BIGINT NOT NULL)"
_STEPPED = "INSERT INTO parts VALUES (?, ?) ON CONFLICT (part) DO UPDATE SET version=excluded.version"
_MIGRATING = "SELECT pg_try_advisory_lock(hashtextextended('winnow migrations', 0))"
_MIGRATED = "SELECT pg_advisory_unlock(hashtextextended('winnow migrations', 0))"
INDEX = re.compile(r"CREATE INDEX CONCURRENTLY IF NOT EXISTS (\w+) ")
"""A migration that is an index of a table which has rows."""
_INVALID = "SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass(?) AND NOT indisvalid"
_LOOK_S = 0.25
"""Between two looks at whether another replica has finished a migration, or a report lets go of a table."""
_LOCK_MS, _LOCK_TRIES = 250, 1200
"""How long a change of a table waits for it, while everyone else waits behind it; how often it tries."""
_CLOCK = "SELECT CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)"

_FULL, _LOCKED = "53100", "55P03"
_GONE = ("08", "57P", "53")
"""What the codes of errors begin with that pass: of connections, of a server that stops or starts, of its resources."""
_TRANSIENT = ("40001", "40P01", "55P03", "57014", "0A000")
"""Of transactions that were in each other's way or took too long, and of plans that a new version has overtaken."""
_REFUSED = {
    "28P01": "it does not accept the password",
    "28000": "it does not let this user in; its pg_hba.conf says whom",
    "3D000": "it has no such database; create it",
    "42501": "the user lacks rights; it must own the database, or the schema winnow in it",
}


class DatabaseAway(StoreBusy):
    """The database cannot be reached at the moment, or has no room."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, RETRY_S)


class _Result:
    def __init__(self, rows: Rows, rowcount: int) -> None:
        self._rows, self.rowcount = iter(rows), rowcount

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        return list(self._rows)

    def __iter__(self) -> Iterator[Any]:
        return self._rows


class PostgresConnection:
    """A connection in the hands of one thread. Statements have `?` for parameters, and are prepared once."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._prepared: dict[str, Any] = {}
        self.guard: Callable[[PostgresConnection], None] | None = None
        """Called at the beginning of a transaction, and may refuse it."""
        self._broken = False
        raw.py_types[bool] = lambda value: "1" if value else "0"  # for columns of numbers, as SQLite has them, too
        raw._usock.settimeout(TIMEOUT_S + CONNECT_S)  # the server's own limit comes first, and says what it is
        raw.execute_simple(_SETTINGS)

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> _Result:
        """One statement. Outside a transaction it is one by itself."""
        prepared = self._prepare(sql)
        rows = prepared.run(**{f"a{place}": _sendable(value) for place, value in enumerate(parameters)})
        return _Result([tuple(row) for row in rows or ()], prepared._context.row_count)

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> None:
        """One statement for each of its rows."""
        for row in parameters:
            self.execute(sql, row)

    def script(self, sql: str) -> None:
        """Several statements without parameters."""
        self._raw.execute_simple(sql)

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """All of the block or nothing. One that is not durable may be lost if the server's machine loses its power."""
        self._raw.execute_simple("BEGIN" if durable else "BEGIN; SET LOCAL synchronous_commit TO off")
        try:
            if self.guard is not None:
                self.guard(self)
            yield
            self._raw.execute_simple("COMMIT")
        except BaseException:
            try:
                self._raw.execute_simple("ROLLBACK")
            except Exception:  # noqa: BLE001 - the connection is gone, and the transaction with it
                self._broken = True
            raise

    @contextmanager
    def unhurried(self) -> Iterator[None]:
        """A statement may take as long as it takes, such as an index of millions of rows."""
        self._raw.execute_simple("SET statement_timeout TO 0")
        self._raw._usock.settimeout(None)
        try:
            yield
            self._raw.execute_simple(_STATEMENT_TIMEOUT)
        except BaseException:
            self._broken = True  # with settings that nobody expects
            raise
        finally:
            self._raw._usock.settimeout(TIMEOUT_S + CONNECT_S)

    def is_alive(self) -> bool:
        """Whether the server has said nothing since the last statement: what it says unasked is a farewell."""
        try:
            return not self._broken and not select.select([self._raw._usock], [], [], 0)[0]
        except (OSError, ValueError):
            return False

    @property
    def local_address(self) -> str:
        """This machine's, of the connection; "" of one by a Unix socket."""
        name = self._raw._usock.getsockname()
        return name[0] if isinstance(name, tuple) else ""

    def close(self) -> None:
        with suppress(Exception):
            self._raw.close()

    def _prepare(self, sql: str) -> Any:
        if (prepared := self._prepared.get(sql)) is None:
            places = iter(range(sql.count("?")))
            named = re.sub(r"\?", lambda _: f":a{next(places)}", sql)
            prepared = self._raw.prepare(named)
            if len(self._prepared) < 500:  # lists of parameters have statements of their own length
                self._prepared[sql] = prepared
        return prepared


class Database:
    """A few connections, opened as they are needed. Every call blocks. Raises StoreUnavailable, DiskFull.

    A connection that fails is not used again; while the server is away, every call says so (`DatabaseAway`).
    """

    def __init__(
        self,
        url: str,
        connections: int = CONNECTIONS,
        *,
        migrates: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Opens nothing. Raises ValueError for a URL that is none. Whoever only reads does not migrate: services of an
        earlier version may use the tables. `clock`: seconds since 1970 by this machine.
        """
        self.address = address_of(url)
        self._migrates = migrates
        self._clock, self._ahead_s = clock, 0.0
        self._free = threading.BoundedSemaphore(connections)
        self._guard = threading.Lock()
        self._idle: list[PostgresConnection] = []
        self._prepared: dict[str, int] = {}
        self._closed = False
        self._threads = ThreadPoolExecutor(connections, thread_name_prefix="winnow-database")

    @contextmanager
    def connected(self, part: Part | None = None) -> Iterator[PostgresConnection]:
        """A connection for this thread, where the tables of `part` are prepared, and the one seam for its errors."""
        if part is not None:  # before a connection is taken: whoever held one and waited for another might for ever
            self.prepare(*part)
        if not self._free.acquire(timeout=TIMEOUT_S):
            raise DatabaseAway(f"database {self.address.shown} is slow: all connections to it are in use")
        try:
            with self.errors():
                connection = self._taken() or PostgresConnection(self.connect())
                try:
                    yield connection
                except BaseException as exc:
                    if _is_lost(exc):
                        connection.close()
                    else:
                        self._give_back(connection)
                    raise
                self._give_back(connection)
        finally:
            self._free.release()

    async def run(self, work: Callable[[PostgresConnection], T], part: Part | None = None) -> T:
        """`work` with a connection, in a thread of the pool. A caller that is cancelled does not stop it."""

        def in_thread() -> T:
            with self.connected(part) as db:
                return work(db)

        return await asyncio.get_running_loop().run_in_executor(self._threads, in_thread)

    def prepare(self, part: str, migrations: Sequence[str]) -> None:
        """Create the tables of a part or bring them up to date. Asks the database once in the life of this object."""
        if self._prepared.get(part) == len(migrations):
            return
        with self.connected() as db:
            if (version := self.check(db, part, migrations)) != len(migrations):
                if not self._migrates:
                    raise self._not_prepared(part, version, len(migrations))
                self._migrate(db, part, migrations)
        self._prepared[part] = len(migrations)

    def check(self, db: PostgresConnection, part: str, migrations: Sequence[str]) -> int | None:
        """The version of the tables of a part, None where there are none. Raises WrittenByNewer."""
        version = _version(db, part)
        if version is not None and version > len(migrations):
            raise WrittenByNewer(
                f"database {self.address.shown} was written by a newer Winnow ({part}: version {version}, this "
                f"one knows {len(migrations)}): upgrade"
            )
        return version

    def _not_prepared(self, part: str, version: int | None, newest: int) -> NotPrepared:
        where = f"database {self.address.shown}"
        if version is None:
            return NotPrepared(f"{where} has no tables of Winnow yet ({part}): `winnow serve` makes them", None)
        return earlier(f"{where} ({part})", version, newest)

    def _migrate(self, db: PostgresConnection, part: str, migrations: Sequence[str]) -> None:
        """While others go on: see `_step`."""
        with _migrating(db):  # of two replicas that start at the same time, the second finds the work done
            db.script(f"CREATE SCHEMA IF NOT EXISTS {_SCHEMA}; {_PARTS}")
            for version in range(self.check(db, part, migrations) or 0, len(migrations)):
                _step(db, part, version + 1, migrations[version].strip())

    def now(self) -> float:
        """Seconds since 1970 by the clock of the database, which counts for all who share it, to some milliseconds; by
        that of this machine until it has been heard (`hear_clock`).
        """
        return self._clock() + self._ahead_s

    def hear_clock(self) -> None:
        """Ask for the time: machines may be hours apart, and may be set right at any moment."""
        with self.connected() as db:
            asked = self._clock()
            told = float(db.execute(_CLOCK).fetchone()[0])
            self._ahead_s = told - (asked + self._clock()) / 2

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it is given back."""
        with self._guard:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        self._threads.shutdown(wait=False)

    def _taken(self) -> PostgresConnection | None:
        while True:
            with self._guard:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if connection.is_alive():
                return connection
            connection.close()

    def _give_back(self, connection: PostgresConnection) -> None:
        with self._guard:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def connect(self) -> Any:
        """A connection of the driver's own, for whoever keeps it; `errors` are around it."""
        try:
            import pg8000.native
        except ImportError as exc:
            raise StoreUnavailable("a PostgreSQL database needs its driver: pip install 'winnow[postgres]'") from exc
        address = self.address
        return pg8000.native.Connection(
            address.user,
            host=address.host,
            port=address.port,
            database=address.database,
            password=address.password,
            unix_sock=address.socket,
            ssl_context=ssl_context(address),
            timeout=CONNECT_S,
            application_name="winnow",
        )

    @contextmanager
    def errors(self) -> Iterator[None]:
        """The one seam for the errors of the driver: they may hold what others wrote, and are not shown."""
        try:
            yield
        except Exception as exc:
            if type(exc).__module__ != "pg8000.exceptions" and not isinstance(exc, OSError):
                raise
            code = _code(exc)
            where = f"database {self.address.shown}"
            if not code:
                if isinstance(exc, ssl.SSLCertVerificationError):
                    why = f"is not believed to be itself: {exc.verify_message.rstrip('.')}; sslrootcert in {SETTING}"
                    raise StoreUnavailable(f"{where} {why} names the file of its authority") from exc
                why = f"{_cause(exc)}; is it running, and is {SETTING} right?"
                raise DatabaseAway(f"{where} cannot be reached: {why}") from exc
            if code in _REFUSED:
                raise StoreUnavailable(f"{where} refused the connection: {_REFUSED[code]} ({SETTING})") from exc
            if code == _FULL:
                raise DiskFull(f"{where} cannot be written: its disk is full; free some space") from exc
            if code.startswith(_GONE) or code in _TRANSIENT:
                raise DatabaseAway(f"{where} is not available at the moment (SQLSTATE {code})") from exc
            raise StoreUnavailable(f"{where} cannot be used (SQLSTATE {code}): {_message(exc)}") from exc


def open_database(url: str | None, *, migrates: bool = True) -> Database | None:
    """The database of the settings, if they name one; see `Database`. Nothing is opened yet."""
    return None if url is None else Database(url, migrates=migrates)


def clock_of(database: Database | None) -> Callable[[], float]:
    """What dates are told by that others compare with theirs: seconds since 1970."""
    return time.time if database is None else database.now


@contextmanager
def _migrating(db: PostgresConnection) -> Iterator[None]:
    """One at a time. Others look again and again: an index that is built beside the writers waits for every statement
    that has begun, which would be theirs, too, if they waited for the lock.
    """
    while not db.execute(_MIGRATING).fetchone()[0]:
        time.sleep(_LOOK_S)
    try:
        with db.unhurried():
            yield
    finally:
        with suppress(Exception):  # with its connection the lock is gone, too
            db.execute(_MIGRATED)


def _step(db: PostgresConnection, part: str, version: int, migration: str) -> None:
    """Make the tables those of the version. An index is a step by itself, built while others write. What changes a
    table waits for it briefly, and again, as everyone who comes after it has to wait as long.
    """
    if (index := INDEX.match(migration)) is not None:
        if db.execute(_INVALID, (f"{_SCHEMA}.{index[1]}",)).fetchone()[0]:  # of a process that was killed
            db.script(f"DROP INDEX CONCURRENTLY {index[1]}")
        db.script(migration)
        migration = ""
    for left in reversed(range(_LOCK_TRIES)):
        try:
            with db.transaction():
                db.script(f"SET LOCAL lock_timeout TO {_LOCK_MS}; {migration}")
                db.execute(_STEPPED, (part, version))
            return
        except Exception as exc:
            if _code(exc) != _LOCKED or not left:
                raise
        time.sleep(_LOOK_S)


def _sendable(value: Any) -> Any:
    """Texts that SQLite takes and PostgreSQL does not, with a null character or a lone surrogate, are made ones."""
    if not isinstance(value, str) or (value.isascii() and "\0" not in value):
        return value
    return value.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _version(db: PostgresConnection, part: str) -> int | None:
    """None where nothing is there yet."""
    if db.execute("SELECT to_regclass(?) IS NULL", (f"{_SCHEMA}.parts",)).fetchone()[0]:
        return None
    row = db.execute("SELECT version FROM parts WHERE part=?", (part,)).fetchone()
    return None if row is None else int(row[0])


def _code(exc: BaseException) -> str:
    """The server's SQLSTATE; "" where it said nothing."""
    fields = exc.args[0] if exc.args and isinstance(exc.args[0], dict) else {}
    return str(fields.get("C", ""))


def _message(exc: BaseException) -> str:
    """Of a statement that this program got wrong: it names tables and columns, and no values."""
    return str(exc.args[0].get("M", "")) if exc.args and isinstance(exc.args[0], dict) else ""


def _cause(exc: BaseException) -> str:
    if str(exc) == "Server refuses SSL":
        return "it does not encrypt, and sslmode asks for that"
    cause = exc.__cause__ if isinstance(exc.__cause__, OSError) else exc
    if isinstance(cause, TimeoutError):
        return "it does not answer"
    return (cause.strerror if isinstance(cause, OSError) else None) or "the connection was lost"


def _is_lost(exc: BaseException) -> bool:
    """Whether the connection is of no more use: nobody knows what it would answer next."""
    if isinstance(exc, OSError):
        return True
    if type(exc).__module__ != "pg8000.exceptions":
        return not isinstance(exc, Exception)
    code = _code(exc)
    return not code or code.startswith(_GONE) or code == "0A000"
