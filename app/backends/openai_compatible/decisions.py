"""Typed questions to an OpenAI-style server: POST /v1/decisions as OpenAI has it, /v1/systemone as vLLM 0.32 has it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from app.backends.base import MIN_MASS, Decider, Decision, DecisionQuestion, chance_of, shares_of
from app.backends.openai_compatible.wire import Body, Wire
from app.domain import TokenCount
from app.errors import MissingCapability

VLLM_OPTIONS = 26
"""vLLM reads them by a capital letter each."""


class WireDecider(Decider, Protocol):
    """A `Decider` for one model of a server."""

    def __init__(self, wire: Wire, model: str) -> None: ...


class _Cached(msgspec.Struct, frozen=True):
    cached_tokens: int = 0


class _Usage(msgspec.Struct, frozen=True):
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: _Cached | None = None

    def count(self) -> TokenCount:
        cached = self.input_tokens_details.cached_tokens if self.input_tokens_details else 0
        return TokenCount(input=self.input_tokens, cached=cached, output=self.output_tokens)


class _Chance(msgspec.Struct, frozen=True):
    value: Any
    probability: float


class _Answer(msgspec.Struct, frozen=True):
    """Of OpenAI's: a predicate's `probability`, a choice's `probabilities`, or neither, which is a refusal."""

    probability: float | None = None
    probabilities: tuple[_Chance, ...] = ()


class _Answers(msgspec.Struct, frozen=True):
    answers: tuple[_Answer, ...]
    usage: _Usage = _Usage()


class OpenAIDecider:
    """OpenAI's POST /v1/decisions: up to 400 questions, up to 255 choices."""

    def __init__(self, wire: Wire, model: str) -> None:
        self._wire, self._model = wire, model

    async def decide(self, context: str, questions: Sequence[DecisionQuestion], timeout_s: float) -> Decision:
        """One request."""
        body = {"model": self._model, "input": context, "questions": [_asked_openai(one) for one in questions]}
        reply = await self._wire.reply("decisions", body, _Answers, timeout_s)
        answers = dict(enumerate(reply.answers))
        return Decision(
            answers=tuple(_of_openai(answers.get(number), one) for number, one in enumerate(questions)),
            tokens=reply.usage.count(),
        )


def _asked_openai(question: DecisionQuestion) -> Body:
    if not question.options:
        return {"type": "predicate", "instructions": question.instructions}
    choices = [
        {"value": option.name, **({"description": option.description} if option.description else {})}
        for option in question.options
    ]
    return {"type": "choice", "instructions": question.instructions, "choices": choices}


def _of_openai(answer: _Answer | None, question: DecisionQuestion) -> tuple[float, ...] | None:
    if answer is None:
        return None
    if not question.options:
        chance = chance_of(answer.probability)
        return None if chance is None else (chance,)
    return _shares({str(chance.value): chance.probability for chance in answer.probabilities}, question)


class _Reading(msgspec.Struct, frozen=True):
    """Of vLLM's: `noul` is its word for yes or no."""

    noul: float | None = None
    probabilities: Mapping[str, float] = {}


class _Diagnostics(msgspec.Struct, frozen=True):
    label_mass: float = 1.0


class _Readings(msgspec.Struct, frozen=True):
    answers: Mapping[str, _Reading]
    usage: _Usage = _Usage()
    diagnostics: Mapping[str, _Diagnostics] = {}


class VllmDecider:
    """vLLM's POST /v1/systemone: up to 64 questions, for models whose architecture it knows."""

    def __init__(self, wire: Wire, model: str) -> None:
        self._wire, self._model = wire, model

    async def decide(self, context: str, questions: Sequence[DecisionQuestion], timeout_s: float) -> Decision:
        """One request. Raises MissingCapability for more options than there are letters."""
        if any(len(question.options) > VLLM_OPTIONS for question in questions):
            raise MissingCapability(
                f"the backend {self._wire.peer.name!r} decides between at most {VLLM_OPTIONS} labels"
            )
        asked = {str(number): _asked_vllm(question) for number, question in enumerate(questions)}
        body = {"model": self._model, "state": context, "questions": asked}
        reply = await self._wire.reply("systemone", body, _Readings, timeout_s)
        return Decision(
            answers=tuple(_of_vllm(reply, str(number), question) for number, question in enumerate(questions)),
            tokens=reply.usage.count(),
        )


def _asked_vllm(question: DecisionQuestion) -> Body:
    if not question.options:
        return {"type": "noul", "instructions": question.instructions}
    criteria = {option.name: option.description or None for option in question.options}
    return {"type": "choice", "instructions": question.instructions, "criteria": criteria}


def _of_vllm(reply: _Readings, number: str, question: DecisionQuestion) -> tuple[float, ...] | None:
    """None also where the model meant to write something other than an answer."""
    reading = reply.answers.get(number)
    if reading is None or reply.diagnostics.get(number, _Diagnostics()).label_mass < MIN_MASS:
        return None
    if not question.options:
        chance = chance_of(reading.noul)
        return None if chance is None else (chance,)
    return _shares(reading.probabilities, question)


def _shares(chances: Mapping[str, float], question: DecisionQuestion) -> tuple[float, ...] | None:
    return shares_of([chances.get(option.name, 0.0) for option in question.options])
