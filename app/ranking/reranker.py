"""The reranker: a model's ranking of candidates, the best that there is at the deadline.

How it goes about it is in `strategies`, what it asks in `asking`, what follows from the replies in `sheet`.
"""

import asyncio
from collections.abc import Callable, Mapping

from app.backends.base import Deadline
from app.ranking.cache import ScoreCache
from app.ranking.calls import Reader
from app.ranking.models import Calibration, Ranking
from app.ranking.prompts import PROMPT_VERSION
from app.ranking.strategies import Conduct, Graded, Listed, Task
from app.text.fencing import random_fence

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
