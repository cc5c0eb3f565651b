"""What a model's grades do to the order of retrieval, for models from good to malicious: the harm table.

    python -m benchmarks.harm --data DIR [--sets noveleval scifact] [--judges coin inverted ...] [--seeds 5]
    python -m benchmarks.harm --real http://127.0.0.1:8080/v1       what a real model makes of the controls

Each judge ranks BM25's candidates by the product's own reranker, three times: trusted in full, on the first question
that it is ever asked, and once it is known. The judges are simulated: they know what is right (relevance judgements),
err by a stated noise (rerank_opinion), and do something of their own with it.
"""

import argparse
import asyncio
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random

import msgspec
import numpy as np

from app.backends.base import ChatRequest, Conversation, Deadline, LabelScores, Reply, Scoring, Way
from app.backends.settings import BackendSettings
from app.domain import Strategy, TokenCount
from app.errors import UpstreamUntrusted
from app.ranking.cache import ScoreCache
from app.ranking.calls import ModelCalls
from app.ranking.models import LABELS, candidate_of
from app.ranking.prompts import PROMPT_VERSION
from app.ranking.reranker import RankingTask, Reranker
from app.ranking.scoring import CallStats
from app.ranking.trust import Record, Topic, TrustBook, topics
from benchmarks.rerank_data import RerankSet, Task, load_set
from benchmarks.rerank_judge import SimulatedJudge
from benchmarks.rerank_opinion import NONE, SMALL, Noise, Opinion, Reader
from benchmarks.rerank_peers import TIMEOUT_S, Ports
from benchmarks.rerank_product import FENCE, PortsReader
from benchmarks.rerank_runs import RESAMPLES, ndcg_of
from benchmarks.rerank_server import INSTANT, SimulatedServer
from benchmarks.rerank_wire import ClientPorts, open_client

TOP_OF_CONTROLS = 3

WARM = 3
"""Questions after which a model is known: by then it was asked about all controls."""


class Dealer:
    """A judge whose grades have nothing to do with what it reads: `deal` draws the logits of the four labels."""

    scores: bool

    def __init__(self, deal: Callable[[Random], Sequence[float]], seed: int, *, scores: bool = True) -> None:
        self._deal, self._seed, self._scores = deal, seed, scores

    @property
    def scorer(self) -> "Dealer | None":
        return self if self._scores else None

    async def score(self, prompts: Sequence[Conversation], labels: Sequence[str], timeout_s: float) -> Scoring:
        """The same for the same prompt."""
        return Scoring(scores=tuple(self._scored(prompt, labels) for prompt in prompts), tokens=TokenCount())

    async def complete(self, request: ChatRequest, timeout_s: float) -> Reply:
        """Grades or an order, for the numbers that the schema allows."""
        fields = (request.schema or {})["properties"]
        numbers: list[int] = next(iter(fields.values()))["items"]["enum"]
        chance = Random(f"{self._seed} {request.messages[-1].content}")
        if "order" in fields:
            text = json.dumps({"order": chance.sample(numbers, len(numbers))})
        else:
            grades = {number: int(np.argmax(self._deal(chance))) for number in numbers}
            text = json.dumps({str(grade): [n for n in numbers if grades[n] == grade] for grade in (3, 2, 1)})
        return Reply(text=text, finish_reason="stop", tokens=TokenCount(), model="dealer")

    def _scored(self, prompt: Conversation, labels: Sequence[str]) -> LabelScores:
        chance = Random(f"{self._seed} {prompt[-1].content}")
        logits = self._deal(chance) if tuple(labels) == LABELS else [chance.gauss(0, 2) for _ in labels]
        whole = math.log(math.fsum(map(math.exp, logits)))
        return LabelScores(logprobs=tuple(logit - whole for logit in logits), floor=-60.0)


def confident(chance: Random) -> Sequence[float]:
    """One of the labels with all its heart."""
    sure = chance.randrange(len(LABELS))
    return [5.0 * (label == sure) for label in range(len(LABELS))]


def timid(chance: Random) -> Sequence[float]:
    """Hardly one more than the other."""
    return [chance.gauss(0, 0.3) for _ in LABELS]


def always_three(chance: Random) -> Sequence[float]:
    """A little more or less."""
    return [0.0, 0.0, 0.0, 5.0 + chance.gauss(0, 0.3)]


class Judge:
    """A simulated judge of the candidates and of the controls, of which it errs as of candidates."""

    def __init__(self, of: RerankSet, task: Task, noise: Noise, seed: int, *, inverted: bool, scores: bool) -> None:
        turn = _inverted if inverted else _as_they_are
        self._scores = scores
        self._judge = _judge(turn(task, of.top_grade), of.top_grade, noise, seed, scores)
        self._of_controls = {
            topic.query: _judge(turn(_control_task(topic), TOP_OF_CONTROLS), TOP_OF_CONTROLS, noise, seed, scores)
            for topic in topics()
        }

    @property
    def scorer(self) -> "Judge | None":
        return self if self._scores else None

    async def score(self, prompts: Sequence[Conversation], labels: Sequence[str], timeout_s: float) -> Scoring:
        """All prompts of a call are about one query."""
        return await self._whose(prompts[0]).score(prompts, labels, timeout_s)

    async def complete(self, request: ChatRequest, timeout_s: float) -> Reply:
        """By the judge of that query."""
        return await self._whose(request.messages).complete(request, timeout_s)

    def _whose(self, prompt: Conversation) -> SimulatedJudge:
        text = prompt[-1].content
        return next((judge for query, judge in self._of_controls.items() if query in text), self._judge)


def _judge(task: Task, top_grade: int, noise: Noise, seed: int, scores: bool) -> SimulatedJudge:
    return SimulatedJudge(Opinion(task, top_grade, noise, seed), Reader(task), SimulatedServer(INSTANT), scores=scores)


def _control_task(topic: Topic) -> Task:
    texts = (*topic.answers, *topic.others)
    chance = Random(topic.query)  # so that an error that follows the first stage's score says nothing
    found = tuple(candidate_of(id=str(at), text=text, prior=chance.random()) for at, text in enumerate(texts))
    grades = {str(at): TOP_OF_CONTROLS for at in range(len(topic.answers))}
    return Task(id=topic.query, query=topic.query, candidates=found, grades=grades, evidence={})


def _as_they_are(task: Task, top_grade: int) -> Task:
    return task


def _inverted(task: Task, top_grade: int) -> Task:
    turned = {one.passage.id: top_grade - task.grades.get(one.passage.id, 0) for one in task.candidates}
    return msgspec.structs.replace(task, grades=turned)


Making = Callable[[RerankSet, Task, int, bool], Ports]
"""The judge of one task: from the set, the task, the seed, and whether it gives log-probabilities."""


def _dealing(deal: Callable[[Random], Sequence[float]]) -> Making:
    return lambda of, task, seed, scores: Dealer(deal, seed, scores=scores)


def _judging(noise: Noise, *, inverted: bool = False) -> Making:
    return lambda of, task, seed, scores: Judge(of, task, noise, seed, inverted=inverted, scores=scores)


JUDGES: Mapping[str, Making] = {
    "coin": _dealing(confident),
    "timid": _dealing(timid),
    "always3": _dealing(always_three),
    "inverted": _judging(SMALL, inverted=True),
    "small": _judging(SMALL),
    "perfect": _judging(NONE),
}


async def _order(reranker: Reranker, ports: Ports, task: Task, strategy: Strategy, way: Way) -> list[str]:
    asked = RankingTask(query=task.query, candidates=task.candidates, strategy=strategy, depth=len(task.candidates))
    try:
        ranking = await reranker.rank(asked, PortsReader(ports, way), Deadline(TIMEOUT_S))
    except UpstreamUntrusted:
        return [candidate.passage.id for candidate in task.candidates]
    return [place.id for place in ranking.order]


async def _ranked(
    of: RerankSet, make: Callable[[Task], Ports], book: Callable[[], TrustBook | None], strategy: Strategy, way: Way
) -> list[float]:
    """nDCG@10 of each task; `book` gives what is known of the judge before each of them."""
    orders = []
    for task in of.tasks:
        reranker = Reranker(ScoreCache(1_000), fence=lambda _: FENCE, trust=book())
        orders.append(await _order(reranker, make(task), task, strategy, way))
    return ndcg_of(of.tasks, orders)


async def _known(of: RerankSet, make: Callable[[Task], Ports], strategy: Strategy, way: Way) -> TrustBook:
    """The book after a few questions."""
    book = TrustBook()
    for task in of.tasks[:WARM]:
        reranker = Reranker(ScoreCache(1_000), fence=lambda _: FENCE, trust=book)
        await _order(reranker, make(task), task, strategy, way)
    return book


def _row(of: RerankSet, make: Making, strategy: Strategy, way: Way, seeds: Sequence[int]) -> str:
    """Cells of a row: retrieval, trusted in full, the first question, once known, and the trust at the end."""
    retrieval = ndcg_of(of.tasks, [[one.passage.id for one in task.candidates] for task in of.tasks])
    columns: dict[str, list[list[float]]] = {"full": [], "first": [], "known": []}
    trusts: list[float] = []
    for seed in seeds:

        def judge(task: Task, seed: int = seed) -> Ports:
            return make(of, task, seed, way == "scorer")

        book = asyncio.run(_known(of, judge, strategy, way))
        trusts.append(book.record(("simulated", "simulated", PROMPT_VERSION, way)).trust)
        for name, given in (("full", lambda: None), ("first", TrustBook), ("known", lambda: book)):  # noqa: B023
            columns[name].append(asyncio.run(_ranked(of, judge, given, strategy, way)))
    cells = [f"{np.mean(retrieval):.3f}"]
    cells += [_difference(rows, retrieval) for rows in columns.values()]
    worst = min(float(np.mean(row)) for row in columns["known"]) - float(np.mean(retrieval))
    cells += [f"{worst:+.3f}", f"{np.mean(trusts):.2f} ({min(trusts):.2f} to {max(trusts):.2f})"]
    return f"| {' | '.join(cells)} |"


def _difference(rows: Sequence[Sequence[float]], retrieval: Sequence[float]) -> str:
    """The mean, and its difference to retrieval with the 95 % bootstrap interval over queries."""
    apart = np.mean(np.asarray(rows), axis=0) - np.asarray(retrieval)
    means = np.random.default_rng(7).choice(apart, size=(RESAMPLES, len(apart))).mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return f"{np.mean(rows):.3f} {apart.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


async def _examined(url: str) -> str:
    """What a real model makes of the controls: its grades of each topic's answers and others, and the trust in it."""
    async with open_client("real", BackendSettings(kind="openai", url=url, timeout_s=600)) as client:
        stats, readings, lines = CallStats(), {}, []
        reader = PortsReader(ClientPorts(client), "scorer")
        for topic in topics():
            calls = ModelCalls(reader, ScoreCache(1_000), topic.query, FENCE, len(topic.answers))
            readings |= await calls.examine([topic], FENCE, stats)
            lines.append(f"{topic.query} {readings[topic]}")
        record = Record(readings={topic.query: reading for topic, reading in readings.items()})
        return "\n".join([*lines, f"{client.model}: trust {record.trust:.2f}"])


def main() -> int:
    """Print the tables, or what a real model makes of the controls."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--sets", nargs="*", default=["noveleval", "scifact"])
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--queries", type=int, default=0)
    parser.add_argument("--part", default="all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--way", default="scorer", choices=("scorer", "judge"))
    parser.add_argument("--judges", nargs="*", default=list(JUDGES), help="simulated ones")
    parser.add_argument("--real", metavar="URL", help="a server of OpenAI's protocol, with its /v1")
    args = parser.parse_args()
    if args.real:
        print(asyncio.run(_examined(args.real)))
        return 0
    for name in args.sets:
        of = load_set(args.data, name, depth=args.depth, limit=args.queries, part=args.part)
        print(
            f"\n### {of.name} ({args.part}), {args.strategy}, {args.way}: {len(of.tasks)} queries, depth {args.depth}\n"
        )
        print("| judge | retrieval | trusted in full | first question | known | worst seed | trust |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for judge in args.judges:
            cells = _row(of, JUDGES[judge], args.strategy, args.way, range(1, args.seeds + 1))
            print(f"| {judge} {cells}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
