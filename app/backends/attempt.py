"""One call upstream, from the slot it takes to the row it leaves: whole, or as a stream."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress

from app.backends.base import Charge, Clock, Delta, tokens_of, tokens_of_calls, total
from app.backends.resilience.breaker import Health, Permit
from app.backends.resilience.limits import Slot
from app.concurrency import finish
from app.domain import TokenCount
from app.errors import UpstreamBadReply, UpstreamError, UpstreamTimeout, WinnowError


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


CLOSE_S = 5.0
"""How long an adapter may take to let go of its connection."""


class OpenStream:
    """Deltas, the first of which is there. Iterate it once and close it; one task at a time.

    Ends after the delta with the finish reason; by then it is booked. Raises UpstreamError. What was held for it is
    given back when it ends, fails, or is closed before that, which cancels the call upstream.
    """

    first: Delta

    def __init__(self, name: str, source: AsyncGenerator[Delta, None], attempt: Attempt, prompt: TokenCount) -> None:
        self._name, self._source, self._attempt = name, source, attempt
        self._told: TokenCount | None = None
        self._prompt = prompt
        self._text_tokens = 0
        self._first_token_s: float | None = None
        self._unread: Delta | None = None
        self._over = False

    async def open(self, within_s: float) -> "OpenStream":
        """Wait for the first delta. Raises UpstreamError; then it is closed."""
        self.first = self._unread = await self._receive(within_s)
        return self

    def __aiter__(self) -> "OpenStream":
        return self

    async def __anext__(self) -> Delta:
        if self._unread is not None:
            delta, self._unread = self._unread, None
            return delta
        if self._over:
            raise StopAsyncIteration
        return await self._receive(self._attempt.left())

    async def aclose(self) -> None:
        """Give the rest of it up, if there is any."""
        self._unread = None
        if not self._over:
            await self._end(GeneratorExit())

    async def _receive(self, within_s: float) -> Delta:
        try:
            delta = await self._next(within_s)
        except BaseException as exc:
            await self._end(exc)
            raise
        self._note(delta)
        if delta.finish_reason is not None:
            await self._end(None)
        return delta

    async def _next(self, within_s: float) -> Delta:
        async with time_limit(self._name, within_s):
            delta = await anext(self._source, None)
        if delta is None:
            raise UpstreamBadReply(self._name, f"{self._name} broke its reply off")
        return delta

    def _note(self, delta: Delta) -> None:
        if self._first_token_s is None:
            self._first_token_s = self._attempt.age()
        self._text_tokens += tokens_of(delta.text) + tokens_of_calls(delta.calls)
        self._told = delta.tokens or self._told

    async def _end(self, failure: BaseException | None) -> None:
        self._over = True
        try:
            await finish(self._close())
        finally:
            await self._settle(failure)

    async def _close(self) -> None:
        with suppress(WinnowError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._source.aclose()

    async def _settle(self, failure: BaseException | None) -> None:
        first_token_s = self._first_token_s
        if failure is None:
            await self._attempt.succeeded(self._told, estimate=self._estimate(), first_token_s=first_token_s)
            return
        began = first_token_s is not None or may_have_read(failure)
        await self._attempt.failed(failure, self._estimate() if began else None, first_token_s)

    def _estimate(self) -> TokenCount:
        """What it has used up to here: what the server told, but at least the text that has come."""
        told = self._told or self._prompt
        return TokenCount(
            input=told.input, cached=told.cached, thinking=told.thinking, output=max(told.output, self._text_tokens)
        )
