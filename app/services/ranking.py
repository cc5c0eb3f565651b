"""Who ranks, by when, and what happens when nobody can."""

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from app.backends.base import Call, Capability, ChatRequest, Conversation, Deadline, Reply, Scoring, call_of
from app.backends.client import BackendClient
from app.backends.router import NONE, Backends, Route, Router
from app.backends.settings import AUTO
from app.config.settings import RankingSettings
from app.domain import BackendUse, Caller, Fallback, RankingOptions, Usage
from app.errors import InvalidRequest, MissingCapability, Refused, UnknownBackend, WinnowError
from app.ranking.calls import Way
from app.ranking.models import Candidate, Ranking, Spread
from app.ranking.reranker import Reranker, Task

STAGE = "rank"

NEEDS: dict[Way, frozenset[Capability]] = {
    "scorer": frozenset(("logprobs",)),
    "judge": frozenset(("chat", "structured")),
}
"""What a backend must offer to rank in either way; the first is better."""


def can_rank(line: BackendClient) -> bool:
    """As far as is known of it."""
    return any(map(line.offers, NEEDS.values()))


class Ordered(msgspec.Struct, frozen=True, kw_only=True):
    """A ranking, by whom, and what it cost. `ranking` None: the order of retrieval stays."""

    use: BackendUse
    ranking: Ranking | None = None
    usage: Usage = Usage()
    degraded: tuple[str, ...] = ()


class Rankers:
    """The backends that rank. The router is asked for when one is needed, so that it can be opened late."""

    def __init__(
        self, backends: Backends, router: Callable[[], Awaitable[Router]], reranker: Reranker, settings: RankingSettings
    ) -> None:
        self._backends, self._router = backends, router
        self._reranker, self._settings = reranker, settings

    async def who(self, requested: str | None) -> Route | BackendUse:
        """The way to a model; or at once, who is used where none is needed or there. Before any work.

        Raises UnknownBackend, MissingCapability.
        """
        use = self._backends.for_ranking(requested)
        if use.used == NONE.name:
            return use
        return (await self._router()).route_or(NONE.name, use.requested, *NEEDS.values())

    async def first(self) -> str:
        """Who ranks for "auto", as things are: a backend's name or "none"."""
        who = await self.who(AUTO)
        if isinstance(who, BackendUse):
            return who.used
        return next((line for line in who.clients if line.available), who.clients[0]).name

    async def rank(
        self,
        who: Route,
        query: str,
        candidates: Sequence[Candidate],
        top: int,
        options: RankingOptions,
        caller: Caller,
        spread: Spread | None = None,
    ) -> Ordered:
        """The best order by the deadline. `spread` as in `Task`.

        Raises what the models' calls raise, where that is what the caller wants.
        """
        call = call_of(STAGE, (options.deadline_ms or self._settings.deadline_ms) / 1000, caller)
        try:
            task = self._task(query, candidates, top, options, spread)
            served = await who.first(call, lambda line, hurry: self._read(task, line, call, hurry))
        except WinnowError as exc:
            if options.on_failure == "fail" or _is_mistake(exc, who):
                raise
            return _given_up(exc, who, call)
        ranking = served.value
        return Ordered(use=served.use, ranking=ranking, usage=call.account.usage(), degraded=ranking.degraded)

    async def _read(self, task: Task, line: BackendClient, call: Call, hurry: Deadline | None) -> Ranking:
        until = hurry or call.deadline
        probed = await line.known(until.left())
        unable = MissingCapability(f"the backend {line.name!r} cannot rank: it offers neither logprobs nor structured")
        for way, needs in NEEDS.items():
            if needs <= probed.capabilities:
                try:
                    return await self._reranker.rank(task, LineReader(line, way, call), call.deadline, hurry)
                except MissingCapability as exc:
                    unable = exc
        raise unable

    def _task(
        self, query: str, candidates: Sequence[Candidate], top: int, options: RankingOptions, spread: Spread | None
    ) -> Task:
        return Task(
            query=query,
            candidates=candidates,
            strategy=options.strategy or self._settings.strategy,
            depth=options.depth or self._settings.depth,
            top=top,
            spread=spread,
        )


class LineReader:
    """A backend's line as a ranking reads with it. `way`: see `app.ranking.calls.Reader`."""

    def __init__(self, line: BackendClient, way: Way, call: Call) -> None:
        self.name, self.model, self.way = line.name, line.model, way
        self._line, self._call = line, call

    async def score(self, prompts: Sequence[Conversation], labels: Sequence[str]) -> Scoring:
        """Raises MissingCapability for a model whose tokens the labels are not."""
        try:
            return await self._line.score(prompts, labels, self._call)
        except MissingCapability:
            raise
        except InvalidRequest as exc:
            raise MissingCapability(f"the backend {self.name!r} cannot rank: {exc}") from exc

    async def complete(self, request: ChatRequest) -> Reply:
        """As the line."""
        return await self._line.complete(request, self._call)


def _is_mistake(failure: WinnowError, who: Route) -> bool:
    """A caller who names a backend that turns out to be unable must hear of it."""
    return who.requested != AUTO and isinstance(failure, MissingCapability | UnknownBackend)


def _given_up(failure: WinnowError, who: Route, call: Call) -> Ordered:
    tried = failure.failures
    if isinstance(failure, Refused):  # an answer, for a route; here, one more that did not rank
        tried += (Fallback(backend=failure.service, reason=failure.code),)
    names = " or ".join(one.backend for one in tried)
    return Ordered(
        use=BackendUse(requested=who.requested, used=NONE.name, fallbacks=tried),
        usage=call.account.usage(),
        degraded=(f"not ranked by {names} ({failure.code}): this is the order of retrieval",),
    )
