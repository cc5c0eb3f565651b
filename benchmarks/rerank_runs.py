"""Runs schedules and counts what they cost, whoever answers."""

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import ir_measures
import msgspec
import numpy as np
from ir_measures import nDCG

from app.backends.base import ChatRequest, Conversation, LabelScorer, Reply, Scoring
from app.domain import TokenCount
from benchmarks.rerank_data import RerankSet, Task
from benchmarks.rerank_judge import SimulatedJudge
from benchmarks.rerank_opinion import Noise, Opinion, Reader
from benchmarks.rerank_peers import Ports, Schedule
from benchmarks.rerank_server import SimulatedServer, Speed
from tests.fakes.virtual_time import VirtualTimeLoop

T = TypeVar("T")

RESAMPLES = 2_000


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One list that was ordered. A round begins when a call is made while no other one is under way."""

    order: tuple[str, ...]
    rounds: int
    requests: int
    tokens: TokenCount
    seconds: float


class CountingPorts:
    """Ports around ports: what went through them."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self.rounds = self.requests = self._under_way = 0
        self.tokens = TokenCount()

    @property
    def scorer(self) -> LabelScorer | None:
        return self if self._ports.scorer is not None else None

    async def complete(self, request: ChatRequest, timeout_s: float) -> Reply:
        """Counted."""
        reply = await self._during(self._ports.complete(request, timeout_s))
        self._count(1, reply.tokens)
        return reply

    async def score(self, prompts: Sequence[Conversation], labels: Sequence[str], timeout_s: float) -> Scoring:
        """Counted."""
        if self._ports.scorer is None:
            raise ValueError("there are no log-probabilities here")
        scoring = await self._during(self._ports.scorer.score(prompts, labels, timeout_s))
        self._count(scoring.requests, scoring.tokens)
        return scoring

    async def _during(self, call: Awaitable[T]) -> T:
        self.rounds += self._under_way == 0
        self._under_way += 1
        try:
            return await call
        finally:
            self._under_way -= 1

    def _count(self, requests: int, tokens: TokenCount) -> None:
        self.requests += requests
        self.tokens += tokens


async def run(schedule: Schedule, ports: Ports, task: Task) -> Run:
    """Order one list. Raises AssertionError if something was lost or doubled on the way."""
    counting, begun = CountingPorts(ports), asyncio.get_running_loop().time()
    order = await schedule(counting, task)
    assert sorted(order) == sorted(c.passage.id for c in task.candidates), "not a permutation"
    return Run(
        order=tuple(order),
        rounds=counting.rounds,
        requests=counting.requests,
        tokens=counting.tokens,
        seconds=asyncio.get_running_loop().time() - begun,
    )


def simulate(
    of: RerankSet, task: Task, schedule: Schedule, reader: Reader, noise: Noise, seed: int, speed: Speed
) -> Run:
    """One list before a judge and a server of their own, in virtual time."""

    async def one() -> Run:
        opinion = Opinion(task, of.top_grade, noise, seed)
        judge = SimulatedJudge(opinion, reader, SimulatedServer(speed), scores=speed.scores)
        return await run(schedule, judge, task)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(one())


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Of one schedule over one set: nDCG@10 by seed and query, and the means of what it cost."""

    name: str
    ndcg: Sequence[Sequence[float]]
    rounds: float
    requests: float
    input: float
    fresh: float
    output: float
    seconds: float

    @property
    def mean(self) -> float:
        """Over seeds and queries."""
        return statistics.fmean(statistics.fmean(row) for row in self.ndcg)

    @property
    def spread(self) -> float:
        """Standard deviation between the seeds' means."""
        return statistics.stdev(statistics.fmean(row) for row in self.ndcg) if len(self.ndcg) > 1 else 0.0


def result_of(name: str, of: RerankSet, runs: Sequence[Sequence[Run]]) -> Result:
    """`runs` by seed, then by task."""
    every = [one for row in runs for one in row]

    def mean(what: Callable[[Run], float]) -> float:
        return statistics.fmean(map(what, every))

    return Result(
        name=name,
        ndcg=[ndcg_of(of.tasks, [one.order for one in row]) for row in runs],
        rounds=mean(lambda one: one.rounds),
        requests=mean(lambda one: one.requests),
        input=mean(lambda one: one.tokens.input),
        fresh=mean(lambda one: one.tokens.input - one.tokens.cached),
        output=mean(lambda one: one.tokens.output + one.tokens.thinking),
        seconds=mean(lambda one: one.seconds),
    )


def ndcg_of(tasks: Sequence[Task], orders: Sequence[Sequence[str]]) -> list[float]:
    """nDCG@10 of each task by ir_measures; relevant documents that BM25 did not find count as missed."""
    qrels = {task.id: dict(task.grades) for task in tasks}
    given = {t.id: {name: -float(place) for place, name in enumerate(o)} for t, o in zip(tasks, orders, strict=True)}
    found = {metric.query_id: float(metric.value) for metric in ir_measures.iter_calc([nDCG @ 10], qrels, given)}
    return [found[task.id] for task in tasks]


def difference(a: Result, b: Result) -> tuple[float, float, float]:
    """a - b in nDCG@10, with its 95 % interval: bootstrap over the queries of the seeds' means."""
    apart = np.mean(np.asarray(a.ndcg) - np.asarray(b.ndcg), axis=0)
    rng = np.random.default_rng(7)
    means = rng.choice(apart, size=(RESAMPLES, len(apart))).mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(apart.mean()), float(low), float(high)


def table(results: Mapping[str, Result], against: str) -> str:
    """In Markdown. `fresh` input tokens are those that the prefix cache did not spare; all are means of a list."""
    heads = ("schedule", "nDCG@10", f"- {against} [95 %]", "rounds", "requests", "input tokens", "fresh", "output", "s")
    lines = [_row(heads), _row(["---"] * len(heads))]
    for name, result in results.items():
        gain, low, high = difference(result, results[against])
        apart = "" if name == against else f"{gain:+.3f} [{low:+.3f}, {high:+.3f}]"
        counts = (f"{result.input:,.0f}", f"{result.fresh:,.0f}", f"{result.output:,.0f}", f"{result.seconds:.2f}")
        quality = f"{result.mean:.3f} ± {result.spread:.3f}"
        lines.append(_row((name, quality, apart, f"{result.rounds:.1f}", f"{result.requests:.1f}", *counts)))
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
