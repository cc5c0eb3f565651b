"""What replicas share of ranking, on a real PostgreSQL."""

import asyncio
from collections.abc import Iterator

import pytest

from app.ranking.calibration import Fit, StoredFit
from app.ranking.models import Calibration
from app.ranking.shared import CacheTable, SharedRanking, SharedTrust, read_trust, store_fit
from app.ranking.trust import Owner, TopicReading, topics
from indexing.postgres import Database
from tests.fakes.postgres import Postgres

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]

FIT = Fit(slope=2.0, offset=-1.0, data_hash="x", n=4, positives=2, ece_before=0.3, ece_after=0.1, log_loss=0.5)
OWNER: Owner = ("gemma", "gemma-3-4b", "p1", "judge")
READING = TopicReading((4.0,) * 2, (-4.0,) * 2)


Pair = tuple[Database, Database]


@pytest.fixture
def databases(database_url: str) -> Iterator[Pair]:
    made = Database(database_url), Database(database_url)
    yield made
    for database in made:
        database.close()


async def test_a_calibration_reaches_the_others(databases: Pair) -> None:
    """A new fit of the same model takes the place of the earlier one."""
    one, other = databases
    store_fit(one, StoredFit(model="m", prompt_version="p1", fit=FIT))
    ranking = SharedRanking(other, controls=True)
    await ranking.open()
    assert dict(ranking.fits) == {("m", "p1"): Calibration(slope=2.0, offset=-1.0)}
    later = Fit(slope=3.0, offset=0.0, data_hash="y", n=4, positives=2, ece_before=0.3, ece_after=0.1, log_loss=0.5)
    store_fit(one, StoredFit(model="m", prompt_version="p1", fit=later))
    await ranking.refresh()
    assert ranking.fits["m", "p1"] == Calibration(slope=3.0, offset=0.0)
    await ranking.close()


async def test_replicas_add_up_what_they_know_of_a_model(databases: Pair) -> None:
    """Each asks about some topics, and both know all of the answers; a new model of the backend begins anew."""
    books = [SharedTrust(database) for database in databases]
    for book, topic in zip(books, topics(), strict=False):
        book.add(OWNER, {topic: READING})
    for book in books:
        await book.close()
    known = read_trust(databases[0])[OWNER]
    assert known.readings == {topic.query: READING for topic in topics()[:2]}
    books[0].merge({OWNER: known})
    assert books[0].record(OWNER).readings == known.readings
    newer = (OWNER[0], "gemma-3-12b", *OWNER[2:])
    books[1].add(newer, {topics()[0]: READING})
    await books[1].close()
    assert set(read_trust(databases[0])) == {newer}


async def test_replies_are_shared_and_bounded(databases: Pair) -> None:
    """What one replica was told the other reads; of all the latest are kept, and none that is a month old."""
    one, other = (CacheTable(database, 3, pruned_after=2) for database in databases)
    one.write({"a": 0.5, "b": "7"})
    await one.close()
    assert await other.read(["a", "b", "c"]) == {"a": 0.5, "b": "7"}
    with databases[0].connected() as db:
        db.execute("UPDATE scores SET at = clock_timestamp() - interval '31 days' WHERE key = 'a'")
    assert await other.read(["a", "b"]) == {"b": "7"}
    for key in ("c", "d", "e", "f"):
        one.write({key: 1.0})
        await one.close()
    with databases[0].connected() as db:
        assert db.execute("SELECT key FROM scores ORDER BY key").fetchall() == [("d",), ("e",), ("f",)]


async def test_many_rankings_at_once_find_the_tables_missing(databases: Pair) -> None:
    """More of them than there are connections: each is written, and none waits for another."""
    cache = CacheTable(databases[0], 100)
    for n in range(20):
        cache.write({f"{n}": 0.5})
    await cache.close()
    with databases[1].connected() as db:
        assert db.execute("SELECT count(*) FROM scores").fetchone()[0] == 20


async def test_rankings_go_without_a_cache_that_is_away(postgres: Postgres, databases: Pair) -> None:
    """Nothing is raised, and it is not asked again for a while; nor does a slow one hold up a ranking."""
    cache, slow = (CacheTable(database, 10) for database in databases)
    cache.write({"a": 0.5})
    await cache.close()
    with databases[1].connected() as db, db.transaction():
        db.script("LOCK TABLE scores IN ACCESS EXCLUSIVE MODE")
        assert await slow.read(["a"]) == {}
    postgres.stop()
    try:
        assert await cache.read(["a"]) == {}
        cache.write({"b": 0.5})
        await cache.close()
    finally:
        postgres.start()
    assert await asyncio.gather(cache.read(["a"]), slow.read(["a"])) == [{}, {}]


async def test_what_another_version_wrote_is_passed_over(databases: Pair) -> None:
    """A reply that cannot be read is asked for again, and is no reason to do without the others or to stop reading."""
    cache = CacheTable(databases[0], 10)
    cache.write({"a": 0.5, "b": 0.5})
    await cache.close()
    ranking = SharedRanking(databases[0], controls=True)
    await ranking.open()
    with databases[1].connected() as db:
        db.execute("UPDATE scores SET reply = ? WHERE key = 'a'", (b"\xc1",))
        db.execute("INSERT INTO calibrations VALUES ('m', 'p2', ?)", (b"{}",))
    assert await cache.read(["a", "b"]) == {"b": 0.5}
    cache.write({"a": 0.25})
    await cache.close()
    assert await cache.read(["a", "b"]) == {"a": 0.25, "b": 0.5}
    await ranking.refresh()
    assert not ranking.fits
    store_fit(databases[1], StoredFit(model="m", prompt_version="p2", fit=FIT))
    await ranking.refresh()
    assert ("m", "p2") in ranking.fits
    await ranking.close()


async def test_ranking_waits_for_a_database_that_is_away(postgres: Postgres, databases: Pair) -> None:
    """Opening does not fail, and what was known counts until it is back."""
    store_fit(databases[0], StoredFit(model="m", prompt_version="p1", fit=FIT))
    ranking = SharedRanking(databases[1], controls=False)
    postgres.stop()
    try:
        await ranking.open()
        assert not ranking.fits
    finally:
        postgres.start()
    await ranking.refresh()
    assert ("m", "p1") in ranking.fits
    await ranking.close()
