"""How wide the graph of the embedded store is searched, and what it covers."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from indexing.store.edge_shard import Coverage, EdgeShard, search_width
from tests.fakes.points import SPEC


@pytest.mark.parametrize(("points", "width"), [(0, None), (100_000, None), (400_000, 200), (10**6, 316), (10**9, 1000)])
def test_more_points_are_searched_wider_up_to_a_bound(points: int, width: int | None) -> None:
    """Else what is found of the nearest falls while the collection grows."""
    assert search_width(points) == width


class _Counted:
    """An engine with a graph: of it and of its sparse vectors it also counts those whose points are gone."""

    def __init__(self, points: int) -> None:
        self.points = points
        self.gone = 0

    def info(self) -> Any:
        return SimpleNamespace(
            payload_schema={}, points_count=self.points, indexed_vectors_count=2 * self.points + self.gone
        )

    def count(self, _: object) -> int:
        return self.points


def test_what_a_build_leaves_makes_no_other_one_worth_it(tmp_path: Path) -> None:
    """Earlier points count until a build has kept them: the engine removes none from a segment that few are gone of."""
    engine = _Counted(points=20_000)
    engine.gone = 3_600
    shard = EdgeShard(cast("Any", engine), tmp_path, SPEC)
    assert shard.coverage() == Coverage(points=20_000, unindexed=0, replaced=3_600)
    shard.note_build()
    assert shard.coverage() == Coverage(points=20_000, unindexed=0, replaced=0)
    engine.gone += 500
    assert shard.coverage() == Coverage(points=20_000, unindexed=0, replaced=500)
