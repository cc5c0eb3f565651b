"""Periods, and what is counted for whom."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.accounting.budgets import BudgetKey, ends, in_pico, in_usd, period_of, seconds_left, spending_of

moments = st.datetimes(datetime(1971, 1, 1), datetime(2999, 1, 1)).map(lambda at: at.replace(tzinfo=UTC).timestamp())


@given(moments)
def test_a_period_lasts_until_it_ends(at: float) -> None:
    """A moment before its end it is the same, and at its end another."""
    for period in ("day", "month"):
        end = ends(at, period).timestamp()
        assert period_of(end - 0.001, period) == period_of(at, period) != period_of(end, period)
        assert seconds_left(at, period) == pytest.approx(end - at)


def test_a_month_ends_with_its_last_day() -> None:
    """Also in December, and in a leap year's February."""
    for begin, end in (
        (datetime(2026, 12, 31, 23), datetime(2027, 1, 1)),
        (datetime(2028, 2, 1), datetime(2028, 3, 1)),
    ):
        assert ends(begin.replace(tzinfo=UTC).timestamp(), "month") == end.replace(tzinfo=UTC)


def test_a_call_is_counted_for_everyone_who_pays() -> None:
    """Its day and its month, each in total, for the backend and for the key."""
    at = datetime(2026, 11, 22, 23, 59, tzinfo=UTC).timestamp()
    tally = spending_of([(at, "b", "k", 5), (at + 120, "b", "other", 2), (at, "free", "k", 0)])
    assert tally[("2026-11-22", BudgetKey("total"))] == 5
    assert tally[("2026-11", BudgetKey("total"))] == 7
    assert tally[("2026-11-23", BudgetKey("key", "other"))] == 2
    assert tally[("2026-11", BudgetKey("backend", "b"))] == 7
    assert ("2026-11", BudgetKey("backend", "free")) not in tally


@given(st.floats(0, 1e9))
def test_dollars_survive_being_counted_in_picodollars(usd: float) -> None:
    """To half a picodollar, or what a float can tell."""
    assert in_usd(in_pico(usd)) == pytest.approx(usd, rel=1e-12, abs=5e-13)


def test_an_infinite_limit_is_a_number() -> None:
    """TOML can write one."""
    assert in_pico(float("inf")) > in_pico(1e12)
