"""One replica at a time writes: its lock, what becomes of one that lost it, and the tables that ask for it."""

from collections.abc import Iterator

import pytest

from indexing.errors import IndexBusy, StoreUnavailable
from indexing.postgres import Database
from indexing.writer import PostgresTables, WriterLock
from tests.fakes.postgres import Postgres

FIRST = "CREATE TABLE notes (id BIGINT PRIMARY KEY, text TEXT)"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    database.prepare("notes", [FIRST])
    yield database
    database.close()


@pytest.mark.anyio
@pytest.mark.postgres
async def test_tables_write_in_one_transaction(database: Database) -> None:
    """Of several statements with several rows; what is read is made in the thread."""
    tables = PostgresTables(database, "notes", [FIRST])
    insert = "INSERT INTO notes (id) VALUES (?)"
    await tables.write((insert, ([n] for n in range(3))), ("UPDATE notes SET text=? WHERE id=?", [("x", 1)]))
    with pytest.raises(StoreUnavailable):
        await tables.write((insert, [[3]]), (insert, [[3]]))
    assert await tables.query(list, "SELECT id, text FROM notes ORDER BY id") == [(0, None), (1, "x"), (2, None)]
    await tables.close()
    with pytest.raises(StoreUnavailable, match="has been closed"):
        await tables.query(list, "SELECT 1")


@pytest.mark.postgres
def test_one_replica_writes_and_another_takes_over(database_url: str, database: Database) -> None:
    """Once the first has ended; what it still wanted to write is refused, and it hears of it."""
    other = Database(database_url)
    first = WriterLock(database)
    with pytest.raises(IndexBusy, match="another replica writes to the index"):
        WriterLock(other)
    first.keep()
    with database.connected() as db, db.transaction():
        first.guard(db)
    first.release()
    second = WriterLock(other)
    with pytest.raises(IndexBusy, match="has taken over"), database.connected() as db, db.transaction():
        first.guard(db)
    with pytest.raises(IndexBusy, match="another replica writes"):
        first.keep()
    second.release()
    with pytest.raises(IndexBusy, match="has taken over"):  # it ended meanwhile, and what it wrote is not known here
        first.keep()
    first.release()
    other.close()


@pytest.mark.postgres
def test_a_writer_survives_an_outage(postgres: Postgres, database: Database) -> None:
    """Where nobody took over, it goes on with the lock that it had."""
    lock = WriterLock(database)
    postgres.stop()
    try:
        with pytest.raises(StoreUnavailable):
            lock.keep()
    finally:
        postgres.start()
    lock.keep()
    with database.connected() as db, db.transaction():
        lock.guard(db)
    lock.release()


@pytest.mark.postgres
@pytest.mark.anyio
async def test_tables_refuse_what_their_guard_refuses(database_url: str, database: Database) -> None:
    """They can be read all the same."""
    lock = WriterLock(database)
    tables = PostgresTables(database, "notes", [FIRST], lock.guard)
    await tables.write(("INSERT INTO notes (id) VALUES (?)", [[1]]))
    lock.release()
    other = Database(database_url)
    taken = WriterLock(other)
    with pytest.raises(IndexBusy, match="has taken over"):
        await tables.write(("INSERT INTO notes (id) VALUES (?)", [[2]]))
    assert await tables.query(list, "SELECT id FROM notes") == [(1,)]
    await tables.close()
    taken.release()
    other.close()
