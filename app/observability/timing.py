"""Wall time by stage, in milliseconds."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class Stopwatch:
    """Starts when it is made. A stage that is entered more than once adds up; one that never ran is absent."""

    def __init__(self) -> None:
        self._started = perf_counter()
        self._stages: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what runs inside, also when it fails."""
        started = perf_counter()
        try:
            yield
        finally:
            self._stages[name] = self._stages.get(name, 0.0) + perf_counter() - started

    def mark(self, name: str) -> None:
        """Note the time since the start, the first time that this is called with this name."""
        self._stages.setdefault(name, perf_counter() - self._started)

    def timings_ms(self) -> dict[str, float]:
        """The stages in the order in which they first ran, then "total"; microseconds are the last digit."""
        seconds = self._stages | {"total": perf_counter() - self._started}
        return {name: round(1000 * value, 3) for name, value in seconds.items()}
