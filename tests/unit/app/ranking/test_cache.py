"""The score cache: hits, single flight, bounds, the file."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from app.backends.base import LabelScores
from app.errors import UpstreamUnavailable
from app.ranking.cache import CacheFile, ModelReply, ScoreCache, key_of
from tests.fakes.virtual_time import run

pytestmark = pytest.mark.anyio

SCORES = LabelScores(logprobs=(-0.1, None, -3.5, -4.0), floor=-20.0)


class Model:
    """Says "<key>!" of each key after a second, and notes what it was asked."""

    def __init__(self, keys: Sequence[str], fails: BaseException | None = None) -> None:
        self.keys, self.fails = keys, fails
        self.asked: list[list[str]] = []
        self.stopped = 0

    async def __call__(self, places: Sequence[int]) -> Sequence[ModelReply | None]:
        self.asked.append([self.keys[place] for place in places])
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        if self.fails is not None:
            raise self.fails
        return [None if self.keys[place] == "bad" else f"{self.keys[place]}!" for place in places]


async def fetch(
    cache: ScoreCache, keys: str, model: Callable[[Sequence[int]], Awaitable[Sequence[ModelReply | None]]]
) -> tuple[tuple[ModelReply | None, ...], int]:
    return await cache.fetch(keys.split(), model)


def test_what_was_said_is_not_asked_again() -> None:
    """Only keys that are not there are asked for; the others are hits."""

    async def twice() -> None:
        cache, first, second = ScoreCache(10), Model(["a", "b"]), Model(["b", "c"])
        assert await fetch(cache, "a b", first) == (("a!", "b!"), 0)
        assert await fetch(cache, "b c", second) == (("b!", "c!"), 1)
        assert second.asked == [["c"]]
        assert await cache.lookup(["a", "x"]) == ("a!", None)

    run(twice())


def test_equal_keys_are_asked_once() -> None:
    """Two passages that read the same cost as much as one."""

    async def once() -> None:
        model = Model(["a", "a", "b"])
        assert await fetch(ScoreCache(10), "a a b", model) == (("a!", "a!", "b!"), 1)
        assert sorted(model.asked[0]) == ["a", "b"]

    run(once())


def test_a_failed_item_is_not_remembered() -> None:
    """None is nothing that anybody said."""

    async def twice() -> None:
        cache, model = ScoreCache(10), Model(["a", "bad"])
        assert (await fetch(cache, "a bad", model))[0] == ("a!", None)
        await fetch(cache, "a bad", model)
        assert model.asked == [["a", "bad"], ["bad"]]

    run(twice())


def test_identical_work_in_flight_is_shared() -> None:
    """Of two who ask for the same at once one pays, and each of them gets it."""

    async def together() -> None:
        cache, first, second = ScoreCache(10), Model(["a", "b"]), Model(["b", "c"])
        one, two = await asyncio.gather(fetch(cache, "a b", first), fetch(cache, "b c", second))
        assert (one[0], two[0]) == (("a!", "b!"), ("b!", "c!"))
        assert (one[1], two[1]) == (0, 1)
        assert (first.asked, second.asked) == ([["a", "b"]], [["c"]])

    run(together())


@pytest.mark.parametrize("how", ["cancelled", "failed"])
def test_who_goes_first_does_not_fail_the_others(how: str) -> None:
    """When the one who asked goes away or fails, another one asks, and its own call was stopped."""

    async def together() -> None:
        cache, second = ScoreCache(10), Model(["a"])
        first = Model(["a"], UpstreamUnavailable("x", "away") if how == "failed" else None)
        leader = asyncio.ensure_future(fetch(cache, "a", first))
        followers = [asyncio.ensure_future(fetch(cache, "a", second)) for _ in range(3)]
        await asyncio.sleep(0.5)
        if how == "cancelled":
            leader.cancel()
        with pytest.raises((UpstreamUnavailable, asyncio.CancelledError)):
            await leader
        found = await asyncio.gather(*followers)
        assert [replies for replies, _ in found] == [("a!",)] * 3
        assert sorted(hits for _, hits in found) == [0, 1, 1]
        assert (first.stopped, second.asked) == (how == "cancelled", [["a"]])

    run(together())


def test_who_waits_may_go() -> None:
    """A follower that is cancelled stops nobody else's call."""

    async def together() -> None:
        cache, model = ScoreCache(10), Model(["a"])
        leader = asyncio.ensure_future(fetch(cache, "a", model))
        await asyncio.sleep(0.5)
        follower = asyncio.ensure_future(fetch(cache, "a", model))
        await asyncio.sleep(0.1)
        follower.cancel()
        assert (await leader)[0] == ("a!",)
        assert model.stopped == 0

    run(together())


def test_the_least_used_make_room() -> None:
    """The cache is bounded; what was looked at lately stays."""

    async def fill() -> None:
        cache = ScoreCache(2)
        await fetch(cache, "a b", Model(["a", "b"]))
        await cache.lookup(["a"])
        await fetch(cache, "c", Model(["c"]))
        assert await cache.lookup(["a", "b", "c"]) == ("a!", None, "c!")

    run(fill())


def test_keys_tell_parts_apart() -> None:
    """The same letters, cut elsewhere or in another order, are another key."""
    assert len({key_of("ab", "c"), key_of("a", "bc"), key_of("c", "ab"), key_of("abc")}) == 4


async def test_the_file_outlives_the_process(tmp_path: Path) -> None:
    """What one cache wrote, another one over the same file knows: log-probabilities and replies."""
    path = tmp_path / "home" / "scores.sqlite3"
    file = CacheFile(path, 10)
    file.write({"scored": SCORES, "judged": '{"3": [1]}'})
    await file.close()
    cache = ScoreCache(10, CacheFile(path, 10))
    assert await cache.lookup(["scored", "none", "judged"]) == (SCORES, None, '{"3": [1]}')
    await cache.close()


async def test_the_file_is_bounded(tmp_path: Path) -> None:
    """The oldest entries make room."""
    file = CacheFile(tmp_path / "scores.sqlite3", 3)
    for number in range(10):
        file.write({str(number): "said"})
    assert set(await file.read([str(number) for number in range(10)])) == {"7", "8", "9"}
    await file.close()


async def test_a_damaged_file_is_done_without(tmp_path: Path) -> None:
    """A file that is no database costs nothing but a line in the log."""
    path = tmp_path / "scores.sqlite3"
    path.write_bytes(b"this is no database" * 100)
    cache = ScoreCache(10, CacheFile(path, 10))
    assert await cache.lookup(["a"]) == (None,)
    assert (await cache.fetch(["a"], Model(["a"])))[0] == ("a!",)
    assert await cache.lookup(["a"]) == ("a!",)
    await cache.close()
