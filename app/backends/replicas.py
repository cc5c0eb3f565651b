"""The servers of one backend: what a call passes through on each of them, and which one it goes to.

Servers keep what they computed for the beginning of a prompt. So a call goes where that beginning was read before, by
rendezvous hashing (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998), unless that one
has too much to do already: more than `BOUND` times the mean (Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing
with bounded loads", 2018), in tokens, as calls differ by a thousand times. One that has used up its limits per minute
is passed over while another has room, and so it takes no part in the mean.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import chain
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from app.backends.attempt import Attempt, Outcome, Release, Terms, begin, metering
from app.backends.base import Adapter, Capability, Clock, Conversation, Meter, Probed, Target, total
from app.backends.discovery import Discovery
from app.backends.registry import provider_of
from app.backends.resilience.breaker import Breaker, ClientStatus, Health, HealthState, median_ms
from app.backends.resilience.limits import Gate
from app.backends.settings import BackendSettings, RoutingSettings
from app.backends.status import NoSuchModel
from app.errors import Overloaded, Resting, UpstreamError, UpstreamRateLimited, UpstreamUnavailable, WinnowError
from app.observability.tracing import SPAN, Span, Value

T = TypeVar("T")

BOUND = 1.25
"""The paper's c. With less, calls leave the server that knows their beginning sooner; with more, some wait longer."""


def beginning(messages: Conversation) -> str:
    """What calls share that belong together: the system's turn, and the first paragraph of the turn after it.

    The latter is the query of a ranking, and how a conversation began.
    """
    system = [message.content for message in messages[:1] if message.role == "system"]
    turns = [message.content.partition("\n\n")[0] for message in messages[len(system) : len(system) + 1]]
    return "\n\n".join((*system, *turns))


class Replica:
    """One server of the backend `name`. `number` counts them from 1; 0: it is the only one."""

    def __init__(
        self,
        name: str,
        number: int,
        settings: BackendSettings,
        adapter: Adapter,
        meter: Meter,
        routing: RoutingSettings,
        clock: Clock,
    ) -> None:
        self.name, self.number, self.settings, self.adapter = name, number, settings, adapter
        self.tokens_in_flight = 0
        """The tokens that the calls may use which are under way or wait for a slot."""
        self.calls = 0
        """How many have been made."""
        self.health = Health()
        self._gate = Gate(name, settings, clock)
        self.breaker = Breaker(name, routing, clock, on_change=self.health.news.set)
        self.discovery = Discovery(name, number, adapter, meter, self.breaker, self.health, clock)
        self._provider, self._clock = provider_of(name, settings), clock
        self._guards = (
            self._carry,
            self._gate.guard,
            self.breaker.guard,
            self.health.guard,
            metering(meter, lambda: Target(backend=name, model=self.model, replica=number)),
        )

    @property
    def probed(self) -> Probed | None:
        """What was found out about it; None: nothing yet."""
        return self.discovery.probed

    @property
    def model(self) -> str:
        """The model in use; "" while it is neither configured nor found out."""
        return self.probed.model if self.probed else self.settings.model or self._provider.model or ""

    @property
    def state(self) -> HealthState:
        """See ClientStatus."""
        if self.health.reachable is False:
            return "down"
        if self.breaker.state != "closed":
            return "resting"
        return "unknown" if self.health.reachable is None else "up"

    @property
    def available(self) -> bool:
        """Whether a call is likely to succeed: it is not known to be down, nor would the call be refused at once."""
        return self.state != "down" and self.breaker.rest_s == 0

    def minute_wait_s(self, tokens: int) -> float:
        """Seconds until its limits per minute let a call of so many tokens in; 0 when they would now."""
        return self._gate.minute_wait_s(tokens)

    def status(self) -> ClientStatus:
        """Its state now."""
        return ClientStatus(
            health=self.state,
            breaker=self.breaker.state,
            latency_ms=median_ms(self.health.latencies),
            first_token_ms=median_ms(self.health.first_tokens),
            in_flight=self._gate.in_flight,
            waiting=self._gate.waiting,
            last_error=self.health.last_error,
            retry_after=self.breaker.rest_s or None,
        )

    def able(self, needs: frozenset[Capability]) -> bool:
        """Whether its adapter has what calls of that kind go through."""
        ports: dict[Capability, object] = {
            "logprobs": self.adapter.scorer,
            "decide": self.adapter.decider,
            "rerank": self.adapter.reranker,
        }
        return all(ports.get(need, True) is not None for need in needs)

    async def begin(self, terms: Terms) -> Attempt:
        """Let an attempt begin. Raises what a guard raises that refuses it."""
        return await begin(self.name, self._guards, terms, self._clock, self.settings.timeout_s, self._trace)

    async def _carry(self, terms: Terms) -> Release:
        """The guard that counts what it has to do; it refuses nothing."""
        tokens = total(terms.worst)
        self.tokens_in_flight += tokens

        def release(outcome: Outcome | None) -> None:
            self.tokens_in_flight -= tokens
            self.calls += outcome is not None

        return release

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
        if self.number:
            attributes["winnow.replica"] = self.number
        if address.hostname:
            attributes["server.address"] = address.hostname
            attributes["server.port"] = address.port or (443 if address.scheme == "https" else 80)
        return parent.child(f"{terms.operation} {self.model}".rstrip(), "client", attributes)


class Replicas:
    """All of a backend. Those serve that have the same model: that of most of them, and of those the first one's.

    One that was not asked yet is left out as soon as another was.
    """

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self._all = tuple(replicas)
        self.first = self._all[0]

    def __iter__(self) -> Iterator[Replica]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def several(self) -> Sequence[Replica]:
        """All where there are several, for who tells of each; none where the backend is its only one."""
        return self._all if len(self._all) > 1 else ()

    @property
    def probed(self) -> Probed | None:
        """What all can do that serve, in the least of their contexts; None: none was asked yet."""
        if len(self) == 1:
            return self.first.probed
        found = [one.probed for one in self.serving() if one.probed]
        if not found:
            return None
        contexts = [one.context_tokens for one in found if one.context_tokens is not None]
        return msgspec.structs.replace(
            found[0],
            capabilities=frozenset.intersection(*(one.capabilities for one in found)),
            context_tokens=min(contexts, default=None),
        )

    @property
    def state(self) -> HealthState:
        """That of the best of them."""
        states = [one.state for one in self.serving()]
        order: tuple[HealthState, ...] = ("up", "resting", "unknown", "down")
        return next(state for state in order if state in states)

    @property
    def available(self) -> bool:
        """Whether a call is likely to succeed."""
        return any(one.available for one in self.serving())

    @property
    def rest_s(self) -> float:
        """Seconds until one of them lets a call through; 0 when it would now."""
        return min(one.breaker.rest_s for one in self.serving())

    def check(self) -> None:
        """Raises Resting when none would let a call through now."""
        if self.rest_s > 0:
            min(self.serving(), key=lambda one: one.breaker.rest_s).breaker.check()

    def status(self) -> ClientStatus:
        """Of all together: the state of the best one, the sums and medians of all."""
        if len(self) == 1:
            return self.first.status()
        each = [one.status() for one in self]
        breakers = [one.breaker.state for one in self.serving()]
        return ClientStatus(
            health=self.state,
            breaker=next(state for state in ("closed", "half_open", "open") if state in breakers),
            latency_ms=median_ms(chain.from_iterable(one.health.latencies for one in self)),
            first_token_ms=median_ms(chain.from_iterable(one.health.first_tokens for one in self)),
            in_flight=sum(one.in_flight for one in each),
            waiting=sum(one.waiting for one in each),
            last_error=next((one.last_error for one in each if one.last_error), None),
            retry_after=self.rest_s or None,
        )

    def serving(self) -> Sequence[Replica]:
        """Those with the same model; all while nothing is known of any."""
        known = [one for one in self._all if one.probed]
        if len(self) == 1 or not known:
            return self._all
        voting = [one.model for one in known if one.state != "down"] or [one.model for one in known]
        model = max(dict.fromkeys(voting), key=voting.count)
        return [one for one in known if one.model == model]

    def serves(self, replica: Replica) -> bool:
        """Whether calls are sent to it."""
        return replica.state == "up" and replica in self.serving()

    def disagreement(self, replica: Replica) -> str:
        """What is to be told of one that is not as the others; "" if it is."""
        mine, common = replica.probed, self.probed
        if mine is None or common is None:
            return ""
        if mine.model != common.model:
            return f"it has the model {mine.model!r}, the others {common.model!r}: it gets no calls"
        if lost := mine.capabilities - common.capabilities:
            return f"not all of the others offer {', '.join(sorted(lost))}: it is not used"
        if mine.context_tokens != common.context_tokens:
            return (
                f"its context is of {mine.context_tokens} tokens, another's of {common.context_tokens}: this one counts"
            )
        return ""

    async def known(self, timeout_s: float) -> Probed:
        """What the first is that answers. Raises UpstreamError if none does."""
        asked = [asyncio.ensure_future(one.discovery.known(timeout_s)) for one in self]
        failure: UpstreamError | None = None
        try:
            for answer in asyncio.as_completed(asked):
                try:
                    found = await answer
                except UpstreamError as exc:
                    failure = failure or exc
                else:
                    return self.probed or found
        finally:
            for asking in asked:
                asking.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        assert failure is not None  # noqa: S101 - a backend has a server
        raise failure

    def order(self, prefix: str, tokens: int) -> list[Replica]:
        """Where to send a call of so many tokens whose prompt begins with `prefix`, and who takes over if that fails.

        Without a prefix, to whoever has the least to do; where none has room in its minute, to who has it first.
        """
        serving = self.serving()
        ranked = sorted(serving, key=lambda one: _weight(prefix, one), reverse=True) if prefix else list(serving)
        waits = {one: one.minute_wait_s(tokens) for one in ranked}
        ready = [one for one in ranked if one.available and waits[one] <= 0]
        # The sort is stable, so that ties are broken by rank. Those that are down come before those that would refuse.
        others = sorted(
            ranked, key=lambda one: (not one.available, one.breaker.rest_s, waits[one], one.tokens_in_flight)
        )
        if not (prefix and ready):
            return others
        most = BOUND * (sum(one.tokens_in_flight for one in ready) + tokens) / len(ready)
        chosen = next(one for one in ready if one.tokens_in_flight <= most)  # the one with the least to do always is
        return [chosen, *(one for one in others if one is not chosen)]


def _weight(prefix: str, replica: Replica) -> bytes:
    """By the address, so that all services that have the same servers send a prompt to the same one."""
    text = f"{replica.settings.url}\0{prefix}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


async def first_of(
    order: Sequence[Replica], serve: Callable[[Replica, Replica], Awaitable[T]], left: Callable[[], float]
) -> T:
    """The result of the first for which `serve` succeeds, which gets it and the one that comes after it.

    The next takes over from one that is away, rests, has no slot, used up its limits or not the model, while there are
    seconds `left`. Raises the first failure that is more than a refusal.
    """
    failure: WinnowError | None = None
    for place, replica in enumerate(order, start=1):
        if failure is not None and left() <= 0:
            break
        try:
            return await serve(replica, order[place % len(order)])
        except (UpstreamUnavailable, UpstreamRateLimited, Overloaded, NoSuchModel) as exc:
            refused = isinstance(exc, Resting | Overloaded)
            if isinstance(exc, NoSuchModel):
                replica.discovery.forget()
            elif replica.number and not refused and isinstance(exc, UpstreamUnavailable):
                replica.health.suspect(exc)
            if failure is None or (isinstance(failure, Resting | Overloaded) and not refused):
                failure = exc
    assert failure is not None  # noqa: S101 - an order is never empty
    raise failure
