"""Keys and rates that several replicas share, on a real PostgreSQL."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.access.access import REFRESH_S, Access
from app.access.keys import Key, KeyRequest, new_key
from app.access.shared import SharedRates
from app.config.settings import AccessSettings
from app.domain import Caller
from app.errors import NotAuthenticated, RateLimited
from indexing.postgres import Database, DatabaseAway
from tests.fakes.postgres import Postgres

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]

SEARCHING = KeyRequest(name="ci", scopes=("search",), requests_per_minute=2)


class Times:
    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def __call__(self) -> float:
        return self.seconds


class Replicas:
    """Two services over one database, with one clock."""

    def __init__(self, url: str) -> None:
        self.times = Times()
        self.databases = [Database(url) for _ in range(2)]
        self.one, self.other = (
            Access(Path("/nowhere"), AccessSettings(), self.times, self.times, database) for database in self.databases
        )

    async def later(self) -> None:
        """The next requests, when what is known is old."""
        self.times.seconds += REFRESH_S
        await self.one.refresh()
        await self.other.refresh()


@pytest.fixture
def replicas(database_url: str) -> Iterator[Replicas]:
    made = Replicas(database_url)
    yield made
    for database in made.databases:
        database.close()


def identify(access: Access, *tokens: str) -> Caller:
    return access.identify(tokens, operator=False, local=False)


def key(requests: int | None = None, tokens: int | None = None) -> Key:
    request = KeyRequest(name="ci", scopes=("search",), requests_per_minute=requests, tokens_per_minute=tokens)
    return new_key(request, (), 0.0)[0]


async def test_what_one_changes_the_other_notices(replicas: Replicas) -> None:
    """A new key is good and a revoked one refused there from the first request on that comes a moment later."""
    await replicas.later()
    assert not replicas.other.keyed
    _, token = replicas.one.file.create(SEARCHING)
    await replicas.later()
    assert [identify(access, token).key for access in (replicas.one, replicas.other)] == ["ci", "ci"]
    replicas.one.file.revoke("ci")
    await replicas.later()
    for access in (replicas.one, replicas.other):
        with pytest.raises(NotAuthenticated, match="the key 'ci' is revoked"):
            identify(access, token)


async def test_nobody_is_let_in_while_the_keys_are_away(replicas: Replicas, postgres: Postgres) -> None:
    """Not even a key that was good: whether it still is nobody knows. Afterwards it is again."""
    _, token = replicas.one.file.create(SEARCHING)
    await replicas.later()
    postgres.stop()
    try:
        await replicas.later()
        with pytest.raises(DatabaseAway, match="cannot be reached"):
            identify(replicas.one, token)
    finally:
        postgres.start()
    await replicas.later()
    assert identify(replicas.one, token).key == "ci"


async def test_a_rate_counts_once(replicas: Replicas) -> None:
    """Of many requests at once over both, as many pass as one service would let in; the others hear when to return."""
    _, token = replicas.one.file.create(SEARCHING)
    await replicas.later()
    caller = identify(replicas.one, token)
    asked = [access.admit(caller) for _ in range(20) for access in (replicas.one, replicas.other)]
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert results.count(None) == 2
    refused = [result for result in results if isinstance(result, RateLimited)]
    assert len(refused) == 38
    assert all(0 < result.retry_after <= 30 for result in refused)
    assert "may use 2 requests a minute" in str(refused[0])
    headers = dict(replicas.other.rate_headers(caller))
    assert headers[b"ratelimit-policy"] == b'"requests";q=2;w=60'
    assert headers[b"ratelimit"].startswith(b'"requests";r=0;t=')


async def test_tokens_are_paid_to_all(replicas: Replicas) -> None:
    """Who used more than there was on one replica waits on the other."""
    one, other = (SharedRates(database, replicas.times) for database in replicas.databases)
    replicas.one.load()
    ours = key(tokens=10)
    await one.admit(ours)
    for _ in range(3):
        one.spend(ours, 10)
    await one.close()
    with pytest.raises(RateLimited, match="may use 10 tokens a minute") as refused:
        await other.admit(ours)
    assert 60 < refused.value.retry_after <= 126


async def test_a_key_without_limits_costs_nothing(replicas: Replicas, postgres: Postgres) -> None:
    """The database is not asked, so that it may be away."""
    rates = SharedRates(replicas.databases[0], replicas.times)
    await rates.admit(key())
    assert rates.headers(key()) == []


async def test_tokens_wait_for_the_database(replicas: Replicas, postgres: Postgres) -> None:
    """What was used while it was away is counted when it is back."""
    rates = SharedRates(replicas.databases[0], replicas.times)
    replicas.one.load()
    ours = key(tokens=10)
    postgres.stop()
    try:
        rates.spend(ours, 100)
        await asyncio.sleep(0.05)
    finally:
        postgres.start()
    await rates.close()
    with pytest.raises(RateLimited):
        await rates.admit(ours)


@pytest.mark.parametrize("ahead_s", [86_400.0, -86_400.0])
async def test_keys_end_by_the_clock_of_the_database(database_url: str, ahead_s: float) -> None:
    """A secret that was rotated holds for its overlap where a machine's clock is a day off, and one made there too."""
    databases = [Database(database_url), Database(database_url, clock=lambda: time.time() + ahead_s)]
    one, other = (Access(Path("/nowhere"), AccessSettings(), database=database) for database in databases)
    for database in databases:
        database.hear_clock()
    _, token = one.file.create(SEARCHING)
    one.file.rotate("ci", 60)
    _, ending = other.file.create(KeyRequest(name="ends", scopes=("search",)))
    other.file.rotate("ends", 60)
    for access in (one, other):
        access.load()
        assert [identify(access, given).key for given in (token, ending)] == ["ci", "ends"]
    for database in databases:
        database.close()


async def test_a_service_that_starts_while_the_database_is_away_may_be_started_again() -> None:
    """No setting is wrong: the status of the command says that another start is worth it (`deploy/allinone.py`)."""
    database = Database("postgresql://winnow@127.0.0.1:9/none")
    with pytest.raises(DatabaseAway, match="cannot be reached"):
        Access(Path("/nowhere"), AccessSettings(), database=database).open()
    database.close()
