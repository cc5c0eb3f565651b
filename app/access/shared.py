"""The keys and the rates of several replicas, in their PostgreSQL database.

A bucket is a moment: that at which it will be full again. Who takes from it moves the moment on; how much is left
follows from how far ahead of now it is. The database's clock counts, and its lock on the row lets in one at a time.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import structlog

from app.access.key_file import Keys, Stamp, keys_in
from app.access.keys import Key
from app.access.rates import MINUTE_S, Rates
from app.errors import RateLimited, WinnowError
from indexing.postgres import Database, PostgresConnection
from indexing.tables import Connection, NotPrepared

MIGRATIONS = (
    """
CREATE TABLE keys (id TEXT COLLATE "C" PRIMARY KEY, name TEXT COLLATE "C" NOT NULL UNIQUE, record BYTEA NOT NULL);
CREATE TABLE keys_version (version BIGINT NOT NULL);
INSERT INTO keys_version VALUES (0);
CREATE TABLE rates (
  key TEXT COLLATE "C" PRIMARY KEY, requests TIMESTAMPTZ NOT NULL, tokens TIMESTAMPTZ NOT NULL);

-- How many seconds the buckets are from being full, and whether a request was taken; NULL a minute: no limit.
CREATE FUNCTION admit(caller TEXT, requests_a_minute DOUBLE PRECISION, tokens_a_minute DOUBLE PRECISION)
RETURNS TABLE (admitted BOOLEAN, requests_s DOUBLE PRECISION, tokens_s DOUBLE PRECISION) LANGUAGE plpgsql AS $$
DECLARE bucket rates; moment TIMESTAMPTZ;
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);
  LOOP
    SELECT * INTO bucket FROM rates WHERE key = caller FOR UPDATE;
    EXIT WHEN FOUND;
    INSERT INTO rates VALUES (caller, '-infinity', '-infinity') ON CONFLICT DO NOTHING;
  END LOOP;
  moment := clock_timestamp();  -- after the wait for the row
  requests_s := extract(epoch FROM greatest(bucket.requests, moment) - moment);
  tokens_s := extract(epoch FROM greatest(bucket.tokens, moment) - moment);
  admitted := coalesce(requests_s <= 60.00001 - 60 / requests_a_minute, true)
    AND coalesce(tokens_s <= 60.00001 - 60 / tokens_a_minute, true);
  IF admitted AND requests_a_minute IS NOT NULL THEN
    requests_s := requests_s + 60 / requests_a_minute;
    UPDATE rates SET requests = moment + requests_s * interval '1 second' WHERE key = caller;
  END IF;
  RETURN NEXT;
END$$;
""",
)
_PART = ("access", MIGRATIONS)

_SPEND = """INSERT INTO rates VALUES (?, '-infinity', clock_timestamp() + ? * interval '1 second')
  ON CONFLICT (key) DO UPDATE SET tokens = greatest(rates.tokens, clock_timestamp()) + ? * interval '1 second'"""

_PAUSE_S = 1.0
"""Before tokens that could not be counted are tried again."""

log = structlog.get_logger()


class KeyTable(Keys):
    """Keys in the database. Each change raises a number, by which replicas notice it."""

    quick = False

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.path = Path(database.address.shown)
        self._database = database

    def stamp(self) -> Stamp | None:
        """The number of changes; None where there are no tables, for whoever only reads."""
        with self._reading() as db:
            return (int(db.execute("SELECT version FROM keys_version").fetchone()[0]),) if db else None

    def is_settled(self, stamp: Stamp | None) -> bool:
        """Always: a change and its number are one transaction."""
        return True

    def all(self) -> list[Key]:
        """All of them, the revoked ones too, by name."""
        with self._reading() as db:
            return keys_in(db) if db else []

    @contextmanager
    def _reading(self) -> Iterator[Connection | None]:
        try:
            self._database.prepare(*_PART)
        except NotPrepared as exc:
            if exc.version is not None:
                raise
            yield None
            return
        with self._database.connected() as db:
            yield db

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """The row of the number is locked first, so that writers follow one another."""
        with self._database.connected(_PART) as db, db.transaction():
            db.execute("UPDATE keys_version SET version = version + 1")
            yield db


class SharedRates(Rates):
    """The buckets of the keys in the database; those in memory are as the database last told of them."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self._database = database
        self._owed: Counter[tuple[str, int]] = Counter()
        """Tokens by the id of the key and its tokens a minute, not counted yet."""
        self._counting: asyncio.Task[None] | None = None

    async def admit(self, key: Key) -> None:
        """One call of the database for a key with limits. Raises RateLimited, and StoreUnavailable."""
        buckets = dict(self._of(key))
        if not buckets:
            return
        limits = [bucket.per_minute if (bucket := buckets.get(unit)) else None for unit in ("requests", "tokens")]
        row = await self._database.run(
            lambda db: db.execute("SELECT * FROM admit(?, ?, ?)", (key.id, *limits)).fetchone()
        )
        admitted, at = row[0], self._clock()
        for unit, seconds in zip(("requests", "tokens"), row[1:], strict=True):
            if bucket := buckets.get(unit):
                bucket.set(bucket.per_minute * (1 - seconds / MINUTE_S), at)
        if not admitted:
            self._require_room(key, at)
            raise RateLimited(f"the key {key.name!r} is at its limit; the next request is possible now", 0.1)

    def spend(self, key: Key, tokens: int) -> None:
        """Counted a moment later, or when the database is back."""
        if key.tokens_per_minute is not None and tokens > 0:
            self._owed[key.id, key.tokens_per_minute] += tokens
            if self._counting is None or self._counting.done():
                self._counting = asyncio.create_task(self._count())

    async def close(self) -> None:
        """Once all tokens are counted."""
        if self._counting is not None:
            await self._counting

    async def _count(self) -> None:
        while self._owed:
            owed, self._owed = self._owed, Counter()
            try:
                await self._database.run(partial(_spend, owed))
            except WinnowError as exc:
                self._owed.update(owed)
                log.warning("tokens of keys wait to be counted", detail=str(exc), seconds=_PAUSE_S)
                await asyncio.sleep(_PAUSE_S)


def _spend(owed: Mapping[tuple[str, int], int], db: PostgresConnection) -> None:
    """All or nothing, in one order, so that two replicas do not wait for each other."""
    with db.transaction(durable=False):
        for (key, per_minute), tokens in sorted(owed.items()):
            seconds = MINUTE_S * tokens / per_minute
            db.execute(_SPEND, (key, seconds, seconds))
