"""Which backends there are, which one a request means, and which one takes over when it fails."""

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Generic, Literal, TypeVar

import msgspec

from app.backends.attempt import OpenStream
from app.backends.base import Call, Capability, ChatRequest, Clock, Conversation, Deadline, Reply, Scoring, loop_time
from app.backends.client import BackendClient
from app.backends.registry import provider_of, setup_hint
from app.backends.settings import AUTO, RESERVED, BackendSettings, RoutingSettings
from app.domain import BackendUse, Fallback
from app.errors import (
    BudgetExceeded,
    ConfigError,
    MissingCapability,
    NotAllowed,
    Overloaded,
    Refused,
    Resting,
    UnknownBackend,
    UpstreamError,
    WinnowError,
)

T = TypeVar("T")

_CHAT: frozenset[Capability] = frozenset(("chat",))

SHARE = 0.5
"""The part of the time left that a backend may use while another one could still take over."""

Role = Literal["rank", "answer", "chat"]


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """What can rank, answer or chat. `model` is None where there is no language model, or none is configured."""

    name: str
    kind: str
    model: str | None = None
    roles: tuple[Role, ...] = ()


NONE = Backend(name="none", kind="none")
EXTRACTIVE = Backend(name="extractive", kind="extractive", roles=("answer",))


def declared(backends: Mapping[str, BackendSettings]) -> list[Backend]:
    """The configured backends, in their order."""
    return [
        Backend(name=name, kind=settings.kind, model=settings.model, roles=_roles(name, settings))
        for name, settings in backends.items()
    ]


def _roles(name: str, settings: BackendSettings) -> tuple[Role, ...]:
    """A reranker ranks, and does nothing else."""
    return ("rank", "answer", "chat") if "chat" in provider_of(name, settings).may_offer else ("rank",)


class Backends:
    """The backends by name; `none` and `extractive` are always there.

    `default` serves the requests that name none; `auto` is the order of [routing]. Raises ConfigError when the first
    cannot serve a search, or the second names one that is not configured: at the start, without any SDK.
    """

    def __init__(self, configured: Sequence[Backend] = (), default: str = AUTO, auto: Sequence[str] = ()) -> None:
        self._by_name = {backend.name: backend for backend in (NONE, EXTRACTIVE, *configured)}
        self.default = default
        names = [backend.name for backend in configured]
        if unknown := [name for name in auto if name not in names]:
            declared_names = ", ".join(names) or "none"
            raise ConfigError(
                f"auto in [routing] names {', '.join(unknown)}; the backends declared are {declared_names}"
            )
        try:
            self.for_ranking(default)
        except (UnknownBackend, MissingCapability) as exc:
            raise ConfigError(f"backend = {default!r} in [service] cannot serve searches: {exc}") from exc

    def __iter__(self) -> Iterator[Backend]:
        return iter(self._by_name.values())

    def named(self, name: str) -> Backend:
        """Raises UnknownBackend, listing the names."""
        if name not in self._by_name:
            raise UnknownBackend.among(name, (AUTO, *self._by_name))
        return self._by_name[name]

    def for_ranking(self, requested: str | None) -> BackendUse:
        """The backend that ranks. "none" keeps the retrieval order. Raises UnknownBackend, MissingCapability."""
        name = requested if requested is not None else self.default
        rankers = [backend for backend in self if "rank" in backend.roles] or [NONE]
        chosen = rankers[0] if name == AUTO else self.named(name)
        if chosen is not NONE and "rank" not in chosen.roles:
            rankers_there_are = (AUTO, NONE.name, *self._able("rank"))
            raise MissingCapability.among(
                f"the backend {name!r} cannot rank passages; it can {' and '.join(chosen.roles)}. "
                f"Rankers are {', '.join(rankers_there_are)}",
                rankers_there_are,
            )
        return BackendUse(requested=name, used=chosen.name, model=chosen.model)

    def for_answering(self, requested: str | None, ranks: str | None = None) -> BackendUse:
        """The backend that answers: `requested`, else the one that `ranks`, else the default.

        As one of the last two "none" means the extractive answerer, and a reranker "auto", which prefers a model to it.

        Raises UnknownBackend, MissingCapability.
        """
        name = requested or ranks or self.default
        if name == NONE.name and requested is None:
            name = EXTRACTIVE.name
        elif requested is None and name in self._by_name and "answer" not in self._by_name[name].roles:
            name = AUTO
        models = [backend for backend in self if "answer" in backend.roles and backend is not EXTRACTIVE]
        chosen = (models or [EXTRACTIVE])[0] if name == AUTO else self.named(name)
        if "answer" not in chosen.roles:
            able = (AUTO, *self._able("answer"))
            raise MissingCapability.among(
                f"the backend {name!r} cannot answer; those that can are {', '.join(able)}", able
            )
        return BackendUse(requested=name, used=chosen.name, model=chosen.model)

    def _able(self, role: Role) -> list[str]:
        return [backend.name for backend in self if role in backend.roles]


class Served(msgspec.Struct, Generic[T], frozen=True):
    """A result, and the backend that gave it."""

    value: T
    use: BackendUse


class Router:
    """The backends by name, and the order in which "auto" tries them, which `Backends` has checked."""

    def __init__(self, clients: Sequence[BackendClient], routing: RoutingSettings, *, clock: Clock = loop_time) -> None:
        self.clients = {client.name: client for client in clients}
        self._clock = clock
        self.auto = tuple(self.clients[name] for name in routing.auto or self.clients)

    def route(self, requested: str | None, *needs: frozenset[Capability], default: str = AUTO) -> "Route":
        """The backends that may serve a request: those that have all of the first needs, or all of the second.

        A request that names none is served by `default`; by "auto" for a caller whose key is not for that one; and by
        any that is able for one whose key is for none of [routing]. A `default` that can do nothing but rerank stands
        for "auto" wherever that is not asked for. Called before any work.

        Raises UnknownBackend, MissingCapability.
        """
        name = requested or default
        if requested is None and name in self.clients and self._only_reranks(name, needs):
            name = AUTO
        candidates = self.auto if name == AUTO else [self._named(name)]
        able = [client for client in candidates if any(map(client.offers, needs))]
        if not able:
            text = _none_offers(candidates, needs) if candidates else _no_model()
            raise MissingCapability.among(text, (client.name for client in candidates))
        if requested not in (None, AUTO):
            return Route(name, able, self._clock)
        ordered = dict.fromkeys((*self.auto, *self.clients.values()))
        others = [client for client in ordered if client not in able and any(map(client.offers, needs))]
        return Route(name, able, self._clock, Route(AUTO, others, self._clock))

    def _only_reranks(self, name: str, needs: Sequence[frozenset[Capability]]) -> bool:
        reranks, client = frozenset[Capability](("rerank",)), self.clients[name]
        return client.offers(reranks) and not any(map(client.offers, (*needs, _CHAT)))

    def route_or(
        self, without: str, requested: str | None, *needs: frozenset[Capability], default: str = AUTO
    ) -> "Route | BackendUse":
        """As `route`; but where "auto" finds no able backend, the one named `without`, which needs no model.

        Raises UnknownBackend, MissingCapability.
        """
        try:
            return self.route(requested, *needs, default=default)
        except MissingCapability as exc:
            if (requested or default) != AUTO:
                raise
            unable = tuple(Fallback(backend=client.name, reason=exc.code) for client in self.auto)
            return BackendUse(requested=AUTO, used=without, fallbacks=unable)

    def _named(self, name: str) -> BackendClient:
        if name in RESERVED:
            raise MissingCapability.among(
                f"the backend {name!r} is not a language model; the models are {', '.join(self.clients) or 'none'}",
                self.clients,
            )
        if name not in self.clients:
            raise UnknownBackend.among(name, (AUTO, *self.clients))
        return self.clients[name]


class Route:
    """The backends that may serve a request, in order of preference.

    The next one takes over when one fails, rests, is overloaded or over its budget; a refusal is an answer. If none
    serves, the most useful of their errors is raised: one that may pass before one that will not, with `failures` and
    the shortest `retry_after`. `otherwise` serves callers whose key is for none of `clients`.
    """

    def __init__(
        self,
        requested: str,
        clients: Sequence[BackendClient],
        clock: Clock = loop_time,
        otherwise: "Route | None" = None,
    ) -> None:
        self.requested, self.clients = requested, tuple(clients)
        self._clock, self._otherwise = clock, otherwise

    @property
    def named(self) -> bool:
        """Whether the request itself has named its backend."""
        return self.requested != AUTO and self._otherwise is None

    def within(self, backends: Collection[str] | None) -> "Route | None":
        """The part of it for a caller whose key is for these backends, None: all; None if there is no such part."""
        if backends is None:
            return self
        if clients := [client for client in self.clients if client.name in backends]:
            return Route(self.requested, clients, self._clock)
        return None if self._otherwise is None else self._otherwise.within(backends)

    async def complete(self, request: ChatRequest, call: Call) -> Served[Reply]:
        """The whole reply."""
        return await self.first(
            call, lambda client, failover_deadline: client.complete(request, call, failover_deadline)
        )

    async def stream(self, request: ChatRequest, call: Call) -> Served[OpenStream]:
        """The reply as it arrives; its first delta has come, so nobody takes over any more. Close it."""
        return await self.first(call, lambda client, failover_deadline: client.stream(request, call, failover_deadline))

    async def score(self, prompts: Sequence[Conversation], labels: Sequence[str], call: Call) -> Served[Scoring]:
        """What would follow each of the prompts."""
        return await self.first(
            call, lambda client, failover_deadline: client.score(prompts, labels, call, failover_deadline)
        )

    async def first(self, call: Call, serve: Callable[[BackendClient, Deadline | None], Awaitable[T]]) -> Served[T]:
        """The result of the first backend for which `serve` succeeds.

        Only backends that the caller's key is for are asked; NotAllowed where it is for none of them.
        `serve` gets the time by which it must be done while another backend could take over, else None.
        """
        usable = self.within(call.backends)
        if usable is None:
            raise NotAllowed(self._refusal(call))
        return await usable._first(call, serve)

    async def _first(self, call: Call, serve: Callable[[BackendClient, Deadline | None], Awaitable[T]]) -> Served[T]:
        failures: dict[str, WinnowError] = {}
        # Those that are down come last: the check that said so may be out of date.
        order = sorted(self.clients, key=lambda client: client.health == "down")
        for number, client in enumerate(order):
            if failures and call.deadline.left() <= 0:
                break
            try:
                value = await serve(client, self._failover_deadline(call, order[number + 1 :]))
            except Refused as exc:
                exc.failures = self._fallbacks(failures, client)
                raise
            except (UpstreamError, Overloaded, BudgetExceeded, MissingCapability) as exc:
                failures[client.name] = exc
            else:
                return Served(value, self._use(client, failures))
        raise _most_useful(failures)

    def _failover_deadline(self, call: Call, others: Sequence[BackendClient]) -> Deadline | None:
        if not any(client.available for client in others):
            return None
        return Deadline(call.deadline.left() * SHARE, self._clock)

    def _refusal(self, call: Call) -> str:
        """Of a key that is for none of the backends; one that nobody has named is not named here either."""
        mine = ", ".join(dict.fromkeys(call.backends or ()))
        if self.named:
            return f"the key {call.key!r} may not use {self.requested}; it may use {mine}"
        return f"this needs a language model that can do it, and the key {call.key!r} has none; it may use {mine}"

    def _use(self, client: BackendClient, failures: dict[str, WinnowError]) -> BackendUse:
        fallbacks = self._fallbacks(failures, client)
        return BackendUse(requested=self.requested, used=client.name, model=client.model or None, fallbacks=fallbacks)

    def _fallbacks(self, failures: dict[str, WinnowError], used: BackendClient) -> tuple[Fallback, ...]:
        """The backends that were tried, and those that were passed over because they are down."""
        preferred = self.clients[: self.clients.index(used)]
        passed = {client.name: client.status().last_error or "unavailable" for client in preferred}
        reasons = passed | {name: failure.code for name, failure in failures.items()}
        return tuple(Fallback(backend=name, reason=reason) for name, reason in reasons.items())


def _most_useful(failures: dict[str, WinnowError]) -> WinnowError:
    """The failure to raise: a single backend's own, else one of the most useful kind that names all failures."""
    best = max(failures.values(), key=_usefulness)
    if len(failures) > 1:
        text = ", ".join(f"{name} ({failure.code})" for name, failure in failures.items())
        waits = [wait for failure in failures.values() if (wait := getattr(failure, "retry_after", None)) is not None]
        best = _of_all(best, f"no backend could serve this: {text}", min(waits, default=None))
    best.failures = tuple(Fallback(backend=name, reason=failure.code) for name, failure in failures.items())
    return best


def _usefulness(failure: WinnowError) -> tuple[bool, ...]:
    return (
        failure.retryable,
        isinstance(failure, UpstreamError) and not isinstance(failure, Resting),
        not isinstance(failure, MissingCapability),
    )


def _of_all(failure: WinnowError, text: str, retry_after: float | None) -> WinnowError:
    """An error of the same class that speaks for all backends."""
    error: WinnowError
    if isinstance(failure, UpstreamError):
        error = type(failure)(failure.service, text, retry_after)
    elif isinstance(failure, Overloaded):
        error = Overloaded(text, retry_after or 1.0)
    elif isinstance(failure, BudgetExceeded):
        error = BudgetExceeded(text, retry_after)
    else:
        error = MissingCapability(text)
    error.__cause__ = failure
    return error


def _no_model() -> str:
    return f"no language model is configured; {setup_hint()}, or declare one under [backends.NAME]"


def _none_offers(clients: Sequence[BackendClient], needs: Sequence[frozenset[Capability]]) -> str:
    names = ", ".join(repr(client.name) for client in clients)
    capabilities = ", or ".join(", ".join(sorted(some)) for some in needs)
    if len(clients) > 1:
        return f"none of the backends {names} offers {capabilities} together"
    able = ", ".join(sorted(clients[0].probed.capabilities)) or "nothing" if clients[0].probed else "less than that"
    return f"the backend {names} does not offer {capabilities}; it offers {able}"
