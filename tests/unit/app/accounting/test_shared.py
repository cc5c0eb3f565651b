"""Ledger and budgets that several replicas share, on a real PostgreSQL."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from app.accounting.accounts import Accounts
from app.accounting.budgets import PICO, BudgetKey, Reservation
from app.accounting.ledger import COLUMNS, CallRecord, Entry, LedgerLimits, new_id, row_of
from app.accounting.shared import MARGIN_S, MIGRATIONS, SharedLedger
from app.backends.settings import BudgetSettings, KeyBudget
from app.domain import TokenCount
from app.errors import BudgetExceeded, ConfigError
from indexing.errors import StoreUnavailable
from indexing.postgres import Database, DatabaseAway
from tests.fakes.money import BACKENDS, GEMINI, Desk, Time, record
from tests.fakes.postgres import Postgres

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]

CENT = PICO // 100


class Replica:
    """What a service process has: accounts over a database that others have open, too."""

    def __init__(self, url: str, home: Path, budgets: BudgetSettings, now: Time | None, off_s: float = 0) -> None:
        """`off_s`: how far its machine's clock is ahead, where no `now` is given."""
        self.database = Database(url, clock=lambda: time.time() + off_s)
        self.accounts = Accounts(home, BACKENDS, budgets, now or time.monotonic, now, database=self.database)

    def close(self) -> None:
        self.accounts.close()
        self.database.close()


@pytest.fixture
def replica(database_url: str, tmp_path: Path) -> Iterator[Callable[..., Replica]]:
    made: list[Replica] = []

    def make(now: Time | None = None, **budgets: object) -> Replica:
        made.append(Replica(database_url, tmp_path, BudgetSettings(**budgets), now or Time()))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def book(one: Replica, call: CallRecord, reservation: int = 0) -> None:
    """Until it is committed, which may take longer than a call waits for it."""
    await one.accounts.ledger.append(call, reservation)
    await asyncio.to_thread(wait_for, lambda: one.accounts.ledger.health().pending == 0)


async def spend(one: Replica, desk: Desk, tokens: int) -> bool:
    """A call that costs so many millionths of a dollar; False where the budget is spent."""
    used = TokenCount(input=tokens)
    try:
        charge = await one.accounts.meter.begin(GEMINI, desk.call(), used)
    except BudgetExceeded:
        return False
    await asyncio.sleep(0)
    await charge.end(used, outcome="ok")
    return True


async def test_a_budget_is_spent_once(replica: Callable[..., Replica], tmp_path: Path) -> None:
    """Two hundred calls at once over two replicas: as many are let in as by one process, to the call."""
    desk = Desk(tmp_path / "desk")
    replicas = [replica(daily_usd=0.00037) for _ in range(2)]
    let_in = await asyncio.gather(*(spend(replicas[n % 2], desk, 10) for n in range(200)))
    assert sum(let_in) == 37
    for one in replicas:
        wait_for(lambda: one.accounts.ledger.health().pending == 0)  # noqa: B023
    states = replicas[0].accounts.usage().budgets
    assert [(state.spent_usd, state.reserved_usd) for state in states] == [(pytest.approx(0.00037), 0.0)]
    report = replicas[1].accounts.usage()
    assert (report.total.calls, report.total.cost_usd) == (37, pytest.approx(0.00037))


async def test_what_one_reserves_the_other_sees(replica: Callable[..., Replica], tmp_path: Path) -> None:
    """A call in flight counts at its worst; booked, at its cost; and the refusal says what is reserved."""
    one, other = (replica(monthly_usd=1.0) for _ in range(2))
    held = await one.accounts.budgets.admit("gemini", "k", 100 * CENT)
    with pytest.raises(BudgetExceeded, match=r"\$0.000000 spent and \$1.000000 reserved for calls in flight"):
        await other.accounts.budgets.admit("gemini", "k", 1)
    await book(one, record(pico=60 * CENT), held.id)
    await other.accounts.budgets.admit("gemini", "k", 1)
    state = other.accounts.usage().budgets[0]
    assert (state.spent_usd, state.reserved_usd) == (0.6, 1e-12)


async def test_every_scope_is_counted_by_itself(replica: Callable[..., Replica]) -> None:
    """A key that has spent its own does not stop the others."""
    one, other = (replica(keys={"a": KeyBudget(daily_usd=0.01)}) for _ in range(2))
    await book(one, record(key="a", pico=CENT))
    with pytest.raises(BudgetExceeded, match="by key 'a'"):
        await other.accounts.budgets.admit("gemini", "a", 1)
    assert (await other.accounts.budgets.admit("gemini", "b", 1)).id == 0


async def test_a_period_ends(replica: Callable[..., Replica]) -> None:
    """With the next day the budget is whole again."""
    now = Time()
    one = replica(now, daily_usd=0.01)
    await book(one, record(pico=CENT))
    with pytest.raises(BudgetExceeded):
        await one.accounts.budgets.admit("gemini", "k", 1)
    now.at += 86400
    assert (await one.accounts.budgets.admit("gemini", "k", 1)).id


async def test_what_a_killed_replica_held_lapses(replica: Callable[..., Replica], postgres: Postgres) -> None:
    """By the clock of the database, once its call would have ended."""
    one, other = (replica(daily_usd=0.01) for _ in range(2))
    await one.accounts.budgets.admit("gemini", "k", CENT, hold_s=-MARGIN_S - 1)
    assert (await other.accounts.budgets.admit("gemini", "k", CENT)).id
    with pytest.raises(BudgetExceeded):
        await one.accounts.budgets.admit("gemini", "k", CENT)


async def test_who_goes_away_while_reserving_holds_nothing(replica: Callable[..., Replica]) -> None:
    """A request that is cancelled meanwhile gives back what it got."""
    one = replica(daily_usd=0.01)
    one.accounts.open()
    for _ in range(10):
        asking = asyncio.ensure_future(one.accounts.budgets.admit("gemini", "k", CENT))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert (await one.accounts.budgets.admit("gemini", "k", CENT)).id


async def test_an_outage_loses_nothing_and_lets_nobody_overspend(
    replica: Callable[..., Replica], postgres: Postgres
) -> None:
    """Calls that a budget watches are refused with a time to come back; what was spent is booked when it is over."""
    one = replica(daily_usd=1.0)
    one.accounts.open()
    held = await one.accounts.budgets.admit("gemini", "k", CENT)
    with structlog.testing.capture_logs() as logs:
        postgres.stop()
        try:
            with pytest.raises(DatabaseAway, match="cannot be reached"):
                await one.accounts.budgets.admit("gemini", "k", CENT)
            await one.accounts.ledger.append(record(pico=3), held.id)
            wait_for(lambda: "cannot be reached" in one.accounts.ledger.health().failure)
        finally:
            postgres.start()
        wait_for(lambda: one.accounts.ledger.health().pending == 0)
    assert [line["log_level"] for line in logs] == ["error", "info"]
    states = one.accounts.usage().budgets
    assert [(state.spent_usd, state.reserved_usd) for state in states] == [(3e-12, 0.0)]


async def test_a_commit_in_doubt_is_not_made_twice(database_url: str) -> None:
    """A row that was written although the writer heard of a failure is found by its id."""
    database = Database(database_url)
    ledger = SharedLedger(database, LedgerLimits(), Time())
    first, second = (Entry(record(pico=pico), new_id()) for pico in (5, 7))
    ledger.write([first])
    ledger._doubtful = True
    ledger.write([first, second])
    ledger.peek()
    assert ledger.others["2026-11-22", BudgetKey("total")] == 12
    database.close()


async def test_texts_that_are_no_texts_are_counted(replica: Callable[..., Replica]) -> None:
    """A lone surrogate in the name of a key, which no database takes."""
    one = replica(keys={"*": KeyBudget(daily_usd=0.01)})
    await book(one, record(key="k\udcff", pico=CENT))
    with pytest.raises(BudgetExceeded):
        await one.accounts.budgets.admit("gemini", "k\udcff", 1)
    assert isinstance(await one.accounts.budgets.admit("gemini", "k", 1), Reservation)


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
async def test_whoever_only_reads_leaves_an_earlier_ledger_as_it_is(
    database_url: str, tmp_path: Path, version: int
) -> None:
    """It reports all the same, and the replicas of that version go on."""
    database, reader = Database(database_url), Database(database_url, migrates=False)
    accounts = Accounts(tmp_path, BACKENDS, BudgetSettings(daily_usd=1.0), database=reader)
    assert accounts.usage().total.calls == 0
    database.prepare("ledger", MIGRATIONS[:version])
    columns = ("uid", *(name for name in COLUMNS if name != "replica"))
    row = row_of(record(time.time(), pico=CENT))[:-1]
    insert = f"INSERT INTO calls ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608
    for calls in (1, 2):
        with database.connected() as db:
            db.execute(insert, (new_id(), *row))
        report = accounts.usage(group_by="replica")
        assert (report.total.calls, len(report.budgets)) == (calls, 1)
        assert b"".join(accounts.export()).count(b'"replica":0') == calls
    with database.connected() as db:
        assert db.execute("SELECT version FROM parts WHERE part='ledger'").fetchone() == (version,)
    database.close()
    reader.close()


async def test_a_ledger_that_changes_under_a_reader_fails_it_once(database_url: str, tmp_path: Path) -> None:
    """It saw the earlier version, and then its view meets a new column; the connection is good for the next look."""
    database, reader = Database(database_url), Database(database_url, migrates=False)
    database.prepare("ledger", MIGRATIONS)
    accounts = Accounts(tmp_path, BACKENDS, BudgetSettings(), database=reader)
    with database.connected() as db:
        db.execute("UPDATE parts SET version=1 WHERE part='ledger'")
        with pytest.raises(StoreUnavailable, match="SQLSTATE 42701"):
            accounts.usage()
        db.execute("UPDATE parts SET version=? WHERE part='ledger'", (len(MIGRATIONS),))
    assert accounts.usage().total.calls == 0
    database.close()
    reader.close()


async def test_a_report_ends_now_by_the_clock_of_the_database(
    database_url: str, tmp_path: Path, replica: Callable[..., Replica]
) -> None:
    """A command on a machine whose clock is behind would miss the latest calls."""
    one = replica()
    await book(one, record(time.time()))
    behind = Replica(database_url, tmp_path, BudgetSettings(), None, -2 * 86_400.0)
    assert b"".join(behind.accounts.export()).count(b"\n") == 1
    assert behind.accounts.usage().total.calls == 1
    behind.close()


async def test_a_newer_ledger_keeps_an_older_service_from_starting(replica: Callable[..., Replica]) -> None:
    """Its calls could be booked nowhere, and would be lost with it."""
    one = replica()
    one.database.prepare("ledger", [*MIGRATIONS, "SELECT 1"])
    older = replica()
    with pytest.raises(
        ConfigError, match=r"written by a newer Winnow \(ledger: version 4, this one knows 3\): upgrade"
    ):
        older.accounts.open()


async def test_a_day_is_that_of_the_database(database_url: str, tmp_path: Path) -> None:
    """Replicas whose clocks are days apart spend one budget, and date their calls alike."""
    budgets = BudgetSettings(daily_usd=0.00037)
    replicas = [Replica(database_url, tmp_path, budgets, None, days * 86_400.0) for days in (-1, 0, 2)]
    desk = Desk(tmp_path / "desk")
    for one in replicas:
        one.accounts.open()
    let_in = [await spend(replicas[n % 3], desk, 100) for n in range(9)]
    for one in replicas:
        await asyncio.to_thread(wait_for, lambda: one.accounts.ledger.health().pending == 0)  # noqa: B023
    with replicas[0].database.connected() as db:
        days, calls = db.execute("SELECT count(DISTINCT at_ms / 86400000), count(*) FROM calls").fetchone()
    assert (sum(let_in), calls, days) == (4, 4, 1)
    for one in replicas:
        one.close()
