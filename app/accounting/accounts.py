"""The accounts of a service: meter, ledger, budgets and reports, built from the settings."""

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock

import msgspec

from app.accounting import reports
from app.accounting.benchmarks import BENCHMARKS_FILE, read_benchmarks
from app.accounting.budgets import Budgets, BudgetState, OwnPurse, Purse, unbound
from app.accounting.estimator.arithmetic import estimate
from app.accounting.estimator.models import Estimate, Workload
from app.accounting.ledger import LEDGER_FILE, Ledger, LedgerHealth, LedgerLimits
from app.accounting.metering import LedgerMeter, Observe
from app.accounting.prices import Price, Prices
from app.accounting.reports import DEFAULT_SINCE, GroupBy, Span, UsageRow, parse_span
from app.accounting.shared import SharedLedger, SharedPurse
from app.backends.base import Clock
from app.backends.settings import BackendSettings, BudgetSettings, KeyBudget
from indexing.postgres import Database, clock_of

MEASURED_OVER = timedelta(days=30)
"""How far back an estimate looks for measured speeds."""


class UsageReport(msgspec.Struct, frozen=True, kw_only=True):
    """Usage in [since, until), by group and in total, and the state of the budgets.

    Days come in their order, other groups the most expensive first. `unpriced` are the "backend: model" whose calls are
    counted as free because no price is known. `ledger` tells how the service writes its calls; null without a service.
    """

    since: datetime
    until: datetime
    group_by: GroupBy
    rows: list[UsageRow]
    total: UsageRow
    unpriced: list[str]
    budgets: list[BudgetState]
    ledger: LedgerHealth | None


class Accounts:
    """The meter for the backends, and the reports about their cost. Nothing is opened or read before `open`.

    `clock` times the calls; `now` is seconds since 1970. The methods that block belong into a thread.
    """

    def __init__(
        self,
        home: Path,
        backends: Mapping[str, BackendSettings],
        budgets: BudgetSettings,
        clock: Clock = time.monotonic,
        now: Callable[[], float] | None = None,
        observe: Observe | None = None,
        of_key: Callable[[str], KeyBudget | None] = unbound,
        database: Database | None = None,
    ) -> None:
        """With a `database`, ledger and budgets are those of all who share it, and so is its clock if there is no
        `now`; else they are in `home`.
        """
        now = self._now = now or clock_of(database)
        self._home = home
        self._backends = backends
        self._opened, self._opening = False, Lock()
        self._shared = database is not None
        self._prices = Prices(backends, now)
        purse: Purse
        if database is None:
            self.ledger = Ledger(home / LEDGER_FILE, now=now)
            purse = OwnPurse(lambda: self.ledger.others, now)
        else:
            place = SharedLedger(database, LedgerLimits(), now)
            self.ledger, purse = Ledger(place, now=now), SharedPurse(place)
        self.budgets = Budgets(budgets, backends, purse, now, of_key)
        self.meter = LedgerMeter(self.ledger, self._prices, self.budgets, backends, clock, now, observe)

    def open(self) -> None:
        """Open the ledger, and read what was spent and the prices, before the first call. Blocks. Raises ConfigError.

        May be called from any thread, and more than once.
        """
        with self._opening:
            if not self._opened:
                self.ledger.open()
                self._prices.load()
                self._opened = True

    def close(self) -> None:
        """Write what is left, after the last call. Blocks."""
        self.ledger.close()

    def usage(
        self,
        since: str = DEFAULT_SINCE,
        until: str | None = None,
        group_by: GroupBy = "backend",
        key: str | None = None,
    ) -> UsageReport:
        """`key`: of this key alone. Blocks. Raises InvalidRequest, StoreUnavailable."""
        span = self._span(since, until)
        if not self._opened or self._shared:
            self.ledger.peek()
        rows, total, unpriced = reports.usage(self.ledger.reading, span, group_by, key)
        return UsageReport(
            since=span[0],
            until=span[1],
            group_by=group_by,
            rows=rows,
            total=total,
            unpriced=unpriced,
            budgets=[one for one in self.budgets.states() if key is None or (one.scope, one.name) == ("key", key)],
            ledger=self.ledger.health() if self._opened else None,
        )

    def export(self, since: str = DEFAULT_SINCE, until: str | None = None, key: str | None = None) -> Iterator[bytes]:
        """Pages of JSON lines, one for each call, or those of one key. Each page blocks.

        Raises InvalidRequest, StoreUnavailable.
        """
        return reports.export(self.ledger.reading, self._span(since, until), key=key)

    def estimate(self, month: Workload) -> Estimate:
        """Uses the speeds of `winnow bench`, or else those in the ledger. Blocks. Raises StoreUnavailable."""
        now = self._moment()
        measured = reports.throughput(self.ledger.reading, (now - MEASURED_OVER, now))
        return estimate(self._backends, self._prices, month, measured, read_benchmarks(self._home / BENCHMARKS_FILE))

    def price(self, backend: str, model: str) -> Price:
        """What calls to this model cost."""
        return self._prices.of(backend, model)

    def _span(self, since: str, until: str | None) -> Span:
        return parse_span(since, until, self._moment())

    def _moment(self) -> datetime:
        if self._shared and not self._opened:  # by a command, which has not asked the database for the time yet
            self.ledger.peek()
        return datetime.fromtimestamp(self._now(), UTC)
