"""A simulated judge behind the ports of a model: it reads prompts, and answers with its opinion (rerank_opinion)."""

import json
import math
import re
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from random import Random

from app.backends.attempt import time_limit
from app.backends.base import (
    Capability,
    ChatRequest,
    Conversation,
    Decision,
    DecisionQuestion,
    Delta,
    LabelScores,
    Message,
    Probed,
    Reply,
    Scoring,
)
from benchmarks.rerank_opinion import TOP, Opinion, Reader, Seen, slope
from benchmarks.rerank_server import SimulatedServer, pieces_of

MODEL = "simulated"
FLOOR = -60.0

LABEL_GAP = 0.8
"""Between neighbouring labels the log-odds change by 2 * 0.8 nats a grade, however many labels there are."""

LETTER_NATS = 2.0
"""Log-odds between the letters of two passages that are a grade apart."""

GRADINGS = (("0", "1", "2", "3"), ("0", "1", "2"), ("0", "1"), ("no", "yes"))
"""Labels that grade one passage, from the worst up; any others name the passages of a list."""

Values = Mapping[str, float]


class SimulatedJudge:
    """An `Adapter` whose model is an opinion on one task. `scores` False: it gives no log-probabilities."""

    def __init__(self, opinion: Opinion, reader: Reader, server: SimulatedServer, *, scores: bool = True) -> None:
        self._opinion, self._reader, self._server, self._scores = opinion, reader, server, scores
        self._noise = opinion.noise

    @property
    def scorer(self) -> "SimulatedJudge | None":
        return self if self._scores else None

    async def score(self, prompts: Sequence[Conversation], labels: Sequence[str], timeout_s: float) -> Scoring:
        """Grades of one passage each, or which of several is best, by the labels."""
        scores = tuple(LabelScores(logprobs=tuple(self.first_tokens(p, labels)), floor=FLOOR) for p in prompts)
        async with time_limit(MODEL, timeout_s):
            tokens = await self._server.serve(prompts, 1)
        return Scoring(scores=scores, tokens=tokens)

    async def complete(self, request: ChatRequest, timeout_s: float) -> Reply:
        """A reply in the form that was asked for, cut at `max_output_tokens`."""
        text = self.reply(request)
        wanted, given = pieces_of(text), request.max_output_tokens
        async with time_limit(MODEL, timeout_s):
            tokens = await self._server.serve([request.messages], min(wanted, given))
        if wanted > given:
            return Reply(text=text[: len(text) * given // wanted], finish_reason="length", tokens=tokens, model=MODEL)
        return Reply(text=text, finish_reason="stop", tokens=tokens, model=MODEL)

    async def decide(self, context: str, questions: Sequence[DecisionQuestion], timeout_s: float) -> Decision:
        """The labels' probabilities for each passage that a question names, as it believes of them side by side."""
        prompt = (Message(role="user", content=context),)
        seen = self._seen(prompt)
        values = self._opinion.together(seen, self._noise.crowd, self._noise.primacy)
        by_name = {one.name: value for one, value in zip(seen, values, strict=True)}
        named = [re.findall(r"\[(\w+)\]", question.instructions) for question in questions]
        async with time_limit(MODEL, timeout_s):
            tokens = await self._server.serve([prompt], 1)
        return Decision(answers=tuple(_rubric(by_name.get(name[0])) if name else None for name in named), tokens=tokens)

    async def stream(self, request: ChatRequest, timeout_s: float) -> AsyncGenerator[Delta, None]:
        """In one piece."""
        reply = await self.complete(request, timeout_s)
        yield Delta(text=reply.text, finish_reason=reply.finish_reason, tokens=reply.tokens)

    async def probe(self, timeout_s: float) -> Probed:
        """It can do what its ports say."""
        able: set[Capability] = {"chat", "structured"}
        return Probed(model=MODEL, capabilities=frozenset(able | {"logprobs"} if self._scores else able))

    async def ping(self, timeout_s: float) -> None:
        """It is there."""

    async def aclose(self) -> None:
        """Nothing is open."""

    def first_tokens(self, prompt: Conversation, labels: Sequence[str]) -> list[float]:
        """Log-probabilities of the labels as the first token of a reply, in their order."""
        seen = self._seen(prompt)
        grading = next((known for known in GRADINGS if set(known) == set(labels)), None)
        if grading is None:
            return self._letters(seen, labels)
        logits = self._grades(seen[0] if seen else None, grading)
        return [logits[grading.index(label)] for label in labels]

    def reply(self, request: ChatRequest) -> str:
        """What it writes."""
        seen = self._seen(request.messages)
        values = self._opinion.together(seen, self._noise.crowd, self._noise.primacy)
        write = next(write for asks, write in FORMS if asks(request))
        named = {one.name or str(place): value for place, (one, value) in enumerate(zip(seen, values, strict=True), 1)}
        text, chance = write(named), self._opinion.chance("reply", [s.id for s in seen])
        if chance.random() >= self._noise.malformed:
            return text
        return damaged(text, chance, constrained=request.schema is not None)

    def passages(self, prompt: Conversation) -> int:
        """How many it sees there."""
        return len(self._seen(prompt))

    def _seen(self, prompt: Conversation) -> list[Seen]:
        return [seen for turn in prompt if turn.role == "user" for seen in self._reader.read(turn.content)]

    def _grades(self, seen: Seen | None, grading: Sequence[str]) -> list[float]:
        """A likelihood around x for each label; without a passage nothing but the bias is left."""
        step, logits = TOP / (len(grading) - 1), []
        x = self._opinion.believed(seen, "alone") if seen else 0.0
        for number, label in enumerate(grading):
            fit = -LABEL_GAP / step * (x - number * step) ** 2 if seen else 0.0
            noise = self._noise.label_noise * self._opinion.chance("label", seen and seen.id, label).gauss()
            logits.append(fit + self._noise.label_bias * self._opinion.bias(label) + noise)
        return _log_softmax(logits)

    def _letters(self, seen: Sequence[Seen], letters: Sequence[str]) -> list[float]:
        """Of a list; without passages what is left are the pull of the places and the bias of the letters."""
        pull = self._noise.letters
        values = self._opinion.together(seen, self._noise.letter_crowd, pull) or slope(len(letters), pull)
        values = [*values, *[FLOOR] * len(letters)][: len(letters)]
        biases = [self._noise.letter_bias * self._opinion.bias(letter) for letter in letters]
        return _log_softmax([LETTER_NATS * (value + bias) for value, bias in zip(values, biases, strict=True)])


def _rubric(value: float | None) -> tuple[float, ...] | None:
    if value is None:
        return None
    return tuple(math.exp(log) for log in _log_softmax([-LABEL_GAP * (value - grade) ** 2 for grade in range(4)]))


def by_value(values: Values) -> list[str]:
    """Names, the best first."""
    return sorted(values, key=lambda name: -values[name])


def write_permutation(values: Values) -> str:
    """RankGPT's form: [2] > [1] > [3]."""
    return " > ".join(f"[{name}]" for name in by_value(values))


def write_choices(values: Values) -> str:
    """LlamaIndex's form: the relevant ones with a score from 1 to 10."""
    chosen = [name for name in by_value(values) if values[name] > 0.5]
    return "\n".join(f"Doc: {name}, Relevance: {_within(1 + 3 * values[name], 1, 10)}" for name in chosen)


def write_grades(values: Values) -> str:
    """The names under each grade above 0."""
    grades = {name: _within(values[name], 0, 3) for name in by_value(values)}
    return json.dumps({str(g): [int(name) for name in grades if grades[name] == g] for g in (3, 2, 1)})


def write_order(values: Values) -> str:
    """All names in one list."""
    return json.dumps({"order": [int(name) for name in by_value(values)]})


def damaged(text: str, chance: Random, *, constrained: bool) -> str:
    """As models fail: a wrong number, a number twice; if nothing constrains them, cut off, or wrapped in talk."""
    ways: list[Callable[[], str]] = [
        lambda: _renumbered(text, chance, "99"),
        lambda: _renumbered(text, chance, chance.choice(re.findall(r"\d+", text) or ["1"])),
    ]
    if not constrained:
        ways += [lambda: text[: chance.randrange(1 + len(text))], lambda: f"Sure! Here is the ranking:\n{text}\n"]
    return chance.choice(ways)()


def _renumbered(text: str, chance: Random, number: str) -> str:
    places = [match.span() for match in re.finditer(r"(?<=[\[ ])\d+(?=[\],])", text)]
    if not places:
        return text
    start, end = chance.choice(places)
    return text[:start] + number + text[end:]


def _says(mark: str) -> Callable[[ChatRequest], bool]:
    return lambda request: mark in request.messages[-1].content


FORMS: tuple[tuple[Callable[[ChatRequest], bool], Callable[[Values], str]], ...] = (
    (lambda request: "order" in _fields(request), write_order),
    (lambda request: "3" in _fields(request), write_grades),
    (_says("Relevance:"), write_choices),
    (_says("] > ["), write_permutation),
    (lambda _: True, lambda values: "".join(by_value(values)[:1]) or "0"),
)
"""Which form a request asks for; the first that fits. If none does, only the best is named."""


def _fields(request: ChatRequest) -> Collection[str]:
    fields: Collection[str] = (request.schema or {}).get("properties", ())
    return fields


def _within(value: float, low: int, high: int) -> int:
    return max(low, min(high, round(value)))


def _log_softmax(logits: Iterable[float]) -> list[float]:
    logits = list(logits)
    top = max(logits)
    total = top + math.log(math.fsum(math.exp(value - top) for value in logits))
    return [value - total for value in logits]
