"""How far a long run of questions is: a bar on a terminal, else a line now and then."""

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import MofNCompleteColumn, TaskID
from rich.text import Text

from app.cli.render import clean, progress_bar
from app.cli.units import dollars
from app.evaluation.progress import Progress

_PLAIN_EVERY_S = 5.0


class AskingView:
    """Use as a context manager, and hand `show` to the run."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._tasks: dict[str, TaskID] = {}
        self._said_at: dict[str, float] = {}
        self._bar = progress_bar(console, MofNCompleteColumn())

    def __enter__(self) -> "AskingView":
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar.live.is_started:
            self._bar.stop()

    def show(self, progress: Progress) -> None:
        """The state of a step."""
        step = clean(progress.step)
        if self._console.is_terminal:
            self._draw(step, progress)
        elif self._is_news(step, progress):
            parts = f"{step}: {progress.done} of {progress.total}", _note(progress)
            self._console.print(Text(", ".join(filter(None, parts))))

    def _draw(self, step: str, progress: Progress) -> None:
        if step not in self._tasks:
            self._tasks[step] = self._bar.add_task(step, total=progress.total, completed=progress.done, note="")
        self._bar.update(self._tasks[step], completed=progress.done, note=_note(progress))

    def _is_news(self, step: str, progress: Progress) -> bool:
        """At the start, at the end, and now and then."""
        now = self._clock()
        ended = progress.done == progress.total
        if step in self._said_at and not ended and now - self._said_at[step] < _PLAIN_EVERY_S:
            return False
        self._said_at[step] = now
        return True


def _note(progress: Progress) -> str:
    failed = f"{progress.failed} failed" if progress.failed else ""
    usd = dollars(progress.usd) if progress.usd else ""
    return ", ".join(filter(None, (usd, failed)))
