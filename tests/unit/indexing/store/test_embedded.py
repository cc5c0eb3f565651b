"""When a graph is built."""

import pytest

from indexing.store.embedded import is_worth_a_graph


@pytest.mark.parametrize(
    ("points", "needed"),
    [(20_000, 20_000), (200_000, 20_000), (300_000, 30_000), (344_000, 34_400), (400_000, 35_000), (10**7, 35_000)],
)
def test_points_without_a_graph_are_bounded(points: int, needed: int) -> None:
    """A tenth of all makes one worth it, but at least 20,000, and at most what memory has room for."""
    assert is_worth_a_graph(needed, points)
    assert not is_worth_a_graph(needed - 1, points)
