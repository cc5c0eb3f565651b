"""How money is counted: whole picodollars, by day and month (UTC), in total, by backend and by key.

Integers, so that sums are exact whatever their order. A token at 0.025 dollars a million costs 25,000 picodollars.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, NamedTuple

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
