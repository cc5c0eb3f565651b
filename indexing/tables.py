"""What the queries of this program need of a database, whichever it is: SQLite in a file, or PostgreSQL on a server.

The queries are written once, in the SQL that both understand, with `?` for parameters. Where the two differ for good is
in the definitions of the tables, which stand in pairs.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar, cast

from indexing import sqlite
from indexing.sqlite import Rows, Statement

T = TypeVar("T")


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


class Tables(Protocol):
    """Tables that belong together, for an event loop. Raises StoreUnavailable, DiskFull.

    The calls of a process follow one another, each as a whole.
    """

    async def close(self) -> None:
        """Finish the calls under way, then close."""
        ...

    async def query(self, make: Callable[[Rows], T], sql: str, *parameters: object) -> T:
        """What `make` makes of the rows, in the thread of the database."""
        ...

    async def write(self, *statements: Statement, durable: bool = True) -> None:
        """Every statement for every one of its rows, in one transaction."""
        ...

    async def run(self, work: Callable[[Any], T]) -> T:
        """`work` with a `Connection`, in the thread of the database. A caller that is cancelled does not stop it."""
        ...


class _Transacting(Connection, Protocol):
    def transaction(self, *, durable: bool) -> AbstractContextManager[None]: ...


@contextmanager
def transaction(db: Connection, *, durable: bool = True) -> Iterator[None]:
    """All of the block or nothing. `durable`: its commit waits for the disk, and survives a power cut."""
    begun = (
        sqlite.transaction(db, durable=durable)
        if isinstance(db, sqlite3.Connection)
        else cast(_Transacting, db).transaction(durable=durable)
    )
    with begun:
        yield


def upsert(table: str, columns: Sequence[str], key: Sequence[str], rows: str = "") -> str:
    """Insert a row, or replace that with the same `key`. `rows` is a SELECT with a WHERE; "": VALUES of parameters."""
    rows = rows or f"VALUES ({','.join('?' * len(columns))})"
    others = ", ".join(f"{column}=excluded.{column}" for column in columns if column not in key)
    return f"INSERT INTO {table} ({', '.join(columns)}) {rows} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {others}"
