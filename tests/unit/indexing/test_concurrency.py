import asyncio

import pytest

from indexing.concurrency import together

pytestmark = pytest.mark.anyio


class Works:
    """Counts who has begun and who has ended, however that was."""

    def __init__(self) -> None:
        self.begun = self.ended = 0

    async def last(self) -> None:
        """For ever; its end takes a while."""
        self.begun += 1
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.ended += 1

    async def fail(self) -> None:
        """Once another has begun."""
        while not self.begun:  # noqa: ASYNC110 - the test's time limit ends a vain wait
            await asyncio.sleep(0)
        raise LookupError


async def test_results_come_in_the_order_of_the_works() -> None:
    """Whoever is ready first; of nothing comes nothing."""

    async def say(word: str, turns: int) -> str:
        for _ in range(turns):
            await asyncio.sleep(0)
        return word

    assert await together(say(word, turns) for word, turns in (("a", 3), ("b", 1), ("c", 2))) == ["a", "b", "c"]
    assert await together([]) == []


async def test_the_first_error_ends_the_others() -> None:
    """It is raised as it is, when they have ended."""
    works = Works()
    with pytest.raises(LookupError):
        await together([works.last(), works.fail(), works.last()])
    assert works.begun == works.ended == 2


async def test_cancelling_ends_them_all() -> None:
    """And is over when they are."""
    works = Works()
    running = asyncio.create_task(together([works.last(), works.last()]))
    while works.begun < 2:  # noqa: ASYNC110 - the test's time limit ends a vain wait
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert works.ended == 2
