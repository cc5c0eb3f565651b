"""Calls that are let in, timed, priced and booked."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.accounting.budgets import PICO
from app.backends.base import Target
from app.backends.settings import BudgetSettings
from app.domain import StageUsage, TokenCount
from app.errors import BudgetExceeded
from tests.fakes.money import GEMINI, GEMMA, OWN, Desk

pytestmark = pytest.mark.anyio

USED = TokenCount(input=1000, cached=500, output=100, thinking=50)
USD = 0.0005 + 0.00005 + 0.0015


def rows(home: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(home / "ledger.sqlite3")) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute("SELECT * FROM calls ORDER BY id")]


async def test_a_batch_costs_half(tmp_path: Path) -> None:
    """Of each class of tokens, and the row says that it was one."""
    desk = Desk(tmp_path)
    await desk.spend(msgspec.structs.replace(GEMINI, batch=True), USED)
    (row,) = rows(tmp_path)
    assert (row["pico"], row["price_source"]) == (round(USD * PICO / 2), "settings, batch")


async def test_a_call_becomes_a_row(tmp_path: Path) -> None:
    """With everything that is known of it, on the ledger and on the request's account."""
    desk = Desk(tmp_path)
    call = desk.call(stage="answer", key="team", request_id="abc")
    charge = await desk.meter.begin(GEMINI, call, USED)
    desk.time.at += 1.5
    await charge.end(USED, outcome="ok", requests=2, first_token_s=0.25)
    (row,) = rows(tmp_path)
    assert row == {
        "id": 1,
        "at_ms": round(desk.time.at * 1000),
        "request_id": "abc",
        "stage": "answer",
        "backend": "gemini",
        "kind": "gemini",
        "model": "gemini-model",
        "key": "team",
        "outcome": "ok",
        "requests": 2,
        "input": 1000,
        "cached": 500,
        "output": 100,
        "thinking": 50,
        "estimated": 0,
        "pico": round(USD * PICO),
        "price_source": "settings",
        "gpu_s": None,
        "latency_ms": 1500.0,
        "first_token_ms": 250.0,
        "replica": 0,
    }
    booked = call.account.usage().by_stage["answer"]
    assert booked == StageUsage(requests=2, input_tokens=1000, cached_tokens=500, output_tokens=150, cost_usd=USD)
    desk.ledger.close()


async def test_a_row_names_the_server(tmp_path: Path) -> None:
    """Of a backend that has several: the ledger tells how its calls are spread."""
    desk = Desk(tmp_path)
    for number in (2, 1, 2):
        charge = await desk.meter.begin(msgspec.structs.replace(GEMINI, replica=number), desk.call(), USED)
        await charge.end(USED, outcome="ok")
    assert [row["replica"] for row in rows(tmp_path)] == [2, 1, 2]
    desk.ledger.close()


@pytest.mark.parametrize(
    ("tokens", "estimate", "expected"),
    [(None, None, (0, 0, 0)), (None, USED, (1000, 1, round(USD * PICO))), (USED, TokenCount(input=9), (1000, 0, None))],
)
async def test_tokens_that_were_not_told(
    tmp_path: Path, tokens: TokenCount | None, estimate: TokenCount | None, expected: tuple[int, int, int | None]
) -> None:
    """An estimate is booked and marked; without one the call is a row that cost nothing."""
    desk = Desk(tmp_path)
    await (await desk.meter.begin(GEMINI, desk.call(), USED)).end(tokens, outcome="timeout", estimate=estimate)
    (row,) = rows(tmp_path)
    assert (row["input"], row["estimated"], row["outcome"]) == (*expected[:2], "timeout")
    assert expected[2] is None or row["pico"] == expected[2]
    desk.ledger.close()


async def test_a_servers_nonsense_becomes_a_count(tmp_path: Path) -> None:
    """Neither negative nor beyond all numbers, and no more cached than there was."""
    desk = Desk(tmp_path)
    nonsense = TokenCount(input=50, cached=70, output=-5, thinking=10**30)
    await (await desk.meter.begin(GEMINI, desk.call(), USED)).end(nonsense, outcome="ok")
    (row,) = rows(tmp_path)
    assert (row["input"], row["cached"], row["output"], row["thinking"]) == (50, 50, 0, 10**12)
    desk.ledger.close()


async def test_a_gpu_is_paid_by_the_second_and_shared(tmp_path: Path) -> None:
    """Two calls at once pay together what one would; a tenth of a cent a second."""
    desk = Desk(tmp_path)
    calls = [desk.call(), desk.call()]
    charges = [await desk.meter.begin(GEMMA, call, USED) for call in calls]
    desk.time.at += 4
    for charge in charges:
        await charge.end(USED, outcome="ok")
    assert [call.account.usage().cost_usd for call in calls] == [pytest.approx(0.002)] * 2
    assert [row["gpu_s"] for row in rows(tmp_path)] == [2.0, 2.0]
    desk.ledger.close()


async def test_each_server_of_a_backend_has_a_gpu(tmp_path: Path) -> None:
    """Calls at once on two servers pay for both; the price of an hour is that of each."""
    desk = Desk(tmp_path)
    calls = [desk.call(), desk.call()]
    targets = [msgspec.structs.replace(GEMMA, replica=number) for number in (1, 2)]
    charges = [await desk.meter.begin(target, call, USED) for target, call in zip(targets, calls, strict=True)]
    desk.time.at += 4
    for charge in charges:
        await charge.end(USED, outcome="ok")
    assert [call.account.usage().cost_usd for call in calls] == [pytest.approx(0.004)] * 2
    desk.ledger.close()


async def test_own_hardware_without_a_price_is_free_and_measured(tmp_path: Path) -> None:
    """No dollars, but its busy seconds; and no budget stops it."""
    desk = Desk(tmp_path, BudgetSettings(daily_usd=0))
    await desk.spend(OWN, USED, seconds=3)
    (row,) = rows(tmp_path)
    assert (row["pico"], row["gpu_s"], row["price_source"]) == (0, 3.0, "local")
    desk.ledger.close()


async def test_a_backend_that_nobody_configured_is_unpriced(tmp_path: Path) -> None:
    """It is let in and booked as of unknown price."""
    desk = Desk(tmp_path)
    await desk.spend(Target(backend="new", model="m"), USED)
    (row,) = rows(tmp_path)
    assert (row["pico"], row["price_source"], row["kind"]) == (0, "unknown", "")
    desk.ledger.close()


async def test_a_charge_ends_once(tmp_path: Path) -> None:
    """Twice is a programmer's error, and books nothing more."""
    desk = Desk(tmp_path)
    charge = await desk.meter.begin(GEMINI, desk.call(), USED)
    await charge.end(USED, outcome="ok")
    with pytest.raises(RuntimeError):
        await charge.end(USED, outcome="ok")
    desk.ledger.close()
    assert len(rows(tmp_path)) == 1


async def test_a_cancelled_end_is_booked_all_the_same(tmp_path: Path) -> None:
    """Everything is done before it first waits."""
    desk = Desk(tmp_path, BudgetSettings(daily_usd=1))
    call = desk.call()
    ending = asyncio.ensure_future((await desk.meter.begin(GEMINI, call, USED)).end(USED, outcome="cancelled"))
    await asyncio.sleep(0)
    ending.cancel()
    await asyncio.gather(ending, return_exceptions=True)
    assert call.account.usage().cost_usd == pytest.approx(USD)
    (state,) = desk.budgets.states()
    assert state.spent_usd == pytest.approx(USD)
    assert state.reserved_usd == 0
    desk.ledger.close()
    assert len(rows(tmp_path)) == 1


async def test_64_calls_at_once_overspend_by_one_at_most(tmp_path: Path) -> None:
    """Of calls of a cent against a budget of ten cents, ten are let in."""
    desk = Desk(tmp_path, BudgetSettings(daily_usd=0.10))
    cent = TokenCount(output=1000)
    let_in = asyncio.Event()

    async def one() -> bool:
        try:
            charge = await desk.meter.begin(GEMINI, desk.call(), cent)
        except BudgetExceeded:
            return False
        await let_in.wait()
        await charge.end(cent, outcome="ok")
        return True

    tasks = [asyncio.ensure_future(one()) for _ in range(64)]
    await asyncio.sleep(0)
    let_in.set()
    assert sum(await asyncio.gather(*tasks)) == 10
    assert desk.budgets.states()[0].spent_usd == pytest.approx(0.10)
    desk.ledger.close()


async def test_many_calls_on_one_gpu_do_not_set_aside_many_gpus(tmp_path: Path) -> None:
    """A minute of it costs six cents, however many share it: a budget of 40 cents lets 64 begin."""
    desk = Desk(tmp_path, BudgetSettings(daily_usd=0.40))
    charges = [await desk.meter.begin(GEMMA, desk.call(seconds=60), USED) for _ in range(64)]
    desk.time.at += 60
    for charge in charges:
        await charge.end(USED, outcome="ok")
    assert desk.budgets.states()[0].spent_usd == pytest.approx(0.06)
    desk.ledger.close()


async def test_a_restart_remembers_what_was_spent(tmp_path: Path) -> None:
    """The budget goes on where the earlier process ended."""
    desk = Desk(tmp_path, BudgetSettings(daily_usd=0.01))
    await desk.spend(GEMINI, TokenCount(output=1000))
    desk.ledger.close()
    again = Desk(tmp_path, BudgetSettings(daily_usd=0.01), time=desk.time)
    with pytest.raises(BudgetExceeded, match=r"\$0.010000 spent"):
        await again.meter.begin(GEMINI, again.call(), USED)
    again.ledger.close()


steps = st.lists(
    st.tuples(st.sampled_from((GEMINI, GEMMA, OWN)), st.integers(0, 5000), st.integers(0, 500), st.floats(0, 5)),
    max_size=25,
)


@settings(max_examples=20)
@given(steps)
def test_ledger_account_and_budget_agree(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[Target, int, int, float]]
) -> None:
    """The rows' sum, the requests' accounts and the budget's figure are the same dollars, to a billionth."""
    home = tmp_path_factory.mktemp("home")
    desk = Desk(home, BudgetSettings(monthly_usd=1e6))
    booked = []

    async def spend() -> None:
        for target, given_tokens, made, seconds in calls:
            call, used = desk.call(), TokenCount(input=given_tokens, output=made)
            charge = await desk.meter.begin(target, call, used)
            desk.time.at += seconds
            await charge.end(used, outcome="ok")
            booked.append(call.account.usage().cost_usd)

    asyncio.run(spend())
    desk.ledger.close()
    paid = sum(row["pico"] for row in rows(home)) / PICO
    assert sum(booked) == pytest.approx(paid, abs=1e-9)
    assert desk.budgets.states()[0].spent_usd == pytest.approx(paid, abs=1e-9)
