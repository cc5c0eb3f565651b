"""What counts as ready, and what is tried again after the start."""

import asyncio
from pathlib import Path

import pytest

from app.services.repairs import Repairs
from app.services.warm_up import WarmUp
from indexing.disk import DiskGuard
from indexing.errors import DiskFull, StoreUnavailable
from indexing.pipeline.context import PipelineContext

pytestmark = pytest.mark.anyio


async def test_what_an_earlier_run_left_is_finished_as_soon_as_it_can_be(tmp_path: Path) -> None:
    """A store that is away, or a full disk, puts it off and no more."""
    outcomes = iter([StoreUnavailable("away"), DiskFull("full"), None])
    finished = asyncio.Event()

    async def finish() -> None:
        if failure := next(outcomes):
            raise failure
        finished.set()

    async def nothing(*_: object) -> list[str]:
        return []

    async def no_context() -> PipelineContext:
        raise StoreUnavailable("away")

    disk = DiskGuard(tmp_path, 0)
    warm_up = WarmUp({}, finish, nothing, disk, nothing, Repairs(no_context), retry_s=0.01)
    warm_up.start(None)
    async with asyncio.timeout(30):
        await finished.wait()
    await warm_up.close()


class Probed:
    """A dependency whose probes fail while it is away, and the clock of who asks."""

    def __init__(self, tmp_path: Path) -> None:
        self.now, self.away = 100.0, False

        async def nothing(*_: object) -> list[str]:
            return []

        async def no_context() -> PipelineContext:
            raise StoreUnavailable("away")

        needs = {"store": self._probe}
        disk = DiskGuard(tmp_path, 0)
        self._warm_up = WarmUp(needs, nothing, nothing, disk, nothing, Repairs(no_context), clock=lambda: self.now)

    async def ready(self, after_s: float, *, away: bool) -> bool:
        """Whether it counts as ready, so much later."""
        self.now += after_s
        self.away = away
        [self.dependency] = await self._warm_up.readiness()
        return self.dependency.ready

    async def _probe(self) -> None:
        if self.away:
            raise StoreUnavailable("it is away")


async def test_a_single_slow_probe_makes_nothing_unready(tmp_path: Path) -> None:
    """However long nobody had asked before; the detail says what is going on."""
    probed = Probed(tmp_path)
    assert await probed.ready(0, away=False)
    assert await probed.ready(3600, away=True)
    assert "it is away (for 0 s; it counts as not ready after 10 s)" in probed.dependency.detail
    assert await probed.ready(1, away=False)
    assert probed.dependency.detail == ""


async def test_what_stays_away_is_not_ready_until_it_is_back(tmp_path: Path) -> None:
    """After ten seconds of failures without a success among them; the first success ends it."""
    probed = Probed(tmp_path)
    assert [await probed.ready(1, away=away) for away in (False, True, True)] == [True, True, True]
    assert not await probed.ready(9, away=True)
    assert not await probed.ready(1, away=True)
    assert await probed.ready(1, away=False)


async def test_readiness_does_not_flap(tmp_path: Path) -> None:
    """A dependency that answers every other probe stays ready."""
    probed = Probed(tmp_path)
    assert all([await probed.ready(3, away=bool(number % 2)) for number in range(40)])


async def test_what_was_never_ready_has_no_grace(tmp_path: Path) -> None:
    """A service that starts is not ready before it is."""
    assert not await Probed(tmp_path).ready(0, away=True)
