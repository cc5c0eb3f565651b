"""The reranker: the best order of the candidates that a model gives by the deadline.

A `GradedRun` grades every passage and may compare the best ones side by side in a second round; a `WindowedRun` lets
the model order windows, as RankGPT does. What they ask is in `calls`, what follows from the replies in `scoring`.
"""

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from app.backends.base import Deadline, Grader, Way
from app.domain import Strategy
from app.errors import UpstreamTimeout, UpstreamUntrusted, WinnowError
from app.ranking.cache import ScoreCache
from app.ranking.calls import ModelCalls, windows
from app.ranking.injection.detector import SUSPECTED_INJECTION
from app.ranking.models import Calibration, Ranked, Ranking, Spread
from app.ranking.passages import PASSAGE_TOKENS, WINDOW_TOKENS, prepare
from app.ranking.prompts import JUDGE_PASSAGES, PROMPT_VERSION, window_request
from app.ranking.scoring import (
    PRIOR_WEIGHT,
    RISK,
    Scoreboard,
    apply_duel,
    duel_window,
    fuse_orders,
    in_order,
    reassign,
    top_k,
    with_duplicates,
    worth_reading,
)
from app.ranking.trust import MIN_TRUST, MUCH_TRUST, TOPICS_AT_ONCE, TrustBook
from app.text.fencing import DrawFence, draw_fence
from indexing.concurrency import BackgroundTasks
from indexing.documents import Candidate

DUEL_ROOM = 2.0
"""A second look may begin when this many times the duration of the first one is left."""

COMPARING: tuple[Way, ...] = ("scorer", "judge")
"""The ways of a model that can compare passages; the others judge each by itself, and are asked once."""

CANCEL_GRACE_S = 0.02
"""How long a cancelled call may take to end before the caller is answered without waiting for it."""


class RankingTask(msgspec.Struct, frozen=True, kw_only=True):
    """One ranking to be made. A model reads at most `depth` candidates, for the sake of the best `top`. Its replies are
    kept for later rankings of the same `tenant`.

    `spread` is that of the candidates' priors, where it is known beforehand. `later`: better priors by id, which may
    come while the model reads; only where `joins_late` says so.
    """

    query: str
    candidates: Sequence[Candidate]
    strategy: Strategy = "auto"
    depth: int = 50
    top: int = 10
    spread: Spread | None = None
    later: asyncio.Future[Mapping[str, float]] | None = None
    tenant: str = ""


def what_is_open(task: RankingTask, first: Ranking) -> RankingTask | None:
    """What is left to a second model once a reranker has read: the passages that may still belong to the top.

    They come with the reranker's scores as priors; None if there is nothing to decide.
    """
    if first.open < 2:
        return None
    scores = {ranked.id: ranked.score for ranked in first.order}
    candidates = [msgspec.structs.replace(one, score=scores[one.passage.id]) for one in task.candidates]
    return msgspec.structs.replace(task, candidates=candidates, depth=first.open, spread=None)


class Reranker:
    """Orders candidates. `calibrations` are those of (model, prompt version).

    `block` is the most passages that a judge grades in one request. Strategy "auto" reads `first_read` of the
    candidates, and others only if they could still enter the top; with `auto_duels` it takes a second look when the
    deadline leaves room. The defaults are what pays (benchmarks/rerank).

    With a `trust` book, a model is asked about controls beside its first rankings, and weighs what they show of it
    (`app.ranking.trust`). Without one, or once it is calibrated, it is trusted in full.
    """

    def __init__(
        self,
        cache: ScoreCache,
        calibrations: Mapping[tuple[str, str], Calibration] | None = None,
        *,
        block: int = JUDGE_PASSAGES,
        first_read: int = 50,
        auto_duels: bool = True,
        fence: DrawFence = draw_fence,
        trust: TrustBook | None = None,
    ) -> None:
        self.cache, self.calibrations = cache, calibrations or {}
        self.block, self.first_read, self.auto_duels = block, first_read, auto_duels
        self.fence, self.trust = fence, trust
        self._cancelled = BackgroundTasks()

    async def rank(
        self, task: RankingTask, grader: Grader, deadline: Deadline, failover_deadline: Deadline | None = None
    ) -> Ranking:
        """All candidates, best first; what was not read by the deadline keeps its prior.

        Raises the grader's error when nothing at all could be read, UpstreamTimeout when there was no time for it,
        UpstreamUntrusted when its grades are known to say nothing.
        `failover_deadline`: another grader could take over, so it raises if nothing has been read by then.
        """
        if not task.candidates:
            return Ranking(order=())
        run = (WindowedRun if task.strategy == "listwise" else GradedRun)(self, task, grader)
        run.calls.hurries = failover_deadline is not None
        if run.examined:
            run.believe()
        work = asyncio.ensure_future(run.work(deadline))
        try:
            if failover_deadline is not None:
                await _wait(work, failover_deadline)
            if failover_deadline is None or run.has_results:
                await _wait(work, deadline)
            if work.done():
                work.result()
            return run.ranking(late=not work.done())
        finally:
            await self._stop(work)

    def joins_late(self, count: int, strategy: Strategy, depth: int) -> bool:
        """Whether better priors of `count` candidates may come after the model's first round has begun.

        They may if it reads all of them in that round whatever their priors, and gives grades rather than an order.
        """
        return strategy != "listwise" and count <= min(depth, self.first_read if strategy == "auto" else depth)

    def trust_in(self, name: str, model: str, way: Way) -> float | None:
        """In the backend's grades, in [0,1]; None as long as nothing is known of them."""
        if self.trust is None or (model, PROMPT_VERSION) in self.calibrations:
            return 1.0
        record = self.trust.record((name, model, PROMPT_VERSION, way))
        return record.trust if record.readings else None

    async def close(self) -> None:
        """When all calls have ended."""
        await self._cancelled.ended()
        await self.cache.close()

    async def _stop(self, work: asyncio.Future[None]) -> None:
        """Cancel what still runs. What does not end at once ends in the background: the caller has a deadline."""
        if work.done():
            return
        work.cancel()
        self._cancelled.keep(work)
        await asyncio.wait((work,), timeout=CANCEL_GRACE_S)


async def _wait(work: asyncio.Future[None], until: Deadline) -> None:
    await asyncio.wait((work,), timeout=max(0.0, until.left()))


class _Run:
    """One ranking being made: what the strategies have in common."""

    def __init__(self, settings: Reranker, task: RankingTask, grader: Grader) -> None:
        self.settings, self.task, self.grader = settings, task, grader
        by_prior = sorted(task.candidates, key=lambda candidate: (-candidate.score, candidate.passage.id))
        deepest, rest = by_prior[: task.depth], by_prior[task.depth :]
        tokens = WINDOW_TOKENS if task.strategy == "listwise" else PASSAGE_TOKENS
        read = prepare(task.query, deepest, tokens=tokens)
        unread = [Ranked(id=candidate.passage.id, prior=candidate.score) for candidate in rest]
        calibration = settings.calibrations.get((grader.model, PROMPT_VERSION), Calibration())
        weight = 0.0 if task.strategy == "pointwise" else PRIOR_WEIGHT
        self.scoreboard = Scoreboard([*read, *unread], calibration, weight, task.spread)
        self.stats = self.scoreboard.stats
        # The scoreboard sorts by prior, so the readable passages come before all others.
        self.readable = self.scoreboard.passages[: len(read)]
        shown = [text for candidate in deepest for text in (candidate.passage.title, candidate.passage.text)]
        # The fence must stand in nothing that a prompt may hold.
        fence = settings.fence([task.query, *shown, *(passage.text for passage in read)])
        self.calls = ModelCalls(grader, settings.cache, task.query, fence, settings.block, task.tenant)
        calibrated = (grader.model, PROMPT_VERSION) in settings.calibrations
        self._book = None if calibrated else settings.trust
        self._owner = (grader.name, grader.model, PROMPT_VERSION, grader.way)
        self._weigh()

    async def examine(self) -> None:
        """Ask about the next controls, if there are any that the model is to be asked about."""
        if self._book is None:
            return
        for count in TOPICS_AT_ONCE:
            if not (topics := self._book.record(self._owner).left[:count]):
                return
            fence = self.settings.fence(
                [text for topic in topics for text in (topic.query, *topic.answers, *topic.others)]
            )
            if not (readings := await self.calls.examine(topics, fence, self.stats)):
                return
            self._book.add(self._owner, readings)
            self._weigh()

    @property
    def examined(self) -> bool:
        """Whether all is known of the model that controls can tell."""
        return self._book is not None and not self._book.record(self._owner).left

    def believe(self, least: float = MIN_TRUST) -> None:
        """Raises UpstreamUntrusted unless the model's grades are known to say that much."""
        if self.scoreboard.trust >= least:
            return
        name = self.grader.name
        if self._book is not None and not self._book.record(self._owner).readings:
            if self.calls.unexamined:
                raise self.calls.unexamined[0]
            raise UpstreamUntrusted(name, f"{name} has not graded the controls yet")
        raise UpstreamUntrusted(name, f"the grades of {name} do not tell answers from other passages")

    def _weigh(self) -> None:
        if self._book is not None:
            self.scoreboard.trust = self._book.record(self._owner).trust

    def result(self, order: Sequence[Ranked], degraded: str) -> Ranking:
        """The ranking with what it took."""
        return Ranking(
            order=tuple(order),
            rounds=self.stats.rounds,
            requests=self.stats.requests,
            repairs=dict(self.stats.repairs),
            degraded=(degraded,) if degraded else (),
            cache_hits=self.stats.cache_hits,
            cache_misses=self.stats.cache_misses,
        )

    def failure(self) -> WinnowError:
        """Why nothing was read."""
        if self.stats.failures:
            return self.stats.failures[0]
        return UpstreamTimeout(self.grader.name, f"{self.grader.name} ranked nothing before the deadline")

    def reasons(self, *, late: bool) -> str:
        """The codes of what went wrong."""
        codes = [failure.code for failure in self.stats.failures] + [UpstreamTimeout.code] * late
        return ", ".join(dict.fromkeys(codes))


class GradedRun(_Run):
    """Ranks by grades, and compares some passages side by side."""

    @property
    def has_results(self) -> bool:
        """Whether the model has said anything yet."""
        return self.scoreboard.has_results

    async def work(self, deadline: Deadline) -> None:
        """At most two rounds: in the second, reading on and the second look run side by side.

        A model whose grades are hardly to be believed is not asked for a second look.
        """
        at_first = deadline.left()
        first = self.settings.first_read if self.task.strategy == "auto" else len(self.readable)
        with self.stats.round():
            await asyncio.gather(self.calls.grade(self.readable[:first], self.scoreboard), self.examine())
        if self.has_results:
            self.believe()
        if self.task.later is not None:
            self.scoreboard.improve(await asyncio.shield(self.task.later))
            self.readable = self.scoreboard.passages
        left = deadline.left()
        worth = self._worth_reading(self.readable[first:])
        if self.task.strategy == "auto":
            duels = self.settings.auto_duels and left >= DUEL_ROOM * (at_first - left)
        else:
            duels = self.task.strategy == "duel"
        duels = duels and self.grader.way in COMPARING and self.scoreboard.trust >= MUCH_TRUST
        with self.stats.round():
            async with asyncio.TaskGroup() as group:
                if worth:
                    group.create_task(self.calls.grade(worth, self.scoreboard))
                if duels:
                    group.create_task(self._duel())

    def ranking(self, *, late: bool) -> Ranking:
        """The best order so far. Raises when there is none."""
        graded, attempted = len(self.scoreboard.grades()), len(self.scoreboard.attempted)
        if not graded:
            raise self.failure()
        self.believe()
        degraded = ""
        if graded < attempted:
            degraded = f"{self.grader.name} graded {graded} of {attempted} passages ({self.reasons(late=late)})"
            degraded += "; the others keep their predicted position"
        elif late or self.stats.failures:
            degraded = f"{self.grader.name} did not compare the top passages ({self.reasons(late=late)})"
        _, chances = top_k(self.scoreboard.grades(), self.task.top)
        still_open = sum(chance > RISK for chance in chances.values())
        return msgspec.structs.replace(self.result(self.scoreboard.ranked(), degraded), open=still_open)

    def _worth_reading(self, rest: Sequence[Ranked]) -> list[Ranked]:
        """Those that could still enter the top."""
        if not rest or not (grades := self.scoreboard.grades()):
            return []
        cut, _ = top_k(grades, self.task.top)
        priors = {passage.id: passage.prior for passage in rest}
        worth = set(worth_reading(priors, self.scoreboard.prior_model(), cut))
        return [passage for passage in rest if passage.id in worth]

    async def _duel(self) -> None:
        """Compare the passages whose order matters and is open, and move their scores."""
        grades = self.scoreboard.trusted(self.scoreboard.grades())
        zs = {key: z for key, z in self.scoreboard.zs().items() if key in grades}
        _, chances = top_k(grades, self.task.top)
        ids = duel_window(in_order(zs, self.scoreboard.priors), grades, chances)
        if len(ids) < 2:
            return
        by_id = {passage.id: passage for passage in self.readable}
        window = [by_id[key] for key in ids]
        moved: Mapping[str, float] = {}
        if self.grader.way == "scorer":
            if preferred := await self.calls.compare(window, self.stats):
                moved = apply_duel(zs, ids, preferred)
        elif judged := await self.calls.order(window, self.stats):
            moved = reassign(zs, fuse_orders(ids, [passage.id for passage in judged]))
        self.scoreboard.move({key: moved[key] for key in ids if key in moved})


class WindowedRun(_Run):
    """Orders windows from the back to the front, as RankGPT does.

    A window gives an order and no grades: the places keep the scores that retrieval gave them.
    """

    has_results = False

    async def work(self, deadline: Deadline) -> None:
        """One window after another, once the model has shown that it can tell answers from other passages."""
        self.order = list(self.readable)
        await self.examine()
        self.believe(MUCH_TRUST)
        for start, end in windows(len(self.order)):
            ordered = await self.calls.order(self.order[start:end], self.stats, window_request)
            if ordered:
                self.has_results = True
                self.order[start:end] = ordered

    def ranking(self, *, late: bool) -> Ranking:
        """The best order so far. Raises when there is none."""
        if not self.has_results:
            raise self.failure()
        count = len(self.readable)
        order = _held_back(self.order, self.readable) + self.scoreboard.passages[count:]
        ranked = [
            row
            for place, (passage, before) in enumerate(zip(order, self.scoreboard.passages, strict=True))
            for row in with_duplicates(msgspec.structs.replace(passage, score=before.prior, read=place < count))
        ]
        wrong = late or self.stats.failures
        degraded = f"{self.grader.name} did not order every window ({self.reasons(late=late)})" if wrong else ""
        return self.result(ranked, degraded)


def _held_back(order: Sequence[Ranked], before: Sequence[Ranked]) -> list[Ranked]:
    """The order in which no suspicious passage stands higher than before."""
    suspects = [passage for passage in order if SUSPECTED_INJECTION in passage.flags]
    held = [passage for passage in order if passage not in suspects]
    for passage in suspects:
        held.insert(max(order.index(passage), before.index(passage)), passage)
    return held
