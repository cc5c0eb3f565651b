"""A model that checks statements: it finds words in them, and says what it was told to say about these."""

import json
import math
import re
from collections.abc import Mapping, Sequence

from app.backends.base import (
    ChatRequest,
    Conversation,
    Decision,
    DecisionQuestion,
    LabelScores,
    Reply,
    Scoring,
    Way,
)
from app.domain import TokenCount
from app.errors import WinnowError

_STATEMENT = re.compile(r"^statement: (.*)$", re.MULTILINE)


class VerdictReader:
    """`verdicts` by a word of the statement; no verdict on a statement without any of them.

    `mass`: the probability of all labels together. `logprobs`: said of every statement instead. `reads_together`: see
    `Grader`.
    """

    name, model = "gemma", "gemma-3"
    reads_together = True

    def __init__(
        self,
        verdicts: Mapping[str, int],
        way: Way = "scorer",
        *,
        mass: float = 1.0,
        logprobs: tuple[float | None, ...] | None = None,
        fails: WinnowError | None = None,
    ) -> None:
        self.way = way
        self._verdicts, self._mass, self._logprobs, self._fails = verdicts, mass, logprobs, fails
        self.calls = self.statements = 0

    async def score(self, prompts: Sequence[Conversation], labels: Sequence[str]) -> Scoring:
        self._called()
        said = [_STATEMENT.findall(prompt[-1].content) for prompt in prompts]
        self.statements += len(said)
        return Scoring(scores=tuple(self._scores(text, len(labels)) for [text] in said), tokens=TokenCount())

    async def complete(self, request: ChatRequest) -> Reply:
        self._called()
        listed: dict[str, list[int]] = {"2": [], "1": [], "0": []}
        for number, text in enumerate(_STATEMENT.findall(request.messages[-1].content), start=1):
            verdict = self._verdict(text)
            if verdict is not None:
                listed[str(verdict)].append(number)
        return Reply(text=json.dumps(listed), finish_reason="stop", tokens=TokenCount(), model="gemma-3")

    async def decide(self, context: str, questions: Sequence[DecisionQuestion]) -> Decision:
        self._called()
        verdicts = [self._verdict(text) for text in _STATEMENT.findall(context)]
        assert len(verdicts) == len(questions)
        shares = [None if one is None else tuple(float(label == one) for label in range(3)) for one in verdicts]
        return Decision(answers=tuple(shares), tokens=TokenCount())

    def _called(self) -> None:
        self.calls += 1
        if self._fails:
            raise self._fails

    def _verdict(self, text: str) -> int | None:
        return next((verdict for word, verdict in self._verdicts.items() if word in text), None)

    def _scores(self, text: str, labels: int) -> LabelScores | None:
        if self._logprobs:
            return LabelScores(logprobs=self._logprobs, floor=-25.0)
        verdict = self._verdict(text)
        if verdict is None:
            return None
        told = [math.log(self._mass * (0.98 if label == verdict else 0.01)) for label in range(labels)]
        return LabelScores(logprobs=tuple(told), floor=-25.0)
