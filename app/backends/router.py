"""Which backend serves a request, and which one takes over when it fails."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from app.backends.base import Call, Capability, ChatRequest, Clock, Conversation, Deadline, Reply, Scoring, loop_time
from app.backends.client import Line
from app.backends.stream import OpenStream
from app.config.backends import AUTO, RESERVED, RoutingSettings
from app.domain import BackendUse, Fallback
from app.errors import (
    BudgetExceeded,
    MissingCapability,
    Overloaded,
    Refused,
    Resting,
    UnknownBackend,
    UpstreamError,
    WinnowError,
)

T = TypeVar("T")

SHARE = 0.5
"""The part of the time left that a backend may use while another one could still take over."""

NO_LINE = (
    "no language model is configured; set GEMINI_API_KEY, VLLM_URL or OLLAMA_URL, or declare one under [backends.NAME]"
)


class Served(msgspec.Struct, Generic[T], frozen=True):
    """What came back, and from whom."""

    value: T
    use: BackendUse


class Router:
    """The backends by name, and the order in which "auto" tries them; whoever read the settings has checked it."""

    def __init__(self, lines: Sequence[Line], routing: RoutingSettings, *, clock: Clock = loop_time) -> None:
        self.lines = {line.name: line for line in lines}
        self._clock = clock
        self.auto = tuple(self.lines[name] for name in routing.auto or self.lines)

    def route(self, requested: str, *needs: frozenset[Capability]) -> "Route":
        """Who may serve it, having all of the first needs, or all of the second. Before any work.

        Raises UnknownBackend, MissingCapability.
        """
        among = self.auto if requested == AUTO else [self._named(requested)]
        able = [line for line in among if any(map(line.offers, needs))]
        if not able:
            raise MissingCapability(_none_offers(among, needs) if among else NO_LINE)
        return Route(requested, able, self._clock)

    def route_or(self, without: str, requested: str, *needs: frozenset[Capability]) -> "Route | BackendUse":
        """As `route`; but where "auto" finds nobody able, whoever does it `without` a model.

        Raises UnknownBackend, MissingCapability.
        """
        try:
            return self.route(requested, *needs)
        except MissingCapability as exc:
            if requested != AUTO:
                raise
            unable = tuple(Fallback(backend=line.name, reason=exc.code) for line in self.auto)
            return BackendUse(requested=AUTO, used=without, fallbacks=unable)

    def _named(self, name: str) -> Line:
        if name in RESERVED:
            raise MissingCapability(
                f"the backend {name!r} is no language model; those are {', '.join(self.lines) or 'none'}"
            )
        if name not in self.lines:
            raise UnknownBackend.among(name, (AUTO, *self.lines))
        return self.lines[name]


class Route:
    """The backends that may serve a request, in order of preference.

    The next one takes over when one fails, rests, is overloaded or over its budget; a refusal is an answer. If none
    serves, the most useful of their errors is raised: one that may pass before one that will not, with `failures` and
    the shortest `retry_after`.
    """

    def __init__(self, requested: str, lines: Sequence[Line], clock: Clock = loop_time) -> None:
        self.requested, self.lines = requested, tuple(lines)
        self._clock = clock

    async def complete(self, request: ChatRequest, call: Call) -> Served[Reply]:
        """The whole reply."""
        return await self.first(call, lambda line, hurry: line.complete(request, call, hurry))

    async def stream(self, request: ChatRequest, call: Call) -> Served[OpenStream]:
        """The reply as it arrives; its first delta has come, so nobody takes over any more. Close it."""
        return await self.first(call, lambda line, hurry: line.stream(request, call, hurry))

    async def score(self, prompts: Sequence[Conversation], labels: Sequence[str], call: Call) -> Served[Scoring]:
        """What would follow each of the prompts."""
        return await self.first(call, lambda line, hurry: line.score(prompts, labels, call, hurry))

    async def first(self, call: Call, ask: Callable[[Line, Deadline | None], Awaitable[T]]) -> Served[T]:
        """What the first one that serves it makes of `ask`, which gets by when, if another one could take over."""
        failures: dict[str, WinnowError] = {}
        # Those that are down come last: the check that said so may be out of date.
        order = sorted(self.lines, key=lambda line: line.health == "down")
        for number, line in enumerate(order):
            if failures and call.deadline.left() <= 0:
                break
            try:
                value = await ask(line, self._hurry(call, order[number + 1 :]))
            except Refused as exc:
                exc.failures = self._fallbacks(failures, line)
                raise
            except (UpstreamError, Overloaded, BudgetExceeded, MissingCapability) as exc:
                failures[line.name] = exc
            else:
                return Served(value, self._use(line, failures))
        raise _most_useful(failures)

    def _hurry(self, call: Call, others: Sequence[Line]) -> Deadline | None:
        if not any(line.available for line in others):
            return None
        return Deadline(call.deadline.left() * SHARE, self._clock)

    def _use(self, line: Line, failures: dict[str, WinnowError]) -> BackendUse:
        fallbacks = self._fallbacks(failures, line)
        return BackendUse(requested=self.requested, used=line.name, model=line.model or None, fallbacks=fallbacks)

    def _fallbacks(self, failures: dict[str, WinnowError], used: Line) -> tuple[Fallback, ...]:
        """Those that were tried, and those that were passed over because they are down."""
        preferred = self.lines[: self.lines.index(used)]
        passed = {line.name: line.status().last_error or "unavailable" for line in preferred}
        reasons = passed | {name: failure.code for name, failure in failures.items()}
        return tuple(Fallback(backend=name, reason=reason) for name, reason in reasons.items())


def _most_useful(failures: dict[str, WinnowError]) -> WinnowError:
    """The failure to raise: of a single backend its own, else one of that kind that tells of all."""
    best = max(failures.values(), key=_usefulness)
    if len(failures) > 1:
        text = ", ".join(f"{name} ({failure.code})" for name, failure in failures.items())
        best = _retold(best, f"no backend could serve this: {text}", _soonest(failures))
    best.failures = tuple(Fallback(backend=name, reason=failure.code) for name, failure in failures.items())
    return best


def _usefulness(failure: WinnowError) -> tuple[bool, ...]:
    return (
        failure.retryable,
        isinstance(failure, UpstreamError) and not isinstance(failure, Resting),
        not isinstance(failure, MissingCapability),
    )


def _retold(failure: WinnowError, text: str, retry_after: float | None) -> WinnowError:
    told: WinnowError
    if isinstance(failure, UpstreamError):
        told = type(failure)(failure.service, text, retry_after)
    elif isinstance(failure, Overloaded):
        told = Overloaded(text, retry_after or 1.0)
    elif isinstance(failure, BudgetExceeded):
        told = BudgetExceeded(text, retry_after)
    else:
        told = MissingCapability(text)
    told.__cause__ = failure
    return told


def _soonest(failures: dict[str, WinnowError]) -> float | None:
    told = (getattr(failure, "retry_after", None) for failure in failures.values())
    return min((seconds for seconds in told if seconds is not None), default=None)


def _none_offers(lines: Sequence[Line], needs: Sequence[frozenset[Capability]]) -> str:
    names = ", ".join(repr(line.name) for line in lines)
    wanted = ", or ".join(", ".join(sorted(some)) for some in needs)
    if len(lines) > 1:
        return f"none of the backends {names} offers {wanted} together"
    able = ", ".join(sorted(lines[0].probed.capabilities)) if lines[0].probed else "less than that"
    return f"the backend {names} does not offer {wanted}; it offers {able}"
