"""Finding out what a backend's server is, what it can do, and whether it is there."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from app.backends.attempt import Outcome, log_reason, time_limit
from app.backends.base import Account, Adapter, Call, Clock, Deadline, Meter, Probed, Target
from app.backends.resilience.breaker import Breaker, Health, Permit
from app.domain import TokenCount
from app.errors import UpstreamError, UpstreamRateLimited
from indexing.concurrency import finish

PROBE_S = 10.0
"""How long a backend may take to say that it is there, and what it is if nobody asks it anything else."""

PATIENCE_S = 300.0
"""How long one that is there, but busy, may take to say what it is."""


class Discovery:
    """Asks one backend's server, and remembers as `probed` what it said last; None: nobody has asked yet.

    One question at a time is under way, which all wait for: a server that is busy must not get a longer queue by it.
    """

    def __init__(
        self, name: str, replica: int, adapter: Adapter, meter: Meter, breaker: Breaker, health: Health, clock: Clock
    ) -> None:
        self.probed: Probed | None = None
        self._name, self._replica, self._adapter, self._meter = name, replica, adapter, meter
        self._breaker, self._health, self._clock = breaker, health, clock
        self._probing: asyncio.Task[Probed] | None = None

    async def probe(self) -> Probed:
        """Find out anew what it is and can do; a success ends its rest. Raises UpstreamError, and then it is down."""
        return await self._shared(None)

    async def known(self, timeout_s: float = PROBE_S) -> Probed:
        """What it is and can do; found out now if nobody has yet. Raises UpstreamError.

        Counts as an attempt for the breaker; a success closes it anyway. The question goes on when the time is over.
        """
        if self.probed is not None:
            return self.probed
        self._breaker.check()
        async with time_limit(self._name, timeout_s):
            return await self._shared(self._breaker.admit if self._probing is None else None)

    async def ping(self, timeout_s: float = PROBE_S) -> None:
        """Find out whether it is there. Raises UpstreamError, and then it is down."""
        async with self._noted(), time_limit(self._name, timeout_s):
            await self._adapter.ping(timeout_s)

    def forget(self) -> None:
        """It has another model than the one that was found: whoever wants to know has to ask again."""
        self.probed = None
        self._health.news.set()

    async def close(self) -> None:
        """Give up a question that is under way."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)

    async def _shared(self, admit: Callable[[], Permit] | None) -> Probed:
        if self._probing is None:
            permit = admit() if admit else None
            self._probing = asyncio.create_task(self._probe(permit), name=f"probe-{self._name}")
            self._probing.add_done_callback(self._ended)
        return await asyncio.shield(self._probing)

    def _ended(self, probing: asyncio.Task[Probed]) -> None:
        self._probing = None
        if not probing.cancelled():
            probing.exception()  # nobody may be waiting any more

    async def _probe(self, permit: Permit | None) -> Probed:
        try:
            async with self._noted():
                probed = self.probed = await self._found_out()
        except BaseException as exc:
            if permit is not None:
                permit.release(Outcome(failure=exc))
            raise
        self._breaker.close()
        if probed.requests:
            # The little that finding out has cost. It is spent already, so no budget can refuse it.
            call = Call(stage="probe", deadline=Deadline(0.0, self._clock), account=Account())
            target = Target(backend=self._name, model=probed.model, replica=self._replica)
            charge = await self._meter.begin(target, call, TokenCount())
            await finish(charge.end(probed.tokens, outcome="ok", requests=probed.requests))
        return probed

    async def _found_out(self) -> Probed:
        """A server that says nothing for a while is asked whether it is there: then it is busy, and waited for."""
        probing = asyncio.ensure_future(self._adapter.probe(PATIENCE_S))
        try:
            async with time_limit(self._name, PATIENCE_S):
                while True:
                    await asyncio.wait((probing,), timeout=PROBE_S / 2)
                    if probing.done():
                        return probing.result()
                    async with time_limit(self._name, PROBE_S / 2):
                        await self._adapter.ping(PROBE_S / 2)
                    self._health.there()
        finally:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)

    @asynccontextmanager
    async def _noted(self) -> AsyncIterator[None]:
        """What comes of a question is the backend's health."""
        try:
            yield
        except UpstreamRateLimited as exc:
            log_reason(self._name, exc)
            self._health.failed(exc)  # it is there, and busy
            raise
        except UpstreamError as exc:
            log_reason(self._name, exc)
            self._health.away(exc)
            raise
        self._health.there()
