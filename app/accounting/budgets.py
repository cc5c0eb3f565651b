"""Budgets: how much may be spent and has been, and when a call is refused."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol

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
    """The most that a call may cost, in picodollars, and who pays. To be settled exactly once.

    `id` names it where several processes share their budgets; 0: nobody else needs to know of it.
    """

    backend: str
    key: str
    pico: int
    id: int = 0


class Standing(NamedTuple):
    """What was spent of a limit, and what calls in flight may cost, in picodollars."""

    limit: Limit
    spent: int
    reserved: int

    @property
    def is_spent(self) -> bool:
        """Whether no further call may begin."""
        return self.spent + self.reserved >= self.limit.pico


class Purse(Protocol):
    """Knows what is spent and reserved. Not thread-safe. `at`: seconds since 1970."""

    async def reserve(
        self, reservation: Reservation, limits: Sequence[Limit], at: float, hold_s: float
    ) -> tuple[Reservation, Sequence[Standing]]:
        """Reserve, unless one of the limits is spent: then those that are. After `hold_s` nothing is held any more."""
        ...

    def settle(self, reservation: Reservation, pico: int, at: float) -> None:
        """Replace the reservation by the cost of the call, which ended at `at`."""
        ...

    def standings(self, limits: Iterable[Limit], at: float) -> list[Standing]:
        """How these limits stand."""
        ...

    def spenders(self, at: float) -> set[BudgetKey]:
        """The keys that have spent or reserved something in the periods of `at`."""
        ...


def unbound(_: str) -> KeyBudget | None:
    """No key has a budget but those of the settings."""
    return None


class OwnPurse:
    """What this process spends is counted in memory; `others` is what other processes and earlier ones have spent, as
    the ledger knows it.
    """

    def __init__(self, others: Callable[[], Spending], now: Callable[[], float]) -> None:
        self._others, self._now = others, now
        self._own: Counter[tuple[str, BudgetKey]] = Counter()
        self._reserved: Counter[BudgetKey] = Counter()
        self._day = ""

    async def reserve(
        self, reservation: Reservation, limits: Sequence[Limit], at: float, hold_s: float
    ) -> tuple[Reservation, Sequence[Standing]]:
        """Without a pause in between, so that no other call of this process is let in meanwhile."""
        spent = [standing for standing in self.standings(limits, at) if standing.is_spent]
        if not spent:
            self._reserved.update(dict.fromkeys(budget_keys(reservation.backend, reservation.key), reservation.pico))
        return reservation, spent

    def settle(self, reservation: Reservation, pico: int, at: float) -> None:
        """Count it as spent."""
        self._forget_earlier()
        if reservation.pico > 0:
            for payer in budget_keys(reservation.backend, reservation.key):
                self._reserved[payer] -= reservation.pico
                if not self._reserved[payer]:
                    del self._reserved[payer]
        self._own.update(spending_of([(at, reservation.backend, reservation.key, pico)]))

    def standings(self, limits: Iterable[Limit], at: float) -> list[Standing]:
        """How these limits stand."""
        others = self._others()
        places = [(limit, (period_of(at, limit.period), limit.key)) for limit in limits]
        return [
            Standing(limit, self._own[place] + others.get(place, 0), self._reserved[limit.key])
            for limit, place in places
        ]

    def spenders(self, at: float) -> set[BudgetKey]:
        """The keys that have spent or reserved something."""
        periods = period_of(at, "day"), period_of(at, "month")
        spent = {key for period, key in {*self._own, *self._others()} if key.scope == "key" and period in periods}
        return spent | {key for key in self._reserved if key.scope == "key"}

    def _forget_earlier(self) -> None:
        at = self._now()
        day = period_of(at, "day")
        if day != self._day:
            self._day = day
            current = day, period_of(at, "month")
            for earlier in [entry for entry in self._own if entry[0] not in current]:
                del self._own[earlier]


class Budgets:
    """Admits calls while there is money left. Not thread-safe. `of_key` are the budgets that keys were made with.

    `now`: seconds since 1970.
    """

    def __init__(
        self,
        budgets: BudgetSettings,
        backends: Mapping[str, BackendSettings],
        purse: Purse,
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
        self._purse = purse
        self._now = now

    async def admit(self, backend: str, key: str, max_pico: int, hold_s: float = 60.0) -> Reservation:
        """Reserve the most that a call may cost, for as long as it may take. Raises BudgetExceeded for the spent limit
        that resets last, and StoreUnavailable.
        """
        reservation = Reservation(backend, key, max_pico)
        if max_pico <= 0:
            return reservation
        at = self._now()
        limits = [limit for payer in budget_keys(backend, key) for limit in self._of(payer)]
        reservation, spent = await self._purse.reserve(reservation, limits, at, hold_s)
        if spent:
            latest = max(spent, key=lambda standing: seconds_left(at, standing.limit.period))
            self.refused[latest.limit.key.scope] += 1
            raise _exceeded(latest, at)
        return reservation

    def settle(self, reservation: Reservation, pico: int, at: float) -> None:
        """Replace the reservation by the cost of the call, which ended at `at` (seconds since 1970)."""
        self._purse.settle(reservation, pico, at)

    def states(self) -> list[BudgetState]:
        """The state of every budget; a budget for any key ("*") appears once for each key that spends something."""
        at = self._now()
        keys = [*self._limits, *sorted(self._purse.spenders(at) - {*self._limits})]
        standings = self._purse.standings((limit for key in keys for limit in self._of(key)), at)
        return [_state(standing, at) for standing in standings]

    def _of(self, key: BudgetKey) -> tuple[Limit, ...]:
        limits = self._limits.get(key, ())
        if key.scope != "key":
            return limits
        if key not in self._limits:
            limits = tuple(msgspec.structs.replace(limit, key=key) for limit in self._any_key)
        return (*limits, *_limits_of(key, self._of_key(key.name), f"the key {key.name}"))


def _state(standing: Standing, at: float) -> BudgetState:
    limit = standing.limit
    return BudgetState(
        scope=limit.key.scope,
        name=limit.key.name,
        period=limit.period,
        limit_usd=in_usd(limit.pico),
        spent_usd=in_usd(standing.spent),
        reserved_usd=in_usd(standing.reserved),
        resets_at=ends(at, limit.period),
        setting=limit.setting,
    )


def _exceeded(standing: Standing, at: float) -> BudgetExceeded:
    limit, spent, reserved = standing.limit, in_usd(standing.spent), in_usd(standing.reserved)
    in_flight = f" and ${reserved:.6f} reserved for calls in flight" if reserved else ""
    whose = {"total": "in total", "backend": "by backend {!r}", "key": "by key {!r}"}[limit.key.scope]
    resets_at = ends(at, limit.period)
    detail = (
        f"the budget of ${in_usd(limit.pico):g} a {limit.period} {whose.format(limit.key.name)} is spent: "
        f"${spent:.6f} spent{in_flight} in {period_of(at, limit.period)}; "
        f"it resets at {resets_at:%Y-%m-%dT%H:%M:%SZ}; {limit.setting} sets it"
    )
    return BudgetExceeded(detail, seconds_left(at, limit.period))


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
