"""The model calls of one ranking: passages go to the model in batches, grades and orders come back."""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from app.backends.base import ChatRequest, Conversation, Grader, LabelScores, scores_of, tokens_of
from app.errors import UpstreamBadReply, WinnowError
from app.ranking.cache import AskModel, ModelReply, ScoreCache, key_of
from app.ranking.models import LABELS, Calibration, Ranked
from app.ranking.prompts import (
    BLANKS,
    LETTERS,
    PROMPT_VERSION,
    Numbered,
    decide_context,
    decide_questions,
    duel_prompt,
    grade_prompt,
    judge_request,
    order_request,
)
from app.ranking.reply_parser import read_grades, read_order
from app.ranking.scoring import CallStats, Scoreboard, grades_of, meant_log_odds, preferences
from app.ranking.trust import Topic, TopicReading

Item = TypeVar("Item")

MAX_BLOCK = 25
"""One list of 100 collapses; blocks of up to 25 with interleaved strength do not (JointRank, 2506.22262)."""


def interleave(ranked: Sequence[Item], most: int = MAX_BLOCK) -> list[list[Item]]:
    """As few blocks of at most `most` as possible, of sizes that differ by one at most, all equally strong.

    The candidates are dealt out in turns, back and forth. In each block strong and weak ones alternate, the strongest
    first, so that a passage's position says little about it.
    """
    count = math.ceil(len(ranked) / most)
    blocks: list[list[Item]] = [[] for _ in range(count)]
    for at, item in enumerate(ranked):
        turn, place = divmod(at, count)
        blocks[place if turn % 2 == 0 else count - 1 - place].append(item)
    # First, last, second, last but one, ...
    return [[block[at // 2] if at % 2 == 0 else block[-1 - at // 2] for at in range(len(block))] for block in blocks]


def _blocks(passages: Sequence[Ranked], size: int) -> list[list[Ranked]]:
    """Passages that are shown side by side. Those that seem to hold instructions stand apart from the others, against
    whom a model could be told to turn; blocks without one are as they would be.
    """
    blocks = interleave(passages, size)
    flagged = interleave([one for block in blocks for one in block if one.flags], size)
    return [*filter(None, ([one for one in block if not one.flags] for block in blocks)), *flagged]


def windows(n: int, size: int = 20, step: int = 10) -> list[tuple[int, int]]:
    """RankGPT's schedule over n candidates: half-open [start, end) from the back to the front (2304.09542).

    9 windows for 100. With a `step` below `size`, winners move on into the next window.
    """
    starts = [*range(n - size, 0, -step), 0] if n else []
    return [(start, min(n, start + size)) for start in starts]


SCORER_BLOCK = 25
"""Passages in one request to a label scorer: few enough that some are done when time runs out. A server that batches
works on all requests at once, so that small ones cost it nothing."""

FIRST_BLOCK = 8
"""Passages in the first of these requests where another grader could take over: what is read of a request shows only
when all of it is, and a slow server should have said something by then."""

RERANKER_BLOCK = 100
"""Texts in one request to a reranker: as many as Cohere bills as one search."""

DECIDER_BLOCK = 400
"""Passages in one call to a decider: OpenAI's limit of questions; Gemini takes 1,000."""

DECIDER_TOKENS = 100_000
"""Of all passages in one call to a decider, whose context is 262,144."""

JUDGE_TOKENS = 6_000
"""Of all passages in one request to a judge: so that it fits into a context of 8,000."""

BuildRequest = Callable[[str, Sequence[Numbered], str], ChatRequest]
"""From a query, numbered passages and the fence."""


class ModelCalls:
    """Makes the calls of one ranking to its grader, through the cache. Results are recorded as soon as they arrive.

    A call that fails is recorded too, and leaves its passages ungraded; nothing is retried. `most` is the size of a
    judge's blocks (less for long passages).
    """

    hurries = False
    """Whether another grader takes over if nothing is read before long."""

    def __init__(self, grader: Grader, cache: ScoreCache, query: str, fence: str, most: int, tenant: str = "") -> None:
        self._grader, self._cache = grader, cache
        self._query, self._fence = query, fence
        self._most = most
        self.unexamined: list[WinnowError] = []
        """Why controls were not graded."""
        # What another tenant asked must not show in the time and the cost of this one.
        owner = (f"tenant {tenant}",) if tenant else ()
        self._key_parts = (grader.name, grader.model, PROMPT_VERSION, " ".join(query.split()), *owner)

    async def grade(self, passages: Sequence[Ranked], scoreboard: Scoreboard, blanks: Sequence[str] = BLANKS) -> None:
        """One round of concurrent calls. What a label scorer makes of the `blanks` is its bias."""
        scoreboard.attempted.update(passage.id for passage in passages)
        with scoreboard.stats.round():
            if self._grader.way == "reranker":
                await self._rerank(passages, scoreboard)
                return
            if self._grader.way == "decider":
                await self._decide(passages, scoreboard)
                return
            if self._grader.way == "scorer":
                await self._score(passages, scoreboard, () if scoreboard.bias_known else blanks)
                return
            tokens = sum(tokens_of(passage.text) for passage in passages)
            size = max(1, min(self._most, JUDGE_TOKENS * len(passages) // max(tokens, 1)))
            async with asyncio.TaskGroup() as group:
                for block in _blocks(passages, size):
                    group.create_task(self._judge(block, scoreboard))

    async def examine(self, topics: Sequence[Topic], fence: str, stats: CallStats) -> dict[Topic, TopicReading]:
        """What the grader makes of passages whose grades are known; only of those topics that it has answered about."""
        with stats.round():
            readings = await asyncio.gather(*(self._examine(topic, fence, stats) for topic in topics))
        return {topic: reading for topic, reading in zip(topics, readings, strict=True) if reading is not None}

    async def compare(self, window: Sequence[Ranked], stats: CallStats) -> tuple[float, ...] | None:
        """u of each in the window, from its letters in both directions; None if the model could not say."""
        texts = [passage.text for passage in window]
        orders = (texts, texts[::-1])
        prompts = [duel_prompt(self._query, order, self._fence) for order in orders]
        keys = [self._key("duel", *order) for order in orders]
        with stats.round():
            forward, backward = await self._scored(keys, prompts, LETTERS[: len(window)], stats)
        return preferences(forward, backward)

    async def order(
        self, window: Sequence[Ranked], stats: CallStats, build: BuildRequest = order_request
    ) -> list[Ranked] | None:
        """The window in the model's order; None if it named none."""
        order: list[int] = []

        def read(text: str) -> bool:
            numbers, repairs = read_order(text, range(1, len(window) + 1))
            stats.repairs.update(repairs)
            order.extend(numbers)
            return bool(numbers)

        with stats.round():
            await self._complete(build, [passage.text for passage in window], read, stats)
        return [window[number - 1] for number in order] or None

    async def _rerank(self, passages: Sequence[Ranked], scoreboard: Scoreboard) -> None:
        """Each text by itself with the query, in blocks: it does not matter what else is in one."""

        async def rerank(block: Sequence[Ranked]) -> None:
            async def ask(indices: Sequence[int]) -> Sequence[ModelReply | None]:
                scoreboard.stats.requests += 1
                texts = [block[index].text for index in indices]
                relevance = await self._grader.relevance(self._query, texts)
                scoreboard.stats.requests += relevance.requests - 1
                return relevance.log_odds

            replies = await self._fetch([self._key("rerank", one.text) for one in block], ask, scoreboard.stats)
            read = zip(block, replies, strict=True)
            scoreboard.add_relevance({one.id: reply for one, reply in read if isinstance(reply, float)})

        async with asyncio.TaskGroup() as group:
            for start in range(0, len(passages), RERANKER_BLOCK):
                group.create_task(rerank(passages[start : start + RERANKER_BLOCK]))

    async def _decide(self, passages: Sequence[Ranked], scoreboard: Scoreboard) -> None:
        """By the probabilities of a rubric, as many passages side by side in a call as the model can keep apart."""

        async def decide(block: Sequence[Ranked]) -> None:
            texts = [passage.text for passage in block]

            async def ask(indices: Sequence[int]) -> Sequence[ModelReply | None]:
                context = decide_context(self._query, list(enumerate(texts, 1)), self._fence)
                scoreboard.stats.requests += 1
                decision = await self._grader.decide(context, decide_questions(index + 1 for index in indices))
                scoreboard.stats.requests += decision.requests - 1
                return [scores_of(answer) for answer in decision.answers]

            # What is said of a passage depends on those beside it, so that they are a part of its key.
            keys = [self._key("decide", str(place), *texts) for place in range(len(block))]
            replies = await self._fetch(keys, ask, scoreboard.stats)
            read = zip(block, replies, strict=True)
            scoreboard.add_scores({one.id: reply for one, reply in read if isinstance(reply, LabelScores)})

        tokens = sum(tokens_of(passage.text) for passage in passages)
        fitting = DECIDER_TOKENS * len(passages) // max(tokens, 1)
        size = max(1, min(DECIDER_BLOCK, fitting)) if self._grader.reads_together else 1
        async with asyncio.TaskGroup() as group:
            for block in _blocks(passages, size):
                group.create_task(decide(block))

    async def _examine(self, topic: Topic, fence: str, stats: CallStats) -> TopicReading | None:
        """None if it failed. A passage of which it replied, but said no grade, says nothing of it: 0."""
        texts = (*topic.answers, *topic.others)
        passages = [Ranked(id=str(number), prior=0.0, text=text) for number, text in enumerate(texts)]
        scoreboard = Scoreboard(passages, Calibration())
        calls = ModelCalls(self._grader, self._cache, topic.query, fence, len(passages))
        await calls.grade(passages, scoreboard, blanks=())
        stats.requests += scoreboard.stats.requests
        stats.cache_hits += scoreboard.stats.cache_hits
        stats.cache_misses += scoreboard.stats.cache_misses
        grades = scoreboard.grades()
        if scoreboard.stats.failures:
            self.unexamined += scoreboard.stats.failures
            return None
        xs = [meant_log_odds(grades[passage.id]) if passage.id in grades else 0.0 for passage in passages]
        return TopicReading(answers=tuple(xs[: len(topic.answers)]), others=tuple(xs[len(topic.answers) :]))

    async def _score(self, passages: Sequence[Ranked], scoreboard: Scoreboard, blanks: Sequence[str]) -> None:
        """Scores passages in blocks; the first block also holds the blanks."""
        ids = [passage.id for passage in passages]
        texts = [passage.text for passage in passages]
        ids, texts = [*("" for _ in blanks), *ids], [*blanks, *texts]
        prompts = [grade_prompt(self._query, text, self._fence) for text in texts]
        keys = [self._key("grade", text) for text in texts]

        def record(indices: Sequence[int], replies: Sequence[ModelReply | None]) -> None:
            scores = [
                (ids[index], reply)
                for index, reply in zip(indices, replies, strict=True)
                if isinstance(reply, LabelScores)
            ]
            of_blanks = [reply for key, reply in scores if not key]
            scoreboard.add_scores({key: reply for key, reply in scores if key}, of_blanks)

        async def score(block: Sequence[int]) -> None:
            chosen = [prompts[index] for index in block]
            record(block, await self._scored([keys[index] for index in block], chosen, LABELS, scoreboard.stats))

        cached = await self._cache.lookup(keys)
        record(range(len(keys)), cached)
        scoreboard.stats.cache_hits += len(cached) - cached.count(None)
        missing = [index for index, reply in enumerate(cached) if reply is None]
        first, rest = [index for index in missing if not ids[index]], [index for index in missing if ids[index]]
        size = FIRST_BLOCK if self.hurries else SCORER_BLOCK
        blocks = [first + rest[:size]]
        blocks += [rest[start : start + SCORER_BLOCK] for start in range(size, len(rest), SCORER_BLOCK)]
        async with asyncio.TaskGroup() as group:
            for block in filter(None, blocks):
                group.create_task(score(block))

    async def _judge(self, passages: Sequence[Ranked], scoreboard: Scoreboard) -> None:
        numbers = range(1, len(passages) + 1)

        def read(text: str) -> bool:
            parsed = read_grades(text, numbers)
            scoreboard.stats.repairs.update(parsed.repairs)
            listed = [number for row in parsed.listed.values() for number in row]
            grades = grades_of(parsed.listed, numbers if parsed.complete else listed)
            scoreboard.add_grades({passages[number - 1].id: grade for number, grade in grades.items()})
            return parsed.complete

        await self._complete(judge_request, [passage.text for passage in passages], read, scoreboard.stats)

    async def _scored(
        self, keys: Sequence[str], prompts: Sequence[Conversation], labels: Sequence[str], stats: CallStats
    ) -> tuple[LabelScores | None, ...]:
        """The scores of each prompt, whose keys are `keys`; None where the call failed."""

        async def ask(indices: Sequence[int]) -> Sequence[ModelReply | None]:
            stats.requests += 1
            scoring = await self._grader.score([prompts[index] for index in indices], labels)
            stats.requests += scoring.requests - 1
            return scoring.scores

        replies = await self._fetch(keys, ask, stats)
        return tuple(reply if isinstance(reply, LabelScores) else None for reply in replies)

    async def _complete(
        self, build: BuildRequest, texts: Sequence[str], read: Callable[[str], bool], stats: CallStats
    ) -> None:
        """`read` takes the reply and says whether it is whole: only then it is cached."""
        received = False

        async def ask(_: Sequence[int]) -> Sequence[ModelReply | None]:
            nonlocal received
            stats.requests += 1
            reply = await self._grader.complete(build(self._query, list(enumerate(texts, 1)), self._fence))
            received = True
            if read(reply.text):
                return (reply.text,)
            stats.failures.append(UpstreamBadReply(self._grader.name, f"{self._grader.name} sent an incomplete reply"))
            return (None,)

        # The function's name keeps orders and grades of the same passages apart.
        [reply] = await self._fetch([self._key(build.__name__, *texts)], ask, stats)
        if isinstance(reply, str) and not received:
            read(reply)

    async def _fetch(self, keys: Sequence[str], ask: AskModel, stats: CallStats) -> tuple[ModelReply | None, ...]:
        """The one place where a failed call stops: it is recorded, and there are no replies."""
        try:
            replies, hits = await self._cache.fetch(keys, ask)
        except WinnowError as exc:
            stats.failures.append(exc)
            return (None,) * len(keys)
        stats.cache_hits += hits
        stats.cache_misses += len(keys) - hits
        return replies

    def _key(self, kind: str, *texts: str) -> str:
        return key_of(*self._key_parts, kind, *texts)
