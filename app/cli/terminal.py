"""The terminal: its width and colours, units for people, and Ctrl-C."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from threading import Timer
from typing import Any, TypeVar

import msgspec
from rich.console import Console

from app.config.settings import Settings, load_settings

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)


def settings_here() -> Settings:
    """Of this directory and environment. Raises ConfigError."""
    return load_settings(os.environ, Path.cwd())


def print_json(value: Any) -> None:
    """Indented."""
    write(msgspec.json.format(msgspec.json.encode(value), indent=2))


def write(line: bytes) -> None:
    """JSON is UTF-8, whatever the terminal is."""
    sys.stdout.flush()
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


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


_SIZES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)([kmbt]?)", re.IGNORECASE)


def read_tokens(text: str) -> int:
    """10M, 1.5B, 250k, 1_000 or 1,000. Raises ValueError."""
    match = _NUMBER.fullmatch(text.strip().replace("_", "").replace(",", ""))
    if match is None:
        raise ValueError(f"{text!r} is no number of tokens; write 250k, 10M or 1.5B")
    return round(float(match[1]) * _SIZES[match[2].lower()])


def short(count: float) -> str:
    """1234567 as 1.23M: three digits, and an ending that `read_tokens` takes."""
    for ending, size in reversed(_SIZES.items()):
        if count >= size * 0.9995 and size > 1:
            return f"{_three(count / size)}{ending.upper() if ending != 'k' else ending}"
    return _three(count)


def dollars(usd: float) -> str:
    """Cents from a dollar on, none from a million on; below a dollar as many digits as say something."""
    if usd >= 1e6:
        return f"${short(usd)}"
    return f"${usd:,.2f}" if usd >= 1 or usd == 0 else f"${usd:.4f}" if usd >= 0.0001 else f"${usd:.1e}"


def _three(number: float) -> str:
    return f"{number:.0f}" if number >= 99.95 else f"{number:.3g}"
