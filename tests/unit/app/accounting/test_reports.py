"""Reports from the ledger."""

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.accounting import reports
from app.accounting.budgets import PICO
from app.accounting.ledger import LedgerLimits, open_for_writing, reading
from app.accounting.reports import NOTHING, ExportedCall, Latency, Throughput
from app.accounting.shared import SharedLedger
from indexing.errors import StoreUnavailable
from indexing.postgres import Database
from tests.conftest import both
from tests.fakes.money import NOON, Book, Time, record, written

NOW = datetime.fromtimestamp(NOON, UTC)
TODAY = (NOW - timedelta(hours=12), NOW + timedelta(hours=12))
NO_CALLS = ([], NOTHING, [])
MONTH = (NOW - timedelta(days=30), NOW + timedelta(days=1))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "l.sqlite3"


@pytest.fixture
def book(kind: str, path: Path, request: pytest.FixtureRequest) -> Iterator[Book]:
    """A ledger that nobody has open, in a file or in a database."""
    if kind == "sqlite":
        yield Book(path)
        return
    database = Database(request.getfixturevalue("database_url"))
    yield Book(SharedLedger(database, LedgerLimits(), Time()))
    database.close()


@both()
def test_without_a_ledger_there_is_nothing(book: Book) -> None:
    """No rows, no total, nothing to export."""
    assert reports.usage(book.reading, TODAY, "backend") == NO_CALLS
    assert list(reports.export(book.reading, TODAY)) == []
    assert reports.throughput(book.reading, TODAY) == []


def test_to_read_makes_no_file(path: Path) -> None:
    """And an empty one is a ledger without calls."""
    book = Book(path)
    assert reports.usage(book.reading, TODAY, "backend") == NO_CALLS
    assert not path.exists()
    path.touch()
    assert reports.usage(book.reading, TODAY, "backend") == NO_CALLS


@both()
def test_a_group_sums_its_calls(book: Book) -> None:
    """Failures, tokens by class, dollars, and calls without a price."""
    book.add(
        record(pico=PICO, latency_ms=10),
        record(pico=PICO // 2, latency_ms=30),
        record(outcome="timeout", latency_ms=9999),
        record(outcome="cancelled", latency_ms=9999),
        record(backend="other", price_source="unknown"),
    )
    (gemini, other), total, unpriced = reports.usage(book.reading, TODAY, "backend")
    assert (gemini.name, gemini.calls, gemini.failed, gemini.requests) == ("gemini", 4, 1, 4)
    assert (gemini.input_tokens, gemini.cached_tokens, gemini.output_tokens, gemini.thinking_tokens) == (
        400,
        160,
        40,
        20,
    )
    assert (gemini.cost_usd, gemini.unpriced_calls) == (1.5, 0)
    assert gemini.latency_ms == Latency(p50=10, p95=30, p99=30)
    assert (other.unpriced_calls, unpriced) == (1, ["other: other-model"])
    assert (total.calls, total.cost_usd, total.latency_ms) == (
        5,
        1.5,
        Latency(p50=10, p95=30, p99=30),
    )


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("day", ["2026-11-21", "2026-11-22"]),
        ("key", ["b", "a"]),
        ("stage", ["answer", "rank"]),
        ("model", ["gemini-model"]),
    ],
)
@both()
def test_ways_to_group(book: Book, group: reports.GroupBy, names: list[str]) -> None:
    """Days in their order, the others the most expensive first."""
    book.add(record(key="a", pico=1), record(NOON - 86400, key="b", stage="answer", pico=2))
    assert [row.name for row in reports.usage(book.reading, MONTH, group)[0]] == names


@both()
def test_groups_of_equal_cost_are_in_the_order_of_their_calls(book: Book) -> None:
    """The busiest first, then by name."""
    book.add(record(key="c"), record(key="a"), record(key="b"), record(key="b"))
    assert [row.name for row in reports.usage(book.reading, TODAY, "key")[0]] == ["b", "a", "c"]


@both()
def test_a_span_has_its_beginning_and_not_its_end(book: Book) -> None:
    """Calls count where they end."""
    book.add(record(TODAY[0].timestamp()), record(TODAY[1].timestamp()))
    assert reports.usage(book.reading, TODAY, "backend")[1].calls == 1
    assert len(list(reports.export(book.reading, TODAY))) == 1


@both()
def test_a_gpus_throughput_is_by_its_busy_seconds(book: Book) -> None:
    """Output with thinking, and all tokens, over the seconds that the calls shared; API calls do not count."""
    book.add(record(gpu_s=2.0), record(gpu_s=3.0, outcome="timeout"), record(), record(gpu_s=0.0))
    [row], _, _ = reports.usage(book.reading, TODAY, "backend")
    assert (row.gpu_seconds, row.output_tokens_per_gpu_second, row.tokens_per_gpu_second) == (5.0, 30 / 5, 230 / 5)
    assert reports.throughput(book.reading, TODAY) == [
        Throughput(
            backend="gemini",
            model="gemini-model",
            gpu_seconds=5.0,
            input_tokens=200,
            cached_tokens=80,
            output_tokens=30,
        )
    ]


@both()
def test_pages_of_an_export_miss_nothing_and_repeat_nothing(book: Book) -> None:
    """Also where many calls ended in the same millisecond, across pages."""
    book.add(*(record(NOON + n // 5 / 1000, request_id=str(n)) for n in range(17)))
    pages = list(reports.export(book.reading, TODAY, page=3))
    calls = [msgspec.json.decode(line, type=ExportedCall) for page in pages for line in page.splitlines()]
    assert [call.request_id for call in calls] == [str(n) for n in range(17)]
    assert max(len(page.splitlines()) for page in pages) == 3


@both()
def test_an_exported_call_is_whole(book: Book) -> None:
    """Its time in UTC to the millisecond, its dollars, its measured times."""
    book.add(record(NOON + 0.123, pico=25_000, gpu_s=1.5, request_id="日本"))
    (page,) = reports.export(book.reading, TODAY)
    call = msgspec.json.decode(page)
    assert call["at"] == "2026-11-22T12:00:00.123000Z"
    assert (call["cost_usd"], call["gpu_seconds"], call["request_id"], call["estimated"]) == (
        2.5e-8,
        1.5,
        "日本",
        False,
    )


def test_a_reader_sees_a_ledger_that_is_being_written(path: Path) -> None:
    """Its connections are its own, and read only."""
    book, db = Book(path), open_for_writing(path)
    db.execute("BEGIN IMMEDIATE")
    assert reports.usage(book.reading, TODAY, "day") == NO_CALLS
    with pytest.raises(StoreUnavailable, match="readonly"):
        forget_everything(path)
    db.execute("ROLLBACK")
    db.close()


def forget_everything(path: Path) -> None:
    with reading(path) as reader:
        assert reader is not None
        reader.execute("DELETE FROM calls")


@both()
def test_the_servers_of_a_backend_are_told_apart(book: Book) -> None:
    """How a backend's calls are spread over its servers; the export names them, too."""
    book.add(*(record(backend="gemma", replica=number, latency_ms=10.0 * number) for number in (1, 2, 2)), record())
    rows, total, _ = reports.usage(book.reading, TODAY, "replica")
    assert {row.name: (row.calls, row.latency_ms and row.latency_ms.p50) for row in rows} == {
        "gemma 2": (2, 20.0),
        "gemma 1": (1, 10.0),
        "gemini": (1, 10.0),
    }
    assert total.calls == 4
    lines = b"".join(reports.export(book.reading, TODAY)).splitlines()
    assert sorted(msgspec.json.decode(line)["replica"] for line in lines) == [0, 1, 2, 2]


def test_a_ledger_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """Its calls are there, of the only server; the file stays as it is, as a service of that version may write it."""
    path = tmp_path / "l.sqlite3"
    written(path, record())
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("ALTER TABLE calls DROP COLUMN replica")
        db.execute("PRAGMA user_version = 1")
    book = Book(path)
    assert [row.calls for row in reports.usage(book.reading, TODAY, "replica")[0]] == [1]
    assert msgspec.json.decode(b"".join(reports.export(book.reading, TODAY)))["replica"] == 0
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 1e6)), min_size=1, max_size=60))
def test_quantiles_are_the_nearest_ranks(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[str, float]]
) -> None:
    """The smallest latency that at least that share of the calls does not exceed."""
    book = Book(tmp_path_factory.mktemp("q") / "l.sqlite3")
    book.add(*(record(key=key, latency_ms=ms) for key, ms in calls))
    for row in reports.usage(book.reading, TODAY, "key")[0]:
        ordered = sorted(ms for key, ms in calls if key == row.name)
        p50, p95, p99 = (ordered[math.ceil(len(ordered) * q / 100) - 1] for q in (50, 95, 99))
        assert row.latency_ms == Latency(p50=p50, p95=p95, p99=p99)


@both()
def test_failures_have_no_latency(book: Book) -> None:
    """A group, or a ledger, without a success has no quantiles."""
    book.add(record(outcome="timeout"), record(key="b", outcome="rejected"))
    rows, total, _ = reports.usage(book.reading, TODAY, "key")
    assert [row.latency_ms for row in (*rows, total)] == [None, None, None]
    assert total.failed == 2
