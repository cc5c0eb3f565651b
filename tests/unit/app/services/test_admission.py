"""The gate before our own work, with a clock of its own."""

import asyncio
import math
from functools import partial

import pytest

from app.errors import Overloaded
from app.observability.timing import Stopwatch
from app.services.admission import (
    BURST_S,
    CROWD_S,
    LINE_S,
    LONGEST_AFTER_S,
    OVERLOADED,
    PATIENCE,
    RECENT_S,
    TOGETHER,
    WAIT,
    Activity,
    Gate,
    Gates,
    Places,
)

pytestmark = pytest.mark.anyio

kept_places = partial(Places, hold_s=3600)
"""Nobody's place is given away while a test on a busy machine gets on."""


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Visitor:
    """A request that stays behind the gate until it leaves, or is refused."""

    def __init__(self, gate: Gate, *, again: bool = False) -> None:
        self.inside = False
        self.watch = Stopwatch()
        self.leaving = asyncio.Event()
        self.refusal: Overloaded | None = None
        self.task = asyncio.ensure_future(self._visit(gate, again))

    async def _visit(self, gate: Gate, again: bool) -> None:
        try:
            async with gate.visit(self.watch, again=again):
                self.inside = True
                await self.leaving.wait()
        except Overloaded as exc:
            self.refusal = exc

    async def leave(self) -> None:
        self.leaving.set()
        await self.task


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def come(gate: Gate, count: int, *, again: bool = False) -> list[Visitor]:
    visitors = [Visitor(gate, again=again) for _ in range(count)]
    await settle()
    return visitors


LASTING_S = -RECENT_S * math.log(1 - OVERLOADED) + 0.1
"""After so long with all places taken, a quiet gate is overloaded."""


async def pass_alone(gate: Gate, clock: Clock, seconds: float, times: int = 1) -> None:
    """Visits of `seconds` with nobody else there, so far apart that they are no load."""
    for _ in range(times):
        (visitor,) = await come(gate, 1)
        clock.now += seconds
        await visitor.leave()
        clock.now += 10 * RECENT_S


def refused(visitors: list[Visitor]) -> list[Overloaded]:
    return [visitor.refusal for visitor in visitors if visitor.refusal]


async def leave_all(visitors: list[Visitor]) -> None:
    for visitor in visitors:
        visitor.leaving.set()
    await asyncio.gather(*(visitor.task for visitor in visitors), return_exceptions=True)


async def test_as_many_as_there_are_places_work_at_once() -> None:
    """The others wait in line and enter in their order."""
    gate = Gate("searches", kept_places(2))
    visitors = await come(gate, 4)
    assert [visitor.inside for visitor in visitors] == [True, True, False, False]
    await visitors[1].leave()
    await settle()
    assert [visitor.inside for visitor in visitors] == [True, True, True, False]
    await leave_all(visitors)
    assert gate.expected_wait_s == 0


async def test_only_who_waited_has_a_wait_in_the_timings() -> None:
    """A free place is taken without one."""
    gate = Gate("searches", kept_places(1))
    visitors = await come(gate, 2)
    await leave_all(visitors)
    assert [WAIT in visitor.watch.timings_ms() for visitor in visitors] == [False, True]


async def test_a_burst_is_let_in_and_a_crowd_is_not() -> None:
    """What would wait for longer than BURST_S is refused, with the wait to expect."""
    clock = Clock()
    gate = Gate("searches", kept_places(1, clock=clock))
    await pass_alone(gate, clock, 0.05, times=100)
    visitors = await come(gate, 100)
    errors = refused(visitors)
    assert len(visitors) - len(errors) == pytest.approx(1 + BURST_S / 0.05, abs=1)
    assert errors[0].retry_after > BURST_S
    assert "too many searches" in str(errors[0])
    await leave_all(visitors)


async def test_under_lasting_overload_the_line_is_short() -> None:
    """When more comes than is served, nobody waits for longer than LINE_S."""
    clock = Clock()
    gate = Gate("searches", kept_places(1, clock=clock))
    await pass_alone(gate, clock, 0.05, times=100)
    assert gate.limit_s == BURST_S
    everybody: list[Visitor] = []
    for _ in range(200):
        everybody += await come(gate, 2)
        clock.now += 0.05
        everybody[:] = [visitor for visitor in everybody if not visitor.task.done()]
        await next(visitor for visitor in everybody if visitor.inside).leave()
    assert gate.limit_s == LINE_S
    assert gate.expected_wait_s <= gate.limit_s + 0.06
    await leave_all(everybody)


async def test_a_handful_of_clients_is_never_refused() -> None:
    """Who asks again when answered waits for the others, and for no longer than a refused one would stay away."""
    clock = Clock()
    gate = Gate("searches", kept_places(1, clock=clock))
    await pass_alone(gate, clock, 0.02, times=100)
    everybody = await come(gate, 32)
    for _ in range(1000):
        clock.now += 0.02
        await next(visitor for visitor in everybody if visitor.inside and not visitor.task.done()).leave()
        everybody = [visitor for visitor in everybody if not visitor.task.done()] + await come(gate, 1)
    assert gate.refused == 0
    assert gate.limit_s == LINE_S
    await leave_all(everybody)


async def test_slow_visits_may_wait_for_two_of_them() -> None:
    """Where a visit takes long, a line of a second would be none."""
    clock = Clock()
    gate = Gate("answers", kept_places(1, clock=clock))
    await pass_alone(gate, clock, 1.5, times=100)
    visitors = await come(gate, 1)
    clock.now += LASTING_S
    assert gate.limit_s == pytest.approx(PATIENCE * 1.5)
    await leave_all(visitors)


async def test_the_line_may_be_long_again_when_the_load_is_gone() -> None:
    """How full it was long ago does not count."""
    clock = Clock()
    gate = Gate("searches", kept_places(1, clock=clock))
    await pass_alone(gate, clock, 0.02, times=100)
    crowd = await come(gate, 50)
    assert (refused(crowd), gate.limit_s) == ([], BURST_S)
    clock.now += LASTING_S
    assert gate.limit_s == LINE_S
    await leave_all(crowd)
    clock.now += 20 * RECENT_S
    await leave_all(await come(gate, 1))
    assert gate.limit_s >= BURST_S


async def test_who_was_refused_is_still_there() -> None:
    """Though they come one by one, as they were told, so that there is hardly a line."""
    clock = Clock()
    gate = Gate("searches", kept_places(1, clock=clock))
    await pass_alone(gate, clock, 0.02, times=100)
    crowd = await come(gate, 500)
    assert refused(crowd)
    await leave_all(crowd)
    clock.now += CROWD_S - 0.1
    assert gate.limit_s < BURST_S
    clock.now += 0.2
    assert gate.limit_s == BURST_S


async def test_quick_visits_come_in_bursts_of_their_own() -> None:
    """What takes a millisecond may come by the hundred."""
    clock = Clock()
    gate = Gate("readings", kept_places(1, clock=clock))
    await pass_alone(gate, clock, 0.001, times=100)
    visitors = await come(gate, 90)
    assert not refused(visitors)
    await leave_all(visitors)


async def test_a_visit_that_only_waits_gives_its_place_away() -> None:
    """After `hold_s` the next one enters; when the first one ends, nothing more is given away."""
    gate = Gate("writes", Places(1, hold_s=0.01))
    stuck, following, last = await come(gate, 3)
    while not following.inside:  # noqa: ASYNC110 - a timer of the event loop
        await asyncio.sleep(0.001)
    following.leaving.set()
    await stuck.leave()
    await following.task
    await settle()
    assert last.inside
    await last.leave()
    first, second = await come(gate, 2)
    assert (first.inside, second.inside) == (True, False)
    await leave_all([first, second])


async def test_the_first_slow_visit_is_soon_forgotten() -> None:
    """It waited for a model to be loaded: quiet is what follows."""
    clock = Clock()
    gate = Gate("searches", kept_places(1, clock=clock))
    await pass_alone(gate, clock, 8.0)
    await pass_alone(gate, clock, 0.01, times=20)
    assert gate.limit_s == pytest.approx(BURST_S, rel=0.01)


async def test_quiet_is_measured_only_alone() -> None:
    """A visit beside another, behind whatever gate of the process, says nothing about quiet."""
    clock, activity = Clock(), Activity()
    gate, other = (Gate(kind, Places(1, activity, hold_s=100, clock=clock)) for kind in ("searches", "answers"))
    await pass_alone(gate, clock, 3.0)
    (beside,) = await come(other, 1)
    await pass_alone(gate, clock, 60.0, times=20)
    assert gate.limit_s == pytest.approx(PATIENCE * 3.0)
    await beside.leave()


async def test_searches_share_the_encoder_while_nobody_else_works() -> None:
    """Sixteen at once, and one of two cores beside an answer, which is let in at once; afterwards sixteen again."""
    gates = Gates(2)
    searches = await come(gates.searches, 2 * TOGETHER)
    assert [visitor.inside for visitor in searches] == [True] * TOGETHER + [False] * TOGETHER
    (answer,) = await come(gates.answers, 1)
    assert answer.inside
    await leave_all(searches[:TOGETHER])
    await settle()
    assert [visitor.inside for visitor in searches[TOGETHER:]] == [True] + [False] * (TOGETHER - 1)
    await answer.leave()
    await searches[TOGETHER].leave()
    await settle()
    assert all(visitor.inside for visitor in searches[TOGETHER + 1 :])
    await leave_all(searches[TOGETHER + 1 :])


async def test_who_comes_again_is_let_in_at_once() -> None:
    """What a request has cost already must not be lost. Nobody new is let in until as many have left."""
    clock = Clock()
    gate = Gate("answers", kept_places(1, clock=clock))
    await pass_alone(gate, clock, 0.05, times=100)
    visitors = await come(gate, 3)
    again = await come(gate, 2, again=True)
    assert all(visitor.inside for visitor in again)
    for leaving in (visitors[0], again[0]):
        await leaving.leave()
        await settle()
        assert not visitors[1].inside
    await again[1].leave()
    await settle()
    assert [visitor.inside for visitor in visitors] == [True, True, False]
    await leave_all(visitors)


async def test_the_wait_is_what_those_ahead_still_take() -> None:
    """By the mean visit of each one's kind, with its coming again; of the one at work only what is left."""
    clock = Clock()
    places = kept_places(1, clock=clock)
    quick, slow = Gate("rankings", places), Gate("answers", places)
    for _ in range(50):
        await pass_alone(quick, clock, 0.02)
        await pass_alone(slow, clock, 0.1)
        (again,) = await come(slow, 1, again=True)
        clock.now += 0.3
        await again.leave()
    at_work = await come(slow, 1)
    in_line = await come(quick, 5)
    clock.now += 0.06
    assert quick.expected_wait_s == pytest.approx(0.04 + 0.3 + 5 * 0.02, rel=0.01)
    clock.now += 10
    assert quick.expected_wait_s == pytest.approx(0.025 + 0.3 + 5 * 0.02, rel=0.01)
    await leave_all(at_work + in_line)


async def test_gates_share_their_places_in_turns() -> None:
    """However many came to one of them earlier; and who comes is told the wait that this makes."""
    clock = Clock()
    places = kept_places(1, clock=clock)
    answers, texts = Gate("answers", places), Gate("rankings", places)
    await pass_alone(answers, clock, 0.01, times=100)
    await pass_alone(texts, clock, 0.1, times=100)
    asked = await come(texts, 5)
    assert answers.expected_wait_s == pytest.approx(0.1 + 0.1)
    asked += await come(answers, 2)
    assert texts.expected_wait_s == pytest.approx(0.1 + 4 * 0.1 + 2 * 0.01)
    order = [0, 1, 5, 2, 6, 3, 4]
    for place, number in enumerate(order):
        assert [asked.index(one) for one in asked if one.inside] == sorted(order[: place + 1])
        await asked[number].leave()
        await settle()


async def test_the_refused_are_told_to_come_at_different_times() -> None:
    """One after the other, as many as can be served; nobody has to wait for longer than LONGEST_AFTER_S."""
    clock = Clock()
    gate = Gate("answers", kept_places(1, clock=clock))
    await pass_alone(gate, clock, 0.05, times=100)
    visitors = await come(gate, 700)
    after = [error.retry_after for error in refused(visitors)]
    waiting_s = gate.expected_wait_s
    assert after[:10] == pytest.approx([waiting_s + 0.05 * number for number in range(10)])
    assert max(after) <= LONGEST_AFTER_S
    assert after[-1] == pytest.approx(LONGEST_AFTER_S)
    clock.now += 60
    await leave_all(visitors)


async def test_who_gives_up_just_when_a_place_is_free_breaks_nothing() -> None:
    """It has left the line already when it hears of it; the next one gets the place."""
    gate = Gate("rankings", kept_places(1))
    first, second, third = await come(gate, 3)
    second.task.cancel()
    await first.leave()
    await settle()
    assert second.task.cancelled()
    assert third.inside
    await third.leave()


async def test_who_leaves_the_line_frees_the_place() -> None:
    """Whether it still waited or was just let in."""
    gate = Gate("searches", kept_places(1))
    first, second, third, fourth = await come(gate, 4)
    second.task.cancel()
    await settle()
    await first.leave()
    third.task.cancel()  # it has been given the place and has not run yet
    await settle()
    assert fourth.inside
    await fourth.leave()
    await leave_all(await come(gate, 1))


async def test_a_failed_visit_frees_the_place_and_is_not_measured() -> None:
    """A collection that does not exist takes no time and says nothing."""
    clock = Clock()
    gate = Gate("searches", kept_places(1, clock=clock))

    async def fail() -> None:
        async with gate.visit():
            clock.now += 100
            raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        await fail()
    assert (gate.expected_wait_s, gate.limit_s) == (0, LINE_S)


async def test_patient_gates_refuse_nobody() -> None:
    """As `winnow eval` needs them."""
    gates = Gates(2, patient=True)
    assert gates.searches.limit_s == math.inf
    visitors = await come(gates.searches, 3000)
    assert not refused(visitors)
    await leave_all(visitors)
