"""How others order a list with a language model, written anew from their papers and documentation.

rankgpt     windows of 20 from the bottom up, 10 forward each time, a permutation each (Sun et al., arXiv 2304.09542)
first       the same windows, ordered by the first token's log-probabilities of the letters (arXiv 2406.15657)
tdpart      the best 20 give a pivot at place 10; all others are compared with it at once, and those above it go on to
            the next turn (Parry et al., arXiv 2405.14589)
one_list    one permutation of everything
groups      groups of 10, each passage with a score from 1 to 10, the irrelevant left out, as LlamaIndex's LLMRerank
            asks; here the groups are asked at the same time, its own code waits for one after the other
yes_no      every passage alone, the probability of "yes" against "no"

Each takes the ports and a task and gives all ids, best first. A damaged reply is read as their parsers do: ids that are
not there are skipped, each counts once, what was left out follows in the order that it had.
"""

import asyncio
import math
import re
import string
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from app.backends.base import ChatRequest, Conversation, LabelScorer, Message, Reply, Scoring
from benchmarks.rerank_data import Task
from indexing.documents import Candidate

WINDOW, STEP, GROUP, PIVOT = 20, 10, 10, 10
WORDS = 300
"""RankGPT cuts passages there."""

TIMEOUT_S = 600.0
YES_NO = ("yes", "no")


class Ports(Protocol):
    """What a schedule may call."""

    async def complete(self, request: ChatRequest, timeout_s: float) -> Reply: ...

    @property
    def scorer(self) -> LabelScorer | None: ...


Candidates = Sequence[Candidate]
Schedule = Callable[[Ports, Task], Awaitable[list[str]]]
Sorter = Callable[[Candidates], Awaitable[list[Candidate]]]


async def rankgpt(ports: Ports, task: Task) -> list[str]:
    """Nine windows for a hundred passages, one after another."""
    return await _slide(task, lambda window: _permuted(ports, task.query, window))


async def first(ports: Ports, task: Task) -> list[str]:
    """The same, with one token a window."""
    return await _slide(task, lambda window: _lettered(ports, task.query, window))


async def one_list(ports: Ports, task: Task) -> list[str]:
    """All at once."""
    return _ids(await _permuted(ports, task.query, task.candidates))


async def tdpart(ports: Ports, task: Task) -> list[str]:
    """Until all that may be among the best fit into one window."""
    above, below = list(task.candidates), list[Candidate]()
    for _ in task.candidates:
        above, rest, done = await _partition(ports, task.query, above)
        below = rest + below
        if done:
            break
    return _ids(above + below)


async def groups(ports: Ports, task: Task) -> list[str]:
    """Scores of groups are compared as if one group had given them."""
    parts = [task.candidates[start : start + GROUP] for start in range(0, len(task.candidates), GROUP)]
    scored = await asyncio.gather(*(_chosen(ports, task.query, part) for part in parts))
    scores = {name: score for part in scored for name, score in part.items()}
    return sorted(_ids(task.candidates), key=lambda name: -scores.get(name, 0))


async def yes_no(ports: Ports, task: Task, labels: tuple[str, str] = YES_NO) -> list[str]:
    """One round, one token each. `labels` mean yes and no."""
    asked = f"Does the passage answer the query? Answer {' or '.join(labels)}."
    prompts = [_ask(f"Passage: {_cut(c)}\nQuery: {task.query}\n{asked}") for c in task.candidates]
    scoring = await _scored(ports, prompts, labels)
    odds = dict(zip(_ids(task.candidates), map(_odds, scoring.scores), strict=True))
    return sorted(odds, key=lambda name: -odds[name])


PEERS: Mapping[str, Schedule] = {
    "rankgpt": rankgpt,
    "first": first,
    "tdpart": tdpart,
    "one_list": one_list,
    "groups": groups,
    "yes_no": yes_no,
}

NEED_LOGPROBS = frozenset(("first", "yes_no"))


async def _slide(task: Task, sort: Sorter) -> list[str]:
    order, end = list(task.candidates), len(task.candidates)
    while True:
        start = max(0, end - WINDOW)
        order[start:end] = await sort(order[start:end])
        if start == 0:
            return _ids(order)
        end -= STEP


async def _partition(ports: Ports, query: str, candidates: Candidates) -> tuple[list[Candidate], list[Candidate], bool]:
    """(those that may be among the best, the others, whether the former are in order)."""
    head = await _permuted(ports, query, candidates[:WINDOW])
    if len(candidates) <= WINDOW:
        return head, [], True
    pivot, tail = head[PIVOT - 1], candidates[WINDOW:]
    parts = [tail[start : start + WINDOW - 1] for start in range(0, len(tail), WINDOW - 1)]
    orders = await asyncio.gather(*(_permuted(ports, query, [pivot, *part]) for part in parts))
    above = head[: PIVOT - 1]
    below = [pivot, *head[PIVOT:]]
    risen: list[Candidate] = []
    for order in orders:
        place = order.index(pivot)
        risen += order[:place]
        below += order[place + 1 :]
    return above + risen, below, not risen


async def _permuted(ports: Ports, query: str, candidates: Candidates) -> list[Candidate]:
    text = (
        f"I will provide you with {len(candidates)} passages, each with a number in brackets. Rank them by their "
        f"relevance to the query: {query}\n\n{_listed(candidates, map(str, range(1, len(candidates) + 1)))}\n\n"
        f"Query: {query}\nRank the {len(candidates)} passages above, the most relevant first. List all numbers, in the "
        "form [] > [], like [2] > [1]. Say nothing else."
    )
    request = ChatRequest(messages=_ask(text), max_output_tokens=8 * len(candidates))
    reply = await ports.complete(request, TIMEOUT_S)
    return _completed([int(number) - 1 for number in re.findall(r"\d+", reply.text)], candidates)


async def _lettered(ports: Ports, query: str, candidates: Candidates) -> list[Candidate]:
    letters = tuple(string.ascii_uppercase[: len(candidates)])
    text = (
        f"{len(candidates)} passages, each with a letter:\n\n{_listed(candidates, letters)}\n\nQuery: {query}\n"
        "Which passage is the most relevant one? Answer with its letter."
    )
    scores = (await _scored(ports, [_ask(text)], letters)).scores[0]
    if scores is None:
        return list(candidates)
    told = [-math.inf if value is None else value for value in scores.logprobs]
    return [candidates[n] for n in sorted(range(len(candidates)), key=lambda n: -told[n])]


async def _chosen(ports: Ports, query: str, candidates: Candidates) -> dict[str, int]:
    text = (
        f"A list of documents:\n\n{_listed(candidates, map(str, range(1, len(candidates) + 1)))}\n\n"
        f"Question: {query}\nGive the numbers of the documents that help to answer the question, by relevance, each "
        "with a score from 1 to 10. Leave out the irrelevant ones. Example:\nDoc: 9, Relevance: 7\nDoc: 3, Relevance: 4"
    )
    reply = await ports.complete(ChatRequest(messages=_ask(text), max_output_tokens=16 * len(candidates)), TIMEOUT_S)
    found: dict[str, int] = {}
    for place, score in re.findall(r"Doc: (\d+), Relevance: (\d+)", reply.text):
        if 1 <= int(place) <= len(candidates):
            found.setdefault(candidates[int(place) - 1].passage.id, int(score))
    return found


async def _scored(ports: Ports, prompts: Sequence[Conversation], labels: Sequence[str]) -> Scoring:
    if ports.scorer is None:
        raise ValueError("this schedule needs log-probabilities")
    return await ports.scorer.score(prompts, labels, TIMEOUT_S)


def _odds(scores: object) -> float:
    """Of "yes" against "no"; a prompt that failed is the last."""
    logprobs = getattr(scores, "logprobs", None)
    if logprobs is None:
        return -math.inf
    floor = getattr(scores, "floor", -math.inf)
    yes, no = (floor if value is None else value for value in logprobs)
    return float(yes - no)


def _completed(places: Sequence[int], candidates: Candidates) -> list[Candidate]:
    named = list(dict.fromkeys(place for place in places if 0 <= place < len(candidates)))
    left = [place for place in range(len(candidates)) if place not in set(named)]
    return [candidates[place] for place in named + left]


def _listed(candidates: Candidates, names: "map[str] | Sequence[str]") -> str:
    return "\n".join(f"[{name}] {_cut(candidate)}" for name, candidate in zip(names, candidates, strict=True))


def _cut(candidate: Candidate) -> str:
    return " ".join(f"{candidate.passage.title} {candidate.passage.text}".split()[:WORDS])


def _ask(text: str) -> Conversation:
    return (Message(role="user", content=text),)


def _ids(candidates: Candidates) -> list[str]:
    return [candidate.passage.id for candidate in candidates]
