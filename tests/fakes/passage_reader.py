"""A model that reads passages for the reranker: it knows how good each is, and does what a script says."""

import asyncio
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence

from app.backends.base import ChatRequest, Conversation, LabelScores, Reply, Scoring, Way
from app.domain import TokenCount
from app.ranking.models import LABELS, TOP_GRADE, candidate_of
from indexing.documents import Candidate

_NAME = re.compile(r"\bp\d+\b")
_LINE = re.compile(r"^(?:\w+ )?\[(\w+)\].*?\b(p\d+)\b", re.MULTILINE)


def candidates(*priors: float) -> list[Candidate]:
    """Called p0, p1, ... with these priors, in different words."""
    return [
        candidate_of(id=f"p{number}", text=f"p{number} tells {_words(number)}.", prior=prior)
        for number, prior in enumerate(priors)
    ]


def falling(count: int) -> list[Candidate]:
    """With priors that fall evenly from 0.9 to 0.1."""
    return candidates(*(0.9 - 0.8 * number / max(count - 1, 1) for number in range(count)))


def _words(number: int) -> str:
    """Different enough that no two passages are near duplicates."""
    return " ".join(f"word{number * 31 + step * 7919}" for step in range(8))


Step = Exception | float | str | None
"""What becomes of a call: it fails, takes so many seconds, says this text, or goes as usual."""


class ScriptedReader:
    """Grades the passage "p7" by `quality["p7"]` in [0,1] (0 where it has none), after `seconds`.

    `script` says what becomes of the n-th call. `deaf`: it takes so many seconds more to end when it is cancelled.
    """

    def __init__(
        self,
        quality: Mapping[str, float],
        way: Way = "scorer",
        *,
        seconds: float = 0.1,
        script: Callable[[int], Step] = lambda _: None,
        deaf: float = 0.0,
    ) -> None:
        self.name, self.model, self.way = "gemma", "gemma-3", way
        self.quality, self.seconds, self.script, self.deaf = quality, seconds, script, deaf
        self.asked: list[list[str]] = []
        self.begun = self.ended = self.stopped = 0

    async def score(self, prompts: Sequence[Conversation], labels: Sequence[str]) -> Scoring:
        """Letters are those of a duel."""
        said = [prompt[-1].content for prompt in prompts]
        await self._call([name for text in said for name in _NAME.findall(text)])
        ask = self._grade if tuple(labels) == LABELS else self._letter
        return Scoring(scores=tuple(ask(text) for text in said), tokens=TokenCount(input=1), requests=1)

    async def complete(self, request: ChatRequest) -> Reply:
        """In the shape that is asked for."""
        text = request.messages[-1].content
        shown = [(int(number), name) for number, name in _LINE.findall(text)]
        step = await self._call([name for _, name in shown])
        answer = step if isinstance(step, str) else self._answer(request, shown)
        return Reply(text=answer, finish_reason="stop", tokens=TokenCount(input=1), model=self.model)

    async def _call(self, names: list[str]) -> Step:
        number, step = self.begun, self.script(self.begun)
        self.begun += 1
        self.asked.append(names)
        try:
            await asyncio.sleep(step if isinstance(step, float) else self.seconds)
        except asyncio.CancelledError:
            if self.deaf:
                await asyncio.sleep(self.deaf)
            self.stopped += 1
            raise
        self.ended += 1
        if isinstance(step, Exception):
            raise step
        assert number < 1000, "this never ends"
        return step

    def _grade(self, text: str) -> LabelScores | None:
        names = _NAME.findall(text)
        meant = TOP_GRADE * self.quality.get(names[0], 0.0) if names else 0.5
        return _told([-2 * (grade - meant) ** 2 for grade in range(len(LABELS))])

    def _letter(self, text: str) -> LabelScores:
        return _told([5 * self.quality.get(name, 0.0) for _, name in _LINE.findall(text)])

    def _answer(self, request: ChatRequest, shown: Sequence[tuple[int, str]]) -> str:
        best = sorted(shown, key=lambda one: -self.quality.get(one[1], 0.0))
        if request.schema is None:
            return " > ".join(f"[{number}]" for number, _ in best)
        if "order" in request.schema["properties"]:
            return json.dumps({"order": [number for number, _ in best]})
        grades = {number: round(TOP_GRADE * self.quality.get(name, 0.0)) for number, name in best}
        return json.dumps({str(g): [n for n, grade in grades.items() if grade == g] for g in range(TOP_GRADE, 0, -1)})


def _told(logs: Sequence[float]) -> LabelScores:
    whole = math.log(math.fsum(map(math.exp, logs)))
    return LabelScores(logprobs=tuple(log - whole for log in logs), floor=-30.0)
