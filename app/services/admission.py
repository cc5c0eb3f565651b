"""Admission: how much of our own work runs at once, and who is refused at once instead of waiting for long.

A request passes a gate for the work that is done here: embedding, retrieving, comparing sentences. Waiting for language
models is none of that; they have limits of their own (`app.backends.resilience`).
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from time import monotonic

from app.errors import Overloaded
from app.observability.timing import Stopwatch

WAIT = "wait"
"""A timing: before the gate."""

PATIENCE = 2.0
"""How many times what a visit takes in quiet a visitor may have to wait while more comes than can be served. Waiting
longer serves nobody then: the line never gets shorter, all of them are late."""

BURST_S = 0.25
"""Seconds that a visitor may have to wait in any case while less comes than can be served: a burst passes by."""

RECENT_S = 5.0
"""Over about how long what comes is counted."""

FIRST_GUESS_S = 0.01
"""What a visit is taken to last until one has ended."""

REMOTE_VISITS = 8
"""Visits to a place at once, where most of a visit waits for a server."""

_RECENT_SHARE = 0.1
_QUIET_FALLS, _QUIET_RISES = 0.5, 0.05
"""The share of a new measurement. What is quiet falls fast: the first visits also wait for what is being loaded."""


class Activity:
    """Who is at work behind all gates, so that each of them knows when a visit had the machine for itself."""

    def __init__(self) -> None:
        self.running = 0
        self.begun = 0


class Gate:
    """Lets `places` visits of one kind run at once, first come, first served, and refuses who would wait too long.

    `kind` names the visitors to those who are refused ("searches"). With an infinite `patience` nobody is.
    """

    def __init__(
        self,
        kind: str,
        places: int,
        activity: Activity | None = None,
        *,
        patience: float = PATIENCE,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._kind, self._places, self._clock = kind, places, clock
        self._activity, self._patience = activity or Activity(), patience
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._returning: deque[asyncio.Future[None]] = deque()
        self._recent_s = FIRST_GUESS_S
        self._quiet_s: float | None = None
        self._arrivals, self._counted_at = 0.0, clock()

    @property
    def expected_wait_s(self) -> float:
        """Of a visitor who comes now: those ahead, times what a visit took lately."""
        ahead = len(self._waiting) + len(self._returning)
        if self._running < self._places and not ahead:
            return 0.0
        return (ahead + 1) * self._recent_s / self._places

    @property
    def limit_s(self) -> float:
        """The longest wait into which a visitor is let."""
        patient_s = self._patience * (self._quiet_s or BURST_S / PATIENCE)
        demand = self._arrivals / RECENT_S * self._recent_s / self._places
        return patient_s if demand > 1 else max(BURST_S, patient_s)

    @asynccontextmanager
    async def visit(self, watch: Stopwatch | None = None, *, again: bool = False) -> AsyncGenerator[None, None]:
        """For as long as the body runs. Raises Overloaded, with the time after which it is worth coming back.

        A request that comes `again` is never refused and goes ahead of new ones: what it has cost must not be lost.
        """
        await self._enter(watch or Stopwatch(), again=again)
        began, activity = self._clock(), self._activity
        activity.running += 1
        activity.begun += 1
        alone = activity.begun if activity.running == 1 else 0
        try:
            yield
            self._measure(self._clock() - began, quiet=alone == activity.begun)
        finally:
            activity.running -= 1
            self._leave()

    async def _enter(self, watch: Stopwatch, *, again: bool) -> None:
        if not again:
            self._count_arrival()
        if self._running < self._places and not self._waiting and not self._returning:
            self._running += 1
            return
        if not again and (wait_s := self.expected_wait_s) > self.limit_s:
            raise Overloaded(f"too many {self._kind} at once: this one would wait for {wait_s:.1f} s", wait_s)
        line = self._returning if again else self._waiting
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(place)
        try:
            with watch.stage(WAIT):
                await place
        except asyncio.CancelledError:
            if place.cancelled():
                line.remove(place)
            else:  # it was given the place at the moment it left
                self._leave()
            raise

    def _leave(self) -> None:
        """Hand the place to the next in line."""
        for line in (self._returning, self._waiting):
            while line:
                place = line.popleft()
                if not place.done():
                    place.set_result(None)
                    return
        self._running -= 1

    def _count_arrival(self) -> None:
        now = self._clock()
        self._arrivals = self._arrivals * math.exp((self._counted_at - now) / RECENT_S) + 1
        self._counted_at = now

    def _measure(self, took_s: float, *, quiet: bool) -> None:
        self._recent_s += _RECENT_SHARE * (took_s - self._recent_s)
        if quiet:
            before = self._quiet_s or took_s
            self._quiet_s = before + (_QUIET_FALLS if took_s < before else _QUIET_RISES) * (took_s - before)


class Gates:
    """The gates of one process: the kinds of requests do not wait for one another, but for the processor.

    Searches may fill `cores`, answers and rankings of callers' texts half of them. `remote`: a store on a server is
    waited for, not worked for. `patient` gates refuse nobody.
    """

    def __init__(self, cores: int, *, patient: bool = False, remote: bool = False) -> None:
        activity, patience = Activity(), math.inf if patient else PATIENCE
        waited_for = REMOTE_VISITS if remote else 1
        half = max(1, cores // 2)
        self.searches = Gate("searches", max(2, cores) * waited_for, activity, patience=patience)
        self.answers = Gate("answers", half * waited_for, activity, patience=patience)
        self.rankings = Gate("rankings", half, activity, patience=patience)
