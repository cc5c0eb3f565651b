"""One backend, with everything that a call to it passes through."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from app.backends.attempt import Attempt, OpenStream, Terms, begin, metering
from app.backends.base import (
    Adapter,
    Call,
    Capability,
    ChatRequest,
    Clock,
    Conversation,
    Deadline,
    Decision,
    DecisionQuestion,
    Meter,
    Probed,
    Relevance,
    Reply,
    Scoring,
    Target,
    loop_time,
    tokens_of_pairs,
    worst_of_chat,
    worst_of_decision,
    worst_of_scoring,
)
from app.backends.discovery import PROBE_S, Discovery
from app.backends.registry import provider_of
from app.backends.resilience.breaker import Breaker, ClientStatus, Health, HealthState
from app.backends.resilience.hedging import hedged
from app.backends.resilience.limits import Gate
from app.backends.resilience.retry import retrying
from app.backends.settings import BackendSettings, RoutingSettings
from app.backends.status import NoSuchModel
from app.backends.tools import ToolFallback
from app.errors import MissingCapability, UpstreamError, UpstreamTimeout
from app.observability.tracing import SPAN, Span, Value

T = TypeVar("T")


def needs_of(request: ChatRequest) -> frozenset[Capability]:
    """What a backend must be able to do for this request."""
    needs: set[Capability] = {"chat"} if request.infill is None else {"infill"}
    if request.schema is not None:
        needs.add("structured")
    if any(message.images for message in request.messages):
        needs.add("images")
    return frozenset(needs)


def _there(port: T | None) -> T:
    """A port of the adapter; `BackendClient._prepare` has seen to it that there is one."""
    assert port is not None  # noqa: S101
    return port


class BackendClient:
    """Calls one backend, each call in as many attempts as it takes and is worth.

    From the outside in, a call passes the fallback for tools, the retries, what must be known of the server first,
    and the hedge; then each attempt passes the guards. All calls raise UpstreamError (Resting while the breaker is
    open), Refused, Overloaded, BudgetExceeded, and MissingCapability when the server turns out not to do what is
    asked. `failover_deadline`: see `Terms`.
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
        self._provider = provider_of(name, settings)
        self._clock = clock
        self._random = random or Random()  # noqa: S311 - it spreads retries
        self._health = Health()
        self._gate = Gate(name, settings, clock)
        self._breaker = Breaker(name, routing, clock, on_change=self.news.set)
        self._tools = ToolFallback(name, self._provider, clock)
        self.discovery = Discovery(name, adapter, meter, self._breaker, self._health, clock)
        self._guards = (
            self._gate.guard,
            self._breaker.guard,
            self._health.guard,
            metering(meter, lambda: Target(backend=name, model=self.model)),
        )

    @property
    def probed(self) -> Probed | None:
        """What was found out about the server; None: nothing yet."""
        return self.discovery.probed

    @property
    def model(self) -> str:
        """The model in use; "" while it is neither configured nor found out."""
        if self.probed is not None:
            return self.probed.model
        return self.settings.model or self._provider.model or ""

    @property
    def local(self) -> bool:
        """Whether it runs on the user's own hardware, where a token costs nothing."""
        return self._provider.local

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
        """Whether a call is likely to succeed: the backend is not known to be down, nor would it be refused at once."""
        return self.health != "down" and self._breaker.rest_s == 0

    @property
    def news(self) -> asyncio.Event:
        """Set when the breaker changed, a call was rejected, or the backend is back; whoever has checked clears it."""
        return self._health.news

    def offers(self, needs: frozenset[Capability]) -> bool:
        """Whether it can do all of that: as probed, or before that, as far as any server of its kind can.

        The first call that needs more than chat probes it first.
        """
        return needs <= (self.probed.capabilities if self.probed else self._provider.may_offer)

    def status(self) -> ClientStatus:
        """The state of the backend now."""
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

    async def known(self, timeout_s: float = PROBE_S) -> Probed:
        """See `Discovery`."""
        return self.probed or await self.discovery.known(timeout_s)

    async def complete(self, request: ChatRequest, call: Call, failover_deadline: Deadline | None = None) -> Reply:
        """The whole reply."""

        async def served(request: ChatRequest) -> Reply:
            terms = Terms(
                call=call,
                worst=worst_of_chat(request),
                failover_deadline=failover_deadline,
                messages=request.messages,
            )
            return await self._serve(
                lambda attempt: attempt.whole(lambda within_s: self.adapter.complete(request, within_s)),
                terms,
                needs_of(request),
                discard=_let_go,
            )

        return await (self._tools.serve(request, served) if request.uses_tools else served(request))

    async def stream(self, request: ChatRequest, call: Call, failover_deadline: Deadline | None = None) -> OpenStream:
        """The reply as it arrives; its first delta has come. Nothing is tried again after that. Close it."""

        async def served(request: ChatRequest) -> OpenStream:
            terms = Terms(
                call=call,
                worst=worst_of_chat(request),
                failover_deadline=failover_deadline,
                streamed=True,
                messages=request.messages,
            )
            return await self._serve(
                lambda attempt: attempt.stream(
                    self.adapter.stream(request, attempt.left()), self.settings.first_token_s
                ),
                terms,
                needs_of(request),
                discard=OpenStream.aclose,
            )

        return await (self._tools.serve(request, served) if request.uses_tools else served(request))

    async def score(
        self,
        prompts: Sequence[Conversation],
        labels: Sequence[str],
        call: Call,
        failover_deadline: Deadline | None = None,
    ) -> Scoring:
        """The log-probabilities of the labels after each prompt."""

        def ask(within_s: float) -> Awaitable[Scoring]:
            return _there(self.adapter.scorer).score(prompts, labels, within_s)

        terms = Terms(
            call=call, worst=worst_of_scoring(prompts), failover_deadline=failover_deadline, operation="score"
        )
        return await self._serve(lambda attempt: attempt.whole(ask), terms, frozenset(("logprobs",)))

    async def decide(
        self,
        context: str,
        questions: Sequence[DecisionQuestion],
        call: Call,
        failover_deadline: Deadline | None = None,
    ) -> Decision:
        """The probabilities of the answers to each question about `context`."""

        def ask(within_s: float) -> Awaitable[Decision]:
            return _there(self.adapter.decider).decide(context, questions, within_s)

        terms = Terms(
            call=call,
            worst=worst_of_decision(context, questions),
            failover_deadline=failover_deadline,
            operation="decide",
        )
        return await self._serve(lambda attempt: attempt.whole(ask), terms, frozenset(("decide",)))

    async def relevance(
        self, query: str, texts: Sequence[str], call: Call, failover_deadline: Deadline | None = None
    ) -> Relevance:
        """How relevant the texts are to the query."""

        def ask(within_s: float) -> Awaitable[Relevance]:
            return _there(self.adapter.reranker).relevance(query, texts, within_s)

        terms = Terms(
            call=call,
            worst=tokens_of_pairs(query, texts),
            failover_deadline=failover_deadline,
            operation="rerank",
        )
        return await self._serve(lambda attempt: attempt.whole(ask), terms, frozenset(("rerank",)))

    async def _serve(
        self,
        run: Callable[[Attempt], Awaitable[T]],
        terms: Terms,
        needs: frozenset[Capability],
        discard: Callable[[T], Awaitable[None]] | None = None,
    ) -> T:
        """The result of `run` for one attempt, for a retry, or for a hedge beside a slow attempt.

        `discard` gets rid of the result that came second; None: never hedge.
        """
        hedge_after_s = self.settings.hedge_after_s

        async def attempted(*, spare: bool) -> T:
            allowed = msgspec.structs.replace(terms, spare=True) if spare else terms
            timeout_s = self.settings.timeout_s
            return await run(await begin(self.name, self._guards, allowed, self._clock, timeout_s, self._trace))

        async def prepared() -> T:
            await self._prepare(terms, needs)
            if discard is None or hedge_after_s is None:
                return await attempted(spare=False)
            return await hedged(attempted(spare=False), lambda: attempted(spare=True), hedge_after_s, discard)

        def worth_waiting(pause_s: float) -> bool:
            return self._breaker.rest_s <= pause_s < terms.left() and pause_s <= terms.patience()

        try:
            return await retrying(prepared, self.settings.retries, worth_waiting, self._random)
        except UpstreamError as exc:
            if isinstance(exc, NoSuchModel):
                self.discovery.forget()
            if exc.retry_after is None:
                exc.retry_after = self._breaker.rest_s or None
            raise

    async def _prepare(self, terms: Terms, needs: frozenset[Capability]) -> None:
        """Refuse what cannot succeed before anything is taken, and probe the server if the call depends on it."""
        if terms.left() <= 0:
            raise UpstreamTimeout(self.name, f"no time was left to ask {self.name}")
        self._breaker.check()
        if self.probed is None and (not self.model or needs != {"chat"} or self._provider.probe_first):
            await self.known(terms.left())
        ports: dict[Capability, object] = {
            "logprobs": self.adapter.scorer,
            "decide": self.adapter.decider,
            "rerank": self.adapter.reranker,
        }
        lacks_port = any(need in needs and port is None for need, port in ports.items())
        if lacks_port or not self.offers(needs):
            raise MissingCapability(f"the backend {self.name!r} does not offer {', '.join(sorted(needs))}")

    def _trace(self, terms: Terms) -> Span | None:
        """A span for the call, by OpenTelemetry's conventions for generative models."""
        parent = SPAN.get()
        if parent is None:
            return None
        address = urlsplit(self.settings.url or "")
        attributes: dict[str, Value] = {
            "gen_ai.operation.name": terms.operation,
            "gen_ai.provider.name": self._provider.trace_name or self._provider.kind,
            "gen_ai.request.model": self.model,
            "gen_ai.request.stream": terms.streamed,
            "gen_ai.request.max_tokens": terms.worst.output,
            "winnow.backend": self.name,
            "winnow.stage": terms.call.stage,
        }
        if address.hostname:
            attributes["server.address"] = address.hostname
            attributes["server.port"] = address.port or (443 if address.scheme == "https" else 80)
        return parent.child(f"{terms.operation} {self.model}".rstrip(), "client", attributes)


async def _let_go(_: object) -> None:
    """A reply that came too late needs no more."""
