"""Which replica takes the lock of the index, and which leaves it to another one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.services.replicas import Replicas
from indexing.errors import IndexBusy, StoreUnavailable
from indexing.postgres import Database, DatabaseAway
from indexing.writer import HELD, WriterLock
from tests.fakes.postgres import Postgres

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]

CUT = "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory' AND granted"


@asynccontextmanager
async def listening() -> AsyncIterator[int]:
    """A port that others reach."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
async def standby(database_url: str) -> AsyncIterator[Replicas]:
    """A replica that does not write; it gives way for ever."""
    database = Database(database_url)
    replicas = Replicas(database, None, grace_s=1000)
    yield replicas
    await replicas.close()
    database.close()


def cut(postgres: Postgres, url: str) -> None:
    """End the connection that has the lock, as when the database fails."""
    postgres.sql(url.rpartition("/")[2].partition("?")[0], CUT)


@asynccontextmanager
async def writing(url: str) -> AsyncIterator[tuple[WriterLock, int]]:
    """A replica that writes and can be reached at a port; when it loses its connection, it is not told yet."""
    database = Database(url)
    async with listening() as port:
        writer = Replicas(database, f"http://127.0.0.1:{port}")
        lock = await writer.lock.get()
        await writer._tasks.cancel()
        writer.listens("127.0.0.1", port)
        await writer._tasks.ended()
        yield lock, port
    await writer.close()
    database.close()


async def test_a_standby_leaves_the_lock_to_the_writer_that_lost_it(
    postgres: Postgres, database_url: str, standby: Replicas
) -> None:
    """When the database comes back, whoever looks first would else write, and the writer that is there would end."""
    async with writing(database_url) as (lock, port):
        with pytest.raises(IndexBusy, match=HELD):
            await standby.lock.get()
        cut(postgres, database_url)
        for _ in range(3):
            with pytest.raises(IndexBusy, match=f"http://127.0.0.1:{port}, has lost the database"):
                await standby.lock.get()
        await asyncio.to_thread(lock.keep)
        with pytest.raises(IndexBusy, match=HELD):
            await standby.lock.get()
    await standby.lock.get()
    assert standby.writes


async def test_a_writer_that_is_gone_is_replaced_at_once(
    postgres: Postgres, database_url: str, standby: Replicas
) -> None:
    """Whoever was killed cannot be reached, and nobody waits for it."""
    async with writing(database_url) as (_, port):
        cut(postgres, database_url)
        with standby._database.connected() as db:
            db.execute("UPDATE writer SET url=?", (f"http://127.0.0.2:{port}",))
        await standby.lock.get()
    assert standby.writes


async def test_a_writer_that_does_not_come_back_is_replaced(postgres: Postgres, database_url: str) -> None:
    """As one that is there, and does not reach the database."""
    database = Database(database_url)
    standby = Replicas(database, None, grace_s=0)
    async with writing(database_url):
        cut(postgres, database_url)
        await standby.lock.get()
        assert standby.writes
    await standby.close()
    database.close()


async def test_a_database_that_comes_and_goes_gives_the_writer_its_time_anew(
    postgres: Postgres, database_url: str
) -> None:
    """It may be there for a moment before it fails again: the writer had no chance to take its place."""
    database = Database(database_url)
    standby = Replicas(database, None, grace_s=0.2)
    async with writing(database_url):
        cut(postgres, database_url)
        with pytest.raises(IndexBusy, match="has lost the database"):
            await standby.lock.get()
        postgres.stop()
        try:
            with pytest.raises(DatabaseAway):
                await standby.lock.get()
            await asyncio.sleep(0.2)
        finally:
            postgres.start()
        with pytest.raises(IndexBusy, match="has lost the database"):
            await standby.lock.get()
    await standby.close()
    database.close()


async def test_a_replica_does_not_wait_for_itself_or_for_one_that_ended(
    postgres: Postgres, database_url: str, standby: Replicas
) -> None:
    """One that is started again at the address of the writer that was killed, and one that takes over from a writer
    that has ended, though something answers there.
    """
    database = Database(database_url)
    async with writing(database_url) as (_, port):
        cut(postgres, database_url)
        again = Replicas(database, None, grace_s=1000)
        again.listens("127.0.0.1", port)
        await again.lock.get()
        await again.close()
        await standby.lock.get()
    database.close()


async def test_a_replica_that_does_not_write_announces_nothing() -> None:
    """So it asks the database for nothing, which may be away while it starts."""
    database = Database("postgresql://winnow@127.0.0.1:9/none")
    replicas = Replicas(database, None)
    replicas.listens("0.0.0.0", 9)  # noqa: S104
    (announcing,) = replicas._tasks._tasks
    await announcing
    await replicas.close()
    database.close()


async def test_an_older_replica_leaves_the_lock_to_those_who_can_write(database_url: str) -> None:
    """One that could not write the tables of a newer one would keep all others from writing."""
    database = Database(database_url)
    database.prepare("notes", ["CREATE TABLE notes (id BIGINT)", "ALTER TABLE notes ADD COLUMN text TEXT"])
    older = Replicas(database, None, [("notes", ["CREATE TABLE notes (id BIGINT)"])])
    with pytest.raises(StoreUnavailable, match=r"newer Winnow \(notes: version 2, this one knows 1\)"):
        await older.lock.get()
    other = Database(database_url)
    WriterLock(other).release()
    database.close()
    other.close()
