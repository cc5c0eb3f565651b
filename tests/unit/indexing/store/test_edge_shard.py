"""How wide the graph of the embedded store is searched."""

import pytest

from indexing.store.edge_shard import search_width


@pytest.mark.parametrize(("points", "width"), [(0, None), (100_000, None), (400_000, 200), (10**6, 316), (10**9, 1000)])
def test_more_points_are_searched_wider_up_to_a_bound(points: int, width: int | None) -> None:
    """Else what is found of the nearest falls while the collection grows."""
    assert search_width(points) == width
