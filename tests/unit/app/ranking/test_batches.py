import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ranking.calls import interleave, windows

COUNTS = st.integers(0, 400)


@given(COUNTS, st.integers(1, 40))
def test_blocks_hold_every_candidate_once(n: int, most: int) -> None:
    """As few as possible, none larger than allowed, their sizes at most one apart."""
    blocks = interleave(range(n), most)
    assert sorted(item for block in blocks for item in block) == list(range(n))
    sizes = [len(block) for block in blocks]
    assert len(blocks) == -(-n // most)
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


@given(st.integers(1, 8), st.integers(1, 12))
def test_all_blocks_are_equally_strong(count: int, half: int) -> None:
    """With as many turns forth as back, the ranks of each block add up to the same."""
    blocks = interleave(range(count * 2 * half), 2 * half)
    assert len({sum(block) for block in blocks}) == 1


def test_strong_and_weak_alternate_within_a_block() -> None:
    """Of one block the best, the worst, the second best; and place and strength hardly go together in four of 25."""
    assert interleave("abcde", 5) == [["a", "e", "b", "d", "c"]]
    for block in interleave(range(100), 25):
        assert abs(np.corrcoef(block, range(25))[0, 1]) < 0.15


@given(st.integers(0, 300), st.integers(1, 30), st.data())
def test_windows_go_from_the_back_to_the_front(n: int, size: int, data: st.DataObject) -> None:
    """Each is inside the list and no larger than allowed; together they cover it, and neighbours overlap or touch."""
    step = data.draw(st.integers(1, size))
    schedule = windows(n, size, step)
    assert all(0 <= start < end <= n and end - start <= size for start, end in schedule)
    assert {at for start, end in schedule for at in range(start, end)} == set(range(n))
    assert [start for start, _ in schedule] == sorted({start for start, _ in schedule}, reverse=True)


@pytest.mark.parametrize(
    ("n", "schedule"),
    [
        (0, []),
        (7, [(0, 7)]),
        (20, [(0, 20)]),
        (25, [(5, 25), (0, 20)]),
        (100, [(start, start + 20) for start in range(80, -1, -10)]),
    ],
)
def test_windows_are_rankgpts(n: int, schedule: list[tuple[int, int]]) -> None:
    """9 windows for 100; the foremost is as large as the others where there are enough candidates."""
    assert windows(n) == schedule
