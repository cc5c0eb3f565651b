"""One backend with its limits, its breaker, its retries and its meter."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import ExitStack
from random import Random
from typing import Any, TypeVar

import msgspec

from app.backends.attempt import Attempt, OpenStream, may_have_read, time_limit
from app.backends.base import (
    Account,
    Adapter,
    Call,
    Capability,
    ChatRequest,
    Clock,
    Conversation,
    Deadline,
    Meter,
    Probed,
    Reply,
    Scoring,
    Target,
    loop_time,
    total,
    worst_of_chat,
    worst_of_scoring,
)
from app.backends.resilience.breaker import Breaker, ClientStatus, Health, HealthState
from app.backends.resilience.hedging import hedged
from app.backends.resilience.limits import Gate, Slot
from app.backends.resilience.retry import retrying
from app.backends.settings import GEMINI_MODEL, BackendSettings, Kind, RoutingSettings
from app.backends.tools import Tooling
from app.concurrency import finish
from app.domain import TokenCount
from app.errors import MissingCapability, Overloaded, UpstreamError, UpstreamRateLimited, UpstreamTimeout

T = TypeVar("T")

PROBE_S = 10.0
"""How long a backend may take to say what it is."""

HURRY_WAIT_S = 1.0
"""How long to wait in the queue, or before a retry, while another backend could take over."""

_MAY_OFFER: dict[Kind, frozenset[Capability]] = {
    "gemini": frozenset(("chat", "structured", "images", "thinking")),
    "vllm": frozenset(("chat", "structured", "images", "logprobs", "thinking")),
    "ollama": frozenset(("chat", "structured", "images", "logprobs", "thinking")),
    "openai": frozenset(("chat", "structured", "images", "logprobs", "thinking")),
}


def needs_of(request: ChatRequest) -> frozenset[Capability]:
    """What a backend must be able to do for it."""
    needs: set[Capability] = {"chat"}
    if request.schema is not None:
        needs.add("structured")
    if any(message.images for message in request.messages):
        needs.add("images")
    return frozenset(needs)


class _Errand(msgspec.Struct, frozen=True):
    """A call with what it needs, what it may use, and `hurry`: by when, if another backend could take over."""

    call: Call
    needs: frozenset[Capability]
    worst: TokenCount
    hurry: Deadline | None

    def left(self) -> float:
        """Seconds until the reply, or the first token, must be there."""
        left = self.call.deadline.left()
        return left if self.hurry is None else min(left, self.hurry.left())

    def patience(self) -> float:
        """Seconds that may be waited without anything being done."""
        return self.left() if self.hurry is None else min(self.left(), HURRY_WAIT_S)


class BackendClient:
    """Calls one backend, each call in as many attempts as it takes and is worth.

    Every attempt takes a slot, asks the breaker, and is a charge of its own. All calls raise UpstreamError (Resting
    while the breaker is open), Refused, Overloaded, BudgetExceeded, and MissingCapability when the server turns out not
    to do what is asked. `hurry` says that another backend could take over: by when the reply (of a stream: the first
    token) must be there; until then it waits no longer than HURRY_WAIT_S at a time.
    """

    def __init__(
        self,
        name: str,
        settings: BackendSettings,
        adapter: Adapter,
        meter: Meter,
        routing: RoutingSettings,
        *,
        clock: Clock = loop_time,
        random: Random | None = None,
    ) -> None:
        self.name, self.settings, self.adapter = name, settings, adapter
        self.probed: Probed | None = None
        self._meter, self._clock = meter, clock
        self._random = random or Random()  # noqa: S311 - it spreads retries
        self._gate = Gate(name, settings, clock)
        self._health = Health()
        self._tooling = Tooling(name, settings.kind, clock)
        self._breaker = Breaker(name, routing, clock, on_change=self.news.set)
        self._probing = asyncio.Lock()

    @property
    def model(self) -> str:
        """The one in use; "" while it is neither configured nor found out."""
        if self.probed is not None:
            return self.probed.model
        return self.settings.model or (GEMINI_MODEL if self.settings.kind == "gemini" else "")

    @property
    def health(self) -> HealthState:
        """See ClientStatus."""
        if self._health.reachable is False:
            return "down"
        if self._breaker.state != "closed":
            return "resting"
        return "unknown" if self._health.reachable is None else "up"

    @property
    def available(self) -> bool:
        """Whether a call is likely to be served: it is not known to be down, and would not be turned away at once."""
        return self.health != "down" and self._breaker.rest_s == 0

    @property
    def news(self) -> asyncio.Event:
        """Set when the breaker opened or closed, a call was rejected, or it is back; whoever has looked clears it."""
        return self._health.news

    def offers(self, needs: frozenset[Capability]) -> bool:
        """Whether it can do all of that: as it was found, or before that as far as its kind ever can.

        The first call that needs more than chat finds out first.
        """
        return needs <= (self.probed.capabilities if self.probed else _MAY_OFFER[self.settings.kind])

    def status(self) -> ClientStatus:
        """How it is now."""
        return ClientStatus(
            health=self.health,
            breaker=self._breaker.state,
            latency_ms=self._health.latency_ms,
            first_token_ms=self._health.first_token_ms,
            in_flight=self._gate.in_flight,
            waiting=self._gate.waiting,
            last_error=self._health.last_error,
            retry_after=self._breaker.rest_s or None,
        )

    async def complete(self, request: ChatRequest, call: Call, hurry: Deadline | None = None) -> Reply:
        """The whole reply."""
        return await self._tooling.serve(request, lambda told: self._completed(told, call, hurry))

    async def stream(self, request: ChatRequest, call: Call, hurry: Deadline | None = None) -> OpenStream:
        """The reply as it arrives; its first delta has come. Nothing is tried again after that. Close it."""
        return await self._tooling.serve(request, lambda told: self._streamed(told, call, hurry))

    async def score(
        self, prompts: Sequence[Conversation], labels: Sequence[str], call: Call, hurry: Deadline | None = None
    ) -> Scoring:
        """What would follow each of the prompts."""
        errand = _Errand(call, frozenset(("logprobs",)), worst_of_scoring(prompts), hurry)
        return await self._attempts(errand, lambda: self._score(prompts, labels, errand))

    async def probe(self, timeout_s: float = PROBE_S) -> Probed:
        """Find out anew what it is and can do; a success ends its rest. Raises UpstreamError, and then it is down."""
        async with self._probing:
            return await self._probe(timeout_s)

    async def known(self, timeout_s: float = PROBE_S) -> Probed:
        """What it is and can do; found out now if nobody has yet. Raises UpstreamError."""
        if self.probed is not None:
            return self.probed
        self._breaker.check()
        async with time_limit(self.name, timeout_s), self._probing:
            return await self._get_to_know(min(timeout_s, PROBE_S))

    async def ping(self, timeout_s: float = PROBE_S) -> None:
        """Find out whether it is there. Raises UpstreamError, and then it is down."""
        await self._checked(self.adapter.ping(timeout_s), timeout_s)

    async def _probe(self, timeout_s: float) -> Probed:
        self.probed = await self._checked(self.adapter.probe(timeout_s), timeout_s)
        self._breaker.close()
        await self._book(self.probed)
        return self.probed

    async def _book(self, probed: Probed) -> None:
        """The little that finding out has cost. It is spent already, so no budget can refuse it."""
        if probed.requests:
            call = Call(stage="probe", deadline=Deadline(0.0, self._clock), account=Account())
            charge = self._meter.begin(Target(backend=self.name, model=probed.model), call, TokenCount())
            await finish(charge.end(probed.tokens, outcome="ok", requests=probed.requests))

    async def _checked(self, question: Coroutine[Any, Any, T], timeout_s: float) -> T:
        try:
            async with time_limit(self.name, timeout_s):
                answer = await question
        except UpstreamRateLimited as exc:
            self._health.failed(exc)
            raise
        except UpstreamError as exc:
            self._health.away(exc)
            raise
        self._health.there()
        return answer

    async def _completed(self, request: ChatRequest, call: Call, hurry: Deadline | None) -> Reply:
        errand = _Errand(call, needs_of(request), worst_of_chat(request), hurry)

        def once(*, spare: bool) -> Coroutine[Any, Any, Reply]:
            return self._complete(request, errand, spare=spare)

        return await self._attempts(errand, lambda: self._hedged(once, _let_go))

    async def _streamed(self, request: ChatRequest, call: Call, hurry: Deadline | None) -> OpenStream:
        errand = _Errand(call, needs_of(request), worst_of_chat(request), hurry)

        def once(*, spare: bool) -> Coroutine[Any, Any, OpenStream]:
            return self._stream(request, errand, spare=spare)

        return await self._attempts(errand, lambda: self._hedged(once, OpenStream.aclose))

    async def _attempts(self, errand: _Errand, once: Callable[[], Awaitable[T]]) -> T:
        async def attempt() -> T:
            await self._prepare(errand)
            return await once()

        def worth_waiting(pause_s: float) -> bool:
            return self._breaker.rest_s <= pause_s < errand.left() and pause_s <= errand.patience()

        try:
            return await retrying(attempt, self.settings.retries, worth_waiting, self._random)
        except UpstreamError as exc:
            if exc.retry_after is None:
                exc.retry_after = self._breaker.rest_s or None
            raise

    async def _prepare(self, errand: _Errand) -> None:
        """Refuse what is in vain before anything is taken, and see to it that the server is known well enough."""
        if errand.left() <= 0:
            raise UpstreamTimeout(self.name, f"no time was left to ask {self.name}")
        self._breaker.check()
        if self.probed is None and (not self.model or errand.needs != {"chat"}):
            await self.known(errand.left())
        if not self.offers(errand.needs):
            raise MissingCapability(f"the backend {self.name!r} turned out not to offer {_words(errand.needs)}")

    async def _get_to_know(self, timeout_s: float) -> Probed:
        """Probe it, unless somebody else just did. Counts as an attempt; a success closes the breaker anyway."""
        if self.probed is not None:
            return self.probed
        permit = self._breaker.admit()
        try:
            return await self._probe(timeout_s)
        except UpstreamError as exc:
            permit.failed(exc) if exc.retryable else permit.succeeded()
            raise
        except BaseException:
            permit.dropped()
            raise

    async def _hedged(self, once: Callable[..., Coroutine[Any, Any, T]], discard: Callable[[T], Awaitable[None]]) -> T:
        after_s = self.settings.hedge_after_s
        if after_s is None:
            return await once(spare=False)
        return await hedged(once(spare=False), lambda: once(spare=True), after_s, discard)

    async def _complete(self, request: ChatRequest, errand: _Errand, *, spare: bool) -> Reply:
        attempt = await self._begin(errand, spare=spare)
        try:
            within_s = attempt.left()
            async with time_limit(self.name, within_s):
                reply = await self.adapter.complete(request, within_s)
        except BaseException as exc:
            await self._failed(attempt, exc, errand)
            raise
        await attempt.succeeded(reply.tokens)
        return reply

    async def _score(self, prompts: Sequence[Conversation], labels: Sequence[str], errand: _Errand) -> Scoring:
        scorer = self.adapter.scorer
        if scorer is None:
            raise MissingCapability(f"the backend {self.name!r} turned out not to offer logprobs")
        attempt = await self._begin(errand)
        try:
            within_s = attempt.left()
            async with time_limit(self.name, within_s):
                scoring = await scorer.score(prompts, labels, within_s)
        except BaseException as exc:
            await self._failed(attempt, exc, errand)
            raise
        await attempt.succeeded(scoring.tokens, requests=scoring.requests)
        return scoring

    async def _stream(self, request: ChatRequest, errand: _Errand, *, spare: bool) -> OpenStream:
        attempt = await self._begin(errand, spare=spare, until=errand.call.deadline)
        source = self.adapter.stream(request, attempt.left())
        prompt = TokenCount(input=errand.worst.input)
        first_s = min(self.settings.first_token_s, errand.left(), attempt.left())
        return await OpenStream(self.name, source, attempt, prompt).open(first_s)

    async def _begin(self, errand: _Errand, *, spare: bool = False, until: Deadline | None = None) -> Attempt:
        """Take all that an attempt needs, or nothing. `spare`: only what is free at once."""
        slot = await self._slot(errand, spare=spare)
        with ExitStack() as undo:
            undo.callback(slot.unused)
            permit = self._breaker.admit()
            undo.callback(permit.dropped)
            charge = self._meter.begin(Target(backend=self.name, model=self.model), errand.call, errand.worst)
            undo.pop_all()
        left = errand.left() if until is None else until.left()
        return Attempt(slot, permit, charge, self._health, self._clock, min(self.settings.timeout_s, left))

    async def _slot(self, errand: _Errand, *, spare: bool) -> Slot:
        tokens = total(errand.worst)
        if not spare:
            return await self._gate.enter(tokens, errand.patience())
        slot = self._gate.enter_now(tokens) if self._breaker.state == "closed" else None
        if slot is None:
            raise Overloaded(f"{self.name} has no slot to spare")
        return slot

    async def _failed(self, attempt: Attempt, failure: BaseException, errand: _Errand) -> None:
        await attempt.failed(failure, TokenCount(input=errand.worst.input) if may_have_read(failure) else None)


async def _let_go(_: object) -> None:
    """A reply that came too late needs no more."""


def _words(needs: frozenset[Capability]) -> str:
    return ", ".join(sorted(needs))
