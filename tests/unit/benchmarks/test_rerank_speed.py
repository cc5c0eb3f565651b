"""The benchmark of a ranking's time."""

import pytest

from app.backends.base import tokens_of
from benchmarks.rerank_speed import STRATEGIES, own_time, task_of


@pytest.mark.anyio
async def test_own_time_has_a_row_for_each_strategy() -> None:
    """All of them get to the end without a model."""
    rows = (await own_time(2)).splitlines()[2:]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == list(STRATEGIES)


def test_passages_are_of_the_size_that_is_asked_for() -> None:
    """And no two of them alike, nor those of two rankings."""
    one, other = task_of(1, 20, 100), task_of(2, 20, 100)
    assert all(95 <= tokens_of(candidate.passage.text) <= 100 for candidate in one.candidates)
    assert len({candidate.passage.text for task in (one, other) for candidate in task.candidates}) == 40
    assert task_of(1, 20, 100) == one
