"""One call upstream: what it passes through, what it used, and how it ended; whole, or as a stream.

The concerns around a call (limits, breaker, health, meter) are guards: each lets an attempt begin and learns how it
ended, and none knows the others.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import msgspec
import structlog

from app.backends.base import (
    Call,
    Clock,
    Conversation,
    Deadline,
    Decision,
    Delta,
    Meter,
    Relevance,
    Reply,
    Scoring,
    Target,
    tokens_of,
    tokens_of_calls,
)
from app.domain import TokenCount
from app.errors import UpstreamBadReply, UpstreamError, UpstreamTimeout, WinnowError
from app.observability.tracing import Attributes, Span, active
from indexing.concurrency import finish

log = structlog.get_logger()

CLOSE_S = 5.0
"""How long an adapter may take to close its connection."""

FAILOVER_WAIT_S = 1.0
"""How long to wait in the queue, or before a retry, while another backend could take over."""

R = TypeVar("R", Reply, Scoring, Decision, Relevance)


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt is for and what it may use: at most the tokens of `worst`.

    `failover_deadline`: another backend could take over, so by then the reply must be there; if it is `streamed`, its
    first token.
    `spare`: it is a second call beside a slow first one, and takes only what is free at once.
    """

    call: Call
    worst: TokenCount
    failover_deadline: Deadline | None = None
    streamed: bool = False
    spare: bool = False
    operation: str = "chat"
    """What traces call it."""
    prefix: str = ""
    """What its prompt begins with, for the choice among servers: see `app.backends.replicas`."""
    messages: Conversation = ()
    """For traces that may hold texts."""

    def left(self) -> float:
        """Seconds until the reply, or the first token of a stream, must be there."""
        left = self.call.deadline.left()
        return left if self.failover_deadline is None else min(left, self.failover_deadline.left())

    def patience(self) -> float:
        """Seconds that may be waited without anything being done."""
        return self.left() if self.failover_deadline is None else min(self.left(), FAILOVER_WAIT_S)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended. `failure` None: well. `tokens` None: the server did not say; then `estimate` counts.

    Both are None when nothing was used, as far as anyone knows.
    """

    failure: BaseException | None = None
    tokens: TokenCount | None = None
    estimate: TokenCount | None = None
    requests: int = 1
    seconds: float = 0.0
    first_token_s: float | None = None

    @property
    def code(self) -> str:
        """The word for it in the ledger."""
        if self.failure is None:
            return "ok"
        if isinstance(self.failure, asyncio.CancelledError | GeneratorExit):
            return "cancelled"
        return self.failure.code if isinstance(self.failure, WinnowError) else WinnowError.code


Release = Callable[[Outcome | None], Coroutine[Any, Any, None] | None]
"""Gives back what a guard took for an attempt that is over; None: it was never made. Called exactly once.

What is returned has to be awaited to its end, whoever is cancelled meanwhile.
"""

Guard = Callable[[Terms], Awaitable[Release]]
"""One concern around every attempt: lets it begin, or raises WinnowError."""


def metering(meter: Meter, target: Callable[[], Target]) -> Guard:
    """The guard that prices and books each attempt; it raises BudgetExceeded.

    It has to be the last one: a charge that has begun is booked, so no later guard may refuse.
    """

    async def guard(terms: Terms) -> Release:
        charge = await meter.begin(target(), terms.call, terms.worst)

        def release(outcome: Outcome | None) -> Coroutine[Any, Any, None]:
            outcome = outcome or Outcome(failure=asyncio.CancelledError())
            return charge.end(
                outcome.tokens,
                outcome=outcome.code,
                requests=outcome.requests,
                estimate=outcome.estimate,
                first_token_s=outcome.first_token_s,
            )

        return release

    return guard


@asynccontextmanager
async def time_limit(name: str, seconds: float) -> AsyncIterator[None]:
    """Stop what is done inside after so long. Raises UpstreamTimeout."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as exc:
        raise UpstreamTimeout(name, f"{name} did not answer within {seconds:.3g} s", sent=True) from exc


async def begin(
    name: str,
    guards: Iterable[Guard],
    terms: Terms,
    clock: Clock,
    timeout_s: float,
    trace: Callable[[Terms], Span | None] = lambda _: None,
) -> "Attempt":
    """Pass all guards, in their order, or none; `trace` begins the span of what is let in.

    Raises what the first guard raises that refuses.
    """
    releases: list[Release] = []
    try:
        for guard in guards:
            releases.append(await guard(terms))
    except BaseException:
        for release in reversed(releases):
            release(None)
        raise
    left = terms.call.deadline.left() if terms.streamed else terms.left()
    return Attempt(name, terms, releases, clock, min(timeout_s, left), trace(terms))


class Attempt:
    """One call to the backend `name`, given up after `timeout_s`. It ends exactly once, and gives back what it took."""

    def __init__(
        self,
        name: str,
        terms: Terms,
        releases: Sequence[Release],
        clock: Clock,
        timeout_s: float,
        span: Span | None = None,
    ) -> None:
        self.name, self._span = name, span
        self._pieces: list[str] = []
        self._terms, self._releases = terms, releases
        self._clock, self._began, self._timeout_s = clock, clock(), timeout_s
        self._tokens: TokenCount | None = None
        self._text_tokens = 0
        self._first_token_s: float | None = None

    def left(self) -> float:
        """Seconds until it is given up."""
        return self._timeout_s - (self._clock() - self._began)

    async def whole(self, ask: Callable[[float], Awaitable[R]]) -> R:
        """The reply to `ask`, which gets the seconds it may take."""
        within_s = self.left()
        try:
            async with time_limit(self.name, within_s):
                with active(self._span):
                    reply = await ask(within_s)
        except BaseException as exc:
            await self.end(exc)
            raise
        self._note_tokens(reply.tokens)
        if isinstance(reply, Reply):
            self._pieces = [reply.text]
            self._text_tokens = tokens_of(reply.text) + tokens_of_calls(reply.calls)
            self._tell({"gen_ai.response.model": reply.model, "gen_ai.response.finish_reasons": (reply.finish_reason,)})
        await self.end(requests=1 if isinstance(reply, Reply) else reply.requests)
        return reply

    async def stream(self, source: AsyncGenerator[Delta, None], first_token_s: float) -> "OpenStream":
        """The reply that arrives from `source`, once its first delta is there."""
        within_s = min(first_token_s, self._terms.left(), self.left())
        with active(self._span):
            return await OpenStream(source, self).open(within_s)

    def note(self, delta: Delta) -> None:
        """A piece of a streamed reply has come."""
        if self._first_token_s is None:
            self._first_token_s = self._clock() - self._began
        self._text_tokens += tokens_of(delta.text) + tokens_of_calls(delta.calls)
        if self._span is not None:
            self._pieces.append(delta.text)
            if delta.finish_reason is not None:
                self._tell({"gen_ai.response.finish_reasons": (delta.finish_reason,)})
        self._note_tokens(delta.tokens)

    async def end(self, failure: BaseException | None = None, *, requests: int = 1) -> None:
        """Give everything back and book it. None: the whole reply is there."""
        tokens, estimate = self._tokens, None
        if failure is not None:
            log_reason(self.name, failure)
            # What a stream reported before it failed may be less than what it used: only an estimate.
            tokens = failure.tokens if isinstance(failure, UpstreamError) else None
        if tokens is None and (failure is None or self._first_token_s is not None or _may_have_read(failure)):
            estimate = self._used()
        outcome = Outcome(
            failure=failure,
            tokens=tokens,
            estimate=estimate,
            requests=requests,
            seconds=self._clock() - self._began,
            first_token_s=self._first_token_s,
        )
        self._end_span(outcome)
        # Everything is given back before anything is awaited: a slot is not held while a call is being booked.
        rest = [work for release in self._releases if (work := release(outcome)) is not None]
        await finish(_each(rest))

    def _note_tokens(self, tokens: TokenCount | None) -> None:
        """Whoever reads a prompt reads a token: a server that counts none has not counted, and `end` estimates."""
        if tokens != TokenCount():
            self._tokens = tokens or self._tokens

    def _tell(self, attributes: Attributes) -> None:
        if self._span is not None:
            self._span.set(attributes)

    def _end_span(self, outcome: Outcome) -> None:
        if self._span is None:
            return
        used = outcome.tokens or outcome.estimate or TokenCount()
        self._span.set(
            {
                "gen_ai.usage.input_tokens": used.input,
                "gen_ai.usage.output_tokens": used.output + used.thinking,
            }
        )
        if used.cached is not None:
            self._span.set({"gen_ai.usage.cache_read.input_tokens": used.cached})
        if outcome.first_token_s is not None:
            self._span.set({"gen_ai.response.time_to_first_chunk": outcome.first_token_s})
        self._span.set_texts(self._texts)
        self._span.end("" if outcome.failure is None else outcome.code)

    def _texts(self) -> dict[str, str]:
        """Prompt and reply, as OpenTelemetry's conventions write them."""
        sent = [_message(message.role, message.content) for message in self._terms.messages]
        return {
            "gen_ai.input.messages": msgspec.json.encode(sent).decode(),
            "gen_ai.output.messages": msgspec.json.encode([_message("assistant", "".join(self._pieces))]).decode(),
        }

    def _used(self) -> TokenCount:
        """What it has used up to here: what the server reported, but at least its prompt and the text that has come."""
        tokens = self._tokens or TokenCount(input=self._terms.worst.input)
        return TokenCount(
            input=tokens.input,
            cached=tokens.cached,
            thinking=tokens.thinking,
            output=max(tokens.output, self._text_tokens),
        )


def log_reason(name: str, failure: BaseException) -> None:
    """Write down what a backend gave as the reason of a failure: an operator needs it, a client must not see it."""
    if isinstance(failure, UpstreamError) and failure.reason:
        log.warning("a backend gave a reason for its failure", backend=name, error=failure.code, reason=failure.reason)


def _may_have_read(failure: BaseException) -> bool:
    """Whether a call that failed before it replied has used its prompt: what we stopped probably has."""
    return not isinstance(failure, WinnowError) or (isinstance(failure, UpstreamTimeout) and failure.sent)


def _message(role: str, content: str) -> dict[str, object]:
    return {"role": role, "parts": [{"type": "text", "content": content}]}


async def _each(works: Iterable[Awaitable[None]]) -> None:
    for work in works:
        await work


class OpenStream:
    """Deltas, the first of which is there. Iterate it once and close it; one task at a time.

    Ends after the delta with the finish reason; by then it is booked. Raises UpstreamError. What was held for it is
    given back when it ends, fails, or is closed before that, which cancels the call upstream.
    """

    first: Delta

    def __init__(self, source: AsyncGenerator[Delta, None], attempt: Attempt) -> None:
        self._source, self._attempt = source, attempt
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
        """Give up the rest of it, if there is any."""
        self._unread = None
        if not self._over:
            await self._end(GeneratorExit())

    async def _receive(self, within_s: float) -> Delta:
        name = self._attempt.name
        try:
            async with time_limit(name, within_s):
                delta = await anext(self._source, None)
            if delta is None:
                raise UpstreamBadReply(name, f"{name} broke off in the middle of its reply")
        except BaseException as exc:
            await self._end(exc)
            raise
        self._attempt.note(delta)
        if delta.finish_reason is not None:
            await self._end(None)
        return delta

    async def _end(self, failure: BaseException | None) -> None:
        self._over = True
        try:
            await finish(self._close())
        finally:
            await self._attempt.end(failure)

    async def _close(self) -> None:
        with suppress(WinnowError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._source.aclose()
