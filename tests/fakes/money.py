"""Time that stands still, calls, and accounts over them."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from app.accounting.accounts import Accounts
from app.accounting.budgets import Budgets, OwnPurse
from app.accounting.ledger import CallRecord, Entry, Ledger, Reading, new_id, reading
from app.accounting.metering import LedgerMeter
from app.accounting.prices import Prices
from app.accounting.shared import SharedLedger
from app.backends.base import Account, Call, Deadline, Target
from app.backends.settings import BackendSettings, BudgetSettings, PriceSettings
from app.domain import TokenCount

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()

GEMINI, GEMMA, OWN = (Target(backend=name, model=f"{name}-model") for name in ("gemini", "gemma", "own"))

BACKENDS = {
    "gemini": BackendSettings(kind="gemini", price=PriceSettings(input=1.0, cached=0.1, output=10.0)),
    "gemma": BackendSettings(kind="vllm", gpu_usd_per_hour=3.6),
    "own": BackendSettings(kind="ollama"),
}
"""Gemini costs 1 dollar a million input tokens and 10 a million output tokens, Gemma a tenth of a cent a second."""


class Time:
    """Goes on when told to; the same for clocks and for dates, since 1970."""

    def __init__(self, at: float = NOON) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


class Desk:
    """A meter over a real ledger, with the time in hand."""

    def __init__(
        self,
        home: Path,
        budgets: BudgetSettings | None = None,
        backends: dict[str, BackendSettings] | None = None,
        time: Time | None = None,
    ) -> None:
        self.time = time or Time()
        backends = BACKENDS if backends is None else backends
        self.ledger = Ledger(home / "ledger.sqlite3", now=self.time)
        self.ledger.open()
        purse = OwnPurse(lambda: self.ledger.others, self.time)
        self.budgets = Budgets(budgets or BudgetSettings(), backends, purse, self.time)
        self.meter = LedgerMeter(self.ledger, Prices(backends, self.time), self.budgets, backends, self.time, self.time)

    def call(self, *, stage: str = "rank", key: str = "anonymous", seconds: float = 60, request_id: str = "r1") -> Call:
        """A call that has so many seconds."""
        deadline = Deadline(seconds, self.time)
        return Call(stage=stage, deadline=deadline, account=Account(), key=key, request_id=request_id)

    async def spend(self, target: Target, tokens: TokenCount, *, seconds: float = 1.0, key: str = "anonymous") -> None:
        """A whole call."""
        charge = await self.meter.begin(target, self.call(key=key), tokens)
        self.time.at += seconds
        await charge.end(tokens, outcome="ok")


def record(
    at: float = NOON,
    *,
    backend: str = "gemini",
    key: str = "anonymous",
    pico: int = 0,
    latency_ms: float = 10.0,
    outcome: str = "ok",
    gpu_s: float | None = None,
    price_source: str = "settings",
    request_id: str = "r1",
    stage: str = "rank",
    replica: int = 0,
) -> CallRecord:
    """A row: 100 input tokens (40 of them cached), 10 output, 5 thinking."""
    return CallRecord(
        at_ms=round(at * 1000),
        request_id=request_id,
        stage=stage,
        backend=backend,
        kind="gemini",
        model=f"{backend}-model",
        key=key,
        outcome=outcome,
        requests=1,
        input=100,
        cached=40,
        output=10,
        thinking=5,
        estimated=False,
        pico=pico,
        price_source=price_source,
        gpu_s=gpu_s,
        latency_ms=latency_ms,
        first_token_ms=None,
        replica=replica,
    )


def written(path: Path, *calls: CallRecord) -> None:
    """Put calls into a ledger that nobody has open."""
    from app.accounting.budgets import spending_of
    from app.accounting.ledger import open_for_writing, write

    db = open_for_writing(path)
    write(db, calls, spending_of((call.at_ms / 1000, call.backend, call.key, call.pico) for call in calls))
    db.close()


class Book:
    """A ledger that calls are put into, and read from, while no service has it open."""

    def __init__(self, place: Path | SharedLedger) -> None:
        self._place = place
        self.reading: Reading = partial(reading, place) if isinstance(place, Path) else place.reading

    def add(self, *calls: CallRecord) -> None:
        """In their order."""
        if isinstance(self._place, Path):
            written(self._place, *calls)
        else:
            self._place.write([Entry(call, new_id()) for call in calls])


def accounts(home: Path, time: Time | None = None, budgets: BudgetSettings | None = None) -> Accounts:
    """Not opened."""
    return Accounts(home, BACKENDS, budgets or BudgetSettings(), now=time or Time())
