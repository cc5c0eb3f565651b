"""Requests and tokens a minute."""

import anyio
import pytest

from app.access.keys import Key, KeyRequest, new_key
from app.access.rates import Bucket, Rates
from app.errors import RateLimited


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rates(clock: Clock) -> Rates:
    return Rates(clock)


def admit(rates: Rates, ours: Key) -> None:
    anyio.run(rates.admit, ours)


def key(name: str = "ci", requests: int | None = None, tokens: int | None = None) -> Key:
    request = KeyRequest(name=name, scopes=("search",), requests_per_minute=requests, tokens_per_minute=tokens)
    return new_key(request, (), 0.0)[0]


def test_a_bucket_refills_all_the_time() -> None:
    """To a minute's worth and no further."""
    bucket = Bucket(60, 0.0)
    bucket.take(60, 0.0)
    assert [bucket.level(at) for at in (0.5, 30.0, 600.0)] == [0.5, 30.0, 60.0]


def test_a_new_bucket_is_full() -> None:
    """Also for who looked at the clock before it was made."""
    bucket = Bucket(1, 10.0)
    assert bucket.seconds_until(1, 9.9) == 0
    assert bucket.level(10.0) == 1


def test_requests_beyond_the_rate_are_refused(rates: Rates, clock: Clock) -> None:
    """With the time of the next one, which then may come; a refused one is not counted."""
    ours = key(requests=6)
    for _ in range(6):
        admit(rates, ours)
    for _ in range(3):
        with pytest.raises(RateLimited, match="'ci' may use 6 requests a minute") as failure:
            admit(rates, ours)
        assert failure.value.retry_after == pytest.approx(10)
    clock.seconds = 10.0
    admit(rates, ours)
    with pytest.raises(RateLimited):
        admit(rates, ours)


def test_tokens_are_paid_afterwards(rates: Rates, clock: Clock) -> None:
    """A request begins while there are any, and the next waits until the debt has flowed back."""
    ours = key(tokens=600)
    admit(rates, ours)
    rates.spend(ours, 1200)
    with pytest.raises(RateLimited, match="600 tokens a minute") as failure:
        admit(rates, ours)
    assert failure.value.retry_after == pytest.approx(60.1)
    clock.seconds = 60.2
    admit(rates, ours)


def test_keys_do_not_share(rates: Rates) -> None:
    """Each has buckets of its own, and one without limits has none."""
    admit(rates, key("a", requests=1))
    admit(rates, key("b", requests=1))
    free = key("c")
    for _ in range(1000):
        admit(rates, free)
    assert rates.headers(free) == []


def test_the_headers_say_what_is_left(rates: Rates) -> None:
    """Of each limit: its quota a minute, what remains, and when it is full again; never less than nothing."""
    ours = key(requests=60, tokens=600)
    admit(rates, ours)
    rates.spend(ours, 900)
    assert rates.headers(ours) == [
        (b"ratelimit-policy", b'"requests";q=60;w=60, "tokens";q=600;w=60'),
        (b"ratelimit", b'"requests";r=59;t=1, "tokens";r=0;t=90'),
    ]
