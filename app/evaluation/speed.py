"""Use case: measure how fast a backend is from this machine, and what it costs.

Every prompt is another one, since servers keep what they have read; nothing is tried twice, since a retry is no speed.
A budget of its own holds each run to the price that was named beforehand.
"""

import asyncio
import os
import platform
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from random import Random
from statistics import median

import msgspec

from app.accounting.benchmarks import BENCHMARKS_FILE, TOGETHER, Benchmark, store_benchmark
from app.accounting.prices import Price, Prices
from app.backends.base import ChatRequest, Message, call_of, worst_of_chat
from app.backends.client import BackendClient
from app.backends.registry import provider_of
from app.backends.router import NONE
from app.backends.settings import KeyBudget
from app.config.settings import Settings
from app.domain import ANONYMOUS, BackendUse, Caller, RankingOptions, TokenCount, Usage
from app.errors import MissingCapability, UnknownBackend, UpstreamBadReply, WinnowError
from app.instance import installed_version
from app.ranking.models import candidate_of
from app.wiring import Services, build_services
from indexing.concurrency import together

STAGE = "bench"

RUNS = 3
"""Of each measurement but that of many streams; the median counts."""

OUTPUT_TOKENS, PROMPT_TOKENS, PASSAGES = 128, 2000, 50

WORST_RERANK = TokenCount(input=60_000, output=12_000)
"""Of one rerank: twice what it takes where a model grades each passage alone and then compares the best."""

CALL_S = 300.0

_INSTANT_S = 1e-6
"""A clock may not have gone on."""

Clock = Callable[[], float]


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """A backend that is to be measured, and its price. `tokens` are the most that it may use; `requests` count where
    they have a price.
    """

    backend: str
    model: str
    price: Price
    tokens: TokenCount
    requests: int = 1

    @property
    def usd(self) -> float:
        """The most that it may cost by its price for tokens and requests; 0 where it has none."""
        return self.price.pico(self.tokens, requests=self.requests) / 1e12

    @property
    def asks(self) -> bool:
        """Whether its owner has to agree: it costs something, or nobody knows whether it does."""
        return self.usd > 0 or self.price.source == "unknown"


class Timed(msgspec.Struct, frozen=True, kw_only=True):
    """One streamed call, in seconds."""

    first_s: float
    seconds: float
    tokens: TokenCount


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured: medians in seconds, dollars and tokens/s. None: the backend could not rerank. A reranker
    writes nothing, and has 0 for the first three.
    """

    first_s: float = 0.0
    alone: float = 0.0
    together: float = 0.0
    prompt: float
    rerank_s: float | None
    rerank_usd: float | None
    notes: tuple[str, ...]


def plan(settings: Settings, names: Sequence[str]) -> tuple[Planned, ...]:
    """The backends to measure; () of names means those of "auto". Calls nobody.

    Raises UnknownBackend, and MissingCapability where there is none.
    """
    for name in names:
        if name not in settings.backends:
            raise UnknownBackend.among(name, tuple(settings.backends))
    chosen = names or settings.routing.auto or tuple(settings.backends)
    if not chosen:
        raise MissingCapability("no model is configured: declare one under [backends.NAME]")
    prices = Prices(settings.backends, time.time)
    return tuple(_planned(settings, prices, name) for name in dict.fromkeys(chosen))


def _writes(settings: Settings, name: str) -> bool:
    return "chat" in provider_of(name, settings.backends[name]).may_offer


def _planned(settings: Settings, prices: Prices, name: str) -> Planned:
    configured = settings.backends[name]
    model = configured.model or provider_of(name, configured).model or ""
    if not _writes(settings, name):
        read = TokenCount(input=(1 + RUNS) * WORST_RERANK.input)
        return Planned(backend=name, model=model, price=prices.of(name, model), tokens=read, requests=2 * (1 + RUNS))
    prompts = Prompts(Random(0))  # noqa: S311 - any will do to count
    short, long = worst_of_chat(prompts.short()), worst_of_chat(prompts.long(PROMPT_TOKENS))
    chats = [short] * (1 + RUNS + TOGETHER) + [long] * RUNS
    # The count of a prompt's tokens is an estimate, which may be half of the truth.
    tokens = sum((TokenCount(input=2 * one.input, output=one.output) for one in chats), TokenCount())
    return Planned(
        backend=name,
        model=model,
        price=prices.of(name, model),
        tokens=sum([WORST_RERANK] * RUNS, tokens),
    )


@asynccontextmanager
async def bench_services(settings: Settings, planned: Sequence[Planned]) -> AsyncIterator[tuple[Services, Caller]]:
    """Services that try nothing twice, and a caller who can spend no more than what was planned."""
    caller = msgspec.structs.replace(ANONYMOUS, key=f"bench {datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}")
    once = {
        name: msgspec.structs.replace(backend, retries=0, hedge_after_s=None)
        for name, backend in settings.backends.items()
    }
    budgets = settings.budgets
    most = sum(one.usd for one in planned)
    if most:
        keys = {**budgets.keys, caller.key: KeyBudget(daily_usd=most)}
        budgets = msgspec.structs.replace(budgets, keys=keys)
    # How fast a model ranks is the question here, not how well.
    ranking = msgspec.structs.replace(settings.ranking, cache="memory", controls=False)
    settings = msgspec.structs.replace(settings, backends=once, budgets=budgets, ranking=ranking)
    services = build_services(settings, patient=True)
    try:
        yield services, caller
    finally:
        await services.close()


async def measure(
    services: Services,
    planned: Planned,
    caller: Caller,
    show: Callable[[str], None],
    clock: Clock = time.perf_counter,
) -> Benchmark:
    """Measure one backend, and keep the result in the home. Raises what its calls raise, except those of the rerank."""
    client = (await services.clients())[planned.backend]
    probed = await client.known()
    speeds = _Speeds(client, caller, clock)
    if _writes(services.settings, planned.backend):
        figures = await _figures(services, speeds, probed.context_tokens or 2 * PROMPT_TOKENS, show)
    else:
        figures = await _figures_of_reranker(services, speeds, show)
    price = services.accounts.price(planned.backend, client.model)
    by_input, by_output = _usd_per_million(price, figures, len(client.replicas))
    priced = price.source != "unknown" and figures.rerank_usd is not None
    result = Benchmark(
        backend=planned.backend,
        model=client.model,
        server=probed.server,
        at=datetime.now(UTC),
        machine=f"{platform.node()} ({os.cpu_count()} cores, {platform.system()} {platform.machine()})",
        version=installed_version(),
        first_token_ms=figures.first_s * 1000,
        tokens_per_s=figures.alone,
        tokens_per_s_at_16=figures.together,
        prompt_tokens_per_s=figures.prompt,
        rerank_ms=None if figures.rerank_s is None else figures.rerank_s * 1000,
        usd_per_million_input=by_input,
        usd_per_million_output=by_output,
        usd_per_1000_reranks=(figures.rerank_usd or 0.0) * 1000 if priced else None,
        price_source=price.source,
        spent_usd=speeds.spent_usd,
        notes=figures.notes,
    )
    await asyncio.to_thread(store_benchmark, services.settings.index.home / BENCHMARKS_FILE, result)
    return result


async def _figures(services: Services, speeds: "_Speeds", context: int, show: Callable[[str], None]) -> Figures:
    prompts = Prompts(Random())  # noqa: S311 - it makes each prompt a new one
    show("first token and one stream")
    await speeds.stream(prompts.short())  # opens the connections
    alone = [await speeds.stream(prompts.short()) for _ in range(RUNS)]
    show(f"{TOGETHER} streams at once")
    began = speeds.clock()
    streams = await together(speeds.stream(prompts.short()) for _ in range(TOGETHER))
    wall = speeds.clock() - began
    show("a long prompt")
    long = [await speeds.stream(prompts.long(min(PROMPT_TOKENS, context // 2))) for _ in range(RUNS)]
    show(f"a rerank of {PASSAGES}")
    reranks = await _reranks(services, speeds, prompts)
    return Figures(
        first_s=median(one.first_s for one in alone),
        alone=median(one.tokens.output / max(one.seconds, _INSTANT_S) for one in alone),
        together=sum(one.tokens.output for one in streams) / max(wall, _INSTANT_S),
        prompt=median(one.tokens.input / max(one.first_s, _INSTANT_S) for one in long),
        rerank_s=reranks.seconds,
        rerank_usd=reranks.usd,
        notes=reranks.notes,
    )


async def _figures_of_reranker(services: Services, speeds: "_Speeds", show: Callable[[str], None]) -> Figures:
    """What it reads of query and passages is its prompt. Raises UpstreamBadReply where it could not rerank."""
    prompts = Prompts(Random())  # noqa: S311 - it makes each passage a new one
    show(f"a rerank of {PASSAGES}")
    await _reranks(services, speeds, prompts, runs=1)  # opens the connections
    reranks = await _reranks(services, speeds, prompts)
    if reranks.seconds is None:
        raise UpstreamBadReply(speeds.backend, "; ".join(reranks.notes))
    return Figures(
        prompt=reranks.input_tokens / max(reranks.seconds, _INSTANT_S),
        rerank_s=reranks.seconds,
        rerank_usd=reranks.usd,
        notes=reranks.notes,
    )


def _usd_per_million(price: Price, figures: Figures, servers: int) -> tuple[float | None, float | None]:
    """Of input and of output tokens: by the price, or by the hour and the speeds; None for what nobody writes.

    Prompts are read one by one, each by one of the servers; streams at once are written by all of them.
    """
    if price.rates is not None:
        return price.rates.input, price.rates.output if figures.together else None
    if price.source == "unknown":
        return None, None
    usd_per_s = price.gpu_usd_per_hour / 3600
    return usd_per_s / figures.prompt * 1e6, servers * usd_per_s / figures.together * 1e6 if figures.together else None


class _Speeds:
    """Times the calls of one backend, and adds up what they cost."""

    def __init__(self, client: BackendClient, caller: Caller, clock: Clock) -> None:
        self._client = client
        self.backend, self.caller, self.clock = client.name, caller, clock
        self.spent_usd = 0.0

    async def stream(self, request: ChatRequest) -> Timed:
        """Raises UpstreamBadReply where nothing came."""
        call = call_of(STAGE, CALL_S, self.caller)
        began = self.clock()
        stream = await self._client.stream(request, call)
        first_s = self.clock() - began
        try:
            async for _ in stream:
                pass
        finally:
            await stream.aclose()
        used = call.account.usage()
        self.spent_usd += used.cost_usd
        if not used.output_tokens:
            raise UpstreamBadReply(self.backend, f"{self.backend} replied with nothing: no speed to measure")
        tokens = TokenCount(input=used.input_tokens, output=used.output_tokens)
        return Timed(first_s=first_s, seconds=self.clock() - began, tokens=tokens)


class Reranks(msgspec.Struct, frozen=True, kw_only=True):
    """Medians of reranks; None where the backend could not do it, `notes` say why."""

    seconds: float | None = None
    usd: float | None = None
    input_tokens: float = 0.0
    notes: tuple[str, ...] = ()


async def _reranks(services: Services, speeds: _Speeds, prompts: "Prompts", runs: int = RUNS) -> Reranks:
    options = RankingOptions(deadline_ms=int(CALL_S * 1000), depth=PASSAGES, cascade=NONE.name)
    times, used, notes = [], list[Usage](), list[str]()
    try:
        route = await services.rankers.select(speeds.backend)
        assert not isinstance(route, BackendUse)  # noqa: S101 - a backend that is named is a model
        for _ in range(runs):
            texts = enumerate(prompts.passages())
            candidates = [candidate_of(str(place), text, prior=1 / (place + 2)) for place, text in texts]
            began = speeds.clock()
            outcome = await services.rankers.rank(route, QUERY, candidates, 10, options, speeds.caller)
            times.append(speeds.clock() - began)
            used.append(outcome.usage)
            speeds.spent_usd += outcome.usage.cost_usd
            notes += outcome.degraded
            if outcome.ranking is None:
                return Reranks(notes=tuple(f"no rerank: {why.partition(';')[0]}" for why in outcome.degraded))
    except WinnowError as exc:
        return Reranks(notes=(f"no rerank: {exc}",))
    return Reranks(
        seconds=median(times),
        usd=median(one.cost_usd for one in used),
        input_tokens=median(one.input_tokens for one in used),
        notes=tuple(dict.fromkeys(notes)),
    )


QUERY = "Which parcels that left warehouse 7 weigh more than 20 kilograms?"


class Prompts:
    """Prompts that no server has read before, if `random` differs each time."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def short(self) -> ChatRequest:
        """One that is answered at any length."""
        start = self._random.randrange(10**9)
        return _asking(f"Count upwards in words from {start}, one number a line, without end.", OUTPUT_TOKENS)

    def long(self, tokens: int) -> ChatRequest:
        """One of about so many tokens, with a reply of a few."""
        lines = "\n".join(self._parcel() for _ in range(max(1, tokens // 24)))
        return _asking(f"{lines}\n\nHow many parcels are listed? Reply with the number alone.", 16)

    def passages(self) -> list[str]:
        """Fifty, of about 75 tokens each."""
        return [" ".join(self._parcel() for _ in range(3)) for _ in range(PASSAGES)]

    def _parcel(self) -> str:
        number, weight = self._random.randrange(10**6), self._random.randrange(1, 40)
        place, day = self._random.randrange(1, 12), self._random.randrange(1, 29)
        return f"Parcel {number} left warehouse {place} on day {day} of the month and weighs {weight} kilograms."


def _asking(text: str, most: int) -> ChatRequest:
    return ChatRequest(messages=(Message(role="user", content=text),), max_output_tokens=most)
