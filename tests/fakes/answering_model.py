"""A simulated model that answers from the passages in its prompt, as it was told to: in their words, with markers.

It reads the real prompts as a model does: the fence tells whose lines are whose. It is a mind for the fake servers.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from app.answering.questions import parse_question
from app.answering.stream.markers import DECLINE
from app.text.terms import terms

_FENCE = re.compile(r"^The lines that begin with (\w+) are mine", re.MULTILINE)
_SENTENCE = re.compile(r"^\[(\d+\.\d+)\] (.*)$", re.MULTILINE)
_QUESTION = re.compile(r"^Question: (.*)$", re.MULTILINE)
_IN_FULL = re.compile(r"^That is: (.*)$", re.MULTILINE)
_LAST_QUESTION = re.compile(r"^The last question: (.*)$", re.MULTILINE)
_STATEMENT = re.compile(r"^\w+ \[(\d+)\]\nstatement: (.*)$", re.MULTILINE)
_USER_TURN = re.compile(r"^user: (.*)$", re.MULTILINE)


class Shown(msgspec.Struct, frozen=True):
    """What a prompt asks for an answer: the question (in full, if it says so) and the sentences by their markers."""

    question: str
    sentences: dict[str, str]


def shown_in(turns: Sequence[tuple[str, str]]) -> Shown | None:
    """None for a prompt that asks for something else."""
    prompt = turns[-1][1]
    if not (fence := _FENCE.search(prompt)):
        return None
    listing, _, after = prompt.rpartition(f"{fence[1]} end of the passages")
    asked = _IN_FULL.search(after) or _QUESTION.search(after)
    assert asked, "a prompt without a question"
    return Shown(asked[1], dict(_SENTENCE.findall(listing)))


class AnsweringModel:
    """Answers with the `most` sentences that share the largest part of the question's words, `least` of them at least.

    Else it declines. `dress` makes the reply of the sentences, by their markers. As a judge it believes each statement
    that holds none of the words in `doubts`. `asked` are the prompts for answers and questions that it knew.
    """

    def __init__(
        self,
        least: float = 0.5,
        most: int = 1,
        dress: Callable[[Mapping[str, str]], str] | None = None,
        doubts: Sequence[str] = (),
    ) -> None:
        self.least, self.most, self.doubts = least, most, doubts
        self.dress = dress or plain
        self.asked: list[Sequence[tuple[str, str]]] = []

    def __call__(self, turns: Sequence[tuple[str, str]], schema: Mapping[str, Any] | None) -> str | None:
        """None where it is asked for something else than an answer, a standalone question or verdicts."""
        if schema is not None and "0" in schema.get("properties", {}):
            return self._judge(_STATEMENT.findall(turns[-1][1]))
        if (shown := shown_in(turns)) is not None:
            self.asked.append(turns)
            return self._answer(shown)
        if last := _LAST_QUESTION.search(turns[-1][1]):
            self.asked.append(turns)
            return " ".join([last[1], *_USER_TURN.findall(turns[-1][1])])
        return None

    def _judge(self, statements: Sequence[tuple[str, str]]) -> str:
        verdicts: dict[str, list[int]] = {"2": [], "1": [], "0": []}
        for number, statement in statements:
            doubtful = any(word in statement for word in self.doubts)
            verdicts["0" if doubtful else "2"].append(int(number))
        return json.dumps(verdicts)

    def _answer(self, shown: Shown) -> str:
        wanted = parse_question(shown.question).terms
        shares = {
            marker: sum(term in terms(text) for term in wanted) / max(1, len(wanted))
            for marker, text in shown.sentences.items()
        }
        best = sorted((marker for marker in shares if shares[marker] >= self.least), key=lambda one: -shares[one])
        chosen = {marker: shown.sentences[marker] for marker in best[: self.most]}
        return self.dress(chosen) if chosen else DECLINE


def plain(sentences: Mapping[str, str]) -> str:
    """Each sentence with its marker before the full stop."""
    return " ".join(f"{text.rstrip('.。')} [{marker}]." for marker, text in sentences.items())
