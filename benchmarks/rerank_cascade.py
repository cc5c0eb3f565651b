"""A reranker before a language model: order, calls, tokens and time of both together against either alone.

    python -m benchmarks.rerank_cascade --data DIR [--sets noveleval scifact] [--seeds 3] [--error 1.4 1.8]

Both are simulated (rerank_opinion), with errors of their own: the language model is that of `benchmarks.rerank` on an
RTX 4090, the reranker an encoder of 0.6B parameters there, which reads seven times as fast (stated, not measured) and
whose log-odds are its belief in units that the service does not know. `--error` are the reranker's, in grades. Both are
trusted as far as the controls showed, about which they were asked beforehand (`benchmarks.harm`).
"""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from app.backends.base import Deadline, Relevance, Way, tokens_of_pairs
from app.domain import TokenCount
from app.errors import UpstreamUntrusted
from app.ranking.cache import ScoreCache
from app.ranking.models import Ranking
from app.ranking.reranker import RankingTask, Reranker, what_is_open
from app.ranking.trust import TrustBook, topics
from benchmarks.harm import TOP_OF_CONTROLS, WARM, Judge, control_task
from benchmarks.rerank_data import RerankSet, Task, load_set
from benchmarks.rerank_opinion import SMALL, Noise, Opinion, Reader
from benchmarks.rerank_peers import TIMEOUT_S, Ports
from benchmarks.rerank_product import FENCE, PortsReader
from benchmarks.rerank_runs import CountingPorts, Result, Run, result_of, table
from benchmarks.rerank_server import RTX_4090
from tests.fakes.virtual_time import VirtualTimeLoop

T = TypeVar("T")

READS_PER_S = 7 * RTX_4090.prefill_per_s
DEPTH = 50

SCALE, SHIFT = 2.5, -6.0
"""Of its log-odds: most of what it reads gets a probability near 0, as with bge-reranker."""


class SimulatedReranker(PortsReader):
    """An opinion on one task as a reranker; `tokens` are those that it has read."""

    way: Way = "reranker"

    def __init__(self, ports: Ports, of: RerankSet, task: Task, reader: Reader, noise: Noise, seed: int) -> None:
        super().__init__(ports, "reranker")
        self._beliefs = {task.query: (Opinion(task, of.top_grade, noise, seed), reader)}
        for control in map(control_task, topics()):
            self._beliefs[control.query] = Opinion(control, TOP_OF_CONTROLS, noise, seed), Reader(control)
        self.tokens, self.requests = TokenCount(), 0

    async def relevance(self, query: str, texts: Sequence[str]) -> Relevance:
        """One belief for each text."""
        tokens = tokens_of_pairs(query, texts)
        await asyncio.sleep(RTX_4090.first_s + tokens.input / READS_PER_S)
        self.tokens, self.requests = self.tokens + tokens, self.requests + 1
        opinion, reader = self._beliefs[query]
        seen = [reader.read(text) for text in texts]
        beliefs = [opinion.believed(one[0], "alone") if one else 0.0 for one in seen]
        return Relevance(log_odds=tuple(SCALE * belief + SHIFT for belief in beliefs), tokens=tokens)


Schedule = Callable[[Reranker, RankingTask, PortsReader, SimulatedReranker], Awaitable[Ranking]]


async def _reranker_alone(
    settings: Reranker, task: RankingTask, model: PortsReader, reranker: SimulatedReranker
) -> Ranking:
    return await settings.rank(task, reranker, Deadline(TIMEOUT_S))


async def _model_alone(
    settings: Reranker, task: RankingTask, model: PortsReader, reranker: SimulatedReranker
) -> Ranking:
    return await settings.rank(task, model, Deadline(TIMEOUT_S))


async def _cascade(settings: Reranker, task: RankingTask, model: PortsReader, reranker: SimulatedReranker) -> Ranking:
    first = await settings.rank(task, reranker, Deadline(TIMEOUT_S))
    rest = what_is_open(task, first)
    return first if rest is None else await settings.rank(rest, model, Deadline(TIMEOUT_S))


def _strategies() -> dict[str, tuple[str, Schedule]]:
    return {
        "retrieval": ("none", _reranker_alone),
        "reranker": ("graded", _reranker_alone),
        "model: graded": ("graded", _model_alone),
        "model: auto": ("auto", _model_alone),
        "cascade: graded": ("graded", _cascade),
        "cascade: auto": ("auto", _cascade),
    }


async def _run(of: RerankSet, task: Task, reader: Reader, seed: int, noise: Noise, name: str, book: TrustBook) -> Run:
    strategy, schedule = _strategies()[name]
    model, reranker = _models(of, task, reader, seed, noise)
    settings = Reranker(ScoreCache(1_000), fence=lambda _: FENCE, trust=book)
    begun = asyncio.get_running_loop().time()
    order = [candidate.passage.id for candidate in sorted(task.candidates, key=lambda one: -one.score)]
    if strategy != "none":
        asked = RankingTask(
            query=task.query,
            candidates=task.candidates,
            strategy=msgspec.convert(strategy, type=RankingTask.__annotations__["strategy"]),
            depth=DEPTH,
        )
        order = [one.id for one in (await schedule(settings, asked, PortsReader(model, "scorer"), reranker)).order]
    await settings.close()
    return Run(
        order=tuple(order),
        rounds=model.rounds + reranker.requests,
        requests=model.requests + reranker.requests,
        tokens=model.tokens + reranker.tokens,
        seconds=asyncio.get_running_loop().time() - begun,
    )


def _models(
    of: RerankSet, task: Task, reader: Reader, seed: int, noise: Noise
) -> tuple[CountingPorts, SimulatedReranker]:
    model = CountingPorts(Judge(of, task, SMALL, seed, reader=reader, speed=RTX_4090))
    return model, SimulatedReranker(model, of, task, reader, noise, 1_000 + seed)


async def _known(of: RerankSet, noise: Noise, seed: int) -> TrustBook:
    """What the first questions have shown of both."""
    book = TrustBook()
    for task in of.tasks[:WARM]:
        model, reranker = _models(of, task, Reader(task), seed, noise)
        settings = Reranker(ScoreCache(1_000), fence=lambda _: FENCE, trust=book)
        asked = RankingTask(query=task.query, candidates=task.candidates, strategy="graded", depth=DEPTH)
        for grader in (PortsReader(model, "scorer"), reranker):
            with suppress(UpstreamUntrusted):
                await settings.rank(asked, grader, Deadline(TIMEOUT_S))
    return book


def measure(of: RerankSet, noise: Noise, seeds: Sequence[int]) -> dict[str, Result]:
    """Each schedule before the same models."""

    def virtually(work: Coroutine[object, object, T]) -> T:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            return runner.run(work)

    books = {seed: virtually(_known(of, noise, seed)) for seed in seeds}
    runs: dict[str, list[list[Run]]] = {name: [[] for _ in seeds] for name in _strategies()}
    for task in of.tasks:
        reader = Reader(task)
        for name, rows in runs.items():
            for row, seed in zip(rows, seeds, strict=True):
                row.append(virtually(_run(of, task, reader, seed, noise, name, books[seed])))
    return {name: result_of(name, of, rows) for name, rows in runs.items()}


def main() -> int:
    """Print a table for each set and each quality of the reranker."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="*", default=["noveleval", "scifact"])
    parser.add_argument("--queries", type=int, default=0, help="only the first so many of each set")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--error", nargs="*", type=float, default=[1.4, 1.8])
    args = parser.parse_args()
    for name in args.sets:
        of = load_set(args.data, name, depth=DEPTH, limit=args.queries, part="all")
        for error in args.error:
            noise = msgspec.structs.replace(SMALL, error=error)
            results = measure(of, noise, range(1, args.seeds + 1))
            print(f"\n### {of.name}, reranker's error {error}: {len(of.tasks)} queries, {args.seeds} seeds\n")
            print(table(results, "model: auto"), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
