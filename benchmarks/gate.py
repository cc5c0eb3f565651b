"""Whether a score tells that nothing found answers the question: the relevance gate of /answer and `min_score`.

    python -m benchmarks.gate --data DIR/squad2_dev [--questions 100] [--judges small coin ...] [--cache DIR]
    python -m benchmarks.gate --data DIR/squad2_dev --judges --real http://127.0.0.1:8080/v1 --questions 60 --depth 3

Half of the articles are indexed. Asked are questions that these answer, questions about the other articles ("absent"),
and SQuAD's own unanswerable ones about an indexed passage ("beside": it is about the matter, and does not say it).
AUROC, false acceptance at 90 % recall, and what the default thresholds of /answer let pass, of

retrieval   the best fused score        relevance   what the extractive answerer makes of its best sentence
a judge     the best score once it has ranked, trusted in full and as far as the service believes it. Simulated ones
            know what is right and err by a stated noise (rerank_opinion); a passage beside the question has 1 of 3
"""

import argparse
import asyncio
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec

from app.answering.extractive.answerer import assess
from app.answering.questions import parse_question
from app.backends.base import Deadline, Way
from app.backends.settings import BackendSettings
from app.domain import Hit, Query
from app.errors import UpstreamUntrusted
from app.evaluation.metrics import gate
from app.ranking.cache import ScoreCache
from app.ranking.models import candidate_of
from app.ranking.reranker import RankingTask, Reranker
from app.ranking.trust import TrustBook
from app.services.answer import MIN_RELEVANCE, MIN_SCORE
from benchmarks.answers_corpus import Corpus, DataSet, Vectorizer
from benchmarks.harm import JUDGES, WARM
from benchmarks.rerank_data import RerankSet, Task, task_of
from benchmarks.rerank_opinion import SMALL, Noise
from benchmarks.rerank_peers import TIMEOUT_S, Ports
from benchmarks.rerank_product import FENCE, PortsReader
from benchmarks.rerank_wire import ClientPorts, open_client

Group = Literal["answerable", "absent", "beside"]
GROUPS: tuple[Group, ...] = ("answerable", "absent", "beside")
ANSWERS, ON_TOPIC = 3, 1
"""Grades of the passage that answers, and of one that is about the matter."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A question, what was found for it, and what is known of that."""

    group: Group
    task: Task
    hits: tuple[Hit, ...]


Scores = Mapping[Group, Sequence[float]]
"""The score of each question."""


async def ask(data: DataSet, vectorizer: Vectorizer, count: int, depth: int) -> list[Asked]:
    """The questions in seeded order, with their passages."""
    corpus = Corpus(data.half(), vectorizer)
    indexed = {passage["_id"] for passage in data.half()}
    groups: dict[Group, list[dict[str, Any]]] = {
        "answerable": [one for one in data.answerable if data.gold[one["_id"]] in indexed],
        "absent": data.without_article(data.answerable),
        "beside": [one for one in data.unanswerable if one["passage_id"] in indexed],
    }
    asked = []
    for group in GROUPS:
        for record in groups[group][:count]:
            hits = (await corpus.find(Query(text=record["text"], limit=max(10, depth))))[0].results
            asked.append(Asked(group=group, task=_task(group, record, hits[:depth], data), hits=hits))
    return asked


def _task(group: Group, record: dict[str, Any], hits: Sequence[Hit], data: DataSet) -> Task:
    grades = {
        "answerable": lambda: {data.gold[record["_id"]]: ANSWERS},
        "absent": dict[str, int],
        "beside": lambda: {record["passage_id"]: ON_TOPIC},
    }[group]()
    found = [candidate_of(id=hit.id, text=hit.text or "", title=hit.title, prior=hit.score) for hit in hits]
    return task_of(record["_id"], record["text"], found, grades)


def by_retrieval(asked: Sequence[Asked]) -> Scores:
    """The best fused score."""
    return _scores(asked, [max((hit.score for hit in one.hits), default=0.0) for one in asked])


async def by_relevance(asked: Sequence[Asked], vectorizer: Vectorizer) -> Scores:
    """What /answer compares with `min_relevance` where no model ranks."""
    assessed = [await assess(parse_question(one.task.query), one.hits, vectorizer.embed) for one in asked]
    return _scores(asked, [0.0 if found is None else found[2] for found in assessed])


async def by_judge(
    asked: Sequence[Asked], ports: Callable[[Task], Ports], way: Way, cache: ScoreCache, *, in_full: bool
) -> Scores:
    """The best score once it has ranked; that of retrieval where it is not believed."""
    book = None if in_full else TrustBook()
    for one in () if in_full else asked[:WARM]:
        await _best(one.task, ports(one.task), way, ScoreCache(1_000), book)
    return _scores(asked, [await _best(one.task, ports(one.task), way, cache, book) for one in asked])


async def _best(task: Task, ports: Ports, way: Way, cache: ScoreCache, book: TrustBook | None) -> float:
    reranker = Reranker(cache, fence=lambda _: FENCE, trust=book)
    asked = RankingTask(query=task.query, candidates=task.candidates, strategy="graded", depth=len(task.candidates))
    try:
        ranking = await reranker.rank(asked, PortsReader(ports, way), Deadline(TIMEOUT_S))
    except UpstreamUntrusted:
        return max((one.score for one in task.candidates), default=0.0)
    finally:
        await reranker.close()
    return max((place.score for place in ranking.order), default=0.0)


def _scores(asked: Sequence[Asked], values: Sequence[float]) -> Scores:
    return {group: [value for one, value in zip(asked, values, strict=True) if one.group == group] for group in GROUPS}


def row(name: str, scores: Scores, threshold: float) -> str:
    """AUROC and false acceptance for both kinds of unanswerable questions; what passes the threshold, of each group."""
    cells = [name]
    for group in GROUPS[1:]:
        found = gate(scores["answerable"], scores[group])
        cells += ["-", "-"] if found is None else [f"{found.auroc:.3f}", f"{found.false_acceptance:.0%}"]
    passing = [sum(one >= threshold for one in scores[group]) / max(1, len(scores[group])) for group in GROUPS]
    cells += [f"{threshold:.2f}: " + ", ".join(f"{share:.0%}" for share in passing)]
    return f"| {' | '.join(cells)} |"


HEAD = (
    "| score | absent: AUROC | accepted at 90 % recall | beside: AUROC | accepted | passes (of each kind) |",
    "|---|---|---|---|---|---|",
)


async def report(args: argparse.Namespace) -> None:
    """Print the table."""
    data, vectorizer = DataSet(args.data, args.seed), Vectorizer(args.cache)
    asked = await ask(data, vectorizer, args.questions, args.depth)
    counts = {group: sum(one.group == group for one in asked) for group in GROUPS}
    print(f"{counts}, {args.depth} passages each\n", *HEAD, sep="\n")
    print(row("retrieval", by_retrieval(asked), MIN_SCORE))
    print(row("relevance", await by_relevance(asked, vectorizer), MIN_RELEVANCE), flush=True)
    vectorizer.save()
    of = RerankSet(name=data.name, tasks=tuple(one.task for one in asked), top_grade=ANSWERS)
    for name in args.judges:
        make = partial(JUDGES[name], of)
        for in_full, how in ((True, "trusted in full"), (False, "as believed")):
            scores = await by_judge(
                asked,
                partial(_seeded, make),
                "scorer",
                ScoreCache(10_000),
                in_full=in_full,
            )
            print(row(f"{name}, {how}", scores, MIN_SCORE), flush=True)
    if args.real:
        await _real(asked, args.real)


def _seeded(make: Callable[[Task, int, Noise, bool], Ports], task: Task) -> Ports:
    return make(task, 1, SMALL, True)


async def _real(asked: Sequence[Asked], url: str) -> None:
    """By the log-probabilities of a real model, which is asked once for each grade."""
    async with open_client("real", BackendSettings(kind="openai", url=url, timeout_s=600, retries=0)) as client:
        ports, cache = ClientPorts(client), ScoreCache(100_000)
        for in_full, how in ((True, "trusted in full"), (False, "as believed")):
            scores = await by_judge(asked, lambda _: ports, "scorer", cache, in_full=in_full)
            means = {group: math.fsum(values) / max(1, len(values)) for group, values in scores.items()}
            print(row(f"{client.model}, {how}", scores, MIN_SCORE), flush=True)
            print(f"  mean of the best scores: {', '.join(f'{group} {mean:.2f}' for group, mean in means.items())}")


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=100, help="of each of the three kinds")
    parser.add_argument("--depth", type=int, default=10, help="passages that a judge reads")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--cache", type=Path, help="directory to keep vectors in between runs")
    parser.add_argument("--judges", nargs="*", choices=tuple(JUDGES), default=list(JUDGES), help="simulated ones")
    parser.add_argument("--real", metavar="URL", help="a server of OpenAI's protocol, with its /v1")
    asyncio.run(report(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
