"""When a graph is built."""

import pytest

from indexing.store.edge_shard import Coverage
from indexing.store.embedded import is_worth_a_build


@pytest.mark.parametrize(
    ("points", "needed"),
    [(20_000, 20_000), (200_000, 20_000), (300_000, 30_000), (344_000, 34_400), (400_000, 35_000), (10**7, 35_000)],
)
def test_points_without_a_graph_are_bounded(points: int, needed: int) -> None:
    """A tenth of all makes one worth it, but at least 20,000, and at most what memory has room for."""
    assert is_worth_a_build(Coverage(points=points, unindexed=needed, replaced=0))
    assert not is_worth_a_build(Coverage(points=points, unindexed=needed - 1, replaced=0))


@pytest.mark.parametrize(
    ("points", "needed"), [(0, 2_000), (1_000, 2_000), (20_000, 10_000), (70_000, 35_000), (10**6, 35_000)]
)
def test_what_is_left_of_earlier_points_is_bounded(points: int, needed: int) -> None:
    """Half as many as there are make a build worth it, but at least 2,000, and at most what memory has room for."""
    assert is_worth_a_build(Coverage(points=points, unindexed=0, replaced=needed))
    assert not is_worth_a_build(Coverage(points=points, unindexed=0, replaced=needed - 1))
