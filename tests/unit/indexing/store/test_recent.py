"""Passages that were read lately."""

from contextlib import suppress

from indexing.documents import Passage
from indexing.store.recent import RecentPassages


def passage(number: int, text: str = "") -> Passage:
    return Passage(id=str(number), document_id="d", version="1", ordinal=number, start=0, end=len(text), text=text)


def test_what_was_read_is_known_of_its_shard_alone() -> None:
    """A passage is known under the shard that it was read from, and under no other."""
    recent = RecentPassages(100_000)
    recent.add(1, {7: passage(7)}, recent.changes(1))
    assert recent.known(1, [7, 8]) == {7: passage(7)}
    assert recent.known(2, [7]) == {}


def test_what_changed_is_read_again() -> None:
    """A passage that changes is not known any more from the beginning of the change on, and the others still are."""
    recent = RecentPassages(100_000)
    recent.add(1, {7: passage(7), 8: passage(8)}, recent.changes(1))
    with recent.changing(1, [7]):
        assert recent.known(1, [7, 8]) == {8: passage(8)}
    assert recent.known(1, [7, 8]) == {8: passage(8)}


def test_what_was_read_before_or_during_a_change_is_not_kept() -> None:
    """What somebody had begun to read when the change was not over may be of before, whenever it is brought."""
    recent = RecentPassages(100_000)
    earlier, before = {7: passage(7, "earlier")}, recent.changes(1)
    with recent.changing(1, [7]):
        during = recent.changes(1)
        recent.add(1, earlier, before)
        recent.add(1, earlier, during)
        assert recent.known(1, [7]) == {}
    recent.add(1, earlier, before)
    recent.add(1, earlier, during)
    assert recent.known(1, [7]) == {}
    recent.add(1, {7: passage(7, "later")}, recent.changes(1))
    assert recent.known(1, [7]) == {7: passage(7, "later")}


def test_a_change_that_fails_is_over() -> None:
    """What is read after it is kept."""
    recent = RecentPassages(100_000)
    with suppress(OSError), recent.changing(1, [7]):
        raise OSError
    recent.add(1, {7: passage(7)}, recent.changes(1))
    assert recent.known(1, [7]) == {7: passage(7)}


def test_a_closed_shard_is_forgotten() -> None:
    """Nothing is kept of a shard that was closed."""
    recent = RecentPassages(100_000)
    recent.add(1, {7: passage(7)}, recent.changes(1))
    recent.forget(1)
    assert recent.known(1, [7]) == {}


def test_what_is_asked_for_stays_and_the_rest_makes_room() -> None:
    """Of more than fits, those stay that are asked for, long texts and metadata counted."""
    recent = RecentPassages(40_000)
    for number in range(60):
        recent.add(1, {number: passage(number, "x" * 1000)}, 0)
        recent.known(1, [0])
    known = recent.known(1, range(60))
    assert {0, 59} <= known.keys()
    assert len(known) < 30


def test_large_metadata_take_their_room() -> None:
    """A passage with a lot of metadata makes others go as a long text would."""
    recent = RecentPassages(40_000)
    recent.add(1, {7: passage(7)}, 0)
    for number in (8, 9):
        large = Passage(
            id="8", document_id="d", version="1", ordinal=0, start=0, end=0, text="", metadata={"all": "x" * 9_000}
        )
        recent.add(1, {number: large}, 0)
    assert recent.known(1, [7]) == {}
