"""One call upstream, from the slot it takes to the row it leaves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.backends.base import Charge, Clock
from app.backends.resilience.breaker import Health, Permit
from app.backends.resilience.hedging import finish
from app.backends.resilience.limits import Slot
from app.backends.token_estimates import total
from app.domain import TokenCount
from app.errors import UpstreamError, UpstreamTimeout, WinnowError


@asynccontextmanager
async def time_limit(name: str, seconds: float) -> AsyncIterator[None]:
    """Stop what is done inside after so long. Raises UpstreamTimeout."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as exc:
        raise UpstreamTimeout(name, f"{name} did not answer within {seconds:.3g} s", sent=True) from exc


class Attempt:
    """Holds a slot, the breaker's permit and a charge, and gives all three back by exactly one call to an end.

    `ends_at` is when it is given up, on `clock`.
    """

    def __init__(
        self, slot: Slot, permit: Permit, charge: Charge, health: Health, clock: Clock, timeout_s: float
    ) -> None:
        self._slot, self._permit, self._charge = slot, permit, charge
        self._health, self._clock = health, clock
        self._began = clock()
        self._timeout_s = timeout_s

    def age(self) -> float:
        """Seconds since it began."""
        return self._clock() - self._began

    def left(self) -> float:
        """Seconds until it is given up."""
        return self._timeout_s - self.age()

    async def succeeded(
        self,
        tokens: TokenCount | None,
        *,
        requests: int = 1,
        estimate: TokenCount | None = None,
        first_token_s: float | None = None,
    ) -> None:
        """The whole reply is there. `estimate` is booked if the server did not tell the tokens."""
        self._permit.succeeded()
        self._health.served(self.age(), first_token_s)
        self._slot.leave(_total(tokens or estimate), requests)
        await finish(
            self._charge.end(tokens, outcome="ok", requests=requests, estimate=estimate, first_token_s=first_token_s)
        )

    async def failed(
        self, failure: BaseException, estimate: TokenCount | None, first_token_s: float | None = None
    ) -> None:
        """There will be no whole reply. `estimate` is what it used, if the failure does not tell."""
        self._judge(failure)
        tokens = failure.tokens if isinstance(failure, UpstreamError) else None
        self._slot.leave(_total(tokens or estimate))
        await finish(
            self._charge.end(tokens, outcome=outcome_of(failure), estimate=estimate, first_token_s=first_token_s)
        )

    def _judge(self, failure: BaseException) -> None:
        """A backend that refuses is well; one that we did not let finish, nobody knows."""
        if not isinstance(failure, UpstreamError):
            self._permit.dropped()
            return
        self._health.failed(failure)
        if failure.retryable:
            self._permit.failed(failure)
        else:
            self._permit.succeeded()


def may_have_read(failure: BaseException) -> bool:
    """Whether a call that failed before it replied has used its prompt: what we stopped probably has."""
    return not isinstance(failure, WinnowError) or (isinstance(failure, UpstreamTimeout) and failure.sent)


def outcome_of(failure: BaseException) -> str:
    """The word for it in the ledger."""
    if isinstance(failure, asyncio.CancelledError | GeneratorExit):
        return "cancelled"
    return failure.code if isinstance(failure, WinnowError) else WinnowError.code


def _total(tokens: TokenCount | None) -> int | None:
    return None if tokens is None else total(tokens)
