"""Finding out what a backend's server is, what it can do, and whether it is there."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from app.backends.attempt import Outcome, log_reason, time_limit
from app.backends.base import Account, Adapter, Call, Clock, Deadline, Meter, Probed, Target
from app.backends.resilience.breaker import Breaker, Health
from app.domain import TokenCount
from app.errors import UpstreamError, UpstreamRateLimited
from indexing.concurrency import finish

PROBE_S = 10.0
"""How long a backend may take to say what it is."""

T = TypeVar("T")


class Discovery:
    """Asks one backend's server, and remembers as `probed` what it said last; None: nobody has asked yet."""

    def __init__(
        self, name: str, adapter: Adapter, meter: Meter, breaker: Breaker, health: Health, clock: Clock
    ) -> None:
        self.probed: Probed | None = None
        self._name, self._adapter, self._meter = name, adapter, meter
        self._breaker, self._health, self._clock = breaker, health, clock
        self._probing = asyncio.Lock()

    async def probe(self, timeout_s: float = PROBE_S) -> Probed:
        """Find out anew what it is and can do; a success ends its rest. Raises UpstreamError, and then it is down."""
        async with self._probing:
            return await self._probe(timeout_s)

    async def known(self, timeout_s: float = PROBE_S) -> Probed:
        """What it is and can do; found out now if nobody has yet. Raises UpstreamError.

        Counts as an attempt for the breaker; a success closes it anyway.
        """
        if self.probed is not None:
            return self.probed
        self._breaker.check()
        async with time_limit(self._name, timeout_s), self._probing:
            return await self._probe_once(min(timeout_s, PROBE_S))

    async def ping(self, timeout_s: float = PROBE_S) -> None:
        """Find out whether it is there. Raises UpstreamError, and then it is down."""
        await self._checked(self._adapter.ping(timeout_s), timeout_s)

    async def _probe_once(self, timeout_s: float) -> Probed:
        """Unless somebody else has done so while this one waited for the lock."""
        if self.probed is not None:
            return self.probed
        permit = self._breaker.admit()
        try:
            return await self._probe(timeout_s)
        except BaseException as exc:
            permit.release(Outcome(failure=exc))
            raise

    async def _probe(self, timeout_s: float) -> Probed:
        probed = self.probed = await self._checked(self._adapter.probe(timeout_s), timeout_s)
        self._breaker.close()
        if probed.requests:
            # The little that finding out has cost. It is spent already, so no budget can refuse it.
            call = Call(stage="probe", deadline=Deadline(0.0, self._clock), account=Account())
            charge = self._meter.begin(Target(backend=self._name, model=probed.model), call, TokenCount())
            await finish(charge.end(probed.tokens, outcome="ok", requests=probed.requests))
        return probed

    async def _checked(self, question: Coroutine[Any, Any, T], timeout_s: float) -> T:
        try:
            async with time_limit(self._name, timeout_s):
                answer = await question
        except UpstreamRateLimited as exc:
            log_reason(self._name, exc)
            self._health.failed(exc)  # it is there, and busy
            raise
        except UpstreamError as exc:
            log_reason(self._name, exc)
            self._health.away(exc)
            raise
        self._health.there()
        return answer
