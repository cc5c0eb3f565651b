"""Budgets: who is let in, and what the refusal says."""

from collections.abc import Callable
from datetime import UTC, datetime

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.accounting.budgets import PICO, BudgetKey, Budgets, OwnPurse, Reservation, Spending
from app.backends.settings import BackendSettings, BudgetSettings, KeyBudget
from app.errors import BudgetExceeded
from tests.fakes.money import NOON, Time

CENT = PICO // 100


def budgets(
    told: BudgetSettings | None = None,
    backend: BackendSettings | None = None,
    others: Callable[[], Spending] = dict,
    time: Time | None = None,
) -> Budgets:
    backends, now = {"b": backend or BackendSettings(kind="gemini")}, time or Time()
    return Budgets(told or BudgetSettings(), backends, OwnPurse(others, now), now)


def admit(kept: Budgets, backend: str, key: str, pico: int) -> Reservation:
    return anyio.run(kept.admit, backend, key, pico)


def spend(kept: Budgets, pico: int, *, key: str = "k", backend: str = "b", at: float = NOON) -> None:
    kept.settle(admit(kept, backend, key, pico), pico, at)


def refused(kept: Budgets, *, key: str = "k", backend: str = "b") -> BudgetExceeded:
    with pytest.raises(BudgetExceeded) as caught:
        admit(kept, backend, key, 1)
    return caught.value


def test_a_spent_budget_says_everything() -> None:
    """Limit, what is spent, of which period and whose, when it resets, and the setting."""
    kept = budgets(BudgetSettings(daily_usd=0.5))
    spend(kept, 50 * CENT)
    exc = refused(kept)
    assert str(exc) == (
        "the budget of $0.5 a day in total is spent: $0.500000 spent in 2026-11-22; "
        "it resets at 2026-11-23T00:00:00Z; daily_usd in [budgets] sets it"
    )
    assert exc.retry_after == 12 * 3600


def test_calls_in_flight_count_at_their_worst() -> None:
    """The message tells what is reserved; a call that ends for less makes room."""
    kept = budgets(BudgetSettings(monthly_usd=1.0))
    flying = admit(kept, "b", "k", 100 * CENT)
    exc = refused(kept)
    assert "$0.000000 spent and $1.000000 reserved for calls in flight in 2026-11" in str(exc)
    assert exc.retry_after == (datetime(2026, 12, 1, tzinfo=UTC).timestamp() - NOON)
    kept.settle(flying, 1 * CENT, NOON)
    admit(kept, "b", "k", 1)


@pytest.mark.parametrize(
    ("told", "backend", "said"),
    [
        (BudgetSettings(keys={"k": KeyBudget(daily_usd=0)}), None, "by key 'k'.*daily_usd in \\[budgets.keys.k\\]"),
        (
            BudgetSettings(keys={"*": KeyBudget(monthly_usd=0)}),
            None,
            "by key 'k'.*monthly_usd in \\[budgets.keys.\\*\\]",
        ),
        (None, BackendSettings(kind="gemini", daily_usd=0), "by backend 'b'.*daily_usd in \\[backends.b\\]"),
    ],
)
def test_every_scope_has_its_limits(told: BudgetSettings | None, backend: BackendSettings | None, said: str) -> None:
    """Nothing may be spent where the limit is 0."""
    with pytest.raises(BudgetExceeded, match=said):
        admit(budgets(told, backend), "b", "k", 1)


def test_a_named_key_has_its_own_budget_and_not_everyones() -> None:
    """And each of the others its own share of "*"."""
    kept = budgets(BudgetSettings(keys={"*": KeyBudget(daily_usd=0.01), "rich": KeyBudget(daily_usd=1.0)}))
    spend(kept, 50 * CENT, key="rich")
    spend(kept, 50 * CENT, key="rich")
    spend(kept, CENT, key="a")
    assert "'a'" in str(refused(kept, key="a"))
    spend(kept, CENT, key="c")
    assert "'rich'" in str(refused(kept, key="rich"))


def test_of_two_spent_budgets_the_one_that_lasts_longer_is_told() -> None:
    """Coming back tomorrow would be in vain."""
    kept = budgets(BudgetSettings(daily_usd=0, monthly_usd=0))
    assert "a month" in str(refused(kept))


def test_what_costs_nothing_is_always_let_in() -> None:
    """A local model without a GPU price, also when all is spent."""
    kept = budgets(BudgetSettings(daily_usd=0))
    kept.settle(admit(kept, "b", "k", 0), 0, NOON)


def test_a_new_period_begins_with_nothing() -> None:
    """A day at midnight UTC, a month with its first day; a call is counted when it ends."""
    time = Time(datetime(2026, 11, 30, 23, 59, tzinfo=UTC).timestamp())
    kept = budgets(BudgetSettings(daily_usd=0.01, monthly_usd=1.0), time=time)
    spend(kept, CENT, at=time.at)
    refused(kept)
    time.at += 120
    spend(kept, CENT, at=time.at)
    assert [(state.period, state.spent_usd) for state in kept.states()] == [("day", 0.01), ("month", 0.01)]
    refused(kept)


def test_what_others_spend_counts() -> None:
    """As soon as the ledger tells."""
    seen: dict[tuple[str, BudgetKey], int] = {}
    kept = budgets(BudgetSettings(daily_usd=1.0), others=lambda: seen)
    admit(kept, "b", "k", 1)
    seen[("2026-11-22", BudgetKey("total"))] = PICO
    assert "$1.000000 spent" in str(refused(kept))


def test_a_key_that_spent_in_an_earlier_period_is_not_listed() -> None:
    """Under "*" a key has a state while it spends: today, or this month, or with calls in flight."""
    others = {
        ("2026-11-21", BudgetKey("key", "yesterday")): 1,
        ("2026-10", BudgetKey("key", "last month")): 1,
        ("2026-11", BudgetKey("key", "this month")): 1,
        ("2026-11-22", BudgetKey("key", "today")): 1,
        ("2026-11-22", BudgetKey("backend", "b")): 1,
    }
    kept = budgets(BudgetSettings(keys={"*": KeyBudget(daily_usd=1)}), others=lambda: others)
    admit(kept, "b", "in flight", 1)
    assert [state.name for state in kept.states()] == ["in flight", "this month", "today"]


def test_what_this_process_spent_is_forgotten_with_its_period() -> None:
    """Yesterday's spending goes with the day, and stays in the month."""
    time = Time()
    kept = budgets(BudgetSettings(monthly_usd=1.0, keys={"*": KeyBudget(daily_usd=1.0)}), time=time)
    spend(kept, CENT, key="early")
    time.at += 86400
    spend(kept, CENT, key="late", at=time.at)
    states = {(state.scope, state.name): state.spent_usd for state in kept.states()}
    assert states == {("total", ""): 0.02, ("key", "early"): 0.0, ("key", "late"): 0.01}


def test_a_named_key_without_a_limit_has_none() -> None:
    """It is not one of those that "*" stands for."""
    kept = budgets(BudgetSettings(keys={"*": KeyBudget(daily_usd=0), "free": KeyBudget()}))
    admit(kept, "b", "free", 1)
    refused(kept, key="other")


def test_states_tell_of_every_budget() -> None:
    """The total, backends, named keys, and each key that spends under "*"; limits, spent, reserved, and the end."""
    told = BudgetSettings(monthly_usd=10, keys={"*": KeyBudget(daily_usd=1), "n": KeyBudget(daily_usd=2)})
    kept = budgets(told, BackendSettings(kind="gemini", daily_usd=5))
    spend(kept, 20 * CENT)
    admit(kept, "b", "new", 30 * CENT)
    states = {(state.scope, state.name): state for state in kept.states()}
    assert set(states) == {("total", ""), ("backend", "b"), ("key", "n"), ("key", "k"), ("key", "new")}
    assert (states["total", ""].spent_usd, states["total", ""].reserved_usd) == (0.2, 0.3)
    assert (states["key", "new"].spent_usd, states["key", "new"].reserved_usd) == (0.0, 0.3)
    assert states["total", ""].resets_at == datetime(2026, 12, 1, tzinfo=UTC)
    assert states["key", "n"].limit_usd == 2


calls = st.lists(st.tuples(st.integers(1, 60 * CENT), st.floats(0, 1), st.booleans()), max_size=120)


@given(calls, st.integers(0, 300 * CENT), st.integers(0, 200 * CENT))
def test_a_budget_is_overspent_by_one_worst_case_at_most(
    stream: list[tuple[int, float, bool]], limit: int, before: int
) -> None:
    """Whatever calls begin and end in whatever order, and use up to their worst case."""
    total = {("2026-11-22", BudgetKey("total")): before}
    kept = budgets(BudgetSettings(daily_usd=limit / PICO), others=lambda: total)
    flying: list[tuple[Reservation, float]] = []
    spent, worst_admitted = before, 0
    for worst, share, one_ends in stream:
        try:
            flying.append((admit(kept, "b", "k", worst), share))
            worst_admitted = max(worst_admitted, worst)
        except BudgetExceeded:
            assert spent + sum(reserved.pico for reserved, _ in flying) >= limit - 1
        if one_ends and flying:
            reserved, used = flying.pop(0)
            kept.settle(reserved, round(reserved.pico * used), NOON)
            spent += round(reserved.pico * used)
    for reserved, _ in flying:
        kept.settle(reserved, reserved.pico, NOON)
        spent += reserved.pico
    assert spent <= max(before, limit + 1 + worst_admitted)
    assert kept.states()[0].reserved_usd == 0
