"""Leaves a backend alone that fails again and again, and lets one call find out whether it has recovered."""

from collections.abc import Callable
from typing import Literal

from app.backends.call_context import Clock, loop_time
from app.config.backends import RoutingSettings
from app.errors import Resting, UpstreamError, UpstreamRateLimited

BreakerState = Literal["closed", "open", "half_open"]

LONGEST_TOLD_S = 900.0
"""However long a server wants to be left alone, and however spent the quota of the day: ask again after this."""

TRIAL_S = 1.0
"""When to come back while a trial is under way."""


class Permit:
    """The right to one attempt; exactly one of its methods is called at the end."""

    def __init__(self, breaker: "Breaker", era: int) -> None:
        self._breaker, self._era = breaker, era

    def succeeded(self) -> None:
        """The backend answered."""
        self._breaker.noted(self._era, None)

    def failed(self, failure: UpstreamError) -> None:
        """The backend is at fault."""
        self._breaker.noted(self._era, failure)

    def dropped(self) -> None:
        """Nothing was learnt."""
        self._breaker.dropped(self._era)


class Breaker:
    """Closed, until `failures` in a row open it for `rest_s`; then half open: one trial closes it or opens it longer.

    A server that says when to come back is believed, up to LONGEST_TOLD_S. What a call finds out that began before the
    state last changed does not count any more. `on_change` is called when it opens and when it closes.
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
            raise Resting(self._name, f"{self._name} failed repeatedly and is left alone for a while", rest_s)

    def admit(self) -> Permit:
        """Let an attempt through. Raises Resting."""
        self.check()
        self._on_trial = self._until is not None
        return Permit(self, self._era)

    def close(self) -> None:
        """It has recovered."""
        was_closed = self._until is None
        self._failures = self._rests = 0
        self._until = None
        if not was_closed:
            self._changed()

    def noted(self, era: int, failure: UpstreamError | None) -> None:
        """What an attempt of that era found out."""
        if era != self._era:
            return
        if failure is None:
            self.close()
            return
        self._failures += 1
        if self._on_trial or self._failures >= self._settings.failures or _spent_for_today(failure):
            self._open(failure)

    def dropped(self, era: int) -> None:
        """An attempt of that era found out nothing; if it was the trial, the next one is."""
        if era == self._era:
            self._on_trial = False

    def _open(self, failure: UpstreamError) -> None:
        own_s = min(self._settings.rest_s * 2**self._rests, self._settings.longest_rest_s)
        told_s = failure.retry_after or (LONGEST_TOLD_S if _spent_for_today(failure) else 0.0)
        self._until = self._clock() + max(own_s, min(told_s, LONGEST_TOLD_S))
        self._rests = min(self._rests + 1, 30)
        self._failures = 0
        self._changed()

    def _changed(self) -> None:
        self._era += 1
        self._on_trial = False
        self._on_change()


def _spent_for_today(failure: UpstreamError) -> bool:
    return isinstance(failure, UpstreamRateLimited) and failure.quota == "day"
