"""An event loop in which waiting takes no time: when nothing can happen any more, its clock jumps to the next timer."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready now; if nothing is, the time that would have been waited has passed."""
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everyone waits for something that nobody will ever do")
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 0. A hang is an error at once, not a test that never ends."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Seconds, as far as they have been slept through."""
        return self._jumping.now


class SkippingLoop(asyncio.SelectorEventLoop):
    """Real time, for tests with sockets, until a test skips some of it: a deadline passes when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self._skipped = 0.0

    def time(self) -> float:
        """Seconds, those that were skipped included."""
        return super().time() + self._skipped

    def skip(self, seconds: float) -> None:
        """Let this time pass at once."""
        self._skipped += seconds


SKIPPING_TIME = ("asyncio", {"loop_factory": SkippingLoop})
"""As VIRTUAL_TIME."""

VIRTUAL_TIME = ("asyncio", {"loop_factory": VirtualTimeLoop})
"""What the fixture `anyio_backend` returns in a module whose tests run in virtual time."""


def run(test: Coroutine[Any, Any, T]) -> T:
    """Run `test` in a loop of its own; it must leave no task behind."""

    async def checked() -> T:
        result = await test
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"still running: {left}"
        return result

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(checked())
