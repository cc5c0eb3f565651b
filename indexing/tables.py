"""What the queries of this program need of a database, whichever it is: SQLite in a file, or PostgreSQL on a server.

The queries are written once, in the SQL that both understand, with `?` for parameters. Where the two differ for good is
in the definitions of the tables, which stand in pairs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from indexing.errors import StoreUnavailable

T = TypeVar("T")

Rows = list[tuple[Any, ...]]
Statement = tuple[str, Iterable[Sequence[object]]]
"""A statement and the parameters of each of its executions. A generator is consumed in the thread of the
database."""


class NotPrepared(StoreUnavailable):
    """The tables are of an earlier `version`, or not there (None), and whoever only reads leaves them so."""

    def __init__(self, detail: str, version: int | None) -> None:
        super().__init__(detail)
        self.version = version


class WrittenByNewer(StoreUnavailable):
    """The tables are of a later version than this program knows, and stay so."""


def earlier(what: str, version: int, newest: int) -> NotPrepared:
    """Of tables that a service of the earlier version may be using."""
    detail = f"{what} was written by an earlier Winnow: it has version {version}, this one reads {newest}"
    return NotPrepared(f"{detail}; start a service of this version, or use a command of the earlier one", version)


class Result(Protocol):
    """The rows that a statement gave, and how many it changed."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A connection in the hands of one thread."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Result: ...

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Any: ...

    def transaction(self, *, durable: bool = ...) -> AbstractContextManager[None]:
        """All of the block or nothing. `durable`: its commit waits for the disk, and survives a power cut."""
        ...


class Tables(ABC):
    """Tables that belong together, for an event loop. Raises StoreUnavailable, DiskFull.

    The calls of a process follow one another, each as a whole.
    """

    @abstractmethod
    async def close(self) -> None:
        """Finish the calls under way, then close."""

    @abstractmethod
    async def run(self, work: Callable[[Any], T]) -> T:
        """`work` with a `Connection`, in the thread of the database. A caller that is cancelled does not stop it."""

    async def query(self, make: Callable[[Rows], T], sql: str, *parameters: object) -> T:
        """What `make` makes of the rows. It runs in the thread too: there may be tens of thousands of rows."""

        def read(db: Connection) -> T:
            return make(db.execute(sql, parameters).fetchall())

        return await self.run(read)

    async def write(self, *statements: Statement, durable: bool = True) -> None:
        """Every statement for every one of its rows, in one transaction."""

        def execute(db: Connection) -> None:
            with db.transaction(durable=durable):
                for sql, rows in statements:
                    db.executemany(sql, rows)

        await self.run(execute)


def upsert(table: str, columns: Sequence[str], key: Sequence[str], rows: str = "") -> str:
    """Insert a row, or replace that with the same `key`. `rows` is a SELECT with a WHERE; "": VALUES of parameters."""
    rows = rows or f"VALUES ({','.join('?' * len(columns))})"
    others = ", ".join(f"{column}=excluded.{column}" for column in columns if column not in key)
    return f"INSERT INTO {table} ({', '.join(columns)}) {rows} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {others}"
