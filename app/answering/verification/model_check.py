"""The support check by a model: does what a sentence of the answer cites say what the sentence says?

It is asked once per sentence, about all of its quotations together, and its verdict is theirs. Where nothing usable
comes back, the structural verdict stays.
"""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from app.answering.models import Claim, Source, unsupported
from app.answering.verification.model_prompts import (
    MOST_STATEMENTS,
    VERDICTS,
    Statement,
    verdict_prompt,
    verdicts_request,
)
from app.answering.verification.verdict_parser import read_verdicts
from app.backends.base import ChatRequest, Conversation, LabelScores, Reply, Scoring
from app.backends.logprobs import meant_evidence, softmax
from app.domain import Citation, UnsupportedSpan
from app.errors import UpstreamBadReply, WinnowError
from app.text.fencing import draw_fence, random_fence

LEAST_SUPPORT = 0.6
"""In [0,1]; half of the way is "in part"."""

_TOP = len(VERDICTS) - 1


Way = Literal["scorer", "judge"]


class Reader(Protocol):
    """A backend that reads statements for one answer. Its calls raise WinnowErrors, and may be cancelled.

    `way`: whether it tells log-probabilities of labels, or must be asked for its judgement in words.
    """

    @property
    def name(self) -> str: ...

    @property
    def way(self) -> Way: ...

    async def score(self, prompts: Sequence[Conversation], labels: Sequence[str]) -> Scoring: ...

    async def complete(self, request: ChatRequest) -> Reply: ...


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What the structural check found, corrected by the model. `unchecked` sentences with citations kept its verdict.

    `failures` say why, one for each call that failed or was answered in pieces.
    """

    citations: tuple[Citation, ...]
    unsupported: tuple[UnsupportedSpan, ...]
    unchecked: int = 0
    failures: tuple[WinnowError, ...] = ()


async def check(
    claims: Sequence[Claim],
    citations: Sequence[Citation],
    sources: Sequence[Source],
    reader: Reader,
    draw: Callable[[], str] = random_fence,
) -> Checked:
    """One request to a scorer, or one to a judge per `MOST_STATEMENTS` sentences, side by side; none without citations.

    Raises no WinnowError: a call that fails is among the failures.
    """
    titles = {source.hit.id: source.hit.title for source in sources}
    cited = {place: _statement(claim, citations, titles) for place, claim in enumerate(claims) if claim.citations}
    asking = _Asking(reader, draw_fence((text for one in cited.values() for text in one.shown().texts()), draw))
    known = await asking.verdicts(cited)
    checked = tuple(citations)
    for place, verdict in known.items():
        checked = _corrected(checked, claims[place].citations, verdict >= LEAST_SUPPORT)
    return Checked(
        citations=checked,
        unsupported=unsupported(claims, checked),
        unchecked=len(cited) - len(known),
        failures=tuple(asking.failures),
    )


def _statement(claim: Claim, citations: Sequence[Citation], titles: Mapping[str, str]) -> Statement:
    cited = [citations[place] for place in claim.citations]
    return Statement(claim.text, tuple((titles.get(one.result_id, ""), one.quote) for one in cited))


def _corrected(citations: Sequence[Citation], places: Sequence[int], verified: bool) -> tuple[Citation, ...]:
    return tuple(
        msgspec.structs.replace(citation, support="model", verified=verified) if place in places else citation
        for place, citation in enumerate(citations)
    )


class _Asking:
    """What one check asks of its reader. A call that fails is noted, and leaves its statements without a verdict."""

    def __init__(self, reader: Reader, fence: str) -> None:
        self._reader, self._fence = reader, fence
        self.failures: list[WinnowError] = []

    async def verdicts(self, statements: Mapping[int, Statement]) -> dict[int, float]:
        """By the statements' keys: the expected verdict over the highest, in [0,1]."""
        if not statements:
            return {}
        if self._reader.way == "scorer":
            said = await self._scored(list(statements.values()))
        else:
            blocks = _blocks(list(statements.values()))
            said = [verdict for block in await asyncio.gather(*map(self._judged, blocks)) for verdict in block]
        return {key: verdict for key, verdict in zip(statements, said, strict=True) if verdict is not None}

    async def _scored(self, statements: Sequence[Statement]) -> list[float | None]:
        prompts = [verdict_prompt(statement, self._fence) for statement in statements]
        try:
            scoring = await self._reader.score(prompts, VERDICTS)
        except WinnowError as exc:
            self.failures.append(exc)
            return [None] * len(statements)
        said = [_expected(scores) for scores in scoring.scores]
        self._note(None in said)
        return said

    async def _judged(self, statements: Sequence[Statement]) -> list[float | None]:
        try:
            reply = await self._reader.complete(verdicts_request(statements, self._fence))
        except WinnowError as exc:
            self.failures.append(exc)
            return [None] * len(statements)
        numbers = range(1, len(statements) + 1)
        found = read_verdicts(reply.text, numbers)
        self._note(len(found) < len(statements))
        return [found[number] / _TOP if number in found else None for number in numbers]

    def _note(self, incomplete: bool) -> None:
        if incomplete:
            name = self._reader.name
            self.failures.append(UpstreamBadReply(name, f"{name} gave no verdict on some statements"))


def _expected(scores: LabelScores | None) -> float | None:
    """None where the model told no label, or wanted to say something else."""
    evidence = meant_evidence(scores)
    if evidence is None:
        return None
    return math.fsum(share * verdict for verdict, share in enumerate(softmax(evidence))) / _TOP


def _blocks(statements: Sequence[Statement]) -> list[Sequence[Statement]]:
    return [statements[at : at + MOST_STATEMENTS] for at in range(0, len(statements), MOST_STATEMENTS)]
