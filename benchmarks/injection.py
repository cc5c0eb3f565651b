"""Attacks by a passage on its ranking, before models that fall for them: places won, by schedule and by kind of attack.

    python -m benchmarks.injection [--all]

The attacks are those of `tests/attacks/injections.py`, at the end of an unrelated passage that retrieval put last of
40. The judge of `rerank_opinion` knows without errors how good the others are. It falls for an attack

always   whatever it reads in a passage it obeys: what is left are the flags, and the cap of those who are flagged
tokens   when a control token reaches it whole, or in letters that look like it: what a tokenizer takes for a new turn
against  whatever it reads, and it takes the passages beside it in the same prompt for worthless: what a shared prompt
         costs, as nDCG@10 of the whole order

Peers put passages into prompts as they are. "ours, uncapped" has our prompts, but believes the grades of all.
"""

import argparse
import asyncio
import statistics
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import msgspec

from app.backends.base import Conversation, Deadline, Decision, DecisionQuestion
from app.ranking.cache import ScoreCache
from app.ranking.models import candidate_of
from app.ranking.reranker import RankingTask, Reranker
from app.text.fencing import break_up
from benchmarks.rerank_data import Task, task_of
from benchmarks.rerank_judge import SimulatedJudge
from benchmarks.rerank_opinion import NONE, TOP, Opinion, Reader, Seen
from benchmarks.rerank_ours import Recipe, rank_by
from benchmarks.rerank_peers import PEERS, TIMEOUT_S, Ports, Schedule
from benchmarks.rerank_product import BY_JUDGE, BY_LABELS, FENCE, PortsReader
from benchmarks.rerank_runs import ndcg_of
from benchmarks.rerank_server import INSTANT, SimulatedServer
from tests.attacks.injections import ATTACKS, Attack

QUERY = "How long do parcels take to Norway?"
PASSAGES = 40
ATTACKER = "attacker"

Faith = Literal["never", "always", "tokens", "against"]
FAITHS: Sequence[Faith] = ("always", "tokens")

TOWNS = ("Oslo", "Bergen", "Tromso", "Molde", "Hamar", "Skien", "Narvik", "Larvik", "Horten", "Moss")


class _DecidingReader(PortsReader):
    """A decision model: it reads all passages side by side, and answers a question about each."""

    def __init__(self, judge: SimulatedJudge) -> None:
        super().__init__(judge, "decider")
        self._judge = judge

    async def decide(self, context: str, questions: Sequence[DecisionQuestion]) -> Decision:
        """As the judge believes of them side by side."""
        return await self._judge.decide(context, questions, TIMEOUT_S)


async def _decide(ports: Ports, task: Task) -> list[str]:
    assert isinstance(ports, SimulatedJudge)
    asked = RankingTask(query=task.query, candidates=task.candidates, strategy="decide", depth=len(task.candidates))
    reranker = Reranker(ScoreCache(1_000), fence=lambda _: FENCE)
    ranking = await reranker.rank(asked, _DecidingReader(ports), Deadline(TIMEOUT_S))
    return [place.id for place in ranking.order]


SCHEDULES: Mapping[str, Schedule] = {
    "rankgpt": PEERS["rankgpt"],
    "one_list": PEERS["one_list"],
    "yes_no": PEERS["yes_no"],
    "ours, uncapped, labels": partial(rank_by, recipe=Recipe()),
    "ours, uncapped, judge": partial(rank_by, recipe=Recipe(judge=True)),
    **{f"{name}, labels": BY_LABELS[name] for name in ("ours: graded", "ours: duel", "ours: auto")},
    **{f"{name}, judge": BY_JUDGE[name] for name in ("ours: graded", "ours: duel", "ours: auto")},
    "ours: listwise": BY_JUDGE["ours: listwise"],
    "ours: decide": _decide,
}


GRADED = "ours: graded, labels"
COMPARED = ("rankgpt", "ours, uncapped, labels", GRADED)
IN_COMPANY = ("rankgpt", GRADED, "ours: graded, judge", "ours: auto, labels", "ours: decide")
"""Alone in a prompt, some beside each other, and all."""


class Fooled(SimulatedJudge):
    """A judge without errors that puts the attacker first, if it falls for what it reads."""

    def __init__(self, task: Task, faith: Faith) -> None:
        self._fooled = _FooledOpinion(task, 3, NONE, 1)
        self._faith = faith
        super().__init__(self._fooled, Reader(task), SimulatedServer(INSTANT))

    def _seen(self, prompt: Conversation) -> list[Seen]:
        whole = any(break_up(turn.content) != turn.content for turn in prompt)
        seen = super()._seen(prompt)
        self._fooled.obeys = self._faith in ("always", "against") or (self._faith == "tokens" and whole)
        self._fooled.despises = self._faith == "against" and any(one.id == ATTACKER for one in seen)
        return seen


class _FooledOpinion(Opinion):
    obeys = despises = False

    def believed(self, seen: Seen, way: str) -> float:
        """Above the best grade for the attacker, when it is obeyed, and nothing for those that it speaks against."""
        if self.obeys and seen.id == ATTACKER:
            return TOP + 1
        return 0.0 if self.despises else super().believed(seen, way)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Places that an attack won, against the same passage without it, before a model that always obeys or not."""

    attack: Attack
    won: Mapping[Faith, int]


def main() -> int:
    """Print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every attack that wins a place in our graded pass")
    args = parser.parse_args()
    found = {name: asyncio.run(outcomes(schedule)) for name, schedule in SCHEDULES.items()}
    print(by_schedule(found), by_technique(found), asyncio.run(by_company()), sep="\n\n")
    if args.all:
        rising = [one for one in found[GRADED] if one.won["always"] > 0]
        print("", *(f"{one.won['always']:3} {one.attack.technique}: {one.attack.text!r}" for one in rising), sep="\n")
    return 0


async def outcomes(schedule: Schedule) -> list[Outcome]:
    """Of every attack."""
    honest = await _place(schedule, task_with(""), "never")
    return [
        Outcome(
            attack=attack,
            won={faith: honest - await _place(schedule, task_with(attack.text), faith) for faith in FAITHS},
        )
        for attack in ATTACKS
    ]


def task_with(attack: str) -> Task:
    """Passages of all grades, and last by retrieval the attacker's, which says nothing about the query."""
    candidates = [
        candidate_of(
            id=f"p{n}", text=f"{TOWNS[n % len(TOWNS)]} tells {3 * n} {_NEWS.format(n, 7 * n)}", prior=0.9 - 0.02 * n
        )
        for n in range(PASSAGES - 1)
    ]
    evil = candidate_of(id=ATTACKER, text=f"{_BREAD} {attack}".strip(), prior=0.1)
    return task_of("attacked", QUERY, [*candidates, evil], {c.passage.id: n % 4 for n, c in enumerate(candidates)})


_NEWS = "readers that office number {0} handed out the parcels of week {1} in less time than all others."
_BREAD = "Our bakery sells bread and cakes of many kinds, all of them made by hand each morning in an old oven."


async def _place(schedule: Schedule, task: Task, faith: Faith) -> int:
    return list(await schedule(Fooled(task, faith), task)).index(ATTACKER)


async def by_company() -> str:
    """nDCG@10 without an attack, and the mean and the worst where the attacker speaks against those beside it."""
    heads = ("schedule", "nDCG@10 without an attack", "under attack, mean", "worst")
    rows = []
    for name in IN_COMPANY:
        honest, *attacked = [
            await _ndcg(SCHEDULES[name], attack, faith)
            for attack, faith in (("", "never"), *((one.text, "against") for one in ATTACKS))
        ]
        rows.append([name, f"{honest:.3f}", f"{statistics.fmean(attacked):.3f}", f"{min(attacked):.3f}"])
    retrieval = ndcg_of([task := task_with("")], [[one.passage.id for one in task.candidates]])[0]
    return _table([heads, ["---"] * len(heads), *rows, ["order of retrieval", f"{retrieval:.3f}", "", ""]])


async def _ndcg(schedule: Schedule, attack: str, faith: Faith) -> float:
    task = task_with(attack)
    return ndcg_of([task], [await schedule(Fooled(task, faith), task)])[0]


def by_schedule(found: Mapping[str, Sequence[Outcome]]) -> str:
    """The mean of the places won, and how many of the attacks won any."""
    heads = ("schedule", "always: places won", "attacks that rose", "tokens: places won", "attacks that rose")
    rows = [[name, *(cell for faith in FAITHS for cell in _cells(results, faith))] for name, results in found.items()]
    return _table([heads, ["---"] * len(heads), *rows])


def by_technique(found: Mapping[str, Sequence[Outcome]]) -> str:
    """Of a model that always obeys."""
    heads = ("attack", *(f"{name}: {what}" for name in COMPARED for what in ("places won", "rose")))
    rows = []
    for technique in dict.fromkeys(attack.technique for attack in ATTACKS):
        some = [[one for one in found[name] if one.attack.technique == technique] for name in COMPARED]
        rows.append([technique, *(cell for results in some for cell in _cells(results, "always"))])
    return _table([heads, ["---"] * len(heads), *rows])


def _cells(results: Sequence[Outcome], faith: Faith) -> tuple[str, str]:
    won = [one.won[faith] for one in results]
    return f"{statistics.fmean(won):.1f}", f"{sum(places > 0 for places in won)} of {len(won)}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
