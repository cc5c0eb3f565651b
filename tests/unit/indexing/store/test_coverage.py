"""When a graph is built."""

from pathlib import Path

import pytest

from indexing.store.coverage import BUILT, Coverage, Left, is_worth_a_build, left_by_build, note_left


@pytest.mark.parametrize(
    ("points", "needed"),
    [(20_000, 20_000), (200_000, 20_000), (250_000, 25_000), (300_000, 30_000), (400_000, 30_000), (10**7, 30_000)],
)
def test_points_without_a_graph_are_bounded(points: int, needed: int) -> None:
    """A tenth of all makes one worth it, but at least 20,000, and at most what memory has room for."""
    assert is_worth_a_build(Coverage(points=points, unindexed=needed, replaced=0))
    assert not is_worth_a_build(Coverage(points=points, unindexed=needed - 1, replaced=0))


@pytest.mark.parametrize(
    ("points", "needed"), [(0, 2_000), (1_000, 2_000), (20_000, 10_000), (60_000, 30_000), (10**6, 30_000)]
)
def test_what_is_left_of_earlier_points_is_bounded(points: int, needed: int) -> None:
    """Half as many as there are make a build worth it, but at least 2,000, and at most what memory has room for."""
    assert is_worth_a_build(Coverage(points=points, unindexed=0, replaced=needed))
    assert not is_worth_a_build(Coverage(points=points, unindexed=0, replaced=needed - 1))


def test_what_a_build_left_is_known_after_a_restart(tmp_path: Path) -> None:
    """Without a note, or with one that cannot be read, it counts as nothing: that costs a build at most."""
    assert left_by_build(tmp_path) == Left()
    note_left(tmp_path, Left(unindexed=3, replaced=4))
    assert left_by_build(tmp_path) == Left(unindexed=3, replaced=4)
    (tmp_path / BUILT).write_bytes(b"{")
    assert left_by_build(tmp_path) == Left()
