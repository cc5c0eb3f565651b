"""What requests need is opened before the first one comes, and asked from then on whether it is there."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog

from app.errors import WinnowError
from app.services.repairs import Repairs
from app.text.languages import prepare as prepare_languages
from indexing.concurrency import pauses
from indexing.disk import DiskGuard

PROBE_S = 2.0
"""How long a readiness probe waits for a dependency."""

GRACE_S = 10.0
"""For so long the probes of a dependency that was ready must fail, all of them, until it counts as not ready: a
balancer that takes the service out for one slow answer, and puts it back with the next, sends its load to and fro."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Before what failed at the start is tried again: first, and after many times."""

log = structlog.get_logger()


class Dependency(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the service cannot do without. `detail` says what is wrong and the fix; "" if nothing is.

    One that was ready stays so for GRACE_S while its probes fail, and `detail` says that they do.
    """

    name: str
    ready: bool
    detail: str = ""


async def nothing_to_do() -> None:
    """Of a server's collections: it builds their graphs itself."""


class WarmUp:
    """Opens what requests need before the first one comes, and says what of it is ready."""

    def __init__(
        self,
        needs: Mapping[str, Callable[[], Awaitable[object]]],
        finish_unfinished: Callable[[], Awaitable[None]],
        index_samples: Callable[[Path], Awaitable[None]],
        disk: DiskGuard,
        faults: Callable[[], Awaitable[list[str]]],
        repairs: Repairs,
        retry_s: float = FIRST_PAUSE_S,
        clock: Callable[[], float] = time.monotonic,
        build_graphs: Callable[[], Awaitable[None]] = nothing_to_do,
    ) -> None:
        self._clock = clock
        self._build_graphs = build_graphs
        self._failing_since: dict[str, float | None] = {}
        """Of those that are ready, or still count as ready."""
        self._needs = needs
        self._retry_s = retry_s
        self._finish_unfinished = finish_unfinished
        self._disk = disk
        self._faults = faults
        self._repairs = repairs
        self._repair_warnings: list[str] = []
        self._index_samples = index_samples
        self._samples: Path | None = None
        self._task: asyncio.Task[None] | None = None
        self.done = asyncio.Event()
        """Set when each dependency has been opened and loaded, or has failed."""

    def start(self, samples: Path | None) -> None:
        """Begin, without waiting."""
        self._samples = samples
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop what is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def is_ready(self) -> bool:
        """Whether requests can be served."""
        return all(dependency.ready for dependency in await self.readiness())

    async def readiness(self, timeout_s: float | None = PROBE_S) -> list[Dependency]:
        """Try each dependency. One that needs longer than `timeout_s` has failed its probe; see GRACE_S."""
        probed = await asyncio.gather(*(_try(name, need, timeout_s) for name, need in self._needs.items()))
        tried = [self._steadied(dependency) for dependency in probed]
        if self._samples is not None:
            tried.append(Dependency(name="samples", ready=False, detail="the sample documents are being indexed"))
        return tried

    def _steadied(self, probed: Dependency) -> Dependency:
        name, now = probed.name, self._clock()
        if probed.ready:
            self._failing_since[name] = None
            return probed
        if name not in self._failing_since:
            return probed
        since = self._failing_since[name]
        if since is None:
            since = self._failing_since[name] = now
        if now - since >= GRACE_S:
            del self._failing_since[name]
            return probed
        detail = f"{probed.detail} (for {now - since:.0f} s; it counts as not ready after {GRACE_S:.0f} s)"
        return Dependency(name=name, ready=True, detail=detail)

    async def warnings(self) -> list[str]:
        """What needs somebody's attention although requests are served, with the way out."""
        disk = await asyncio.to_thread(self._disk.warning)
        with suppress(TimeoutError, WinnowError):  # `readiness` says so
            async with asyncio.timeout(PROBE_S):
                self._repair_warnings = await self._repairs.warnings()
        return [*filter(None, [disk]), *await self._faults(), *self._repair_warnings]

    async def _run(self) -> None:
        """All side by side, each logged when ready: one that fails does not hold up the others."""
        needs = (*self._needs.items(), ("languages", lambda: asyncio.to_thread(prepare_languages)))
        await asyncio.gather(*(_try_and_log(name, need) for name, need in needs))
        self.done.set()
        repairs = {"manifest": self._repairs.check, "unfinished documents": self._finish_unfinished}
        left = {name: repair for name, repair in repairs.items() if not await _try_and_log(name, repair, "checked")}
        await self._index_given_samples()
        await asyncio.gather(self._repair_at_last(left), _try_and_log("graphs", self._build_graphs, "checked"))

    async def _repair_at_last(self, left: Mapping[str, Callable[[], Awaitable[object]]]) -> None:
        for pause in pauses(self._retry_s, LONGEST_PAUSE_S):
            if not left:
                return
            await asyncio.sleep(pause)  # a full disk or a store that is away: that may pass
            left = {
                name: repair
                for name, repair in left.items()
                if not await _try_and_log(name, repair, "checked", again=True)
            }

    async def _index_given_samples(self) -> None:
        if self._samples is None:
            return
        try:
            await self._index_samples(self._samples)
        except WinnowError as exc:
            log.error("the samples were not indexed", detail=str(exc))
        finally:
            self._samples = None


async def _try(name: str, attempt: Callable[[], Awaitable[object]], timeout_s: float | None) -> Dependency:
    try:
        async with asyncio.timeout(timeout_s):
            await attempt()
    except TimeoutError:
        return Dependency(name=name, ready=False, detail="still starting, or not answering")
    except WinnowError as exc:
        return Dependency(name=name, ready=False, detail=str(exc))
    return Dependency(name=name, ready=True)


async def _try_and_log(
    name: str, attempt: Callable[[], Awaitable[object]], event: str = "ready", *, again: bool = False
) -> bool:
    """As `_try`, for the log, which has the `event`, or a failure once; false where it may help to try `again`. A
    programming error is logged, too, and goes no further.
    """
    try:
        dependency = await _try(name, attempt, timeout_s=None)
    except Exception:
        log.exception(f"not {event}", dependency=name)
        return True
    if dependency.ready:
        log.info(event, dependency=name)
    elif not again:
        log.error(f"not {event}", dependency=name, detail=dependency.detail)
    return dependency.ready
