"""Ctrl-C during long work that keeps what it has done."""

import asyncio
import os
import signal
from collections.abc import Coroutine
from threading import Timer
from typing import Any, TypeVar

from app.cli.terminal import err

T = TypeVar("T")

INTERRUPTED = 130
LET_END_S = 8.0
"""How long calls and connections may take to end."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run. At Ctrl-C the work is cancelled, and when it has ended in good order, the process ends.

    It waits for no thread, for none can be stopped: one that loads an embedding model would take its time. When the
    work takes longer than LET_END_S to end, and at a second Ctrl-C, the process ends as it is.
    """
    interrupted = False

    async def interruptible() -> T:
        task = asyncio.ensure_future(work)

        def interrupt() -> None:
            nonlocal interrupted
            if interrupted:
                _end()
            interrupted = True
            timer = Timer(LET_END_S, _end)
            timer.daemon = True
            timer.start()
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupt)
        try:
            return await task
        except asyncio.CancelledError:
            if interrupted:
                _end()
            raise

    return asyncio.run(interruptible())


def _end() -> None:
    err.print("interrupted")
    os._exit(INTERRUPTED)
