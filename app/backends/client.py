"""One backend, with everything that a call to it passes through."""

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import TypeVar

import msgspec

from app.backends.attempt import Attempt, OpenStream, Terms
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
    loop_time,
    tokens_of_pairs,
    total,
    worst_of_chat,
    worst_of_decision,
    worst_of_scoring,
)
from app.backends.discovery import PROBE_S
from app.backends.registry import provider_of
from app.backends.replicas import Replica, Replicas, beginning, first_of
from app.backends.resilience.breaker import ClientStatus, HealthState
from app.backends.resilience.retry import hedged, retrying
from app.backends.settings import BackendSettings, RoutingSettings
from app.backends.tools import ToolFallback
from app.errors import MissingCapability, UpstreamError, UpstreamTimeout

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

    From the outside in, a call passes the fallback for tools, the retries, what must be known of the servers first, the
    choice among them, and the hedge; then each attempt passes the guards of its server. All calls raise UpstreamError
    (Resting while the breakers are open), Refused, Overloaded, BudgetExceeded, and MissingCapability when the server
    turns out not to do what is asked. `failover_deadline`: see `Terms`.
    """

    def __init__(
        self,
        name: str,
        settings: BackendSettings,
        adapters: Sequence[Adapter],
        meter: Meter,
        routing: RoutingSettings,
        *,
        clock: Clock = loop_time,
        random: Random | None = None,
    ) -> None:
        self.name, self.settings = name, settings
        self._provider = provider_of(name, settings)
        self._random = random or Random()  # noqa: S311 - it spreads retries
        self._tools = ToolFallback(name, self._provider, clock)
        several = len(adapters) > 1
        self.replicas = Replicas(
            [
                Replica(name, number if several else 0, one, adapter, meter, routing, clock)
                for number, (one, adapter) in enumerate(zip(settings.each(), adapters, strict=True), start=1)
            ]
        )

    @property
    def adapter(self) -> Adapter:
        """That of its first server, for what is asked of no other."""
        return self.replicas.first.adapter

    @property
    def probed(self) -> Probed | None:
        """What was found out about its servers; None: nothing yet."""
        return self.replicas.probed

    @property
    def model(self) -> str:
        """The model in use; "" while it is neither configured nor found out."""
        return self.probed.model if self.probed else self.replicas.first.model

    @property
    def local(self) -> bool:
        """Whether it runs on the user's own hardware, where a token costs nothing."""
        return self._provider.local

    @property
    def health(self) -> HealthState:
        """See ClientStatus."""
        return self.replicas.state

    @property
    def available(self) -> bool:
        """Whether a call is likely to succeed: the backend is not known to be down, nor would it be refused at once."""
        return self.replicas.available

    def offers(self, needs: frozenset[Capability]) -> bool:
        """Whether it can do all of that: as probed, or before that, as far as any server of its kind can.

        The first call that needs more than chat probes it first.
        """
        return needs <= (self.probed.capabilities if self.probed else self._provider.may_offer)

    def status(self) -> ClientStatus:
        """The state of the backend now."""
        return self.replicas.status()

    async def known(self, timeout_s: float = PROBE_S) -> Probed:
        """See `Discovery`."""
        return self.probed or await self.replicas.known(timeout_s)

    async def complete(self, request: ChatRequest, call: Call, failover_deadline: Deadline | None = None) -> Reply:
        """The whole reply."""

        async def served(request: ChatRequest) -> Reply:
            terms = Terms(
                call=call,
                worst=worst_of_chat(request),
                failover_deadline=failover_deadline,
                prefix=beginning(request.messages),
                messages=request.messages,
            )
            return await self._serve(
                lambda adapter, attempt: attempt.whole(lambda within_s: adapter.complete(request, within_s)),
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
                prefix=beginning(request.messages),
                messages=request.messages,
            )
            return await self._serve(
                lambda adapter, attempt: attempt.stream(
                    adapter.stream(request, attempt.left()), self.settings.first_token_s
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

        def ask(adapter: Adapter, attempt: Attempt) -> Awaitable[Scoring]:
            return attempt.whole(lambda within_s: _there(adapter.scorer).score(prompts, labels, within_s))

        terms = Terms(
            call=call,
            worst=worst_of_scoring(prompts),
            failover_deadline=failover_deadline,
            operation="score",
            prefix=beginning(prompts[0]) if prompts else "",
        )
        return await self._serve(ask, terms, frozenset(("logprobs",)))

    async def decide(
        self,
        context: str,
        questions: Sequence[DecisionQuestion],
        call: Call,
        failover_deadline: Deadline | None = None,
    ) -> Decision:
        """The probabilities of the answers to each question about `context`."""

        def ask(adapter: Adapter, attempt: Attempt) -> Awaitable[Decision]:
            return attempt.whole(lambda within_s: _there(adapter.decider).decide(context, questions, within_s))

        terms = Terms(
            call=call,
            worst=worst_of_decision(context, questions),
            failover_deadline=failover_deadline,
            operation="decide",
        )
        return await self._serve(ask, terms, frozenset(("decide",)))

    async def relevance(
        self, query: str, texts: Sequence[str], call: Call, failover_deadline: Deadline | None = None
    ) -> Relevance:
        """How relevant the texts are to the query."""

        def ask(adapter: Adapter, attempt: Attempt) -> Awaitable[Relevance]:
            return attempt.whole(lambda within_s: _there(adapter.reranker).relevance(query, texts, within_s))

        terms = Terms(
            call=call,
            worst=tokens_of_pairs(query, texts),
            failover_deadline=failover_deadline,
            operation="rerank",
        )
        return await self._serve(ask, terms, frozenset(("rerank",)))

    async def _serve(
        self,
        run: Callable[[Adapter, Attempt], Awaitable[T]],
        terms: Terms,
        needs: frozenset[Capability],
        discard: Callable[[T], Awaitable[None]] | None = None,
    ) -> T:
        """The result of `run` for one attempt, for a retry, or for a hedge beside a slow attempt.

        `discard` gets rid of the result that came second; None: never hedge.
        """
        hedge_after_s = self.settings.hedge_after_s

        async def attempted(replica: Replica, *, spare: bool) -> T:
            allowed = msgspec.structs.replace(terms, spare=True) if spare else terms
            return await run(replica.adapter, await replica.begin(allowed))

        failed: list[Replica] = []

        async def served(replica: Replica, other: Replica) -> T:
            try:
                if discard is None or hedge_after_s is None:
                    return await attempted(replica, spare=False)
                return await hedged(
                    attempted(replica, spare=False), lambda: attempted(other, spare=True), hedge_after_s, discard
                )
            except UpstreamError:
                failed.append(replica)
                raise

        async def prepared() -> T:
            able = await self._prepare(terms, needs)
            # A retry goes elsewhere, where it can: one that hangs answers no sooner when it is asked again.
            able = sorted(able, key=lambda one: (not one.available, failed.count(one)))
            return await first_of(able, served, terms.left)

        def worth_waiting(pause_s: float) -> bool:
            return self.replicas.rest_s <= pause_s < terms.left() and pause_s <= terms.patience()

        try:
            return await retrying(prepared, self.settings.retries, worth_waiting, self._random)
        except UpstreamError as exc:
            if exc.retry_after is None:
                exc.retry_after = self.replicas.rest_s or None
            raise

    async def _prepare(self, terms: Terms, needs: frozenset[Capability]) -> Sequence[Replica]:
        """Who is to be asked. Refuses what cannot succeed before anything is taken, and probes the servers if the call
        depends on it.
        """
        if terms.left() <= 0:
            raise UpstreamTimeout(self.name, f"no time was left to ask {self.name}")
        self.replicas.check()
        if self.probed is None and (not self.model or needs != {"chat"} or self._provider.probe_first):
            await self.known(terms.left())
        able = [one for one in self.replicas.order(terms.prefix, total(terms.worst)) if one.able(needs)]
        if not able or not self.offers(needs):
            raise MissingCapability(f"the backend {self.name!r} does not offer {', '.join(sorted(needs))}")
        return able


async def _let_go(_: object) -> None:
    """A reply that came too late needs no more."""
