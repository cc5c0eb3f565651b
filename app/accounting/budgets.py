"""Budgets: how much may be spent and has been, and when a call is refused."""

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

MAX_CALL_PICO = 10_000 * PICO
"""No call is counted as more expensive. The ledger's sums of picodollars are 64-bit: nine hundred of these fit."""

_MAX_USD = 1e15
"""A limit in the settings may be infinite; an integer of picodollars cannot."""

Scope = Literal["total", "backend", "key"]
Period = Literal["day", "month"]


class BudgetKey(NamedTuple):
    """Whose spending is counted: that of everyone, of a backend, or of a caller's key."""

    scope: Scope
    name: str = ""


Spending = Mapping[tuple[str, BudgetKey], int]
"""Picodollars by period and key. A period is a day "2026-11-22" or a month "2026-11"."""

_DAY_S = 86400


def in_pico(usd: float) -> int:
    """Dollars as picodollars, rounded."""
    return round(min(usd, _MAX_USD) * PICO)


def in_usd(pico: int) -> float:
    """Picodollars as dollars."""
    return pico / PICO


def rate(usd: float) -> str:
    """A price as people write it: $0.25, $1.50, and with more digits where needed, as in $0.025."""
    return f"${usd:.2f}" if round(usd, 2) == usd else f"${usd:g}"


def budget_keys(backend: str, key: str) -> tuple[BudgetKey, BudgetKey, BudgetKey]:
    """Those that a call counts towards."""
    return BudgetKey("total"), BudgetKey("backend", backend), BudgetKey("key", key)


def period_of(at: float, period: Period) -> str:
    """The name of the period that `at` (seconds since 1970) falls into."""
    return _period(int(at // _DAY_S), period)


@lru_cache(8)
def _period(day: int, period: Period) -> str:
    return _utc(day * _DAY_S).strftime("%Y-%m-%d" if period == "day" else "%Y-%m")


def seconds_left(at: float, period: Period) -> float:
    """Seconds until the period ends."""
    return ends(at, period).timestamp() - at


def ends(at: float, period: Period) -> datetime:
    """When the period ends and the next one begins."""
    day = _utc(at).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return day + timedelta(days=1)
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def spending_of(calls: Iterable[tuple[float, str, str, int]]) -> Counter[tuple[str, BudgetKey]]:
    """What calls of (seconds since 1970, backend, key, picodollars) add up to, without those that cost nothing."""
    spending: Counter[tuple[str, BudgetKey]] = Counter()
    for at, backend, key, pico in calls:
        if pico:
            periods = period_of(at, "day"), period_of(at, "month")
            spending.update({(period, payer): pico for period in periods for payer in budget_keys(backend, key)})
    return spending


def _utc(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


ANY_KEY = "*"
"""In the settings: every key without a budget of its own."""


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """What may be spent in each period; `setting` names the setting that says so."""

    key: BudgetKey
    period: Period
    pico: int
    setting: str


class BudgetState(msgspec.Struct, frozen=True, kw_only=True):
    """A budget and how much of it is spent. `name` is the backend or the key, "" for the total.

    `reserved_usd` is what the calls in flight may cost at most. The budget resets at `resets_at`.
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
    """The most that a call may cost, in picodollars, and who pays. To be settled exactly once."""

    backend: str
    key: str
    pico: int


def unbound(_: str) -> KeyBudget | None:
    """No key has a budget but those of the settings."""
    return None


class Budgets:
    """Admits calls while there is money left. Not thread-safe. `of_key` are the budgets that keys were made with.

    What this process spends is counted in memory; `others` is what other processes and earlier ones have spent, as the
    ledger knows it. `now`: seconds since 1970.
    """

    def __init__(
        self,
        budgets: BudgetSettings,
        backends: Mapping[str, BackendSettings],
        others: Callable[[], Spending],
        now: Callable[[], float],
        of_key: Callable[[str], KeyBudget | None] = unbound,
    ) -> None:
        self._of_key = of_key
        self._limits: dict[BudgetKey, tuple[Limit, ...]] = dict(_limits(budgets, backends))
        self._any_key = tuple(
            _limits_of(BudgetKey("key", ANY_KEY), budgets.keys.get(ANY_KEY), f"[budgets.keys.{ANY_KEY}]")
        )
        self.named_keys = frozenset(budgets.keys)
        """Those that the settings name."""
        self.refused: Counter[Scope] = Counter({"total": 0, "backend": 0, "key": 0})
        """Calls, by whose budget was spent."""
        self._others = others
        self._now = now
        self._own: Counter[tuple[str, BudgetKey]] = Counter()
        self._reserved: Counter[BudgetKey] = Counter()
        self._day = ""

    def admit(self, backend: str, key: str, max_pico: int) -> Reservation:
        """Reserve the most that a call may cost. Raises BudgetExceeded for the spent limit that resets last."""
        if max_pico > 0:
            at = self._now()
            keys = budget_keys(backend, key)
            spent = [limit for payer in keys for limit in self._of(payer) if self._is_spent(limit, at)]
            if spent:
                latest = max(spent, key=lambda limit: seconds_left(at, limit.period))
                self.refused[latest.key.scope] += 1
                raise self._exceeded(latest, at)
            self._reserved.update(dict.fromkeys(keys, max_pico))
        return Reservation(backend, key, max_pico)

    def settle(self, reservation: Reservation, pico: int, at: float) -> None:
        """Replace the reservation by the cost of the call, which ended at `at` (seconds since 1970)."""
        self._forget_earlier()
        if reservation.pico > 0:
            for payer in budget_keys(reservation.backend, reservation.key):
                self._reserved[payer] -= reservation.pico
                if not self._reserved[payer]:
                    del self._reserved[payer]
        self._own.update(spending_of([(at, reservation.backend, reservation.key, pico)]))

    def states(self) -> list[BudgetState]:
        """The state of every budget; a budget for any key ("*") appears once for each key that spends something."""
        at = self._now()
        periods = period_of(at, "day"), period_of(at, "month")
        spending = {*self._own, *self._others()}
        spenders = {key for period, key in spending if key.scope == "key" and period in periods}
        spenders |= {key for key in self._reserved if key.scope == "key"}
        keys = [*self._limits, *sorted(spenders - {*self._limits})]
        return [self._state(limit, at) for key in keys for limit in self._of(key)]

    def _of(self, key: BudgetKey) -> tuple[Limit, ...]:
        limits = self._limits.get(key, ())
        if key.scope != "key":
            return limits
        if key not in self._limits:
            limits = tuple(msgspec.structs.replace(limit, key=key) for limit in self._any_key)
        return (*limits, *_limits_of(key, self._of_key(key.name), f"the key {key.name}"))

    def _is_spent(self, limit: Limit, at: float) -> bool:
        return self._spent(limit, at) + self._reserved[limit.key] >= limit.pico

    def _spent(self, limit: Limit, at: float) -> int:
        period_and_key = period_of(at, limit.period), limit.key
        return self._own[period_and_key] + self._others().get(period_and_key, 0)

    def _state(self, limit: Limit, at: float) -> BudgetState:
        return BudgetState(
            scope=limit.key.scope,
            name=limit.key.name,
            period=limit.period,
            limit_usd=in_usd(limit.pico),
            spent_usd=in_usd(self._spent(limit, at)),
            reserved_usd=in_usd(self._reserved[limit.key]),
            resets_at=ends(at, limit.period),
            setting=limit.setting,
        )

    def _exceeded(self, limit: Limit, at: float) -> BudgetExceeded:
        spent, reserved = in_usd(self._spent(limit, at)), in_usd(self._reserved[limit.key])
        in_flight = f" and ${reserved:.6f} reserved for calls in flight" if reserved else ""
        whose = {"total": "in total", "backend": "by backend {!r}", "key": "by key {!r}"}[limit.key.scope]
        resets_at = ends(at, limit.period)
        detail = (
            f"the budget of ${in_usd(limit.pico):g} a {limit.period} {whose.format(limit.key.name)} is spent: "
            f"${spent:.6f} spent{in_flight} in {period_of(at, limit.period)}; "
            f"it resets at {resets_at:%Y-%m-%dT%H:%M:%SZ}; {limit.setting} sets it"
        )
        return BudgetExceeded(detail, seconds_left(at, limit.period))

    def _forget_earlier(self) -> None:
        at = self._now()
        day = period_of(at, "day")
        if day != self._day:
            self._day = day
            current = day, period_of(at, "month")
            for earlier in [entry for entry in self._own if entry[0] not in current]:
                del self._own[earlier]


def _limits(
    budgets: BudgetSettings, backends: Mapping[str, BackendSettings]
) -> Iterator[tuple[BudgetKey, tuple[Limit, ...]]]:
    """Also keys without a limit: a key that is named in the settings is not subject to that of any key."""
    yield BudgetKey("total"), tuple(_limits_of(BudgetKey("total"), budgets, "[budgets]"))
    for name, backend in backends.items():
        key = BudgetKey("backend", name)
        yield key, tuple(_limits_of(key, backend, f"[backends.{name}]"))
    for name, budget in budgets.keys.items():
        if name != ANY_KEY:
            key = BudgetKey("key", name)
            yield key, tuple(_limits_of(key, budget, f"[budgets.keys.{name}]"))


def _limits_of(
    key: BudgetKey, settings: BudgetSettings | BackendSettings | KeyBudget | None, section: str
) -> Iterator[Limit]:
    if settings is not None and settings.daily_usd is not None:
        yield Limit(key=key, period="day", pico=in_pico(settings.daily_usd), setting=f"daily_usd in {section}")
    if settings is not None and settings.monthly_usd is not None:
        yield Limit(key=key, period="month", pico=in_pico(settings.monthly_usd), setting=f"monthly_usd in {section}")
