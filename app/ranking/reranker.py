"""Strategies of ranking, and the reranker that runs them: the best order that there is at the deadline."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import msgspec

from app.backends.base import Deadline
from app.domain import Strategy
from app.errors import UpstreamTimeout, WinnowError
from app.ranking.cache import ScoreCache
from app.ranking.calls import Asking, Reader, windows
from app.ranking.injection.detector import SUSPECTED_INJECTION
from app.ranking.models import Calibration, Candidate, Prepared, Ranked, Ranking, Spread
from app.ranking.passages import PASSAGE_TOKENS, WINDOW_TOKENS, prepare
from app.ranking.prompts import JUDGE_PASSAGES, PROMPT_VERSION, window_request
from app.ranking.scoring import (
    PRIOR_WEIGHT,
    Sheet,
    duelled,
    in_order,
    merged,
    places,
    redealt,
    settle,
    window_of,
    worth_reading,
)
from app.text.fencing import draw_fence, random_fence

ROOM = 2.0
"""A second look may begin when so many times the duration of the first one is left."""


class Conduct(msgspec.Struct, frozen=True, kw_only=True):
    """What does not depend on the query. The defaults are what pays (benchmarks/rerank).

    `block` is the most passages that a judge grades in one request. "auto" reads `first_read` of them, and others only
    if they could still enter the top; with `auto_duels` it takes a second look when the deadline leaves room.
    """

    block: int = JUDGE_PASSAGES
    first_read: int = 50
    auto_duels: bool = True


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One ranking to be made. A model reads at most `depth` candidates, for the sake of the best `top`.

    `spread` is that of the candidates' priors, where it is known beforehand.
    """

    query: str
    candidates: Sequence[Candidate]
    strategy: Strategy = "auto"
    depth: int = 50
    top: int = 10
    spread: Spread | None = None


class _Run:
    """One ranking being made: what the strategies have in common."""

    def __init__(
        self,
        task: Task,
        reader: Reader,
        conduct: Conduct,
        calibration: Calibration,
        cache: ScoreCache,
        fence: Callable[[], str],
    ) -> None:
        self.task, self.reader, self.conduct = task, reader, conduct
        ranked = sorted(task.candidates, key=lambda candidate: (-candidate.prior, candidate.id))
        deepest, rest = ranked[: task.depth], ranked[task.depth :]
        tokens = WINDOW_TOKENS if task.strategy == "listwise" else PASSAGE_TOKENS
        read = prepare(task.query, deepest, tokens=tokens)
        unread = [Prepared(id=candidate.id, text="", prior=candidate.prior) for candidate in rest]
        weight = 0.0 if task.strategy == "pointwise" else PRIOR_WEIGHT
        self.sheet = Sheet([*read, *unread], calibration, weight, task.spread)
        self.tally = self.sheet.tally
        # All of them are readable before any other: their priors are the highest.
        self.readable = self.sheet.passages[: len(read)]
        self.asking = Asking(
            reader, cache, task.query, draw_fence(_texts(task.query, deepest, read), fence), conduct.block
        )

    def result(self, order: Sequence[Ranked], degraded: str) -> Ranking:
        """With what it took."""
        return Ranking(
            order=tuple(order),
            rounds=self.tally.rounds,
            requests=self.tally.requests,
            repairs=dict(self.tally.repairs),
            degraded=(degraded,) if degraded else (),
            cache_hits=self.tally.hits,
            cache_misses=self.tally.misses,
        )

    def nothing(self) -> WinnowError:
        """Why nothing was read."""
        late = UpstreamTimeout(self.reader.name, f"{self.reader.name} read nothing in the time it had")
        return self.tally.failures[0] if self.tally.failures else late

    def reasons(self, *, late: bool) -> str:
        """The codes of what went wrong."""
        codes = [failure.code for failure in self.tally.failures] + [UpstreamTimeout.code] * late
        return ", ".join(dict.fromkeys(codes))


class Graded(_Run):
    """By grades, and for some by a second look."""

    @property
    def begun(self) -> bool:
        """Whether there is something to show."""
        return self.sheet.begun

    async def work(self, deadline: Deadline) -> None:
        """At most two rounds: in the second, reading on and the second look go side by side."""
        at_first = deadline.left()
        first = self.conduct.first_read if self.task.strategy == "auto" else len(self.readable)
        await self.asking.grade(self.readable[:first], self.sheet)
        more = []
        if worth := self._worth_reading(self.readable[first:]):
            more.append(self.asking.grade(worth, self.sheet))
        if self._duels(at_first - deadline.left(), deadline.left()):
            more.append(self._duel())
        with self.tally.round():
            async with asyncio.TaskGroup() as group:
                for work in more:
                    group.create_task(work)

    def ranking(self, *, late: bool) -> Ranking:
        """The best order so far. Raises when there is none."""
        graded, opened = len(self.sheet.grades()), len(self.sheet.opened)
        if not graded:
            raise self.nothing()
        degraded = ""
        if graded < opened:
            degraded = f"{self.reader.name} graded {graded} of {opened} passages ({self.reasons(late=late)})"
            degraded += "; the others stand where retrieval expects them"
        elif late or self.tally.failures:
            degraded = f"{self.reader.name} took no second look ({self.reasons(late=late)})"
        return self.result(self.sheet.ranked(), degraded)

    def _worth_reading(self, rest: Sequence[Prepared]) -> list[Prepared]:
        """Those that could still enter the top."""
        if not rest or not (grades := self.sheet.grades()):
            return []
        priors = {passage.id: passage.prior for passage in rest}
        worth = set(worth_reading(priors, self.sheet.prior_model(), settle(grades, self.task.top)))
        return [passage for passage in rest if passage.id in worth]

    def _duels(self, took_s: float, left_s: float) -> bool:
        if self.task.strategy == "auto":
            return self.conduct.auto_duels and left_s >= ROOM * took_s
        return self.task.strategy == "duel"

    async def _duel(self) -> None:
        grades = self.sheet.trusted(self.sheet.grades())
        zs = {key: z for key, z in self.sheet.zs().items() if key in grades}
        names = window_of(in_order(zs, self.sheet.priors), grades, settle(grades, self.task.top))
        if len(names) > 1:
            ask = self._compared if self.reader.way == "scorer" else self._ordered
            moved = await ask(names, zs)
            self.sheet.move({name: moved[name] for name in names if name in moved})

    async def _compared(self, names: Sequence[str], zs: Mapping[str, float]) -> dict[str, float]:
        preferred = await self.asking.compare(self._called(names), self.tally)
        return duelled(zs, names, preferred) if preferred else {}

    async def _ordered(self, names: Sequence[str], zs: Mapping[str, float]) -> dict[str, float]:
        judged = await self.asking.order(self._called(names), self.tally)
        return redealt(zs, merged(names, [passage.id for passage in judged])) if judged else {}

    def _called(self, names: Sequence[str]) -> list[Prepared]:
        by_id = {passage.id: passage for passage in self.readable}
        return [by_id[name] for name in names]


class Listed(_Run):
    """By windows alone, from the back to the front, as RankGPT does it.

    A window tells an order and no grades: the places keep the scores that retrieval gave them.
    """

    begun = False

    async def work(self, deadline: Deadline) -> None:
        """One window after another."""
        self.order = list(self.readable)
        for start, end in windows(len(self.order)):
            ordered = await self.asking.order(self.order[start:end], self.tally, window_request)
            if ordered:
                self.begun = True
                self.order[start:end] = ordered

    def ranking(self, *, late: bool) -> Ranking:
        """The best order so far. Raises when there is none."""
        if not self.begun:
            raise self.nothing()
        count = len(self.readable)
        order = _held_back(self.order, self.readable) + self.sheet.passages[count:]
        ranked = [
            place
            for number, (passage, before) in enumerate(zip(order, self.sheet.passages, strict=True))
            for place in places(passage, before.prior, read=number < count)
        ]
        wrong = late or self.tally.failures
        degraded = f"{self.reader.name} did not order every window ({self.reasons(late=late)})" if wrong else ""
        return self.result(ranked, degraded)


def _held_back(order: Sequence[Prepared], before: Sequence[Prepared]) -> list[Prepared]:
    """The order in which no suspicious passage stands higher than before."""
    suspects = [passage for passage in order if SUSPECTED_INJECTION in passage.flags]
    held = [passage for passage in order if passage not in suspects]
    for passage in suspects:
        held.insert(max(order.index(passage), before.index(passage)), passage)
    return held


def _texts(query: str, candidates: Sequence[Candidate], read: Sequence[Prepared]) -> list[str]:
    """All that a prompt may hold."""
    shown = [text for candidate in candidates for text in (candidate.title, candidate.text)]
    return [query, *shown, *(passage.text for passage in read)]


LET_GO_S = 0.02
"""How long a call that is stopped may take to end before the caller is answered without it."""


class Reranker:
    """Orders candidates. `calibrations` are those of (model, prompt version)."""

    def __init__(
        self,
        cache: ScoreCache,
        conduct: Conduct | None = None,
        calibrations: Mapping[tuple[str, str], Calibration] | None = None,
        fence: Callable[[], str] = random_fence,
    ) -> None:
        self._cache = cache
        self._conduct = conduct or Conduct()
        self._calibrations = calibrations or {}
        self._fence = fence
        self._leaving: set[asyncio.Future[None]] = set()

    async def rank(self, task: Task, reader: Reader, deadline: Deadline, hurry: Deadline | None = None) -> Ranking:
        """All candidates, best first; what was not read by the deadline keeps its prior.

        Raises the reader's error when nothing at all could be read, UpstreamTimeout when there was no time for it; with
        `hurry`, which says that another reader could take over, when nothing has been read by then.
        """
        if not task.candidates:
            return Ranking(order=())
        run = self._begin(task, reader)
        work = asyncio.ensure_future(run.work(deadline))
        try:
            if hurry is not None:
                await _wait(work, hurry)
            if hurry is None or run.begun:
                await _wait(work, deadline)
            if work.done():
                work.result()
            return run.ranking(late=not work.done())
        finally:
            await self._stop(work)

    async def close(self) -> None:
        """When all calls have ended."""
        await asyncio.gather(*self._leaving, return_exceptions=True)
        await self._cache.close()

    def _begin(self, task: Task, reader: Reader) -> Graded | Listed:
        kind = Listed if task.strategy == "listwise" else Graded
        calibration = self._calibrations.get((reader.model, PROMPT_VERSION), Calibration())
        return kind(task, reader, self._conduct, calibration, self._cache, self._fence)

    async def _stop(self, work: asyncio.Future[None]) -> None:
        """One that does not end at once is left to end alone."""
        if work.done():
            return
        work.cancel()
        self._leaving.add(work)
        work.add_done_callback(self._leaving.discard)
        await asyncio.wait((work,), timeout=LET_GO_S)


async def _wait(work: asyncio.Future[None], until: Deadline) -> None:
    await asyncio.wait((work,), timeout=max(0.0, until.left()))
