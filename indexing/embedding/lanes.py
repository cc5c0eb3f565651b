"""Who computes vectors when, and on how many cores: no lane waits behind another."""

import math
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from indexing.embedding.model import Lane

NICENESS: dict[Lane, int] = {"queries": 0, "sentences": 5, "texts": 5, "bulk": 10}
"""How far a lane's thread steps back while the processor is short. A query of nine words beside sentences and texts
without pause on two cores, p50 and p99 in ms: all alike 46 and 73, at these values 23 and 40; at 10 and more the
sentences hardly move."""

HALF: tuple[Lane, ...] = ("queries", "sentences")
"""Lanes that compute on half of the cores. An operation on all of them waits for its slowest part, often for one that
another lane has pushed aside: nine sentences beside queries run 11 to 18 times a second on one of two cores, 3 to 5
times on both. Alone a query takes 15 ms on one and 11 ms on both. "texts" does so beside others, and "bulk" never:
nobody waits for it."""

BESIDE_S = 1.0
"""So long after a lane was used, another one is taken to be beside it."""


class Cores:
    """How many threads a lane computes with, given who else computes."""

    def __init__(self, count: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._count, self._clock = count, clock
        self._running: Counter[Lane] = Counter()
        self._used_at: dict[Lane, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def used_by(self, lane: Lane) -> Iterator[int]:
        """The number of threads, for as long as the lane computes."""
        with self._lock:
            self._running[lane] += 1
            halved = lane in HALF or (lane == "texts" and self._is_beside_another(lane))
        try:
            yield max(1, self._count // 2) if halved else self._count
        finally:
            with self._lock:
                self._running[lane] -= 1
                self._used_at[lane] = self._clock()

    def _is_beside_another(self, lane: Lane) -> bool:
        since = self._clock() - BESIDE_S
        return any(
            other != lane and other != "bulk" and (self._running[other] or self._used_at.get(other, -math.inf) > since)
            for other in NICENESS
        )


def step_back(niceness: int) -> None:
    """Of the thread that calls this. Threads that it starts do so, too."""
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), own + niceness)
