"""Wall time by stage, in milliseconds."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class Stopwatch:
    """Starts when it is created. The times of a stage that runs several times are added up."""

    def __init__(self) -> None:
        self._started = perf_counter()
        self._stages: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body, also if it raises."""
        started = perf_counter()
        try:
            yield
        finally:
            self._stages[name] = self._stages.get(name, 0.0) + perf_counter() - started

    def mark(self, name: str) -> None:
        """Record the time since the start, on the first call with this name."""
        self._stages.setdefault(name, perf_counter() - self._started)

    def timings_ms(self) -> dict[str, float]:
        """The stages in the order in which they first ran, then "total"; microseconds are the last digit."""
        seconds = self._stages | {"total": perf_counter() - self._started}
        return {name: round(1000 * value, 3) for name, value in seconds.items()}
