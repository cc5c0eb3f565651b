"""How wide the graph of the embedded store is searched, and what it covers."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from indexing.documents import EVERYTHING
from indexing.settings import StoreSettings
from indexing.store.base import Retrieval
from indexing.store.coverage import Coverage
from indexing.store.edge_shard import _RECENT, EdgeShard, search_width
from tests.fakes.points import SPEC, passage, point, vector


@pytest.mark.parametrize(("points", "width"), [(0, None), (100_000, None), (400_000, 200), (10**6, 316), (10**9, 1000)])
def test_more_points_are_searched_wider_up_to_a_bound(points: int, width: int | None) -> None:
    """Else what is found of the nearest falls while the collection grows."""
    assert search_width(points) == width


class _Counted:
    """An engine with a graph: of it and of its sparse vectors it also counts those whose points are gone."""

    def __init__(self, points: int) -> None:
        self.points = points
        self.gone = self.plain = 0

    def info(self) -> Any:
        indexed = 2 * self.points + self.gone - self.plain
        return SimpleNamespace(payload_schema={}, points_count=self.points, indexed_vectors_count=indexed)

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
    started_again = EdgeShard(cast("Any", engine), tmp_path, SPEC)
    assert started_again.coverage() == Coverage(points=20_000, unindexed=0, replaced=500)


def test_points_that_a_build_gave_no_graph_make_no_other_one_worth_it(tmp_path: Path) -> None:
    """The engine builds none for few short vectors; those that come count, until it does."""
    engine = _Counted(points=20_000)
    engine.plain = 20_000
    shard = EdgeShard(cast("Any", engine), tmp_path, SPEC)
    assert shard.coverage() == Coverage(points=20_000, unindexed=20_000, replaced=0)
    shard.note_build()
    engine.points, engine.plain = 25_000, 25_000
    for one in (shard, EdgeShard(cast("Any", engine), tmp_path, SPEC)):
        assert one.coverage().unindexed == 5_000
    engine.plain = 0
    shard.note_build()
    engine.plain = 5_000
    assert shard.coverage().unindexed == 5_000


class _Held:
    """The real engine, whose next write can be held: before it does anything, or when all but returning is done."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.holds = ""
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def update(self, operation: Any) -> None:
        if self.holds == "before":
            self._wait()
        self._engine.update(operation)
        if self.holds == "after":
            self._wait()

    def _wait(self) -> None:
        self.reached.set()
        assert self.go_on.wait(60)


def texts(shard: EdgeShard) -> list[str]:
    retrieved = shard.retrieve(Retrieval(dense=vector(1.0), limit=10), EVERYTHING, StoreSettings())
    return sorted(candidate.passage.text for candidate in retrieved.dense)


def _written_again(shard: EdgeShard) -> None:
    shard.upsert([point("d1", text="later")])


def _deleted(shard: EdgeShard) -> None:
    shard.delete_documents(["d1"])


@pytest.mark.parametrize("holds", ["before", "after"])
@pytest.mark.parametrize(("change", "left"), [(_written_again, ["later", "other"]), (_deleted, ["other"])])
def test_who_reads_beside_a_write_brings_nothing_back(
    tmp_path: Path, change: Callable[[EdgeShard], None], left: list[str], holds: str
) -> None:
    """A search during a write finds what the engine holds at that moment, and none after it finds what was before."""
    shard = EdgeShard.create(tmp_path / "shard", SPEC)
    shard.upsert([point("d1", text="earlier"), point("d2", text="other")])
    assert texts(shard) == ["earlier", "other"]
    held = _Held(shard._shard)
    shard._shard, held.holds = cast("Any", held), holds
    writing = threading.Thread(target=change, args=(shard,))
    writing.start()
    try:
        assert held.reached.wait(60)
        assert texts(shard) == (["earlier", "other"] if holds == "before" else left)
    finally:
        held.go_on.set()
        writing.join()
    assert texts(shard) == left
    shard.close()


@pytest.mark.parametrize("noted", [False, True])
def test_of_what_was_deleted_no_text_stays(tmp_path: Path, noted: bool) -> None:
    """What a search had found lately goes from memory with its document, its version, or the whole shard."""
    shard = EdgeShard.create(tmp_path / "shard", SPEC)
    numbers = [UUID(passage(f"d{i}").id).int for i in range(4)]
    shard.upsert([point(f"d{i}") for i in range(4)])
    texts(shard)
    if noted:
        shard.note_changes()
    assert len(_RECENT.known(shard._number, numbers)) == 4
    shard.delete_documents(["d0"])
    shard.delete_stale({"d1": "v2", "d2": "v1"})
    assert [*_RECENT.known(shard._number, numbers)] == numbers[2:]
    shard.close()
    assert _RECENT.known(shard._number, numbers) == {}
