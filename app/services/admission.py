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

PATIENCE = 1.0
"""How many times what a visit takes in quiet a visitor may have to wait while more comes than can be served. Waiting
longer serves nobody then: the line never gets shorter, all of them are late."""

BURST_S = 2.0
"""While less comes than can be served a visitor may have to wait for so many seconds: a burst passes by."""

LEAST_S = 0.1
"""So long anybody may have to wait in any case: a handful of clients is no crowd."""

WRITERS_S = 0.3
"""A writer even so long: unlike a search, it would have to come back."""

RECENT_S = 4.0
"""Over about how long it is measured how much of the time all places are taken."""

OVERLOADED = 0.6
"""From this share of the time on more comes than can be served. A burst takes some seconds to get there."""

FIRST_GUESS_S = 0.01
"""What a visit is taken to last until one has ended."""

HOLD_S = 2.0
"""After so many seconds a visit gives its place to the next: it must be waiting for something, not working."""

REMOTE_VISITS = 8
"""Visits to a place at once, where most of a visit waits for a server."""

NEW_SHARE = 0.2
"""Of a new measurement in a mean."""

SHORTEST_S = 1e-4


class Activity:
    """Who is at work behind all gates, so that each of them knows when a visit had the machine for itself."""

    def __init__(self) -> None:
        self.running = 0
        self.begun = 0


class Gate:
    """Lets `places` visits of one kind run at once, first come, first served, and refuses who would wait too long.

    `kind` names the visitors to those who are refused ("searches"). With an infinite `patience` nobody is, and nobody
    who would wait for less than `least_s`.
    """

    def __init__(
        self,
        kind: str,
        places: int,
        activity: Activity | None = None,
        *,
        patience: float = PATIENCE,
        least_s: float = 0.0,
        hold_s: float = HOLD_S,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._kind, self._places, self._clock = kind, places, clock
        self._activity, self._patience, self._hold_s = activity or Activity(), patience, hold_s
        self._least_s = least_s
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._returning: deque[asyncio.Future[None]] = deque()
        self._recent_s, self._step_s = FIRST_GUESS_S, 0.0
        self._moved_at = clock()
        self._quiet_s: float | None = None
        self._full_share, self._looked_at = 0.0, clock()

    @property
    def expected_wait_s(self) -> float:
        """Of a visitor who comes now: those ahead, times what the line took lately to move on by one."""
        ahead = len(self._waiting) + len(self._returning)
        if self._running < self._places and not ahead:
            return 0.0
        return (ahead + 1) * self._pace_s

    @property
    def limit_s(self) -> float:
        """The longest wait into which a visitor is let."""
        self._look()
        overloaded = self._full_share > OVERLOADED
        return max(self._least_s if overloaded else BURST_S, self._patience * (self._quiet_s or FIRST_GUESS_S))

    @property
    def _pace_s(self) -> float:
        """Seconds from one new visitor to the next: as the line moved, which those who return hold up, too."""
        return max(self._step_s if self._waiting else 0.0, self._recent_s / self._places)

    @asynccontextmanager
    async def visit(self, watch: Stopwatch | None = None, *, again: bool = False) -> AsyncGenerator[None, None]:
        """For as long as the body runs. Raises Overloaded, with the time after which it is worth coming back.

        A request that comes `again` is never refused and goes ahead of new ones: what it has cost must not be lost.
        """
        await self._enter(watch or Stopwatch(), again=again)
        began, activity = self._clock(), self._activity
        activity.running += 1
        activity.begun += 1
        alone = activity.begun if activity.running == 1 and not self._waiting else 0
        holds = True

        def leave() -> None:
            nonlocal holds
            if holds:
                holds = False
                self._leave()

        early = asyncio.get_running_loop().call_later(self._hold_s, leave)
        try:
            yield
            self._measure(self._clock() - began, quiet=alone == activity.begun)
        finally:
            early.cancel()
            activity.running -= 1
            leave()

    async def _enter(self, watch: Stopwatch, *, again: bool) -> None:
        if self._running < self._places and not self._waiting and not self._returning:
            self._look()
            self._running += 1
            return
        if not again and (wait_s := self.expected_wait_s) > self.limit_s:
            raise Overloaded(f"too many {self._kind} at once: this one would wait for {wait_s:.1f} s", wait_s)
        line = self._returning if again else self._waiting
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._waiting:
            self._moved_at = self._clock()
        line.append(place)
        try:
            with watch.stage(WAIT):
                await place
        except asyncio.CancelledError:
            if not place.cancelled():  # it was given the place at the moment it left
                self._leave()
            elif place in line:
                line.remove(place)
            raise
        if not again:
            self._measure_step()

    def _leave(self) -> None:
        """Hand the place to the next in line."""
        for line in (self._returning, self._waiting):
            while line:
                place = line.popleft()
                if not place.done():
                    place.set_result(None)
                    return
        self._look()
        self._running -= 1

    def _measure_step(self) -> None:
        now = self._clock()
        self._step_s += NEW_SHARE * (now - self._moved_at - self._step_s)
        self._moved_at = now

    def _look(self) -> None:
        """Bring up to date the share of the time in which all places are taken; before that changes."""
        now = self._clock()
        kept = math.exp((self._looked_at - now) / RECENT_S)
        self._full_share = self._full_share * kept + (1 - kept) * (self._running >= self._places)
        self._looked_at = now

    def _measure(self, took_s: float, *, quiet: bool) -> None:
        took_s = min(took_s, self._hold_s)
        self._recent_s += NEW_SHARE * (took_s - self._recent_s)
        if quiet:
            before_s = self._quiet_s or took_s
            # A geometric mean: the first visit may have to wait seconds for what is being loaded.
            self._quiet_s = before_s * math.pow(max(took_s, SHORTEST_S) / max(before_s, SHORTEST_S), NEW_SHARE)


class Gates:
    """The gates of one process: the kinds of requests do not wait for one another, but for the processor.

    Each kind may fill half of the `cores`, so that two kinds get on beside each other; rankings of callers' texts and
    small writes are one kind, as they share a lane of the embedding model. `remote`: a store on a server is
    waited for, not worked for. `patient` gates refuse nobody.
    """

    def __init__(self, cores: int, *, patient: bool = False, remote: bool = False) -> None:
        activity, patience = Activity(), math.inf if patient else PATIENCE
        waited_for = REMOTE_VISITS if remote else 1
        half = max(1, cores // 2)
        places = half * waited_for
        self.searches = Gate("searches", places, activity, patience=patience, least_s=LEAST_S)
        self.answers = Gate("answers", places, activity, patience=patience, least_s=LEAST_S)
        self.texts = Gate("rankings and writes", half, activity, patience=patience, least_s=WRITERS_S)
        self.readings = Gate("readings of documents", places, activity, patience=patience)
