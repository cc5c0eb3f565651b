"""Ten thousand calls on bad days, in virtual time."""

import asyncio
import gc
import tracemalloc
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from app.backends.pool import Supervisor
from app.backends.router import Router
from app.backends.settings import RoutingSettings
from app.errors import (
    Overloaded,
    Refused,
    UpstreamBadReply,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from tests.fakes.adapters import ASKED, Plan, ScriptedAdapter
from tests.fakes.clients import a_call, make_client
from tests.fakes.meter import RecordingMeter
from tests.fakes.virtual_time import run

CALLS, CONCURRENCY, FAULTS = 10_000, 64, 0.1

GROWTH = 50_000
"""Bytes that the last quarter of the calls may leave behind: less than the smallest object of each."""

FAILURES: tuple[Callable[[], UpstreamError], ...] = (
    lambda: UpstreamTimeout("fake", ""),
    lambda: UpstreamUnavailable("fake", ""),
    lambda: UpstreamRateLimited("fake", "", 0.5, quota="minute"),
    lambda: UpstreamBadReply("fake", ""),
    lambda: UpstreamRejected("fake", ""),
    lambda: Refused("fake", ""),
)


class Soak:
    """Two backends, a crowd of callers, and what has become of them."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.meter = RecordingMeter(seconds=0.002, keep=False)
        self.adapters = [ScriptedAdapter(rest=self._plan) for _ in range(2)]
        routing = RoutingSettings(failures=5, rest_s=1)
        self.clients = [
            make_client(adapter, self.meter, name=name, routing=routing, timeout_s=5, concurrency=40, hedge_after_s=2)
            for name, adapter in zip(("gemma", "flash"), self.adapters, strict=True)
        ]
        self.router = Router(self.clients, routing)
        self.ends: Counter[str] = Counter()

    async def go(self, calls: int) -> None:
        """So many calls, CONCURRENCY at once; now and then a caller goes away."""
        todo = iter(range(calls))

        async def caller() -> None:
            for _ in todo:
                call = asyncio.ensure_future(self._call())
                if self.random.random() < FAULTS:
                    asyncio.get_running_loop().call_later(self.random.expovariate(10), call.cancel)
                await asyncio.wait((call,))
                self.ends["cancelled" if call.cancelled() else call.result()] += 1

        await asyncio.gather(*(caller() for _ in range(CONCURRENCY)))

    def check(self, calls: int) -> None:
        """Every call has ended, every attempt is booked, and nothing is held any more."""
        assert self.ends.total() == calls
        assert self.ends["served"] > 0.8 * calls
        self.meter.check()
        assert self.meter.begun == sum(adapter.begun for adapter in self.adapters)
        tokens = [adapter.tokens for adapter in self.adapters]
        assert self.meter.tokens == tokens[0] + tokens[1]
        stopped = sum(adapter.stopped for adapter in self.adapters)
        cancelled, timed_out = self.meter.outcomes["cancelled"], self.meter.outcomes["timeout"]
        assert cancelled <= stopped <= cancelled + timed_out
        assert all(adapter.under_way == 0 for adapter in self.adapters)
        assert all((client.status().in_flight, client.status().waiting) == (0, 0) for client in self.clients)

    async def _call(self) -> str:
        """How it ended: a code, or "served". Anything but a documented error fails the test."""
        try:
            await self._use()
        except (UpstreamError, Overloaded) as exc:
            return exc.code
        return "served"

    async def _use(self) -> None:
        call, kind = a_call(20), self.random.random()
        if kind < 0.6:
            await self.router.route("auto", frozenset(("chat",))).complete(ASKED, call)
        elif kind < 0.7:
            await self.router.route("gemma", frozenset(("logprobs",))).score([ASKED.messages], ("0",), call)
        else:
            stream = (await self.router.route("auto", frozenset(("chat",))).stream(ASKED, call)).value
            try:
                async for _ in stream:
                    pass
            finally:
                await stream.aclose()

    def _plan(self) -> Plan:
        failure = self.random.choice(FAILURES)() if self.random.random() < FAULTS else None
        return Plan(seconds=self.random.choice((0.01, 0.05, 0.2, 3.0)), failure=failure)


@pytest.mark.slow
def test_ten_thousand_calls() -> None:
    """Every call ends as documented, the books agree with the servers, no task is left, and memory is flat."""
    run(_soak())


async def _soak() -> None:
    soak = Soak(seed=7)
    supervisor = Supervisor(soak.clients)
    supervisor.start()
    await soak.go(CALLS // 2)
    tracemalloc.start()
    try:
        await soak.go(CALLS // 4)
        before = _allocated()
        await soak.go(CALLS // 4)
        grown = _allocated() - before
    finally:
        tracemalloc.stop()
    await supervisor.close()
    soak.check(CALLS)
    assert grown < GROWTH


def _allocated() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
