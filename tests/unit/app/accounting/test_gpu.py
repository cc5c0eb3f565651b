"""Shares of a GPU's busy time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.accounting.metering import GpuShare


def test_two_calls_share_while_they_overlap() -> None:
    """Alone for a second, together for two, the other alone for one."""
    share = GpuShare()
    first = share.begin(10.0)
    second = share.begin(11.0)
    assert share.end(first, 13.0) == pytest.approx(1 + 2 / 2)
    assert share.end(second, 14.0) == pytest.approx(2 / 2 + 1)
    assert share.running == 0


def test_idle_time_is_nobodys() -> None:
    """Between calls nothing accrues."""
    share = GpuShare()
    share.end(share.begin(0.0), 1.0)
    assert share.end(share.begin(100.0), 101.5) == pytest.approx(1.5)


def test_a_clock_that_goes_back_makes_no_negative_share() -> None:
    """It counts as standing still."""
    share = GpuShare()
    assert share.end(share.begin(10.0), 9.0) == 0.0
    assert share.end(share.begin(10.0), 12.0) == 2.0


calls = st.lists(st.tuples(st.floats(0, 100), st.floats(0, 50)), min_size=1, max_size=40)


@given(calls)
def test_shares_add_up_to_the_busy_time(lives: list[tuple[float, float]]) -> None:
    """However calls overlap, their shares sum to the length of the union of their lives."""
    share, shares = GpuShare(), list[float]()
    marks: dict[int, float] = {}
    events = [(begin, 0, n) for n, (begin, _) in enumerate(lives)]
    events += [(begin + length, 1, n) for n, (begin, length) in enumerate(lives)]
    for at, ends, n in sorted(events):
        if ends:
            shares.append(share.end(marks[n], at))
        else:
            marks[n] = share.begin(at)
    assert sum(shares) == pytest.approx(union(lives), abs=1e-9)
    assert all(
        0 <= got <= length + 1e-9 for got, (_, length) in zip(sorted(shares), sorted_by_length(lives), strict=True)
    )


def union(lives: list[tuple[float, float]]) -> float:
    """Seconds in which any call ran, by merging intervals."""
    busy = reach = 0.0
    for begin, length in sorted(lives):
        end = begin + length
        busy += max(0.0, end - max(begin, reach))
        reach = max(reach, end)
    return busy


def sorted_by_length(lives: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return sorted(lives, key=lambda life: life[1])
