"""What a backend is given at once and in a minute."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backends.resilience.limits import WINDOW_S, Gate, Window
from app.backends.settings import BackendSettings
from app.errors import Overloaded
from tests.fakes.virtual_time import VIRTUAL_TIME, run

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, object]:
    """Waiting takes no time."""
    return VIRTUAL_TIME


def gate_of(**settings: int) -> Gate:
    """A gate with these limits."""
    return Gate("gemma", BackendSettings(kind="vllm", **settings))


@asynccontextmanager
async def inside(gate: Gate, tokens: int = 0, patience_s: float = 1000) -> AsyncIterator[None]:
    """Within a slot."""
    slot = await gate.enter(tokens, patience_s)
    try:
        yield
    finally:
        slot.leave()


amounts = st.lists(st.tuples(st.floats(0, 40), st.integers(0, 12)), min_size=1, max_size=40)


@given(asked=amounts, limit=st.integers(1, 10))
def test_no_minute_holds_more_than_the_limit(asked: list[tuple[float, int]], limit: int) -> None:
    """If each amount waits as long as it is told, any 60 seconds hold at most the limit, or one amount above it."""
    now = 0.0
    window = Window(limit, lambda: now)
    taken: list[tuple[float, int]] = []
    for pause, amount in asked:
        now += pause
        now += window.wait_s((amount,))
        assert window.wait_s((amount,)) <= 1e-9
        window.take(amount)
        taken.append((now, amount))
    for at, _ in taken:
        held = [amount for when, amount in taken if at - WINDOW_S + 1e-6 < when <= at]
        assert sum(held) <= limit or len([amount for amount in held if amount]) == 1


@given(asked=amounts, limit=st.integers(1, 10), queue=st.lists(st.integers(0, 12), min_size=1, max_size=20))
def test_the_wait_in_a_queue_is_foretold(asked: list[tuple[float, int]], limit: int, queue: list[int]) -> None:
    """The wait told for the last of a queue is what it takes when each is taken as soon as it may be."""
    now = 0.0
    window = Window(limit, lambda: now)
    for pause, amount in asked:
        now += pause
        window.take(amount)
    foretold = now + window.wait_s(queue)
    for amount in queue:
        now += window.wait_s((amount,))
        window.take(amount)
    assert now == pytest.approx(foretold)


@given(asked=amounts, truth=st.lists(st.integers(0, 20), min_size=40, max_size=40))
def test_the_truth_replaces_the_estimate(asked: list[tuple[float, int]], truth: list[int]) -> None:
    """A window that was corrected is as one in which the true amounts were taken at the same times."""
    now = 0.0
    estimated, true = Window(10, lambda: now), Window(10, lambda: now)
    pending = []
    for (pause, amount), actual in zip(asked, truth, strict=False):
        now += pause
        pending.append((estimated.take(amount), actual))
        true.take(actual)
    for entry, actual in pending:
        estimated.correct(entry, actual)
    assert estimated.wait_s((5,)) == true.wait_s((5,))


async def test_calls_are_let_in_in_the_order_of_their_coming() -> None:
    """With one slot the calls run one after another, first come first served."""
    gate, order = gate_of(concurrency=1), list[int]()

    async def call(number: int) -> None:
        async with inside(gate):
            order.append(number)
            await asyncio.sleep(1)

    await asyncio.gather(*(call(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4]
    assert (gate.in_flight, gate.waiting) == (0, 0)


async def test_nobody_overtakes_a_large_call() -> None:
    """A call that waits for many tokens is not starved by small ones that would fit."""
    gate, order = gate_of(tokens_per_minute=100), list[str]()

    async def call(name: str, tokens: int) -> None:
        async with inside(gate, tokens):
            order.append(name)

    await asyncio.gather(call("first", 50), call("large", 80), call("small", 10))
    assert order == ["first", "large", "small"]


async def test_a_full_queue_is_refused_at_once() -> None:
    """More than `queue` waiting calls are Overloaded, with a time to come back, and take no time."""
    gate = gate_of(concurrency=1, queue=1)
    async with inside(gate):
        waiting = asyncio.ensure_future(gate.enter(0, 100))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="1 calls are already waiting") as refused:
            await gate.enter(0, 100)
        assert refused.value.retry_after >= 1
        assert asyncio.get_running_loop().time() == 0
    (await waiting).leave()


async def test_a_wait_that_is_known_to_be_too_long_is_refused_at_once() -> None:
    """When the minute is used up and the deadline comes first, it says so now, and when to come back."""
    gate = gate_of(requests_per_minute=2)
    for _ in range(2):
        async with inside(gate):
            await asyncio.sleep(5)
    with pytest.raises(Overloaded, match="per minute") as refused:
        await gate.enter(0, 20)
    assert refused.value.retry_after == pytest.approx(50)
    assert asyncio.get_running_loop().time() == pytest.approx(10)


async def test_a_wait_that_fits_is_waited() -> None:
    """When the minute is over in time, the call waits for it and no longer."""
    gate = gate_of(requests_per_minute=2)
    for _ in range(3):
        async with inside(gate):
            pass
    assert asyncio.get_running_loop().time() == pytest.approx(60)


async def test_patience_ends() -> None:
    """A call that no slot came free for in time is Overloaded, and stands in nobody's way."""
    gate = gate_of(concurrency=1)
    async with inside(gate):
        with pytest.raises(Overloaded, match="in time"):
            await gate.enter(0, 3)
        assert asyncio.get_running_loop().time() == pytest.approx(3)
        assert gate.waiting == 0
    async with inside(gate):
        assert gate.in_flight == 1


async def test_who_gives_up_makes_room_for_the_next() -> None:
    """When the call at the head of the queue goes, the one behind it need not wait for what the first one needed."""
    gate = gate_of(tokens_per_minute=100)
    (await gate.enter(50, 1)).leave()
    large = asyncio.ensure_future(gate.enter(80, 1000))
    small = asyncio.ensure_future(gate.enter(10, 1000))
    await asyncio.sleep(2)
    large.cancel()
    await small
    assert asyncio.get_running_loop().time() == 2


async def test_a_call_that_was_never_made_does_not_count() -> None:
    """A slot given back unused takes nothing from the minute."""
    gate = gate_of(requests_per_minute=1, tokens_per_minute=10)
    (await gate.enter(10, 1)).unused()
    assert gate.enter_now(10) is not None


async def test_what_a_call_really_took_is_what_counts() -> None:
    """Tokens reserved but not used are free again at once, and requests beyond the first count too."""
    gate = gate_of(tokens_per_minute=100, requests_per_minute=10)
    (await gate.enter(90, 1)).leave(tokens=20, requests=9)
    slot = gate.enter_now(80)
    assert slot is not None
    slot.leave()
    assert gate.enter_now(0) is None


async def test_those_who_wait_long_are_told_to_come_back_later() -> None:
    """The time to come back grows with what a call typically takes and how many wait."""
    gate = gate_of(concurrency=1, queue=1)
    for _ in range(50):
        async with inside(gate):
            await asyncio.sleep(10)
    async with inside(gate):
        waiting = asyncio.ensure_future(gate.enter(0, 100))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as refused:
            await gate.enter(0, 100)
        assert refused.value.retry_after == pytest.approx(20, rel=0.1)
    (await waiting).leave()


@given(
    seed=st.integers(0, 2**32),
    concurrency=st.integers(1, 4),
    requests=st.none() | st.integers(1, 30),
    tokens=st.none() | st.integers(1, 300),
)
def test_no_slot_is_ever_lost(seed: int, concurrency: int, requests: int | None, tokens: int | None) -> None:
    """However callers come, give up and are cancelled, limits hold, the order holds, and all slots come back."""
    run(_crowd(Random(seed), concurrency, requests, tokens))


async def _crowd(random: Random, concurrency: int, requests: int | None, tokens: int | None) -> None:
    gate = Gate(
        "gemma",
        BackendSettings(
            kind="vllm", concurrency=concurrency, queue=20, requests_per_minute=requests, tokens_per_minute=tokens
        ),
    )
    entered = dict[int, float]()

    async def call(number: int, size: int, hold_s: float, patience_s: float) -> None:
        slot = await gate.enter(size, patience_s)
        try:
            entered[number] = asyncio.get_running_loop().time()
            assert gate.in_flight <= concurrency
            await asyncio.sleep(hold_s)
        finally:
            slot.leave(random.randrange(2 * size + 1))

    callers = []
    for number in range(40):
        task = asyncio.ensure_future(
            call(number, random.randrange(30), random.choice((0, 0.5, 3)), random.choice((0.0, 1.0, 200.0)))
        )
        callers.append(task)
        if random.random() < 0.4:
            asyncio.get_running_loop().call_later(random.choice((0, 0, 0.5, 1, 3)), task.cancel)
        if random.random() < 0.7:
            await asyncio.sleep(random.choice((0, 0, 0.5, 1)))
    ends = await asyncio.gather(*callers, return_exceptions=True)
    assert all(end is None or isinstance(end, Overloaded | asyncio.CancelledError) for end in ends)
    times = [entered[number] for number in sorted(entered)]
    assert times == sorted(times)
    assert (gate.in_flight, gate.waiting) == (0, 0)
    await asyncio.sleep(2 * WINDOW_S)
    assert gate.enter_now(0) is not None
