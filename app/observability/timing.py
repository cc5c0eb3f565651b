"""Wall time by stage, in milliseconds, and who else hears of the stages of a request."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter
from typing import Protocol

from app.observability.tracing import Attributes, Texts, part


class Observer(Protocol):
    """Hears what a request goes through, while it does."""

    def stage(self, name: str, seconds: float) -> None:
        """A stage has ended, or failed."""

    def degraded(self, stage: str) -> None:
        """A stage did less than it was asked to, and the response says so."""


OBSERVER: ContextVar[Observer | None] = ContextVar("observer", default=None)
"""Of the request that this task works on. Nobody hears of what is done on the command line."""


class Stopwatch:
    """Starts when it is created. The times of a stage that runs several times are added up."""

    def __init__(self) -> None:
        self._started = perf_counter()
        self._stages: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, attributes: Attributes = {}, texts: Texts | None = None) -> Iterator[None]:  # noqa: B006
        """Time the body, also if it raises. `attributes` and `texts` are for its span, if there is one."""
        started = perf_counter()
        try:
            with part(name, attributes, texts):
                yield
        finally:
            seconds = perf_counter() - started
            self._stages[name] = self._stages.get(name, 0.0) + seconds
            if (observer := OBSERVER.get()) is not None:
                observer.stage(name, seconds)

    def mark(self, name: str) -> None:
        """Record the time since the start, on the first call with this name."""
        if name not in self._stages:
            seconds = self._stages[name] = perf_counter() - self._started
            if (observer := OBSERVER.get()) is not None:
                observer.stage(name, seconds)

    def degraded(self, stage: str, notes: Collection[str]) -> None:
        """Tell that the stage did less than it was asked to, if there are `notes` that say so."""
        if notes and (observer := OBSERVER.get()) is not None:
            observer.degraded(stage)

    def timings_ms(self) -> dict[str, float]:
        """The stages in the order in which they first ran, then "total"; microseconds are the last digit."""
        seconds = self._stages | {"total": perf_counter() - self._started}
        return {name: round(1000 * value, 3) for name, value in seconds.items()}
