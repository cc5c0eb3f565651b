"""The ledger: rows that survive, and a disk that fails nobody."""

import asyncio
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from app.accounting.budgets import BudgetKey
from app.accounting.ledger import MIGRATIONS, Ledger, LedgerLimits, open_for_writing
from app.errors import ConfigError
from tests.fakes.money import NOON, Time, record, written

pytestmark = pytest.mark.anyio

QUICK = LedgerLimits(pending=50, batch=7, retry_s=0.01, refresh_s=0.01, busy_s=0.01)


def stored(path: Path, sql: str = "SELECT request_id FROM calls ORDER BY id") -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


async def test_a_row_is_there_when_append_returns(tmp_path: Path) -> None:
    """Another connection sees it at once, though nothing was closed."""
    path = tmp_path / "home" / "l.sqlite3"
    ledger = Ledger(path)
    ledger.open()
    await ledger.append(record(request_id="one"))
    assert stored(path) == [("one",)]
    ledger.close()


async def test_many_calls_at_once_share_commits_and_keep_their_order(tmp_path: Path) -> None:
    """All rows are written, more than one batch of them."""
    path = tmp_path / "l.sqlite3"
    ledger = Ledger(path, LedgerLimits(batch=7))
    await asyncio.gather(*(ledger.append(record(request_id=str(n))) for n in range(100)))
    ledger.close()
    assert stored(path) == [(str(n),) for n in range(100)]
    assert ledger.health().written == 100


async def test_rows_from_several_threads_and_loops(tmp_path: Path) -> None:
    """Each waits in its own loop."""
    path = tmp_path / "l.sqlite3"
    ledger = Ledger(path)
    threads = [threading.Thread(target=lambda: asyncio.run(ledger.append(record()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.close()
    assert len(stored(path)) == 8


def test_nothing_is_made_for_nothing(tmp_path: Path) -> None:
    """A ledger that nobody opened or wrote to leaves no file."""
    ledger = Ledger(tmp_path / "l.sqlite3")
    ledger.peek()
    ledger.close()
    assert list(tmp_path.iterdir()) == []
    assert ledger.others == {}


async def test_a_caller_who_goes_away_leaves_its_row(tmp_path: Path) -> None:
    """Cancelling the wait takes nothing back."""
    path = tmp_path / "l.sqlite3"
    ledger = Ledger(path)
    waiting = asyncio.ensure_future(ledger.append(record()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    ledger.close()
    assert len(stored(path)) == 1


async def test_a_disk_that_fails_stops_nobody_and_loses_nothing(tmp_path: Path) -> None:
    """Calls go on, rows wait in memory, the log says so once, and they are written when it works again."""
    path = tmp_path / "l.sqlite3"
    ledger = Ledger(path, QUICK)
    ledger.open()
    with structlog.testing.capture_logs() as logs, closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON calls BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
        other.commit()
        for n in range(10):
            await ledger.append(record(request_id=str(n), pico=1))
        wait_for(lambda: ledger.health().failure == "disk is full")
        assert (ledger.health().pending, ledger.health().lost) == (10, 0)
        other.execute("DROP TRIGGER full")
        other.commit()
        wait_for(lambda: ledger.health().pending == 0)
    ledger.close()
    assert stored(path) == [(str(n),) for n in range(10)]
    assert stored(path, "SELECT pico FROM spending WHERE scope = 'total'") == [(10,), (10,)]
    assert [line["log_level"] for line in logs] == ["error", "info"]
    assert ledger.health().failure == ""


async def test_what_memory_cannot_hold_is_counted(tmp_path: Path) -> None:
    """A ledger that can never be written keeps a bounded number of rows, and says how many are lost."""
    (tmp_path / "file").touch()
    ledger = Ledger(tmp_path / "file" / "l.sqlite3", QUICK)
    with structlog.testing.capture_logs() as logs:
        for _ in range(60):
            await ledger.append(record())
        assert (ledger.health().pending, ledger.health().lost) == (50, 10)
        assert ledger.health().failure
        ledger.close()
    assert "calls were lost" in logs[-1]["event"]
    assert logs[-1]["calls"] == 50


async def test_it_tells_how_long_the_oldest_call_has_waited(tmp_path: Path) -> None:
    """Nothing waits: 0. While the disk fails: since the first of them ended."""
    (tmp_path / "file").touch()
    now = 1000.0
    ledger = Ledger(tmp_path / "file" / "l.sqlite3", QUICK, lambda: now)
    assert ledger.lag_s() == 0
    for second in range(3):
        await ledger.append(record(at=1000.0 + second))
    now = 1010.0
    assert ledger.lag_s() == 10
    ledger.close()


async def test_after_its_end_it_takes_no_more(tmp_path: Path) -> None:
    """A late row is counted as lost, and nobody waits for it."""
    ledger = Ledger(tmp_path / "l.sqlite3")
    ledger.close()
    await ledger.append(record())
    assert ledger.health().lost == 1


async def test_another_process_that_writes_is_waited_for(tmp_path: Path) -> None:
    """A lock is a failure like any other: it passes."""
    path = tmp_path / "l.sqlite3"
    ledger = Ledger(path, QUICK)
    ledger.open()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with structlog.testing.capture_logs():
            await ledger.append(record())
            wait_for(lambda: "locked" in ledger.health().failure)
            other.execute("COMMIT")
            wait_for(lambda: ledger.health().pending == 0)
    ledger.close()
    assert len(stored(path)) == 1


async def test_others_spending_is_told_apart_from_ones_own(tmp_path: Path) -> None:
    """What earlier processes spent is there from the start, what concurrent ones spend within a moment."""
    path = tmp_path / "l.sqlite3"
    written(path, record(pico=5))
    ledger = Ledger(path, QUICK, Time())
    ledger.open()
    total = ("2026-11-22", BudgetKey("total"))
    assert ledger.others[total] == 5
    await ledger.append(record(pico=100))
    written(path, record(pico=7), record(NOON - 86400, pico=1000))
    wait_for(lambda: ledger.others[total] == 12)
    assert ledger.others[("2026-11", BudgetKey("total"))] == 1012
    ledger.close()


async def test_a_new_day_begins_with_nothing(tmp_path: Path) -> None:
    """Others' spending is that of the current periods, as the clock goes on."""
    path = tmp_path / "l.sqlite3"
    moment = Time()
    ledger = Ledger(path, QUICK, moment)
    written(path, record(pico=5), record(NOON + 86400, pico=1))
    ledger.open()
    moment.at += 86400
    wait_for(lambda: ("2026-11-23", BudgetKey("total")) in ledger.others)
    assert ("2026-11-22", BudgetKey("total")) not in ledger.others
    assert ledger.others[("2026-11", BudgetKey("total"))] == 6
    ledger.close()


async def test_text_that_is_no_text_is_written_all_the_same(tmp_path: Path) -> None:
    """A lone surrogate becomes a question mark."""
    path = tmp_path / "l.sqlite3"
    ledger = Ledger(path)
    await ledger.append(record(key="k\udcff", request_id="日本", pico=1))
    ledger.close()
    assert stored(path, "SELECT key, request_id FROM calls") == [("k?", "日本")]


async def test_a_damaged_file_that_cannot_be_moved_stops_nobody(tmp_path: Path) -> None:
    """As on a full disk: rows wait in memory, and a new file is begun once the damaged one can be set aside."""
    content = b"no database at all" * 1000
    path, quarantine = tmp_path / "l.sqlite3", tmp_path / "quarantine"
    path.write_bytes(content)
    quarantine.touch()
    ledger = Ledger(path, QUICK)
    ledger.open()
    await ledger.append(record(request_id="first"))
    assert "is damaged, and cannot be moved" in ledger.health().failure
    assert path.read_bytes() == content
    quarantine.unlink()
    wait_for(lambda: ledger.health().pending == 0)
    ledger.close()
    assert stored(path) == [("first",)]
    assert [moved.read_bytes() for moved in quarantine.iterdir()] == [content]


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    """Its tables are not ours."""
    path = tmp_path / "l.sqlite3"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")
    with pytest.raises(ConfigError, match="belongs to another program"):
        Ledger(path).open()


def test_a_ledger_of_the_future_is_refused(tmp_path: Path) -> None:
    """Older code must not write what it does not understand."""
    path = tmp_path / "l.sqlite3"
    written(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(ConfigError, match="newer Winnow"):
        Ledger(path).open()


def test_an_empty_file_becomes_a_ledger(tmp_path: Path) -> None:
    """As after a kill between its making and its first table; opening twice changes nothing."""
    path = tmp_path / "l.sqlite3"
    path.touch()
    open_for_writing(path).close()
    open_for_writing(path).close()
    assert stored(path, "PRAGMA user_version") == [(len(MIGRATIONS),)]
    assert stored(path, "PRAGMA integrity_check") == [("ok",)]


amounts = st.lists(st.tuples(st.integers(0, 10**15), st.sampled_from("ab"), st.integers(0, 40)), max_size=30)


@settings(max_examples=25)
@given(amounts)
def test_the_sums_are_those_of_the_rows(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[int, str, int]]
) -> None:
    """By day and month, in total, by backend and key: to the picodollar, whatever the order of batches."""
    path = tmp_path_factory.mktemp("sums") / "l.sqlite3"
    ledger = Ledger(path, LedgerLimits(batch=3))

    async def spend() -> None:
        rows = [record(NOON + day * 86400, key=key, pico=pico) for pico, key, day in calls]
        await asyncio.gather(*(ledger.append(row) for row in rows))

    asyncio.run(spend())
    ledger.close()
    expected: Counter[tuple[object, ...]] = Counter()
    for pico, key, day in calls:
        date = (datetime(2026, 11, 22) + timedelta(days=day)).isoformat()
        for period, purse in product((date[:10], date[:7]), (("total", ""), ("backend", "gemini"), ("key", key))):
            expected[(period, *purse)] += pico
    sums = {tuple(row[:3]): row[3] for row in (stored(path, "SELECT * FROM spending") if calls else ())}
    assert sums == {cell: pico for cell, pico in expected.items() if pico}
    assert len(stored(path)) == len(calls) if calls else not path.exists()
