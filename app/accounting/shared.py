"""The ledger and the budgets of several replicas, in their PostgreSQL database.

A reservation is a row. Whoever wants one waits in the line of each limit that it counts towards (an advisory lock),
reads what is spent and reserved in one look, and leaves its row; all of that is one function of the database, so a
budget is spent once however many ask. The row that books a call adds its cost and removes its reservation in one
transaction: between the two a call counts at its worst, never not at all. What a killed replica had reserved lapses
when its calls would have ended.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import msgspec

from app.accounting.budgets import (
    BudgetKey,
    Limit,
    Reservation,
    Spending,
    Standing,
    budget_keys,
    period_of,
    spending_of,
)
from app.accounting.ledger import (
    ADD_SPENDING,
    COLUMNS,
    Entry,
    LedgerLimits,
    Reading,
    encodable,
    new_id,
    read_spending,
    row_of,
)
from app.errors import ConfigError
from indexing.concurrency import finish
from indexing.errors import WinnowError
from indexing.postgres import Database, PostgresConnection
from indexing.tables import Connection, WrittenByNewer

MIGRATIONS = (
    """
CREATE TABLE calls (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, uid BIGINT NOT NULL UNIQUE,
  at_ms BIGINT NOT NULL, request_id TEXT COLLATE "C" NOT NULL, stage TEXT COLLATE "C" NOT NULL,
  backend TEXT COLLATE "C" NOT NULL, kind TEXT COLLATE "C" NOT NULL, model TEXT COLLATE "C" NOT NULL,
  key TEXT COLLATE "C" NOT NULL, outcome TEXT COLLATE "C" NOT NULL, requests BIGINT NOT NULL,
  input BIGINT NOT NULL, cached BIGINT NOT NULL, output BIGINT NOT NULL, thinking BIGINT NOT NULL,
  estimated BIGINT NOT NULL, pico BIGINT NOT NULL, price_source TEXT COLLATE "C" NOT NULL, gpu_s DOUBLE PRECISION,
  latency_ms DOUBLE PRECISION NOT NULL, first_token_ms DOUBLE PRECISION);
CREATE INDEX calls_by_time ON calls (at_ms, id);
CREATE TABLE spending (
  period TEXT COLLATE "C" NOT NULL, scope TEXT COLLATE "C" NOT NULL, name TEXT COLLATE "C" NOT NULL,
  pico BIGINT NOT NULL, PRIMARY KEY (period, scope, name));
CREATE TABLE reservations (
  id BIGINT PRIMARY KEY, backend TEXT NOT NULL, key TEXT NOT NULL, pico BIGINT NOT NULL, until TIMESTAMPTZ NOT NULL);

CREATE FUNCTION date(seconds BIGINT, since TEXT) RETURNS TEXT LANGUAGE sql IMMUTABLE AS
  $$SELECT to_char(to_timestamp(seconds) AT TIME ZONE 'UTC', 'YYYY-MM-DD')$$;

CREATE FUNCTION standing(periods TEXT[], scopes TEXT[], names TEXT[])
RETURNS TABLE (place BIGINT, spent BIGINT, reserved BIGINT) LANGUAGE sql STABLE AS $$
  SELECT asked.place,
    coalesce((SELECT sum(s.pico) FROM spending s
              WHERE s.period = asked.period AND s.scope = asked.scope AND s.name = asked.name), 0)::bigint,
    coalesce((SELECT sum(r.pico) FROM reservations r
              WHERE r.until > clock_timestamp() AND (asked.scope = 'total'
                OR asked.scope = 'backend' AND r.backend = asked.name OR asked.scope = 'key' AND r.key = asked.name)
             ), 0)::bigint
  FROM unnest(periods, scopes, names) WITH ORDINALITY AS asked (period, scope, name, place)
  ORDER BY asked.place$$;

CREATE FUNCTION reserve(
  new_id BIGINT, payer TEXT, caller TEXT, most BIGINT, hold_s DOUBLE PRECISION,
  periods TEXT[], scopes TEXT[], names TEXT[], limits BIGINT[])
RETURNS TABLE (place BIGINT, spent BIGINT, reserved BIGINT) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);
  -- In one order, so that nobody waits for each other. Each statement that follows sees what was committed before.
  PERFORM pg_advisory_xact_lock(line) FROM (
    SELECT DISTINCT hashtextextended('winnow budget ' || scope || ' ' || name, 0) AS line
    FROM unnest(scopes, names) AS asked (scope, name) ORDER BY line) AS lines;
  RETURN QUERY SELECT found.* FROM standing(periods, scopes, names) AS found
    WHERE found.spent + found.reserved >= limits[found.place];
  IF NOT FOUND THEN
    INSERT INTO reservations VALUES (
      new_id, payer, caller, most, clock_timestamp() + hold_s * interval '1 second');
  END IF;
END$$;
""",
    "ALTER TABLE calls ADD COLUMN replica BIGINT NOT NULL DEFAULT 0",
    # The report and the export of one key must not read the calls of all.
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS calls_by_key ON calls (key, at_ms, id)",
)
_PART = ("ledger", MIGRATIONS)

EARLIER = {1: "CREATE TEMP VIEW calls AS SELECT *, CAST(0 AS BIGINT) AS replica FROM winnow.calls"}
"""How the calls of an earlier version look to whoever only reads: with the columns that they lack."""

_CALL = ("uid", *COLUMNS)
_INSERT = f"INSERT INTO calls ({', '.join(_CALL)}) VALUES ({', '.join('?' * len(_CALL))})"  # noqa: S608
_RELEASE = "DELETE FROM reservations WHERE id = ?"
_LAPSED = "DELETE FROM reservations WHERE until < clock_timestamp() - interval '1 minute'"

COMMIT_WAIT_S = 2.0
"""How long the end of a call waits for its row: longer than for a file, as a replica may be killed while others go on,
and not at all while the database is away."""

MARGIN_S = 30.0
"""So much longer than a call may take is its reservation held: to be booked, it may wait for the database."""


class SharedLedger:
    """`app.accounting.ledger.LedgerPlace` in the database, and what it says of the budgets."""

    def __init__(self, database: Database, limits: LedgerLimits, now: Callable[[], float]) -> None:
        self._database, self._limits, self._now = database, limits, now
        self.name = f"in database {database.address.shown}"
        self.reading: Reading = self._reading
        self.commit_wait_s = COMMIT_WAIT_S
        self.others: Spending = {}
        self.reserved: Mapping[BudgetKey, int] = {}
        self._doubtful = self._current = False
        self._next_refresh = 0.0

    def open(self) -> None:
        """Create what is missing, and read what was spent. Raises StoreUnavailable, and ConfigError for a newer ledger,
        in which no call could be booked.
        """
        try:
            self._database.prepare(*_PART)
        except WrittenByNewer as exc:
            raise ConfigError(str(exc)) from exc
        self.peek()

    def peek(self) -> None:
        """Read what was spent and is reserved, and what time it is there."""
        self._database.hear_clock()
        at = self._now()
        with self._reading() as db:
            if db is None:
                return
            self.others = read_spending(db, period_of(at, "day"), period_of(at, "month"))
            held: Counter[BudgetKey] = Counter()
            for backend, key, pico in db.execute(
                "SELECT backend, key, CAST(sum(pico) AS BIGINT) FROM reservations "
                "WHERE until > clock_timestamp() GROUP BY backend, key"
            ):
                held.update(dict.fromkeys(budget_keys(backend, key), pico))
            self.reserved = held

    def write(self, entries: Sequence[Entry]) -> None:
        """Commit them, all or none; every few seconds read what was spent."""
        self._database.prepare(*_PART)
        if entries:
            try:
                with self._database.connected() as db:
                    self._write(db, entries)
            except BaseException:
                self._doubtful = True  # where the connection was lost in a commit, nobody knows whether it was made
                raise
            self._doubtful = False
        if time.monotonic() >= self._next_refresh:
            self._next_refresh = time.monotonic() + self._limits.refresh_s
            self.peek()
            with self._database.connected() as db:
                db.execute(_LAPSED)

    def close(self) -> None:
        """The database is closed by whoever opened it."""

    def _write(self, db: PostgresConnection, entries: Sequence[Entry]) -> None:
        with db.transaction():
            if self._doubtful:
                ids = [entry.id for entry in entries]
                written = {row[0] for row in db.execute("SELECT uid FROM calls WHERE uid = ANY(?)", (ids,))}
                entries = [entry for entry in entries if entry.id not in written]
            calls = [entry.call for entry in entries]
            db.executemany(_INSERT, ((entry.id, *row_of(entry.call)) for entry in entries))
            costs = spending_of((call.at_ms / 1000, call.backend, call.key, call.pico) for call in calls)
            # In one order: two replicas that add to the same rows must not wait for each other.
            rows = sorted((period, key.scope, encodable(key.name), pico) for (period, key), pico in costs.items())
            db.executemany(ADD_SPENDING, rows)
            db.executemany(_RELEASE, ((entry.reservation,) for entry in entries if entry.reservation))

    @contextmanager
    def _reading(self) -> Iterator[Connection | None]:
        with self._database.connected() as db:
            version = len(MIGRATIONS) if self._current else self._database.check(db, *_PART)
            self._current = version == len(MIGRATIONS)
            if version is None:
                yield None
                return
            begin = f"BEGIN ISOLATION LEVEL REPEATABLE READ; {EARLIER.get(version, '')}; SET TRANSACTION READ ONLY"
            try:
                db.script(begin)  # fails half-way where a migration has ended since, and given the columns of the view
                yield db
            finally:
                db.script("ROLLBACK")

    def reserve(self, reservation: Reservation, limits: Sequence[Limit], at: float, hold_s: float) -> list[Standing]:
        """Leave the reservation, or return the limits that are spent. Blocks."""
        with self._database.connected(_PART) as db:
            rows = db.execute(
                "SELECT place, spent, reserved FROM reserve(?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(reservation.id, encodable(reservation.backend), encodable(reservation.key), reservation.pico),
                    hold_s + MARGIN_S,
                    [period_of(at, limit.period) for limit in limits],
                    [limit.key.scope for limit in limits],
                    [encodable(limit.key.name) for limit in limits],
                    [limit.pico for limit in limits],
                ),
            )
            return [Standing(limits[place - 1], spent, reserved) for place, spent, reserved in rows]

    def release(self, reservation: Reservation) -> None:
        """Of a call that never began. Blocks."""
        with self._database.connected() as db:
            db.execute(_RELEASE, (reservation.id,))


class SharedPurse:
    """`app.accounting.budgets.Purse` over the ledger that replicas share."""

    def __init__(self, ledger: SharedLedger) -> None:
        self._ledger = ledger

    async def reserve(
        self, reservation: Reservation, limits: Sequence[Limit], at: float, hold_s: float
    ) -> tuple[Reservation, Sequence[Standing]]:
        """Asks the database, unless there is no limit. Raises StoreUnavailable while that is away."""
        if not limits:
            return reservation, ()
        reservation = msgspec.structs.replace(reservation, id=new_id())
        try:
            spent = await finish(asyncio.to_thread(self._ledger.reserve, reservation, limits, at, hold_s))
        except asyncio.CancelledError:
            with suppress(WinnowError):  # else it lapses
                await finish(asyncio.to_thread(self._ledger.release, reservation))
            raise
        return reservation, spent

    def settle(self, reservation: Reservation, pico: int, at: float) -> None:
        """The row of the call does."""

    def standings(self, limits: Iterable[Limit], at: float) -> list[Standing]:
        """A few seconds old."""
        spending, reserved = self._ledger.others, self._ledger.reserved
        return [
            Standing(limit, spending.get((period_of(at, limit.period), limit.key), 0), reserved.get(limit.key, 0))
            for limit in limits
        ]

    def spenders(self, at: float) -> set[BudgetKey]:
        """The keys that have spent or reserved something."""
        periods = period_of(at, "day"), period_of(at, "month")
        keys = {key for period, key in self._ledger.others if period in periods} | {*self._ledger.reserved}
        return {key for key in keys if key.scope == "key"}
