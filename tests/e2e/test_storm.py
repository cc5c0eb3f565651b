"""Ten thousand calls at once upon three bad servers: through the real SDKs, over real sockets, into a real ledger."""

import asyncio
import gc
import tracemalloc
import warnings
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from app.accounting.accounts import Accounts
from app.accounting.budgets import in_usd
from app.accounting.ledger import LEDGER_FILE
from app.backends.base import Account, Call, ChatRequest, Deadline, Message
from app.backends.pool import BackendPool
from app.backends.settings import BackendSettings, BudgetSettings, RoutingSettings
from app.errors import Overloaded, UpstreamError
from tests.e2e.books import (
    MOST_OUTPUT,
    MOST_PROMPTS,
    busy_s,
    check_books,
    check_dollars,
    cost_of_probes,
    read_rows,
    text_for,
)
from tests.fakes.storm import CountingMeter, Crowd, Servers

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(400)]

CALLS, CONCURRENCY = 10_000, 64

TRACED = 600
"""Twice so many calls are watched for memory, which makes them slow; when they begin, everything is warm."""

OUR_GROWTH, GROWTH = 64 * TRACED, 1000 * TRACED
"""Bytes that the last of them may leave behind in our code, and with the libraries: of each less than an object, and
less than half a reply. Not nothing: a batch of the ledger is kept until the next, and connections come and go."""

LEFT_OPEN = 3
"""Connections that the garbage collector may have to close after TRACED calls. One was seen in ten thousand calls: its
caller left while it was being opened, and asyncio kept nothing that would close it. A leak of ours would be dozens."""

WORK = {"complete": 0.4, "stream": 0.4, "score": 0.2}
WHOM = {"auto": 0.4, "gemini": 0.2, "vllm": 0.2, "ollama": 0.2}
LEAVING, LEAVES_AFTER_S = 0.08, 0.03

TOLD = BackendSettings(kind="vllm", timeout_s=20, first_token_s=20, retries=1, concurrency=32)
ROUTING = RoutingSettings(rest_s=0.05, longest_rest_s=0.2)
BUDGETS = BudgetSettings(daily_usd=1e6, monthly_usd=1e6)

DOCUMENTED = {"timeout", "unavailable", "resting", "rate_limited", "rejected", "bad_reply", "refused", "overloaded"}


class Storm:
    """The servers, our side of them, and what has become of the calls."""

    def __init__(self, home: Path) -> None:
        self.ledger = home / LEDGER_FILE
        self.servers = Servers(seed=1)
        self.ends: Counter[str] = Counter()
        self.used = Account()
        self._home = home
        self._crowd = Crowd(4)
        self._numbers = iter(range(10**9))

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Everything runs; afterwards nothing does."""
        async with AsyncExitStack() as stack:
            backends = await stack.enter_async_context(self.servers.opened(TOLD))
            self.accounts = Accounts(self._home, backends, BUDGETS)
            self.accounts.open()
            stack.callback(self.accounts.close)
            self.meter = CountingMeter(self.accounts.meter)
            self.pool = BackendPool(backends, ROUTING, self.meter)
            self.clients = self.pool.router.clients.values()
            stack.push_async_callback(self.pool.close)
            await asyncio.gather(*(client.replicas.first.discovery.probe() for client in self.clients))
            self.pool.start()
            yield

    async def blow(self, calls: int) -> None:
        """So many calls, CONCURRENCY at once; some callers go away in the middle."""
        todo = iter(range(calls))

        async def caller() -> None:
            for _ in todo:
                call = asyncio.ensure_future(self._call())
                if (after_s := self._crowd.leaves_after(LEAVING, LEAVES_AFTER_S)) is not None:
                    asyncio.get_running_loop().call_later(after_s, call.cancel)
                await asyncio.wait((call,))
                self.ends["cancelled" if call.cancelled() else call.result()] += 1

        await asyncio.gather(*(caller() for _ in range(CONCURRENCY)))

    async def _call(self) -> str:
        """How it ended: a code, or "served". Anything but a documented error fails the test."""
        request_id, work, whom = f"storm-{next(self._numbers):06}", self._crowd.picks(WORK), self._crowd.picks(WHOM)
        call = Call(stage=work, deadline=Deadline(30), account=self.used, request_id=request_id)
        try:
            await self._use(work, whom, call)
        except (UpstreamError, Overloaded) as exc:
            return exc.code
        return "served"

    async def _use(self, work: str, whom: str, call: Call) -> None:
        if work == "score":
            route = self.pool.router.route("auto" if whom == "gemini" else whom, frozenset(("logprobs",)))
            await route.score([_prompt(call.request_id, number) for number in range(MOST_PROMPTS)], ("0", "1"), call)
            return
        route = self.pool.router.route(whom, frozenset(("chat",)))
        asked = ChatRequest(messages=_prompt(call.request_id), max_output_tokens=MOST_OUTPUT)
        if work == "complete":
            await route.complete(asked, call)
            return
        stream = (await route.stream(asked, call)).value
        try:
            async for _ in stream:
                pass
        finally:
            await stream.aclose()

    async def check_idle(self) -> None:
        """Nothing is under way; what is still connected is kept for the next call."""
        assert all((client.status().in_flight, client.status().waiting) == (0, 0) for client in self.clients)
        await self.servers.settled(TOLD.concurrency)
        assert self.meter.begun == self.meter.ended
        assert all(state.reserved_usd == 0 for state in self.accounts.budgets.states())

    def check_ends(self) -> None:
        """Every call has one, and most are good."""
        assert self.ends.total() == CALLS
        assert set(self.ends) <= DOCUMENTED | {"served", "cancelled"}, self.ends
        assert self.ends["served"] > 0.75 * CALLS, self.ends
        assert self.ends["cancelled"] > 0, self.ends

    def check_money(self) -> None:
        """The ledger is right, and so is everything that is summed up from it."""
        rows = read_rows(self.ledger)
        assert len(rows) == self.meter.ended
        assert check_books(rows, self.servers.books).exact > 0.8 * CALLS
        check_dollars(rows)
        pico = sum(row.pico for row in rows)
        [day, month] = self.accounts.budgets.states()
        assert day.spent_usd == month.spent_usd == in_usd(pico + cost_of_probes(self.ledger))
        used = self.used.usage()
        assert used.requests == sum(row.requests for row in rows)
        assert used.input_tokens == sum(row.input for row in rows)
        assert used.output_tokens == sum(row.output + row.thinking for row in rows)
        assert used.cost_usd == pytest.approx(in_usd(pico))
        local = [row for row in rows if row.backend == "vllm"]
        assert sum(row.gpu_s or 0 for row in local) == pytest.approx(busy_s(local), rel=0.02)


def _prompt(request_id: str, number: int = 0) -> tuple[Message, ...]:
    return (Message(role="user", content=text_for(request_id, number)),)


async def growth(storm: Storm) -> tuple[int, int]:
    """The bytes that TRACED calls leave behind in our code and with all but the tests, after as many before."""
    tracemalloc.start()
    try:
        await storm.blow(TRACED)
        ours, all_told = _held()
        await storm.blow(TRACED)
        ours_now, all_told_now = _held()
        return ours_now - ours, all_told_now - all_told
    finally:
        tracemalloc.stop()


def _held() -> tuple[int, int]:
    with warnings.catch_warnings(record=True) as left:
        warnings.simplefilter("always")
        gc.collect()
    assert len(left) <= LEFT_OPEN, [str(warning.message) for warning in left]
    taken = tracemalloc.take_snapshot()
    ours = taken.filter_traces([tracemalloc.Filter(True, "*/app/*")])
    foreign = (tracemalloc.Filter(False, pattern) for pattern in ("*/tests/*", tracemalloc.__file__))
    sizes = [sum(trace.size for trace in some.traces) for some in (ours, taken.filter_traces(list(foreign)))]
    return sizes[0], sizes[1]


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
async def test_ten_thousand_calls(tmp_path: Path) -> None:
    """Each ends as documented, is booked once and as the server told it, and leaves neither task nor connection."""
    before = asyncio.all_tasks()
    storm = Storm(tmp_path)
    async with storm.opened(), asyncio.timeout(380):
        await storm.blow(CALLS - 2 * TRACED)
        ours, all_told = await growth(storm)
        await storm.check_idle()
    assert asyncio.all_tasks() == before
    assert storm.servers.open_connections == 0
    storm.check_ends()
    storm.check_money()
    assert (ours < OUR_GROWTH, all_told < GROWTH) == (True, True), (ours, all_told)
