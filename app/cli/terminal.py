"""The terminal: output, numbers as people write them, and Ctrl-C."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any, TypeVar

import msgspec
from rich.console import Console

from app.config.settings import Settings, misspelt_variables
from app.config.validation import load_settings

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)


def current_settings() -> Settings:
    """The settings of the working directory and the environment, with a warning of each variable that was probably
    misspelt. Raises ConfigError.
    """
    for sentence in misspelt_variables(os.environ):
        err.print(f"winnow: {sentence}", style="yellow", markup=False, highlight=False)
    return load_settings(os.environ, Path.cwd())


def print_json(value: Any) -> None:
    """Print indented JSON on standard output."""
    write(msgspec.json.format(msgspec.json.encode(value), indent=2))


def write(line: bytes) -> None:
    """Print a line of JSON: always UTF-8, whatever the encoding of the terminal."""
    sys.stdout.flush()
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


T = TypeVar("T")

_SIGNALLED = 128
INTERRUPTED = _SIGNALLED + signal.SIGINT
GRACE_S = 8.0
"""How long calls and connections may take to end after Ctrl-C."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Like asyncio.run, but at Ctrl-C or SIGTERM cancel the work, let it end in good order, and end the process.

    Threads are not waited for, since none can be stopped: one that loads an embedding model takes many seconds. If the
    work takes longer than GRACE_S to end, or at a second signal, the process ends at once.
    """
    interrupted: signal.Signals | None = None

    async def interruptible() -> T:
        task = asyncio.ensure_future(work)

        def interrupt(by: signal.Signals) -> None:
            nonlocal interrupted
            if interrupted:
                _end(by)
            interrupted = by
            timer = Timer(GRACE_S, _end, (by,))
            timer.daemon = True
            timer.start()
            task.cancel()

        for one in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(one, interrupt, one)
        try:
            return await task
        except asyncio.CancelledError:
            if interrupted:
                _end(interrupted)
            raise

    return asyncio.run(interruptible())


@contextmanager
def ending_on_interrupt(clear: Callable[[], None], note: str = "") -> Iterator[None]:
    """Ctrl-C clears the terminal and ends the process at once.

    It does not wait for the batch that a thread is embedding: the index survives being killed at any moment.
    """

    def end(*_: object) -> None:
        clear()
        err.print(f"interrupted{note}", highlight=False)
        os._exit(INTERRUPTED)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(by: signal.Signals) -> None:
    err.print("interrupted")
    os._exit(_SIGNALLED + by)


_SIZES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)([kmbt]?)", re.IGNORECASE)


def read_tokens(text: str) -> int:
    """Parse a number of tokens: 10M, 1.5B, 250k, 1_000 or 1,000. Raises ValueError."""
    match = _NUMBER.fullmatch(text.strip().replace("_", "").replace(",", ""))
    if match is None:
        raise ValueError(f"{text!r} is not a number of tokens; write 250k, 10M or 1.5B")
    return round(float(match[1]) * _SIZES[match[2].lower()])


def short(count: float) -> str:
    """1234567 as 1.23M: three significant digits and a suffix that `read_tokens` accepts."""
    for suffix, size in reversed(_SIZES.items()):
        if count >= size * 0.9995 and size > 1:
            return f"{_three(count / size)}{suffix.upper() if suffix != 'k' else suffix}"
    return _three(count)


def size(count: int) -> str:
    """A number of bytes: 980 B, 3.13 kB, 549 kB, 2.5 GB."""
    for unit, bytes_each in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= bytes_each * 0.9995:
            return f"{_three(count / bytes_each)} {unit}"
    return f"{count} B"


def counted(count: int, noun: str) -> str:
    """1 document, 2 documents, 1,200 documents."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def dollars(usd: float) -> str:
    """A price with the digits that matter: $1.5M, $12.30, $0.0042, $2.5e-08."""
    if usd >= 1e6:
        return f"${short(usd)}"
    return f"${usd:,.2f}" if usd >= 1 or usd == 0 else f"${usd:.4f}" if usd >= 0.0001 else f"${usd:.1e}"


def _three(number: float) -> str:
    return f"{number:.0f}" if number >= 99.95 else f"{number:.3g}"
