"""Many callers, one model. What queries and callers' texts make of it: test_query_embedding and test_text_embedding."""

import asyncio
from collections.abc import Sequence

import pytest

from indexing.batching import Batches

pytestmark = pytest.mark.anyio


class Lengths:
    """Tells the lengths of texts when `gate` opens. `forgets`: not that of the last one."""

    def __init__(self, *, forgets: bool = False) -> None:
        self.gate = asyncio.Event()
        self.calls: list[list[str]] = []
        self._forgets = forgets

    async def of(self, texts: Sequence[str]) -> list[int]:
        self.calls.append(list(texts))
        await self.gate.wait()
        return [len(text) for text in texts][: -1 if self._forgets else None]


async def test_as_many_calls_as_may_run_do() -> None:
    """With two at once the third text waits, and goes with those that came after it."""
    lengths = Lengths()
    batches = Batches(lengths.of, cache=0, batch=10, queue=10, parallel=2)
    futures = [batches.soon(text) for text in ("a", "bb", "ccc", "dddd")]
    await asyncio.sleep(0)
    assert lengths.calls == [["a"], ["bb"]]
    lengths.gate.set()
    assert await asyncio.gather(*futures) == [1, 2, 3, 4]
    assert lengths.calls[2:] == [["ccc", "dddd"]]


async def test_a_model_that_forgets_a_text_fails_all_of_its_call() -> None:
    """Nobody waits forever for what never comes, and nobody gets another's value."""
    lengths = Lengths(forgets=True)
    batches = Batches(lengths.of, cache=0, batch=10, queue=10)
    lengths.gate.set()
    first, *others = [batches.soon(text) for text in ("a", "bb", "ccc")]
    found = await asyncio.wait_for(asyncio.gather(first, *others, return_exceptions=True), 10)
    assert [type(one) for one in found] == [ValueError] * 3
    await batches.close()
