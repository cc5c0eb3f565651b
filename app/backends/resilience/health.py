"""How a backend has been doing."""

import asyncio
from collections import deque
from statistics import median
from typing import Literal

import msgspec

from app.backends.resilience.breaker import BreakerState
from app.errors import UpstreamError, UpstreamRejected

HealthState = Literal["up", "down", "resting", "unknown"]

LATEST = 100


class LineStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A backend at this moment. Medians of the latest 100 calls that succeeded; None: there was none.

    "down": it could not be reached or did not take our key when last asked. "resting": it fails, and is left alone for
    `retry_after` seconds. "unknown": nobody has asked yet. `last_error` is the code of the latest failure, if nothing
    succeeded since.
    """

    health: HealthState
    breaker: BreakerState
    latency_ms: float | None
    first_token_ms: float | None
    in_flight: int
    waiting: int
    last_error: str | None
    retry_after: float | None


class Health:
    """Collects what calls and checks find out. `reachable` None: nothing yet.

    `news` is set when there is reason to look after the backend; whoever has looked clears it.
    """

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.reachable: bool | None = None
        self.last_error: str | None = None
        self._latencies: deque[float] = deque(maxlen=LATEST)
        self._first_tokens: deque[float] = deque(maxlen=LATEST)

    def served(self, seconds: float, first_token_s: float | None = None) -> None:
        """A call succeeded."""
        self._latencies.append(seconds)
        if first_token_s is not None:
            self._first_tokens.append(first_token_s)
        self.there()

    def there(self) -> None:
        """It answers."""
        if self.reachable is False:
            self.news.set()
        self.reachable, self.last_error = True, None

    def failed(self, failure: UpstreamError) -> None:
        """A call failed."""
        self.last_error = failure.code
        if isinstance(failure, UpstreamRejected):
            self.news.set()  # perhaps it is not the request: our key, or the model, may be no good any more

    def away(self, failure: UpstreamError) -> None:
        """A check failed."""
        self.reachable, self.last_error = False, failure.code

    @property
    def latency_ms(self) -> float | None:
        """The median."""
        return _median_ms(self._latencies)

    @property
    def first_token_ms(self) -> float | None:
        """The median of the streams'."""
        return _median_ms(self._first_tokens)


def _median_ms(seconds: deque[float]) -> float | None:
    return round(1000 * median(seconds), 1) if seconds else None
