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
"""How many times what a visit takes in quiet a visitor may have to wait while more comes than can be served: about what
a handful of clients makes each other wait."""

LINE_S = 1.0
"""Whatever comes, a visitor may have to wait for so many seconds: who is refused comes back after a second at the
earliest, which is later. Waiting longer serves nobody while more comes than can be served: the line never gets
shorter."""

BURST_S = 2.0
"""While less comes than can be served a visitor may have to wait for so many seconds: a burst passes by."""

RECENT_S = 4.0
"""Over about how long it is measured how much of the time all places are taken."""

OVERLOADED = 0.6
"""From this share of the time on more comes than can be served. A burst takes some seconds to get there."""

CROWD_S = 20.0
"""So long after a refusal more is taken to come than can be served: twice as long as who was refused may stay away."""

FIRST_GUESS_S = 0.01
"""What a visit is taken to last until one has ended."""

LEFT_AT_LEAST = 0.25
"""Of a visit that takes longer than the mean, this share of the mean is taken to be left."""

LONGEST_AFTER_S = 10.0
"""No refused visitor is told to come back later than this."""

HOLD_S = 2.0
"""After so many seconds a visit gives its place to the next: it must be waiting for something, not working."""

TOGETHER = 16
"""Searches at once while nothing else works. On few cores they are more than these, so that the queries that wait for
the encoder share its calls: 16 instead of two on two cores take a third less of the processor each."""

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


class _Visit:
    """One that works, since `began`, or waits for `place`."""

    def __init__(self, gate: "Gate", place: asyncio.Future[None], *, again: bool) -> None:
        self.gate, self.place, self.again = gate, place, again
        self.began = 0.0


class Places:
    """Where `count` visits run at once. Those of several gates may share them: then the gates take turns, and of one
    gate's visitors the first to come is served first.

    Who comes again is let in at once, and until one leaves for it nobody else is. While nobody works behind other gates
    there are `spare` places more.
    """

    def __init__(
        self,
        count: int,
        activity: Activity | None = None,
        *,
        spare: int = 0,
        hold_s: float = HOLD_S,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.activity, self.hold_s, self.clock = activity or Activity(), hold_s, clock
        self._count, self._spare = count, spare
        self._running: dict[_Visit, None] = {}
        self._lines: dict[Gate, deque[_Visit]] = {}
        """In the order of their turns."""
        self._full_share, self._looked_at = 0.0, clock()
        self._taken_until, self._refused_at = 0.0, -math.inf

    @property
    def nobody_waits(self) -> bool:
        """Whether there is no line."""
        return not any(self._lines.values())

    def waiting(self, gate: "Gate") -> int:
        """How many visitors of the gate are in its line."""
        return len(self._lines.get(gate, ()))

    @property
    def overloaded(self) -> bool:
        """Whether for some seconds more has come than can be served, or somebody was refused lately: who comes back by
        appointment must not be taken for the end of the crowd.
        """
        self._look()
        return self._full_share > OVERLOADED or self.clock() - self._refused_at < CROWD_S

    def expected_wait_s(self, gate: "Gate") -> float:
        """Of one who comes to that gate now: what is left of those at work, and the visits of those who are served
        earlier.
        """
        if self._free:
            return 0.0
        now = self.clock()
        work_s = sum(visit.gate.left_s(now - visit.began, again=visit.again) for visit in self._running)
        own, before = len(self._lines.get(gate, ())), True
        for other, line in self._lines.items():
            before &= other is not gate
            work_s += min(len(line), own + before) * other.left_s()
        return work_s / self._places

    def appoint(self, wait_s: float, cost_s: float) -> float:
        """After how many seconds a refused visitor, who takes `cost_s`, should come back: each at a time of their own,
        else all of them would come at once, and be refused again.
        """
        now = self._refused_at = self.clock()
        at = max(self._taken_until, now + wait_s)
        self._taken_until = min(at + cost_s / self._places, now + LONGEST_AFTER_S)
        return at - now

    async def enter(self, visit: _Visit, watch: Stopwatch) -> None:
        """Take a place, or wait for one."""
        if visit.again or self._free:
            self._begin(visit)
            return
        line = self._lines.setdefault(visit.gate, deque())
        line.append(visit)
        try:
            with watch.stage(WAIT):
                await visit.place
        except asyncio.CancelledError:
            if visit in self._running:  # it was given the place at the moment it left
                self.activity.running -= 1
                self.leave(visit)
            elif visit in line:
                line.remove(visit)
            raise

    def leave(self, visit: _Visit) -> None:
        """Hand the place to the next in line. A second time does nothing."""
        if visit not in self._running:
            return
        self._look()
        del self._running[visit]
        while len(self._running) < self._places and (following := self._next()):
            self._begin(following)
            following.place.set_result(None)

    @property
    def _places(self) -> int:
        alone = self.activity.running <= len(self._running)
        return self._count + (self._spare if alone else 0)

    @property
    def _free(self) -> bool:
        return len(self._running) < self._places and self.nobody_waits

    def _next(self) -> _Visit | None:
        """Whose turn it is; that gate's next turn comes after those of the others."""
        for gate, line in list(self._lines.items()):
            while line:
                visit = line.popleft()
                if not visit.place.done():  # else it has just given up
                    self._lines[gate] = self._lines.pop(gate)
                    return visit
        return None

    def _begin(self, visit: _Visit) -> None:
        self._look()
        visit.began = self.clock()
        self._running[visit] = None
        self.activity.running += 1
        self.activity.begun += 1

    def _look(self) -> None:
        """Bring up to date the share of the time in which all places are taken; before that changes."""
        now = self.clock()
        kept = math.exp((self._looked_at - now) / RECENT_S)
        self._full_share = self._full_share * kept + (1 - kept) * (len(self._running) >= self._places)
        self._looked_at = now


class Gate:
    """Lets visits of one kind to the places, and refuses who would wait too long.

    `kind` names the visitors to those who are refused ("searches"). With an infinite `patience` nobody is.
    """

    def __init__(self, kind: str, places: Places, *, patience: float = PATIENCE) -> None:
        self._kind, self._places, self._patience = kind, places, patience
        self._visit_s, self._again_s = FIRST_GUESS_S, 0.0
        self._quiet_s: float | None = None
        self.inside = self.refused = 0
        """Visitors at this moment, and those that were sent away since the start."""

    @property
    def waiting(self) -> int:
        """Visitors in the line."""
        return self._places.waiting(self)

    @property
    def expected_wait_s(self) -> float:
        """Of a visitor who comes now."""
        return self._places.expected_wait_s(self)

    @property
    def limit_s(self) -> float:
        """The longest wait into which a visitor is let."""
        quiet_s = (self._quiet_s or FIRST_GUESS_S) * (1 + self._again_s / self._visit_s)
        return max(LINE_S if self._places.overloaded else BURST_S, self._patience * quiet_s)

    def left_s(self, elapsed_s: float = 0.0, *, again: bool = False) -> float:
        """What a visit probably still takes, and a new one's coming again."""
        left_s = max(self._visit_s - elapsed_s, LEFT_AT_LEAST * self._visit_s)
        return left_s if again else left_s + self._again_s

    @asynccontextmanager
    async def visit(self, watch: Stopwatch | None = None, *, again: bool = False) -> AsyncGenerator[None, None]:
        """For as long as the body runs. Raises Overloaded, with the time after which it is worth coming back.

        A request that comes `again` is let in at once: what it has cost must not be lost.
        """
        places, loop = self._places, asyncio.get_running_loop()
        if not again and self._patience < math.inf and (wait_s := self.expected_wait_s) > self.limit_s:
            after_s = places.appoint(wait_s, self.left_s())
            self.refused += 1
            raise Overloaded(f"too many {self._kind} at once: this one would wait for {wait_s:.1f} s", after_s)
        visit = _Visit(self, loop.create_future(), again=again)
        await places.enter(visit, watch or Stopwatch())
        began, activity = places.clock(), places.activity
        self.inside += 1
        alone = activity.begun if activity.running == 1 and places.nobody_waits else 0
        early = loop.call_later(places.hold_s, places.leave, visit)
        try:
            yield
            self._measure(places.clock() - began, again=again, alone=alone == activity.begun)
        finally:
            early.cancel()
            activity.running -= 1
            self.inside -= 1
            places.leave(visit)

    def _measure(self, took_s: float, *, again: bool, alone: bool) -> None:
        took_s = min(took_s, self._places.hold_s)
        if again:  # not everybody comes again: this is the mean of all
            self._again_s += NEW_SHARE * took_s
            return
        self._visit_s += NEW_SHARE * (max(took_s, SHORTEST_S) - self._visit_s)
        self._again_s -= NEW_SHARE * self._again_s
        if alone:
            before_s = self._quiet_s or took_s
            # A geometric mean: the first visit may have to wait seconds for what is being loaded.
            self._quiet_s = before_s * math.pow(max(took_s, SHORTEST_S) / max(before_s, SHORTEST_S), NEW_SHARE)


class Gates:
    """The gates of one process, which share its `cores`.

    Half of them are for searches, which are to be quick whatever else is asked for; while nothing else is, all are, and
    so many searches are let in that they share calls of the encoder. The other half is for the longer work, in turns:
    answers, rankings of callers' texts and small writes. More at once would only slow each other down.
    Of a store on a server (`remote`) most of a visit is waiting, so that more of them go on at once, and texts, which
    it does not concern, have places of their own. `patient` gates refuse nobody.
    """

    def __init__(self, cores: int, *, patient: bool = False, remote: bool = False) -> None:
        activity, patience = Activity(), math.inf if patient else PATIENCE
        half = max(1, cores // 2)
        count = half * (REMOTE_VISITS if remote else 1)
        answers = Places(count, activity)
        texts = Places(half, activity) if remote else answers
        spare = 0 if remote else max(cores, TOGETHER) - half
        self.searches = Gate("searches", Places(count, activity, spare=spare), patience=patience)
        self.answers = Gate("answers", answers, patience=patience)
        self.texts = Gate("rankings and writes", texts, patience=patience)
        self.readings = Gate("readings of documents", Places(count, activity), patience=patience)

    def by_name(self) -> dict[str, Gate]:
        """All of them, by the names that metrics have."""
        return {
            "searches": self.searches,
            "answers": self.answers,
            "texts": self.texts,
            "readings": self.readings,
        }
