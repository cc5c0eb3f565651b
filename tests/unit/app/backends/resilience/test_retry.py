"""When a failed attempt is worth another."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backends.resilience.retry import FIRST_S, JITTER_S, MAX_S, pause_s, repeatable
from app.errors import (
    Refused,
    Resting,
    UpstreamBadReply,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)


@given(number=st.integers(0, 100), seed=st.integers())
def test_pauses_grow_within_bounds(number: int, seed: int) -> None:
    """An untold pause is between nothing and a quarter of a second doubled each time, eight seconds at most."""
    pause = pause_s(UpstreamTimeout("gemma", "slow"), number, Random(seed))
    assert 0 <= pause <= min(FIRST_S * 2**number, MAX_S)


@given(told=st.floats(0, 1e6), number=st.integers(0, 10), seed=st.integers())
def test_the_servers_word_is_kept(told: float, number: int, seed: int) -> None:
    """A pause that the server named is never shortened, and hardly lengthened."""
    pause = pause_s(UpstreamRateLimited("gemma", "too many", told), number, Random(seed))
    assert told <= pause <= told + JITTER_S


def test_pauses_use_their_whole_range() -> None:
    """Full jitter: callers that failed together come back spread over all of the time."""
    random = Random(1)
    pauses = [pause_s(UpstreamTimeout("gemma", "slow"), 4, random) for _ in range(1000)]
    assert min(pauses) < 0.1
    assert max(pauses) > 3.9


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (UpstreamTimeout("s", ""), True),
        (UpstreamUnavailable("s", ""), True),
        (UpstreamBadReply("s", ""), True),
        (UpstreamRateLimited("s", "", quota="minute"), True),
        (UpstreamRateLimited("s", "", quota="unknown"), True),
        (UpstreamRateLimited("s", "", quota="day"), False),
        (Resting("s", ""), False),
        (UpstreamRejected("s", ""), False),
        (Refused("s", ""), False),
        (UpstreamError("s", ""), False),
    ],
)
def test_what_may_be_repeated(failure: UpstreamError, expected: bool) -> None:
    """Only what may soon be over is repeated; the quota of a day is not, nor is a refusal."""
    assert repeatable(failure) is expected
