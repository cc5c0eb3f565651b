import asyncio
from itertools import islice

import pytest

from indexing.concurrency import BackgroundTasks, Resource, pauses, together
from indexing.errors import EmbedderUnavailable
from tests.fakes.embedder import HashEmbedder
from tests.fakes.source import GivenEmbedder

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


async def test_background_tasks_are_waited_for() -> None:
    """All that run, and one that fails is its own affair."""
    works, tasks = Works(), BackgroundTasks()
    works.begun = 1
    failing = tasks.start(works.fail())
    slow = tasks.start(asyncio.sleep(0.01, "done"))
    await tasks.ended()
    assert isinstance(failing.exception(), LookupError)
    assert slow.result() == "done"


async def test_background_tasks_are_cancelled_to_their_end() -> None:
    """Those that were kept, too; there may be none."""
    works, tasks = Works(), BackgroundTasks()
    tasks.start(works.last())
    tasks.keep(asyncio.ensure_future(works.last()))
    while works.begun < 2:  # noqa: ASYNC110 - the test's time limit ends a vain wait
        await asyncio.sleep(0)
    await tasks.cancel()
    assert works.ended == 2
    await tasks.cancel()


async def test_a_resource_is_opened_once() -> None:
    """Everyone who asks at once shares one opening."""
    source = GivenEmbedder(HashEmbedder(), delay_s=0.01)
    resource = Resource(source.get)
    first, second = await asyncio.gather(resource.get(), resource.get())
    assert first is second
    assert source.loads == 1


async def test_a_failed_opening_is_tried_again() -> None:
    """The next who asks gets a fresh try."""
    source = GivenEmbedder(HashEmbedder(), failures=(EmbedderUnavailable("not yet"),))
    resource = Resource(source.get)
    with pytest.raises(EmbedderUnavailable):
        await resource.get()
    assert isinstance(await resource.get(), HashEmbedder)


async def test_giving_up_does_not_stop_the_opening() -> None:
    """A caller who is cancelled leaves it to the others."""
    source = GivenEmbedder(HashEmbedder(), delay_s=0.02)
    resource = Resource(source.get)
    impatient = asyncio.ensure_future(resource.get())
    await asyncio.sleep(0)
    impatient.cancel()
    assert isinstance(await resource.get(), HashEmbedder)
    assert source.loads == 1


async def test_settling_waits_for_an_opening_under_way() -> None:
    """What is just being opened is not lost when the service closes."""
    resource = Resource(GivenEmbedder(HashEmbedder(), delay_s=0.01).get)
    assert await resource.settled() is None
    asking = asyncio.ensure_future(resource.get())
    await asyncio.sleep(0)
    assert isinstance(await resource.settled(), HashEmbedder)
    await asking


async def test_settling_after_a_failure_is_nothing() -> None:
    """There is nothing to close."""
    resource = Resource(GivenEmbedder(HashEmbedder(), failures=(EmbedderUnavailable("no"),)).get)
    with pytest.raises(EmbedderUnavailable):
        await resource.get()
    assert await resource.settled() is None


async def test_pauses_double_up_to_the_longest() -> None:
    """And never end."""
    assert list(islice(pauses(1.0, 5.0), 5)) == [1.0, 2.0, 4.0, 5.0, 5.0]
