"""One round of model calls: passages in batches to the model, grades back."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, Protocol, TypeVar

import msgspec

from app.backends.base import ChatRequest, Conversation, LabelScores, Reply, Scoring, tokens_of
from app.errors import UpstreamBadReply, WinnowError
from app.ranking.cache import Said, ScoreCache, key_of
from app.ranking.models import LABELS, Prepared
from app.ranking.prompts import (
    BLANKS,
    LETTERS,
    PROMPT_VERSION,
    Numbered,
    blank_prompts,
    duel_prompt,
    grade_prompt,
    judge_request,
    order_request,
)
from app.ranking.reply_parser import read_grades, read_order
from app.ranking.scoring import Sheet, Tally, grades_of, preferences

Item = TypeVar("Item")

MOST = 25
"""One list of 100 collapses; blocks of up to 25 with interleaved strength do not (JointRank, 2506.22262)."""


def interleave(ranked: Sequence[Item], most: int = MOST) -> list[list[Item]]:
    """As few blocks of at most `most` as possible, of sizes that differ by one at most, all equally strong.

    The candidates are dealt out in turns, forth and back. In each block strong and weak ones alternate, the strongest
    first, so that its place says little about a passage.
    """
    count = math.ceil(len(ranked) / most)
    blocks: list[list[Item]] = [[] for _ in range(count)]
    for at, item in enumerate(ranked):
        turn, place = divmod(at, count)
        blocks[place if turn % 2 == 0 else count - 1 - place].append(item)
    return [_alternating(block) for block in blocks]


def windows(n: int, size: int = 20, step: int = 10) -> list[tuple[int, int]]:
    """RankGPT's schedule over n candidates: half-open [start, end) from the back to the front (2304.09542).

    9 windows for 100. With a `step` below `size`, winners move on into the next window.
    """
    starts = [*range(n - size, 0, -step), 0] if n else []
    return [(start, min(n, start + size)) for start in starts]


def _alternating(block: Sequence[Item]) -> list[Item]:
    """First, last, second, last but one, ..."""
    return [block[at // 2] if at % 2 == 0 else block[-1 - at // 2] for at in range(len(block))]


SCORER_BLOCK = 25
"""Passages in one request to a label scorer: few enough that some are there when time runs out. A server that batches
works through all of the requests together, so that small ones cost it nothing."""

JUDGE_TOKENS = 6_000
"""Of all passages in one request to a judge: so that it fits into a context of 8,000."""

Way = Literal["scorer", "judge"]

Listing = Callable[[str, Sequence[Numbered], str], ChatRequest]


class Reader(Protocol):
    """A backend that reads passages for one ranking. Its calls raise WinnowErrors, and may be cancelled.

    `way`: whether it tells log-probabilities of labels, or must be asked for its judgement in words.
    """

    @property
    def name(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def way(self) -> Way: ...

    async def score(self, prompts: Sequence[Conversation], labels: Sequence[str]) -> Scoring: ...

    async def complete(self, request: ChatRequest) -> Reply: ...


class _Item(msgspec.Struct, frozen=True):
    """A prompt to score. `passage` "" is a blank's."""

    passage: str
    key: str
    prompt: Conversation


class Asking:
    """What one ranking asks of its reader. What comes back is noted as soon as it is there.

    A call that fails is noted too, and leaves its passages ungraded; nothing is asked twice. `most` is the size of a
    judge's blocks (less for long passages).
    """

    def __init__(self, reader: Reader, cache: ScoreCache, query: str, fence: str, most: int) -> None:
        self._reader, self._cache = reader, cache
        self._query, self._fence = query, fence
        self._most = most
        self._asked = (reader.name, reader.model, PROMPT_VERSION, " ".join(query.split()))

    async def grade(self, passages: Sequence[Prepared], sheet: Sheet) -> None:
        """One round of calls side by side."""
        sheet.opened.update(passage.id for passage in passages)
        with sheet.tally.round():
            if self._reader.way == "scorer":
                await self._score(passages, sheet)
            else:
                async with asyncio.TaskGroup() as group:
                    for block in interleave(passages, self._block(passages)):
                        group.create_task(self._judge(block, sheet))

    async def compare(self, window: Sequence[Prepared], tally: Tally) -> tuple[float, ...] | None:
        """u of each in the window, from its letters in both directions. None: it could not be told."""
        texts = [passage.text for passage in window]
        with tally.round():
            said = await self._scored([self._duel(texts), self._duel(texts[::-1])], LETTERS[: len(window)], tally)
        return preferences(*said)

    async def order(
        self, window: Sequence[Prepared], tally: Tally, listing: Listing = order_request
    ) -> list[Prepared] | None:
        """The window in the model's order. None: it could not be told."""
        order: list[int] = []

        def read(text: str) -> bool:
            found = read_order(text, range(1, len(window) + 1))
            tally.repairs.update(found.repairs)
            order.extend(found.order if found.legible else ())
            return found.legible

        with tally.round():
            await self._completed(listing, [passage.text for passage in window], read, tally)
        return [window[number - 1] for number in order] or None

    def _block(self, passages: Sequence[Prepared]) -> int:
        """How many a judge may grade in one request."""
        tokens = sum(tokens_of(passage.text) for passage in passages)
        return max(1, min(self._most, JUDGE_TOKENS * len(passages) // max(tokens, 1)))

    async def _score(self, passages: Sequence[Prepared], sheet: Sheet) -> None:
        items = [*(self._blanks() if not sheet.unbiased else ()), *map(self._item, passages)]
        known = await self._cache.known([item.key for item in items])
        _note(items, known, sheet)
        sheet.tally.hits += len(known) - known.count(None)
        left = [item for item, said in zip(items, known, strict=True) if said is None]
        blanks, rest = [item for item in left if not item.passage], [item for item in left if item.passage]
        starts = range(0, len(rest), SCORER_BLOCK) or range(1)

        async def score(block: Sequence[_Item]) -> None:
            _note(block, await self._scored(block, LABELS, sheet.tally), sheet)

        async with asyncio.TaskGroup() as group:
            for start in starts:
                block = (blanks if not start else []) + rest[start : start + SCORER_BLOCK]
                if block:
                    group.create_task(score(block))

    async def _judge(self, passages: Sequence[Prepared], sheet: Sheet) -> None:
        numbers = range(1, len(passages) + 1)

        def read(text: str) -> bool:
            found = read_grades(text, numbers)
            sheet.tally.repairs.update(found.repairs)
            listed = [number for row in found.listed.values() for number in row]
            grades = grades_of(found.listed, numbers if found.complete else listed)
            sheet.judge({passages[number - 1].id: grade for number, grade in grades.items()})
            return found.complete

        await self._completed(judge_request, [passage.text for passage in passages], read, sheet.tally)

    async def _scored(
        self, items: Sequence[_Item], labels: Sequence[str], tally: Tally
    ) -> tuple[LabelScores | None, ...]:
        """None where it failed."""

        async def ask(places: Sequence[int]) -> Sequence[Said | None]:
            tally.requests += 1
            scoring = await self._reader.score([items[place].prompt for place in places], labels)
            tally.requests += scoring.requests - 1
            return scoring.scores

        said = await self._fetched([item.key for item in items], ask, tally)
        return tuple(one if isinstance(one, LabelScores) else None for one in said)

    async def _completed(
        self, listing: Listing, texts: Sequence[str], read: Callable[[str], bool], tally: Tally
    ) -> None:
        """`read` says whether the reply is whole: then it is worth keeping."""
        heard = False

        async def ask(_: Sequence[int]) -> Sequence[Said | None]:
            nonlocal heard
            tally.requests += 1
            reply = await self._reader.complete(listing(self._query, list(enumerate(texts, 1)), self._fence))
            heard = True
            if read(reply.text):
                return (reply.text,)
            tally.failures.append(UpstreamBadReply(self._reader.name, f"{self._reader.name} replied in pieces"))
            return (None,)

        [said] = await self._fetched([self._key(listing.__name__, *texts)], ask, tally)
        if isinstance(said, str) and not heard:
            read(said)

    async def _fetched(
        self, keys: Sequence[str], ask: Callable[[Sequence[int]], Awaitable[Sequence[Said | None]]], tally: Tally
    ) -> tuple[Said | None, ...]:
        """The one place where a call's failure stops: it is noted, and nothing was said."""
        try:
            found = await self._cache.fetch(keys, ask)
        except WinnowError as exc:
            tally.failures.append(exc)
            return (None,) * len(keys)
        tally.hits += found.hits
        tally.misses += len(keys) - found.hits
        return found.said

    def _item(self, passage: Prepared) -> _Item:
        prompt = grade_prompt(self._query, passage.text, self._fence)
        return _Item(passage.id, self._key("grade", passage.text), prompt)

    def _blanks(self) -> list[_Item]:
        prompts = blank_prompts(self._query, self._fence)
        return [_Item("", self._key("grade", text), prompt) for text, prompt in zip(BLANKS, prompts, strict=True)]

    def _duel(self, texts: Sequence[str]) -> _Item:
        return _Item("", self._key("duel", *texts), duel_prompt(self._query, texts, self._fence))

    def _key(self, kind: str, *texts: str) -> str:
        return key_of(*self._asked, kind, *texts)


def _note(items: Sequence[_Item], said: Sequence[Said | None], sheet: Sheet) -> None:
    told = [(item, one) for item, one in zip(items, said, strict=True) if isinstance(one, LabelScores)]
    blanks = [one for item, one in told if not item.passage]
    sheet.score({item.passage: one for item, one in told if item.passage}, blanks)
