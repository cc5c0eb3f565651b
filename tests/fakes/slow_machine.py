"""A pytest plugin that lets clocks run faster, as if the machine were so many times slower: which tests hang on time?

`SLOWER=20 .venv/bin/python -m pytest -n0 -p tests.fakes.slow_machine PATHS`. A test of something else than a limit of
the service's own needs services that are `patient`; a test about time passes its own clock.
"""

import os
import selectors
import time
from collections.abc import Callable
from typing import Any

SLOWER = float(os.environ.get("SLOWER", "20"))


def faster(clock: Callable[[], float]) -> Callable[[], float]:
    """The clock from now on."""
    start = clock()
    return lambda: start + (clock() - start) * SLOWER


class Selector(selectors.DefaultSelector):
    """Waits by the faster clock."""

    def select(self, timeout: Any = None) -> Any:
        """At most `timeout` of its seconds."""
        return super().select(timeout / SLOWER if timeout else timeout)


sleep = time.sleep
time.monotonic, time.perf_counter = faster(time.monotonic), faster(time.perf_counter)
time.sleep = lambda seconds: sleep(seconds / SLOWER)
selectors.DefaultSelector = Selector  # type: ignore[misc]
