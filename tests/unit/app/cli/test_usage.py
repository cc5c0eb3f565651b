"""What `winnow usage` shows."""

from datetime import UTC, datetime
from io import StringIO

import msgspec
from rich.console import Console

from app.accounting.accounts import UsageReport
from app.accounting.budgets import BudgetState
from app.accounting.ledger import LedgerHealth
from app.accounting.reports import NOTHING, Latency
from app.cli.usage import show_usage

ROW = msgspec.structs.replace(
    NOTHING,
    name="gemini",
    calls=1200,
    failed=3,
    input_tokens=1_234_000,
    cached_tokens=400_000,
    output_tokens=50_000,
    thinking_tokens=6000,
    cost_usd=1.5,
    latency_ms=Latency(p50=120.4, p95=999.6, p99=1500),
)
REPORT = UsageReport(
    since=datetime(2026, 11, 1, tzinfo=UTC),
    until=datetime(2026, 11, 22, 12, tzinfo=UTC),
    group_by="backend",
    rows=[ROW],
    total=ROW,
    unpriced=[],
    budgets=[],
    ledger=None,
)


def shown(report: UsageReport) -> str:
    console = Console(file=StringIO(), width=80, color_system=None, soft_wrap=True)
    show_usage(console, report)
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    assert max(len(line) for line in text.splitlines()) <= 80 or report.unpriced
    return text


def test_a_row_has_its_figures() -> None:
    """Calls, failures, tokens by class (thinking with the output), dollars, latencies."""
    lines = shown(REPORT).splitlines()
    assert lines[0] == "2026-11-01 00:00 to 2026-11-22 12:00 UTC"
    assert lines[2].split() == ["gemini", "1,200", "3", "1.23M", "400k", "56k", "$1.50", "120", "1,000"]
    assert len(lines) == 3


def test_several_rows_have_a_total() -> None:
    """Below them."""
    other = msgspec.structs.replace(NOTHING, name="own", calls=1)
    text = shown(msgspec.structs.replace(REPORT, rows=[ROW, other]))
    assert text.splitlines()[-1].split()[:2] == ["total", "1,200"]


def test_no_calls_are_told_as_such() -> None:
    """No empty table."""
    assert "no model calls" in shown(msgspec.structs.replace(REPORT, rows=[], total=NOTHING))


def test_unpriced_calls_are_flagged() -> None:
    """By an asterisk, and a line with the fix; control characters of a name stay away from the terminal."""
    row = msgspec.structs.replace(ROW, name="x\x1b[31m", unpriced_calls=2)
    text = shown(msgspec.structs.replace(REPORT, rows=[row], unpriced=["x: m\x1b[2J"]))
    assert "$1.50*" in text
    assert "set price in [backends.x]" in text
    assert "\x1b" not in text


def test_budgets_tell_how_much_is_gone() -> None:
    """Whose, of what, until when."""
    state = BudgetState(
        scope="key",
        name="team",
        period="day",
        limit_usd=2.0,
        spent_usd=1.7,
        reserved_usd=0,
        resets_at=datetime(2026, 11, 23, tzinfo=UTC),
        setting="",
    )
    nothing_allowed = msgspec.structs.replace(state, scope="total", name="", limit_usd=0.0, spent_usd=0.0)
    lines = shown(msgspec.structs.replace(REPORT, budgets=[state, nothing_allowed])).splitlines()
    assert lines[-2].split() == ["key", "team", "day", "$2.00", "$1.70", "85%", "2026-11-23"]
    assert lines[-1].split() == ["all", "day", "$0.00", "$0.00", "100%", "2026-11-23"]


def test_a_ledger_that_cannot_be_written_is_told() -> None:
    """With what waits and what is lost."""
    health = LedgerHealth(written=5, pending=7, lost=2, failure="disk is full")
    text = shown(msgspec.structs.replace(REPORT, ledger=health))
    assert "cannot be written (disk is full): 7 calls wait in memory, 2 are lost" in text
    assert "ledger" not in shown(
        msgspec.structs.replace(REPORT, ledger=LedgerHealth(written=5, pending=0, lost=0, failure=""))
    )
