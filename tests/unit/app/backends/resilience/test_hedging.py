"""A second try beside a slow first one."""

import asyncio

import pytest

from app.backends.resilience.retry import hedged
from app.errors import Overloaded, Refused, UpstreamTimeout
from indexing.concurrency import finish
from tests.fakes.virtual_time import VIRTUAL_TIME

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, object]:
    """Waiting takes no time."""
    return VIRTUAL_TIME


class Race:
    """Two tries, each with its time and its end; remembers who was stopped or discarded."""

    def __init__(
        self,
        first: tuple[float, Exception | None],
        spare: tuple[float, Exception | None] = (0, None),
        stopping_s: float = 0,
    ) -> None:
        self._stopping_s = stopping_s
        self._plans = {"first": first, "spare": spare}
        self.begun, self.stopped, self.discarded = list[str](), list[str](), list[str]()

    async def run(self, after_s: float = 1.0) -> str:
        """Who wins."""
        return await hedged(self._try("first"), lambda: self._try("spare"), after_s, self._discard)

    async def _try(self, name: str) -> str:
        seconds, failure = self._plans[name]
        self.begun.append(name)
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            await asyncio.sleep(self._stopping_s)
            self.stopped.append(name)
            raise
        if failure is not None:
            raise failure
        return name

    async def _discard(self, name: str) -> None:
        self.discarded.append(name)


async def test_a_quick_first_needs_no_spare() -> None:
    """Nothing is made twice while the first is in time, be it a success or a failure."""
    race = Race((0.5, None))
    assert await race.run() == "first"
    assert race.begun == ["first"]
    with pytest.raises(UpstreamTimeout):
        await Race((0.5, UpstreamTimeout("s", ""))).run()


async def test_the_quicker_one_wins() -> None:
    """Of two the first to succeed wins, and the other is stopped."""
    race = Race((5, None), (1, None))
    assert await race.run() == "spare"
    assert race.stopped == ["first"]
    race = Race((1.5, None), (1, None))
    assert await race.run() == "first"
    assert race.stopped == ["spare"]


async def test_of_two_at_once_one_is_discarded() -> None:
    """When both succeed in the same moment the first is taken, and the other's result is let go of."""
    race = Race((2, None), (1, None))
    assert await race.run() == "first"
    assert race.discarded == ["spare"]


async def test_the_failure_of_the_spare_is_none() -> None:
    """A spare that cannot even begin leaves the first alone."""
    race = Race((5, None), (0, Overloaded("no slot")))
    assert await race.run() == "first"


async def test_the_spare_saves_a_first_that_fails() -> None:
    """While a spare is under way, a failure that may pass is waited out; of two failures the first's is told."""
    assert await Race((2, UpstreamTimeout("s", "")), (3, None)).run() == "spare"
    with pytest.raises(UpstreamTimeout, match="the first"):
        await Race((2, UpstreamTimeout("s", "the first")), (3, UpstreamTimeout("s", "the spare"))).run()


async def test_nothing_saves_a_first_that_fails_for_good() -> None:
    """A refusal is an answer: the spare is stopped."""
    race = Race((2, Refused("s", "")), (3, None))
    with pytest.raises(Refused):
        await race.run()
    assert race.stopped == ["spare"]


async def test_cancelling_stops_both() -> None:
    """Whoever waits may go; neither try goes on without him."""
    race, before = Race((5, None), (5, None)), asyncio.all_tasks()
    waiting = asyncio.ensure_future(race.run())
    await asyncio.sleep(2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert race.stopped == ["first", "spare"]
    assert asyncio.all_tasks() == before


async def test_cancelling_lets_go_of_the_winner_too() -> None:
    """A caller that goes while the loser is being stopped leaves no result behind that nobody holds."""
    race = Race((5, None), (1, None), stopping_s=3)
    waiting = asyncio.ensure_future(race.run())
    await asyncio.sleep(4)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (race.stopped, race.discarded) == (["first"], ["spare"])


async def test_what_must_be_finished_is() -> None:
    """However often the caller is cancelled, the work is done before the cancellation goes on."""
    done = []

    async def work() -> None:
        await asyncio.sleep(3)
        done.append(asyncio.get_running_loop().time())

    waiting = asyncio.ensure_future(finish(work()))
    for _ in range(2):
        await asyncio.sleep(1)
        waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert done == [3]


async def test_what_is_finished_gives_its_result_or_its_error() -> None:
    """Uncancelled, it is as if it had been awaited."""

    async def work(failure: Exception | None) -> str:
        if failure is not None:
            raise failure
        return "done"

    assert await finish(work(None)) == "done"
    with pytest.raises(ValueError, match="no"):
        await finish(work(ValueError("no")))
