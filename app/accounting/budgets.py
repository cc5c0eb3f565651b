"""Budgets: what may be spent by whom, what has been, and who is refused."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec

from app.backends.settings import BackendSettings, BudgetSettings, KeyBudget
from app.errors import BudgetExceeded

PICO = 10**12
"""Picodollars in a dollar."""

MOST = 10_000 * PICO
"""A call is never counted dearer: 64 bits hold nine hundred of these."""

_ALL_THE_MONEY = 1e15
"""Dollars; a limit may be told as infinite."""

Scope = Literal["total", "backend", "key"]
Period = Literal["day", "month"]


class Purse(NamedTuple):
    """Whose spending: of all, of a backend, of a key."""

    scope: Scope
    name: str = ""


class Cell(NamedTuple):
    """What a purse spent in one period: a day "2026-11-22" or a month "2026-11"."""

    period: str
    purse: Purse


_DAY_S = 86400

Tally = Mapping[Cell, int]
"""Picodollars."""


def in_pico(usd: float) -> int:
    """Dollars, rounded."""
    return round(min(usd, _ALL_THE_MONEY) * PICO)


def in_usd(pico: int) -> float:
    """Picodollars as dollars."""
    return pico / PICO


def rate(usd: float) -> str:
    """A price as people write it: $0.25, $1.50, and as many digits as $0.025 needs."""
    return f"${usd:.2f}" if round(usd, 2) == usd else f"${usd:g}"


def purses_of(backend: str, key: str) -> tuple[Purse, Purse, Purse]:
    """Everyone who pays for a call."""
    return Purse("total"), Purse("backend", backend), Purse("key", key)


def period_of(at: float, period: Period) -> str:
    """The name of the period that `at` (seconds since 1970) falls into."""
    return _period(int(at // _DAY_S), period)


@lru_cache(8)
def _period(day: int, period: Period) -> str:
    return _utc(day * _DAY_S).strftime("%Y-%m-%d" if period == "day" else "%Y-%m")


def seconds_left(at: float, period: Period) -> float:
    """Until the period ends."""
    return ends(at, period).timestamp() - at


def ends(at: float, period: Period) -> datetime:
    """When the period ends and the next one begins."""
    day = _utc(at).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return day + timedelta(days=1)
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def tallied(costs: Iterable[tuple[float, str, str, int]]) -> Counter[Cell]:
    """The cells that calls of (seconds since 1970, backend, key, picodollars) add to, but for those of no cost."""
    tally: Counter[Cell] = Counter()
    for at, backend, key, pico in costs:
        if pico:
            periods = period_of(at, "day"), period_of(at, "month")
            tally.update({Cell(period, purse): pico for period in periods for purse in purses_of(backend, key)})
    return tally


def _utc(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


ANY_KEY = "*"

Told = BudgetSettings | BackendSettings | KeyBudget


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """What a purse may spend in each period; `setting` is where that is told."""

    purse: Purse
    period: Period
    pico: int
    setting: str


class BudgetState(msgspec.Struct, frozen=True, kw_only=True):
    """A budget and how much of it is gone. `name` is the backend or the key, "" for the total.

    `reserved_usd` is what the calls in flight may cost at worst. It begins anew at `resets_at`.
    """

    scope: Scope
    name: str
    period: Period
    limit_usd: float
    spent_usd: float
    reserved_usd: float
    resets_at: datetime
    setting: str


class Reservation(msgspec.Struct, frozen=True):
    """What a call may cost at worst, in picodollars, and who pays. To be settled exactly once."""

    backend: str
    key: str
    pico: int


class Budgets:
    """Kept in memory; `others` is what the ledger has of other processes and earlier ones. For one thread.

    `now`: seconds since 1970.
    """

    def __init__(
        self,
        budgets: BudgetSettings,
        backends: Mapping[str, BackendSettings],
        others: Callable[[], Tally],
        now: Callable[[], float],
    ) -> None:
        self._limits: dict[Purse, tuple[Limit, ...]] = dict(_limits(budgets, backends))
        self._any_key = tuple(_told(Purse("key", ANY_KEY), budgets.keys.get(ANY_KEY), f"[budgets.keys.{ANY_KEY}]"))
        self._others = others
        self._now = now
        self._own: Counter[Cell] = Counter()
        self._reserved: Counter[Purse] = Counter()
        self._day = ""

    def admit(self, backend: str, key: str, worst_pico: int) -> Reservation:
        """Set aside what a call may cost. Raises BudgetExceeded, telling of the limit that frees up last."""
        if worst_pico > 0:
            at = self._now()
            spent = [limit for purse in purses_of(backend, key) for limit in self._of(purse) if self._full(limit, at)]
            if spent:
                raise self._exceeded(max(spent, key=lambda limit: seconds_left(at, limit.period)), at)
            self._reserved.update(dict.fromkeys(purses_of(backend, key), worst_pico))
        return Reservation(backend, key, worst_pico)

    def settle(self, reservation: Reservation, pico: int, at: float) -> None:
        """The call ended at `at` (seconds since 1970) and cost so much."""
        self._forget_earlier()
        if reservation.pico > 0:
            for purse in purses_of(reservation.backend, reservation.key):
                self._reserved[purse] -= reservation.pico
                if not self._reserved[purse]:
                    del self._reserved[purse]
        self._own.update(tallied([(at, reservation.backend, reservation.key, pico)]))

    def states(self) -> list[BudgetState]:
        """Every budget; "*" stands for each key that spends something."""
        at = self._now()
        periods = period_of(at, "day"), period_of(at, "month")
        cells = {*self._own, *self._others()}
        keys = {cell.purse for cell in cells if cell.purse.scope == "key" and cell.period in periods}
        purses = [*self._limits, *sorted({*keys, *(p for p in self._reserved if p.scope == "key")} - {*self._limits})]
        return [self._state(limit, at) for purse in purses for limit in self._of(purse)]

    def _of(self, purse: Purse) -> tuple[Limit, ...]:
        limits = self._limits.get(purse)
        if limits is None and purse.scope == "key":
            return tuple(msgspec.structs.replace(limit, purse=purse) for limit in self._any_key)
        return limits or ()

    def _full(self, limit: Limit, at: float) -> bool:
        return self._spent(limit, at) + self._reserved[limit.purse] >= limit.pico

    def _spent(self, limit: Limit, at: float) -> int:
        cell = Cell(period_of(at, limit.period), limit.purse)
        return self._own[cell] + self._others().get(cell, 0)

    def _state(self, limit: Limit, at: float) -> BudgetState:
        return BudgetState(
            scope=limit.purse.scope,
            name=limit.purse.name,
            period=limit.period,
            limit_usd=in_usd(limit.pico),
            spent_usd=in_usd(self._spent(limit, at)),
            reserved_usd=in_usd(self._reserved[limit.purse]),
            resets_at=ends(at, limit.period),
            setting=limit.setting,
        )

    def _exceeded(self, limit: Limit, at: float) -> BudgetExceeded:
        spent, reserved = in_usd(self._spent(limit, at)), in_usd(self._reserved[limit.purse])
        waiting = f" and ${reserved:.6f} set aside for calls in flight" if reserved else ""
        whose = {"total": "in total", "backend": "by backend {!r}", "key": "by key {!r}"}[limit.purse.scope]
        resets_at = ends(at, limit.period)
        detail = (
            f"the budget of ${in_usd(limit.pico):g} a {limit.period} {whose.format(limit.purse.name)} is spent: "
            f"${spent:.6f} spent{waiting} in {period_of(at, limit.period)}; "
            f"it begins anew at {resets_at:%Y-%m-%dT%H:%M:%SZ}; {limit.setting} sets it"
        )
        return BudgetExceeded(detail, seconds_left(at, limit.period))

    def _forget_earlier(self) -> None:
        at = self._now()
        day = period_of(at, "day")
        if day != self._day:
            self._day = day
            for cell in [cell for cell in self._own if cell.period not in (day, period_of(at, "month"))]:
                del self._own[cell]


def _limits(
    budgets: BudgetSettings, backends: Mapping[str, BackendSettings]
) -> Iterator[tuple[Purse, tuple[Limit, ...]]]:
    told: list[tuple[Purse, Told, str]] = [(Purse("total"), budgets, "[budgets]")]
    told += [(Purse("backend", name), backend, f"[backends.{name}]") for name, backend in backends.items()]
    told += [(Purse("key", name), b, f"[budgets.keys.{name}]") for name, b in budgets.keys.items() if name != ANY_KEY]
    return ((purse, tuple(_told(purse, settings, section))) for purse, settings, section in told)


def _told(purse: Purse, settings: Told | None, section: str) -> Iterator[Limit]:
    if settings is not None and settings.daily_usd is not None:
        yield Limit(purse=purse, period="day", pico=in_pico(settings.daily_usd), setting=f"daily_usd in {section}")
    if settings is not None and settings.monthly_usd is not None:
        yield Limit(
            purse=purse, period="month", pico=in_pico(settings.monthly_usd), setting=f"monthly_usd in {section}"
        )
