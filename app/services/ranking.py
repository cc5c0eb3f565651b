"""Selects the backend that ranks, holds it to its deadline, and falls back to the order of retrieval."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from app.backends.base import (
    Call,
    Capability,
    ChatRequest,
    Conversation,
    Deadline,
    Decision,
    DecisionQuestion,
    Relevance,
    Reply,
    Scoring,
    Way,
    call_of,
)
from app.backends.client import BackendClient
from app.backends.router import NONE, Backends, Route, Router, Served
from app.backends.settings import AUTO
from app.config.settings import RankingSettings
from app.domain import BackendUse, Caller, Fallback, RankingOptions, Strategy, Usage
from app.errors import InvalidRequest, MissingCapability, NotAllowed, Refused, UnknownBackend, WinnowError
from app.ranking.models import Ranking, Spread
from app.ranking.reranker import COMPARING, RankingTask, Reranker, what_is_open
from app.ranking.trust import MIN_TRUST
from indexing.documents import Candidate

STAGE, FIRST_STAGE = "rank", "rerank"

CASCADED: tuple[Strategy, ...] = ("auto", "graded")
"""Strategies in which a reranker may read before a language model."""

NEEDS: dict[Way, frozenset[Capability]] = {
    "reranker": frozenset(("rerank",)),
    "scorer": frozenset(("logprobs",)),
    "judge": frozenset(("chat", "structured")),
    "decider": frozenset(("decide",)),
}
"""What a backend must offer to rank in any of the ways."""


def ways_of(client: BackendClient, strategy: Strategy) -> list[Way]:
    """How a backend that has been probed ranks by a strategy, the best way first.

    A decision model that is paid for by the token reads all passages in one call, and is preferred to its other ways;
    one on one's own hardware is small, reads them one by one, and is slower than a label scorer.
    """
    able = [way for way, needs in NEEDS.items() if client.offers(needs)]
    if strategy == "decide":
        return [way for way in able if way == "decider"]
    if strategy in ("duel", "listwise"):
        return [way for way in able if way in COMPARING]
    if strategy == "auto" and not client.local:
        able.sort(key=lambda way: way != "decider")
    return able


def can_rank(client: BackendClient) -> bool:
    """As far as its capabilities are known."""
    return any(map(client.offers, NEEDS.values()))


class RankingOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """A ranking, who made it, and what it cost. `ranking` None: the order of retrieval stays."""

    use: BackendUse
    ranking: Ranking | None = None
    usage: Usage = Usage()
    degraded: tuple[str, ...] = ()


class Rankers:
    """The backends that rank. The router is opened when the first request needs it."""

    def __init__(
        self, backends: Backends, router: Callable[[], Awaitable[Router]], reranker: Reranker, settings: RankingSettings
    ) -> None:
        self._backends, self._router = backends, router
        self._reranker, self._settings = reranker, settings

    async def select(self, requested: str | None, cascade: str | None = None) -> Route | BackendUse:
        """The route to a model, or the use of "none" where no model is wanted or available. Before any work.

        Raises UnknownBackend, MissingCapability, of `cascade` too.
        """
        if cascade not in (None, NONE.name):
            (await self._router()).route(cascade, NEEDS["reranker"])
        use = self._backends.for_ranking(requested)
        if use.used == NONE.name:
            return use
        return (await self._router()).route_or(NONE.name, requested, *NEEDS.values(), default=use.requested)

    async def auto_backend(self, caller: Caller) -> str:
        """The backend that "auto" selects for the caller at the moment, or "none"."""
        ranker = await self.select(AUTO)
        if isinstance(ranker, BackendUse):
            return ranker.used
        if (usable := ranker.within(caller.backends)) is None:
            return NONE.name
        ranking = [client for client in usable.clients if self._believed(client)]
        if not ranking:
            return NONE.name
        return next((client for client in ranking if client.available), ranking[0]).name

    def _believed(self, client: BackendClient) -> bool:
        trust = self.trust_in(client)
        return trust is None or trust >= MIN_TRUST

    def trust_in(self, client: BackendClient) -> float | None:
        """In the grades of its present model; None as long as nothing is known of them."""
        if client.probed is None:
            return None
        ways = ways_of(client, self._settings.strategy)
        return self._reranker.trust_in(client.name, client.model, ways[0]) if ways else None

    async def rank(
        self,
        route: Route,
        query: str,
        candidates: Sequence[Candidate],
        top: int,
        options: RankingOptions,
        caller: Caller,
        spread: Spread | None = None,
        later: Awaitable[Mapping[str, float]] | None = None,
    ) -> RankingOutcome:
        """The best order by the deadline. `spread` and `later` as in `RankingTask`.

        Where the priors decide what a model is asked, `later` is awaited first.

        Raises what the models' calls raise if `options.on_failure` is "fail".
        """
        call = call_of(STAGE, (options.deadline_ms or self._settings.deadline_ms) / 1000, caller)
        strategy, depth = options.strategy or self._settings.strategy, options.depth or self._settings.depth
        route = route.within(caller.backends) or route
        better = None if later is None else asyncio.ensure_future(later)
        cascade = self._cascade(route, strategy, options)
        if better is not None and (cascade or not self._reranker.joins_late(len(candidates), strategy, depth)):
            priors, better = await better, None
            candidates = [msgspec.structs.replace(one, score=priors[one.passage.id]) for one in candidates]
        task = RankingTask(
            query=query,
            candidates=candidates,
            strategy=strategy,
            depth=depth,
            top=top,
            spread=spread,
            later=better,
            tenant=caller.audience.tenant,
        )
        before, failed = await self._read_first(task, call, cascade) if cascade else (None, ())
        if before is not None:
            if (rest := what_is_open(task, before.value)) is None:
                return _ranked(before, call)
            models = [client for client in route.clients if not client.offers(NEEDS["reranker"])]
            task, route = rest, Route(route.requested, models)
        try:
            served = await route.first(
                call, lambda client, failover_deadline: self._read(task, client, call, failover_deadline)
            )
        except WinnowError as exc:
            # A caller who names a backend that turns out to be unable must hear of it.
            mistaken = (
                route.named
                if isinstance(exc, NotAllowed)
                else route.requested != AUTO and isinstance(exc, MissingCapability | UnknownBackend)
            )
            if options.on_failure == "fail" or mistaken:
                raise
            return _unranked(exc, route, call) if before is None else _half_ranked(exc, before, route, call)
        return _ranked(served, call, *failed)

    def _cascade(self, route: Route, strategy: Strategy, options: RankingOptions) -> str | None:
        """The reranker that reads before the language model that is asked first, if one does."""
        wanted = options.cascade or self._settings.cascade
        if wanted == NONE.name or strategy not in CASCADED or route.clients[0].offers(NEEDS["reranker"]):
            return None
        return wanted

    async def _read_first(
        self, task: RankingTask, call: Call, cascade: str
    ) -> tuple[Served[Ranking] | None, tuple[str, ...]]:
        """The reranker's ranking, in at most half of the time; why there is none, if it failed. A caller whose key is
        not for it goes without.
        """
        half = msgspec.structs.replace(call, stage=FIRST_STAGE, deadline=Deadline(call.deadline.left() / 2))
        try:
            route = (await self._router()).route(cascade, NEEDS["reranker"]).within(call.backends)
            if route is None or not task.candidates:
                return None, ()
            return await route.first(half, lambda client, until: self._read(task, client, half, until)), ()
        except WinnowError as exc:
            return None, (f"{cascade} did not read first ({exc.code})",)

    async def _read(
        self, task: RankingTask, client: BackendClient, call: Call, failover_deadline: Deadline | None
    ) -> Ranking:
        await client.known((failover_deadline or call.deadline).left())
        error: MissingCapability | None = None
        for way in ways_of(client, task.strategy):
            try:
                return await self._reranker.rank(
                    task, ClientGrader(client, way, call), call.deadline, failover_deadline
                )
            except MissingCapability as exc:
                error = exc
        raise error or MissingCapability(_unable(client, task.strategy))


def _unable(client: BackendClient, strategy: Strategy) -> str:
    able = [way for way, needs in NEEDS.items() if client.offers(needs)]
    if not able:
        return f"the backend {client.name!r} cannot rank: it offers neither rerank, logprobs, structured nor decide"
    return f'the backend {client.name!r} cannot rank by the strategy {strategy!r}; use "auto"'


class ClientGrader:
    """A backend's client as the grader of one request."""

    def __init__(self, client: BackendClient, way: Way, call: Call) -> None:
        self.name, self.model, self.way = client.name, client.model, way
        self._client, self._call = client, call

    async def score(self, prompts: Sequence[Conversation], labels: Sequence[str]) -> Scoring:
        """Raises MissingCapability if the labels are not single tokens of the model."""
        try:
            return await self._client.score(prompts, labels, self._call)
        except MissingCapability:
            raise
        except InvalidRequest as exc:
            raise MissingCapability(f"the backend {self.name!r} cannot rank: {exc}") from exc

    @property
    def reads_together(self) -> bool:
        """Not on one's own hardware: published, a model of 1.5B with 30 passages in a prompt ranks worse than BM25."""
        return not self._client.local

    async def decide(self, context: str, questions: Sequence[DecisionQuestion]) -> Decision:
        """The client's."""
        return await self._client.decide(context, questions, self._call)

    async def relevance(self, query: str, texts: Sequence[str]) -> Relevance:
        """The client's."""
        return await self._client.relevance(query, texts, self._call)

    async def complete(self, request: ChatRequest) -> Reply:
        """The client's reply."""
        return await self._client.complete(request, self._call)


def _ranked(served: Served[Ranking], call: Call, *degraded: str) -> RankingOutcome:
    ranking = served.value
    return RankingOutcome(
        use=served.use, ranking=ranking, usage=call.account.usage(), degraded=(*degraded, *ranking.degraded)
    )


def _half_ranked(failure: WinnowError, before: Served[Ranking], route: Route, call: Call) -> RankingOutcome:
    """The reranker's order, where no language model could go on with it."""
    use = _unranked(failure, route, call).use
    who = " and ".join(one.backend for one in use.fallbacks) or "no model"
    why = f"{who} did not read what {before.use.used} left open ({failure.code})"
    before = Served(before.value, msgspec.structs.replace(before.use, requested=use.requested, fallbacks=use.fallbacks))
    return _ranked(before, call, why)


def _unranked(failure: WinnowError, route: Route, call: Call) -> RankingOutcome:
    tried = failure.failures
    if isinstance(failure, Refused):  # a route takes a refusal for an answer; here it is one more that did not rank
        tried += (Fallback(backend=failure.service, reason=failure.code),)
    # Nobody was tried if what failed is beside the models, such as the ledger.
    who = f"{' and '.join(one.backend for one in tried)} did not rank" if tried else "no model ranked"
    # A default that the key is not for is not named.
    requested = AUTO if isinstance(failure, NotAllowed) else route.requested
    return RankingOutcome(
        use=BackendUse(requested=requested, used=NONE.name, fallbacks=tried),
        usage=call.account.usage(),
        degraded=(f"{who} ({failure.code}); results are in retrieval order",),
    )
