"""A circuit breaker per backend, and what is known of its health."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from statistics import median
from typing import Literal

import msgspec

from app.backends.attempt import Outcome, Release, Terms
from app.backends.base import Clock, loop_time
from app.backends.settings import RoutingSettings
from app.errors import Resting, UpstreamError, UpstreamRateLimited, UpstreamRejected

BreakerState = Literal["closed", "open", "half_open"]

MAX_REST_S = 900.0
"""The longest rest, whatever the server asks for and even when the daily quota is spent."""

TRIAL_S = 1.0
"""When to come back while a trial is under way."""


class Permit:
    """The right to one attempt; exactly one of its methods is called at the end."""

    def __init__(self, breaker: "Breaker", era: int) -> None:
        self._breaker, self._era = breaker, era

    def release(self, outcome: Outcome | None) -> None:
        """See `app.backends.attempt.Release`. A backend that refuses is well; a call that we stopped tells nothing."""
        failure = outcome.failure if outcome else asyncio.CancelledError()
        if failure is not None and not isinstance(failure, UpstreamError):
            self.dropped()
        elif failure is not None and failure.retryable:
            self.failed(failure)
        else:
            self.succeeded()

    def succeeded(self) -> None:
        """The backend answered."""
        self._breaker.noted(self._era, None)

    def failed(self, failure: UpstreamError) -> None:
        """The backend is at fault."""
        self._breaker.noted(self._era, failure)

    def dropped(self) -> None:
        """Nothing was learnt about the backend."""
        self._breaker.dropped(self._era)


class Breaker:
    """Closed, until `failures` in a row open it for `rest_s`; then half open: one trial closes it or opens it longer.

    Of many calls at once those that fail often end first: the failures in a row must also be half as many as the calls
    that are under way. A server that says when to come back is believed, up to MAX_REST_S. The result of a call that
    began before the state last changed does not count. `on_change` is called when it opens and when it closes.
    """

    def __init__(
        self,
        name: str,
        settings: RoutingSettings,
        clock: Clock = loop_time,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._name, self._settings, self._clock, self._on_change = name, settings, clock, on_change
        self._failures = 0
        self._under_way = 0
        self._rests = 0
        self._until: float | None = None
        self._on_trial = False
        self._era = 0

    @property
    def state(self) -> BreakerState:
        """Half open as soon as the rest is over."""
        if self._until is None:
            return "closed"
        return "open" if self._clock() < self._until else "half_open"

    @property
    def rest_s(self) -> float:
        """Seconds until an attempt is let through; 0 when one would be now."""
        if self._until is None:
            return 0.0
        return max(self._until - self._clock(), TRIAL_S if self._on_trial else 0.0)

    def check(self) -> None:
        """Raises Resting when no attempt would be let through now."""
        if (rest_s := self.rest_s) > 0:
            raise Resting(self._name, f"{self._name} failed repeatedly; no calls are sent to it for a while", rest_s)

    async def guard(self, terms: Terms) -> Release:
        """Let an attempt through. Raises Resting. A trial gets no company: a spare one needs a closed breaker."""
        if terms.spare and self.state != "closed":
            raise Resting(self._name, f"{self._name} is on trial", self.rest_s)
        return self.admit().release

    def admit(self) -> Permit:
        """Let an attempt through. Raises Resting."""
        self.check()
        self._on_trial = self._until is not None
        self._under_way += 1
        return Permit(self, self._era)

    def close(self) -> None:
        """The backend has recovered."""
        was_closed = self._until is None
        self._failures = self._rests = 0
        self._until = None
        if not was_closed:
            self._changed()

    def noted(self, era: int, failure: UpstreamError | None) -> None:
        """Note the result of an attempt that began in that era."""
        self._under_way -= 1
        if era != self._era:
            return
        if failure is None:
            self.close()
            return
        self._failures += 1
        in_a_row = self._failures >= self._settings.failures and 2 * self._failures >= self._under_way
        if self._on_trial or in_a_row or _spent_for_today(failure):
            self._open(failure)

    def dropped(self, era: int) -> None:
        """An attempt of that era found out nothing; if it was the trial, the next one is."""
        self._under_way -= 1
        if era == self._era:
            self._on_trial = False

    def _open(self, failure: UpstreamError) -> None:
        own_s = min(self._settings.rest_s * 2**self._rests, self._settings.longest_rest_s)
        asked_s = failure.retry_after or (MAX_REST_S if _spent_for_today(failure) else 0.0)
        self._until = self._clock() + max(own_s, min(asked_s, MAX_REST_S))
        self._rests = min(self._rests + 1, 30)
        self._failures = 0
        self._changed()

    def _changed(self) -> None:
        self._era += 1
        self._on_trial = False
        self._on_change()


def _spent_for_today(failure: UpstreamError) -> bool:
    return isinstance(failure, UpstreamRateLimited) and failure.quota == "day"


HealthState = Literal["up", "down", "resting", "unknown"]

LATEST = 100


class ClientStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A backend at this moment. Medians of the latest 100 calls that succeeded; None: there was none.

    "down": it could not be reached or did not accept the key when last checked. "resting": it failed, and gets no calls
    for `retry_after` seconds. "unknown": not checked yet. `last_error` is the code of the latest failure, if nothing
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

    `news` is set when there is reason to check the backend; whoever has checked clears it.
    """

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.reachable: bool | None = None
        self.last_error: str | None = None
        self.latencies: deque[float] = deque(maxlen=LATEST)
        """Seconds of the latest calls that succeeded."""
        self.first_tokens: deque[float] = deque(maxlen=LATEST)
        """Likewise, until the first token of streams."""

    async def guard(self, terms: Terms) -> Release:
        """Every attempt may begin; how it ends is noted."""
        return self.release

    def release(self, outcome: Outcome | None) -> None:
        """See `app.backends.attempt.Release`."""
        if outcome is None:
            return
        if outcome.failure is None:
            self.served(outcome.seconds, outcome.first_token_s)
        elif isinstance(outcome.failure, UpstreamError):
            self.failed(outcome.failure)

    def served(self, seconds: float, first_token_s: float | None = None) -> None:
        """A call succeeded."""
        self.latencies.append(seconds)
        if first_token_s is not None:
            self.first_tokens.append(first_token_s)
        self.there()

    def there(self) -> None:
        """The backend answers."""
        if self.reachable is False:
            self.news.set()
        self.reachable, self.last_error = True, None

    def failed(self, failure: UpstreamError) -> None:
        """A call failed."""
        self.last_error = failure.code
        if isinstance(failure, UpstreamRejected):
            self.news.set()  # perhaps not the request's fault: the key or the model may no longer be valid

    def away(self, failure: UpstreamError) -> None:
        """A check failed."""
        self.reachable, self.last_error = False, failure.code

    def suspect(self, failure: UpstreamError) -> None:
        """A call failed as if nobody were there: it counts as down until a check finds otherwise."""
        self.away(failure)
        self.news.set()


def median_ms(seconds: Iterable[float]) -> float | None:
    """Of durations in seconds; None: there are none."""
    latest = list(seconds)
    return round(1000 * median(latest), 1) if latest else None
