"""A completion that is arriving."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

from app.backends.base import Delta
from app.backends.resilience.attempt import Attempt, may_have_read, time_limit
from app.backends.resilience.hedging import finish
from app.backends.token_estimates import tokens_of, tokens_of_calls
from app.domain import TokenCount
from app.errors import UpstreamBadReply, WinnowError

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
