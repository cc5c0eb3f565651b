"""What the queries of this program need of a database, whichever it is: SQLite in a file, or PostgreSQL on a server.

The queries are written once, in the SQL that both understand, with `?` for parameters. Where the two differ for good is
in the definitions of the tables, which stand in pairs.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar

from indexing import sqlite

T = TypeVar("T")

Rows = list[tuple[Any, ...]]


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


class _Transacting(Connection, Protocol):
    def transaction(self, *, durable: bool) -> AbstractContextManager[None]: ...


@contextmanager
def transaction(db: sqlite3.Connection | _Transacting, *, durable: bool = True) -> Iterator[None]:
    """All of the block or nothing. `durable`: its commit waits for the disk, and survives a power cut."""
    begun = (
        sqlite.transaction(db, durable=durable)
        if isinstance(db, sqlite3.Connection)
        else db.transaction(durable=durable)
    )
    with begun:
        yield
