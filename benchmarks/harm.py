"""What a model's grades do to the order of retrieval, for models from good to malicious: the harm table.

    python -m benchmarks.harm --data DIR [--sets noveleval scifact] [--judges coin inverted ...] [--seeds 5]
    python -m benchmarks.harm --data DIR --real http://127.0.0.1:8080/v1 --depth 30 --strategy graded --replies FILE

Each judge ranks BM25's candidates by the product's own reranker, three times: trusted in full, on the first question
that it is ever asked, and once it is known. The judges are simulated: they know what is right (relevance judgements),
err by a stated noise (rerank_opinion), and do something of their own with it. With `--real` a model judges. FILE keeps
its replies: what is in there is not asked again, and with `--model NAME` instead of `--real` nothing is.

Exits with 1 if a judge costs more than it may: .05 nDCG@10 on its first question, .01 once it is known.
"""

import argparse
import asyncio
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from os import environ
from pathlib import Path
from random import Random

import msgspec
import numpy as np

from app.backends.base import ChatRequest, Conversation, Deadline, LabelScores, Reply, Scoring
from app.backends.settings import BackendSettings
from app.domain import Strategy, TokenCount
from app.errors import UpstreamUntrusted
from app.ranking.cache import CacheFile, ScoreCache
from app.ranking.calls import ModelCalls
from app.ranking.models import LABELS, candidate_of
from app.ranking.prompts import PROMPT_VERSION
from app.ranking.reranker import RankingTask, Reranker
from app.ranking.scoring import CallStats
from app.ranking.trust import Record, Topic, TopicReading, TrustBook, topics
from benchmarks.rerank_data import RerankSet, Task, load_set
from benchmarks.rerank_judge import SimulatedJudge
from benchmarks.rerank_opinion import NONE, SMALL, Noise, Opinion, Reader
from benchmarks.rerank_peers import TIMEOUT_S, Ports
from benchmarks.rerank_product import FENCE, PortsReader
from benchmarks.rerank_runs import RESAMPLES, ndcg_of
from benchmarks.rerank_server import INSTANT, SimulatedServer, Speed
from benchmarks.rerank_wire import ClientPorts, open_client

TOP_OF_CONTROLS = 3

WARM = 3
"""Questions after which a model is known: by then it was asked about all controls."""

MOST_KNOWN, MOST_AT_FIRST = 0.01, 0.05
"""nDCG@10 that a judge may cost."""


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

    def __init__(
        self,
        of: RerankSet,
        task: Task,
        noise: Noise,
        seed: int,
        *,
        inverted: bool = False,
        scores: bool = True,
        reader: Reader | None = None,
        speed: Speed = INSTANT,
    ) -> None:
        turn, server = _inverted if inverted else _as_they_are, SimulatedServer(speed)

        def judge(task: Task, top_grade: int, reader: Reader | None = None) -> SimulatedJudge:
            opinion = Opinion(turn(task, top_grade), top_grade, noise, seed)
            return SimulatedJudge(opinion, reader or Reader(task), server, scores=scores)

        self._scores = scores
        self._judge = judge(task, of.top_grade, reader)
        self._of_controls = {topic.query: judge(control_task(topic), TOP_OF_CONTROLS) for topic in topics()}

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


class Overfit:
    """Right about the controls, as a model would be that was made to pass them, and as a coin about all else."""

    def __init__(self, of_controls: Judge, of_all_else: Dealer) -> None:
        self._of_controls, self._of_all_else = of_controls, of_all_else

    @property
    def scorer(self) -> "Overfit | None":
        return self if self._of_all_else.scorer else None

    async def score(self, prompts: Sequence[Conversation], labels: Sequence[str], timeout_s: float) -> Scoring:
        """All prompts of a call are about one query."""
        return await self._whose(prompts[0]).score(prompts, labels, timeout_s)

    async def complete(self, request: ChatRequest, timeout_s: float) -> Reply:
        """By the one whose query it is."""
        return await self._whose(request.messages).complete(request, timeout_s)

    def _whose(self, prompt: Conversation) -> "Judge | Dealer":
        text = prompt[-1].content
        return self._of_controls if any(topic.query in text for topic in topics()) else self._of_all_else


class Silent:
    """A judge that says nothing of a `share` of what it is shown. In words it leaves them out of its list."""

    def __init__(self, judge: "Judge | Dealer", share: float, seed: int) -> None:
        self._judge, self._share, self._seed = judge, share, seed

    @property
    def scorer(self) -> "Silent | None":
        return self if self._judge.scorer else None

    async def score(self, prompts: Sequence[Conversation], labels: Sequence[str], timeout_s: float) -> Scoring:
        """Without the scores of some."""
        scoring = await self._judge.score(prompts, labels, timeout_s)
        kept = [None if self._mute(p[-1].content) else s for p, s in zip(prompts, scoring.scores, strict=True)]
        return msgspec.structs.replace(scoring, scores=tuple(kept))

    async def complete(self, request: ChatRequest, timeout_s: float) -> Reply:
        """Without the numbers of some."""
        reply = await self._judge.complete(request, timeout_s)
        rows = {
            key: [n for n in row if not self._mute(f"{n} {reply.text}")] for key, row in json.loads(reply.text).items()
        }
        return msgspec.structs.replace(reply, text=json.dumps(rows))

    def _mute(self, what: str) -> bool:
        return Random(f"silent {self._seed} {what}").random() < self._share


def control_task(topic: Topic) -> Task:
    """Its passages as candidates, whose answers have TOP_OF_CONTROLS."""
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


Making = Callable[[RerankSet, Task, int, Noise, bool], Ports]
"""The judge of one task: from the set, the task, the seed, how a small model errs, and whether it scores labels."""


def _dealing(deal: Callable[[Random], Sequence[float]]) -> Making:
    return lambda of, task, seed, noise, scores: Dealer(deal, seed, scores=scores)


def _judging(noise: Noise | None = None, *, inverted: bool = False) -> Making:
    return lambda of, task, seed, small, scores: Judge(
        of, task, small if noise is None else noise, seed, inverted=inverted, scores=scores
    )


JUDGES: Mapping[str, Making] = {
    "coin": _dealing(confident),
    "timid": _dealing(timid),
    "always3": _dealing(always_three),
    "inverted": _judging(inverted=True),
    "small": _judging(),
    "perfect": _judging(NONE),
}

ATTACKS: Mapping[str, Making] = {
    "overfit": lambda of, task, seed, noise, scores: Overfit(
        Judge(of, task, NONE, seed, inverted=False, scores=scores), Dealer(confident, seed, scores=scores)
    ),
    "silent": lambda of, task, seed, noise, scores: Silent(
        Judge(of, task, noise, seed, inverted=False, scores=scores), 0.5, seed
    ),
    "silent-coin": lambda of, task, seed, noise, scores: Silent(Dealer(confident, seed, scores=scores), 0.5, seed),
}
"""What tries the trust, rather than the order."""

Grading = Callable[[Task, int], PortsReader]
"""Who grades a task, by the seed."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One way to trust a judge: nDCG@10 by seed and question, and how many replies a ranking took, cached or not."""

    ndcg: Sequence[Sequence[float]]
    asked: float


class Trial:
    """A judge before the questions of a set. `cache` None: an empty one for each ranking."""

    def __init__(
        self, of: RerankSet, grading: Grading, strategy: Strategy, seeds: Sequence[int], cache: ScoreCache | None = None
    ) -> None:
        self._of, self._grading, self._strategy, self._seeds, self._cache = of, grading, strategy, seeds, cache

    async def row(self) -> tuple[str, bool]:
        """Cells of a row: retrieval, trusted in full, the first question, once known, the worst seed and what a ranking
        asks then, and the trust at the end; and whether the judge costs no more than it may.
        """
        retrieval = ndcg_of(self._of.tasks, [_retrieved(task) for task in self._of.tasks])
        books = {seed: await self._known(seed) for seed in self._seeds}
        full = await self._ranked(lambda _: None)
        first = await self._ranked(lambda _: TrustBook())
        known = await self._ranked(books.__getitem__)
        grader = self._grading(self._of.tasks[0], self._seeds[0])
        trusts = [book.record((grader.name, grader.model, PROMPT_VERSION, grader.way)).trust for book in books.values()]
        cells = [f"{np.mean(retrieval):.3f}", *(_difference(cell.ndcg, retrieval) for cell in (full, first, known))]
        worst = min(float(np.mean(row)) for row in known.ndcg) - float(np.mean(retrieval))
        cells += [
            f"{worst:+.3f}",
            f"{known.asked:.0f}",
            f"{np.mean(trusts):.2f} ({min(trusts):.2f} to {max(trusts):.2f})",
        ]
        harmless = all(
            np.mean(cell.ndcg) - np.mean(retrieval) >= -most
            for cell, most in ((first, MOST_AT_FIRST), (known, MOST_KNOWN))
        )
        return f"| {' | '.join(cells)} |", bool(harmless)

    async def _known(self, seed: int) -> TrustBook:
        """The book after a few questions."""
        book = TrustBook()
        for task in self._of.tasks[:WARM]:
            await self._order(self._grading(task, seed), task, book)
        return book

    async def _ranked(self, book: Callable[[int], TrustBook | None]) -> Cell:
        """All tasks by all seeds; `book` gives what is known of the judge before each of them."""
        rows, asked = [], 0
        for seed in self._seeds:
            orders = []
            for task in self._of.tasks:
                order, took = await self._order(self._grading(task, seed), task, book(seed))
                orders.append(order)
                asked += took
            rows.append(ndcg_of(self._of.tasks, orders))
        return Cell(ndcg=rows, asked=asked / (len(self._seeds) * len(self._of.tasks)))

    async def _order(self, grader: PortsReader, task: Task, trust: TrustBook | None) -> tuple[list[str], int]:
        """All ids, best first, and how many replies that took."""
        cache = self._cache or ScoreCache(1_000)
        before = cache.hits + cache.misses
        reranker = Reranker(cache, fence=lambda _: FENCE, trust=trust)
        asked = RankingTask(
            query=task.query, candidates=task.candidates, strategy=self._strategy, depth=len(task.candidates)
        )
        try:
            order = [place.id for place in (await reranker.rank(asked, grader, Deadline(TIMEOUT_S))).order]
        except UpstreamUntrusted:
            order = _retrieved(task)
        return order, cache.hits + cache.misses - before


def _retrieved(task: Task) -> list[str]:
    return [candidate.passage.id for candidate in task.candidates]


def _difference(rows: Sequence[Sequence[float]], retrieval: Sequence[float]) -> str:
    """The mean, and its difference to retrieval with the 95 % bootstrap interval over queries."""
    apart = np.mean(np.asarray(rows), axis=0) - np.asarray(retrieval)
    means = np.random.default_rng(7).choice(apart, size=(RESAMPLES, len(apart))).mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return f"{np.mean(rows):.3f} {apart.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


class RealReader(PortsReader):
    """A real model as a label scorer; None: what it once replied is all there is."""

    name = "real"

    def __init__(self, model: str, ports: Ports | None) -> None:
        super().__init__(ports or Gone(), "scorer")
        self.model = model


class Gone:
    """A model that is not there."""

    scorer = None

    async def complete(self, request: ChatRequest, timeout_s: float) -> Reply:
        """Raises ValueError."""
        raise ValueError("this was never asked")


async def _controls(grader: PortsReader, cache: ScoreCache) -> str:
    """What a real model makes of the controls: its grades of each topic's answers and others, and the trust in it."""
    readings: dict[Topic, TopicReading] = {}
    for topic in topics():
        calls = ModelCalls(grader, cache, topic.query, FENCE, len(topic.answers))
        readings |= await calls.examine([topic], FENCE, CallStats())
    record = Record(readings={topic.query: reading for topic, reading in readings.items()})
    lines = [f"{topic.query} {reading}" for topic, reading in readings.items()]
    return "\n".join([*lines, f"{grader.model}: trust {record.trust:.2f}"])


HEAD = (
    "| judge | retrieval | trusted in full | first question | known | worst seed | asked | trust |\n"
    "|---|---|---|---|---|---|---|---|"
)


async def _simulated(of: RerankSet, args: argparse.Namespace) -> bool:
    """Print a row for each judge; whether none costs more than it may."""
    harmless, noise = True, msgspec.structs.replace(SMALL, error=args.error)
    for name in args.judges:

        def grading(task: Task, seed: int, make: Making = {**JUDGES, **ATTACKS}[name]) -> PortsReader:
            return PortsReader(make(of, task, seed, noise, args.way == "scorer"), args.way)

        cells, fine = await Trial(of, grading, args.strategy, range(1, args.seeds + 1)).row()
        print(f"| {name} {cells}", flush=True)
        harmless = harmless and fine
    return harmless


async def _real(sets: Sequence[RerankSet], args: argparse.Namespace) -> bool:
    """The same of a real model."""
    file = CacheFile(args.replies, 1_000_000) if args.replies else None
    cache, harmless = ScoreCache(100_000, file), True
    async with AsyncExitStack() as stack:
        stack.push_async_callback(cache.close)
        grader = RealReader(args.model or "", None)
        if args.real:
            settings = BackendSettings(
                kind=args.kind, url=args.real, api_key=environ.get("VLLM_API_KEY"), timeout_s=600
            )
            client = await stack.enter_async_context(open_client("real", settings))
            grader = RealReader(client.model, ClientPorts(client))
        print(await _controls(grader, cache), flush=True)
        for of in sets:
            print(f"\n{_title(of, args)}\n\n{HEAD}", flush=True)
            cells, fine = await Trial(of, lambda task, seed: grader, args.strategy, (1,), cache).row()
            print(f"| {grader.model} {cells}", flush=True)
            harmless = harmless and fine
    return harmless


def _title(of: RerankSet, args: argparse.Namespace) -> str:
    return f"### {of.name} ({args.part}), {args.strategy}, {args.way}: {len(of.tasks)} queries, depth {args.depth}"


def main() -> int:
    """Print the tables; 1 if a judge costs more than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--sets", nargs="*", default=["noveleval", "scifact"])
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--queries", type=int, default=0)
    parser.add_argument("--part", default="all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--way", default="scorer", choices=("scorer", "judge"))
    parser.add_argument("--error", type=float, default=SMALL.error, help="of the small judge's belief, in grades")
    parser.add_argument("--judges", nargs="*", default=list(JUDGES), help=f"simulated ones; also {', '.join(ATTACKS)}")
    parser.add_argument("--real", metavar="URL", help="a server of OpenAI's protocol, with its /v1")
    parser.add_argument("--kind", default="openai", choices=("openai", "vllm"), help="of the server")
    parser.add_argument("--replies", type=Path, metavar="FILE", help="what a real model has replied")
    parser.add_argument("--model", help="of the replies, instead of a server")
    args = parser.parse_args()
    sets = [load_set(args.data, name, depth=args.depth, limit=args.queries, part=args.part) for name in args.sets]
    if args.real or args.model:
        return 0 if asyncio.run(_real(sets, args)) else 1
    harmless = True
    for of in sets:
        print(f"\n{_title(of, args)}\n\n{HEAD}", flush=True)
        harmless = asyncio.run(_simulated(of, args)) and harmless
    return 0 if harmless else 1


if __name__ == "__main__":
    sys.exit(main())
