"""Many callers, one model. What queries and callers' texts make of it: test_query_embedding and test_text_embedding."""

import asyncio
from collections.abc import Sequence

import pytest

from indexing.embedding.batching import Batches
from indexing.errors import Overloaded

pytestmark = pytest.mark.anyio


class Lengths:
    """Tells the lengths of texts when `gate` opens. `forgets`: not that of the last one."""

    def __init__(self, *, forgets: bool = False) -> None:
        self.gate = asyncio.Event()
        self.begun = asyncio.Semaphore(0)
        self.calls: list[list[str]] = []
        self._forgets = forgets

    async def of(self, texts: Sequence[str]) -> list[int]:
        self.calls.append(list(texts))
        self.begun.release()
        await self.gate.wait()
        return [len(text) for text in texts][: -1 if self._forgets else None]


async def test_a_callers_texts_go_together() -> None:
    """Also when the model is free, and each text once."""
    lengths = Lengths()
    lengths.gate.set()
    batches = Batches(lengths.of, cache=0, batch=10, queue=10)
    assert await batches.values(["a", "bb", "a"]) == [1, 2, 1]
    assert lengths.calls == [["a", "bb"]]


async def test_what_nobody_waits_for_any_more_is_not_worked_on() -> None:
    """A text that two wanted is, as long as one of them does; callers that left make room in the queue."""
    lengths = Lengths()
    batches = Batches(lengths.of, cache=0, batch=10, queue=3)
    staying = asyncio.ensure_future(batches.values(["first"]))
    await lengths.begun.acquire()
    leaving = asyncio.ensure_future(batches.values(["both", "one", "one more"]))
    both = asyncio.ensure_future(batches.values(["both"]))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await batches.values(["both", "too many"])
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    late = asyncio.ensure_future(batches.values(["one", "late"]))
    await asyncio.sleep(0)
    lengths.gate.set()
    assert await asyncio.gather(staying, both, late) == [[5], [4], [3, 4]]
    assert lengths.calls == [["first"], ["both", "one", "late"]]


async def test_as_many_calls_as_may_run_do() -> None:
    """With two at once the third text waits, and goes with those that came after it."""
    lengths = Lengths()
    batches = Batches(lengths.of, cache=0, batch=10, queue=10, parallel=2)
    asked = [asyncio.ensure_future(batches.values([text])) for text in ("a", "bb", "ccc", "dddd")]
    await lengths.begun.acquire()
    await lengths.begun.acquire()
    assert lengths.calls == [["a"], ["bb"]]
    lengths.gate.set()
    assert await asyncio.gather(*asked) == [[1], [2], [3], [4]]
    assert lengths.calls[2:] == [["ccc", "dddd"]]


async def test_a_model_that_forgets_a_text_fails_all_of_its_call() -> None:
    """Nobody waits forever for what never comes, and nobody gets another's value."""
    lengths = Lengths(forgets=True)
    batches = Batches(lengths.of, cache=0, batch=10, queue=10)
    lengths.gate.set()
    asked = [batches.values([text]) for text in ("a", "bb", "ccc")]
    found = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 10)
    assert [type(one) for one in found] == [ValueError] * 3
    await batches.close()
