"""Leaving a failing backend alone."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backends.resilience.breaker import MAX_REST_S, Breaker, Permit
from app.backends.settings import RoutingSettings
from app.errors import Resting, UpstreamRateLimited, UpstreamUnavailable

ROUTING = RoutingSettings(failures=3, rest_s=5, longest_rest_s=20)

DOWN = UpstreamUnavailable("gemma", "gemma is down")


class Bench:
    """A breaker, and a clock to set."""

    def __init__(self) -> None:
        self.now = 0.0
        self.changes = 0
        self.breaker = Breaker("gemma", ROUTING, lambda: self.now, self._changed)

    def fail(self, times: int = 1, failure: UpstreamUnavailable | UpstreamRateLimited = DOWN) -> None:
        """So many attempts fail."""
        for _ in range(times):
            self.breaker.admit().failed(failure)

    def _changed(self) -> None:
        self.changes += 1


def test_it_opens_after_failures_in_a_row() -> None:
    """Three failures in a row open it, and callers learn how long it rests."""
    bench = Bench()
    bench.fail(2)
    bench.breaker.admit().succeeded()
    bench.fail(2)
    assert bench.breaker.state == "closed"
    bench.fail()
    assert bench.breaker.state == "open"
    with pytest.raises(Resting) as resting:
        bench.breaker.admit()
    assert resting.value.retry_after == 5


def test_of_many_at_once_the_quick_failures_are_not_all() -> None:
    """Those that fail may end before the first success: five of fifty do not open it, but a third in a row do."""
    bench = Bench()
    permits = [bench.breaker.admit() for _ in range(50)]
    for permit in permits[:5]:
        permit.failed(DOWN)
    assert bench.breaker.state == "closed"
    for permit in permits[5:17]:
        permit.failed(DOWN)
    assert bench.breaker.state == "open"


def test_one_trial_at_a_time() -> None:
    """After the rest one attempt is let through, and no other until it has ended."""
    bench = Bench()
    bench.fail(3)
    bench.now = 5
    assert bench.breaker.state == "half_open"
    trial = bench.breaker.admit()
    with pytest.raises(Resting):
        bench.breaker.admit()
    trial.dropped()
    bench.breaker.admit().succeeded()
    assert bench.breaker.state == "closed"


def test_each_failed_trial_doubles_the_rest() -> None:
    """The rests are 5, 10, 20, 20 seconds; a success starts anew."""
    bench, rests = Bench(), list[float]()
    bench.fail(3)
    for _ in range(4):
        rests.append(bench.breaker.rest_s)
        bench.now += bench.breaker.rest_s
        bench.fail()
    assert rests == [5, 10, 20, 20]
    bench.now += bench.breaker.rest_s
    bench.breaker.admit().succeeded()
    bench.fail(3)
    assert bench.breaker.rest_s == 5


def test_a_server_that_names_a_time_is_believed() -> None:
    """The rest is as long as the server wants, but at most a quarter of an hour."""
    bench = Bench()
    bench.fail(3, UpstreamRateLimited("gemma", "too many", 42.0))
    assert bench.breaker.rest_s == 42
    bench.now = 42
    bench.fail(1, UpstreamRateLimited("gemma", "too many", 86_400.0))
    assert bench.breaker.rest_s == MAX_REST_S


@pytest.mark.parametrize(("told", "rest_s"), [(None, MAX_REST_S), (30.0, 30.0), (40_000.0, MAX_REST_S)])
def test_a_spent_day_opens_it_at_once(told: float | None, rest_s: float) -> None:
    """One failure that says that the quota of the day is spent is enough."""
    bench = Bench()
    bench.fail(1, UpstreamRateLimited("gemma", "spent", told, quota="day"))
    assert (bench.breaker.state, bench.breaker.rest_s) == ("open", rest_s)


def test_what_began_earlier_does_not_count() -> None:
    """Neither a late success nor a late failure of an attempt from before the rest changes anything."""
    bench = Bench()
    late_success, late_failure = bench.breaker.admit(), bench.breaker.admit()
    bench.fail(3)
    late_success.succeeded()
    assert bench.breaker.state == "open"
    bench.now = 5
    trial = bench.breaker.admit()
    late_failure.failed(DOWN)
    assert bench.breaker.state == "half_open"
    trial.succeeded()
    assert bench.breaker.state == "closed"


def test_every_change_is_told() -> None:
    """Opening and closing are told once each, a success while it is closed is not."""
    bench = Bench()
    bench.breaker.admit().succeeded()
    bench.fail(3)
    assert bench.changes == 1
    bench.breaker.close()
    bench.breaker.close()
    assert (bench.changes, bench.breaker.state) == (2, "closed")


@given(st.lists(st.sampled_from(("ask", "ok", "fail", "drop", "wait")), max_size=60))
def test_it_never_locks_up(steps: list[str]) -> None:
    """Whatever happens, when all attempts have ended and the rest is over, an attempt is let through."""
    bench, out = Bench(), list[Permit]()
    for step in steps:
        if step == "wait":
            bench.now += 3
        elif step == "ask":
            assert 0 <= bench.breaker.rest_s <= ROUTING.longest_rest_s
            with suppress(Resting):
                out.append(bench.breaker.admit())
        elif out:
            permit = out.pop(0)
            {"ok": permit.succeeded, "drop": permit.dropped, "fail": lambda p=permit: p.failed(DOWN)}[step]()
    for permit in out:
        permit.dropped()
    bench.now += ROUTING.longest_rest_s
    bench.breaker.admit().succeeded()
    assert bench.breaker.state == "closed"
