"""Batches: order, concurrency, back-pressure, errors of single texts, repeated texts, cancellation."""

import asyncio
from collections.abc import AsyncGenerator, Iterator

import pytest

from app.errors import BudgetExceeded, InvalidRequest, Overloaded, Refused, UpstreamRateLimited
from app.services.batches import AHEAD, REMEMBERED_TEXTS, Batch, Entry, judge_list
from tests.fakes.judge import Length, MeasuringJudge, entries, fake_call

pytestmark = pytest.mark.anyio


def batch_of(judge: MeasuringJudge, concurrency: int = 4) -> Batch[Length]:
    return Batch(judge, fake_call, concurrency)


def different(count: int) -> Iterator[str]:
    return (f"text {number} {'x' * (number % 7)}" for number in range(count))


async def test_outcomes_are_in_the_order_of_the_texts() -> None:
    """However many are judged at once, each text has its own outcome at its place, and what it cost."""
    texts, judge = list(different(300)), MeasuringJudge()
    outcomes = await judge_list(batch_of(judge), texts)
    assert [outcome.id for outcome in outcomes] == list(range(300))
    assert [outcome.judged and outcome.judged.result.length for outcome in outcomes] == list(map(len, texts))
    assert sum(outcome.usage.cost_usd for outcome in outcomes) == 300
    assert judge.most_at_once == 4


async def test_a_failed_text_is_an_outcome_with_its_error() -> None:
    """The others are judged; a fault of our own counts as an error of that text; what it cost is told."""
    judge = MeasuringJudge({"bad": [Refused("fake", "it declined")], "odd": [ValueError("a fault of ours")]})
    outcomes = await judge_list(batch_of(judge), ["good", "bad", "odd", "better"])
    assert [type(outcome.error) for outcome in outcomes] == [type(None), Refused, ValueError, type(None)]
    assert [outcome.judged is None for outcome in outcomes] == [False, True, True, False]
    assert outcomes[1].usage.cost_usd == 1


async def test_an_entry_without_a_text_keeps_its_place() -> None:
    """An entry that brings a problem is that error, and nobody is asked."""

    async def given() -> AsyncGenerator[Entry, None]:
        yield Entry(id="a", text="one")
        yield Entry(id="b", problem=InvalidRequest("not JSON"))
        yield Entry(id="c", text="two")

    judge = MeasuringJudge()
    outcomes = [outcome async for outcome in batch_of(judge).run(given())]
    assert [(outcome.id, str(outcome.error or "")) for outcome in outcomes] == [("a", ""), ("b", "not JSON"), ("c", "")]
    assert judge.asked == {"one": 1, "two": 1}


async def test_equal_texts_are_judged_once() -> None:
    """Also those of which the first is still being judged; the repeated ones cost nothing."""
    judge = MeasuringJudge()
    outcomes = await judge_list(batch_of(judge), ["same", "other", "same"] * 50)
    assert judge.asked == {"same": 1, "other": 1}
    assert [outcome.repeated for outcome in outcomes] == [False, False] + [True] * 148
    assert sum(outcome.usage.cost_usd for outcome in outcomes) == 2
    assert all(outcome.judged for outcome in outcomes)


async def test_a_text_that_failed_is_asked_again_when_it_comes_again() -> None:
    """A failure is not remembered."""
    judge = MeasuringJudge({"text": [Refused("fake", "it declined")]})
    batch = batch_of(judge, 1)
    outcomes = await judge_list(batch, ["text", *different(10), "text"])
    assert [outcome.error is None for outcome in outcomes] == [False, *[True] * 11]
    assert judge.asked["text"] == 2


async def test_only_the_latest_texts_are_remembered() -> None:
    """What came long ago is asked again, so that the memory needed does not grow with the batch."""
    judge = MeasuringJudge()
    await judge_list(batch_of(judge), ["first", *different(REMEMBERED_TEXTS), "first"])
    assert judge.asked["first"] == 2


async def test_who_reads_no_outcomes_stops_the_reading_of_entries() -> None:
    """No more is read than the line holds, and those that wait for a slot."""
    read = 0

    async def counted() -> AsyncGenerator[Entry, None]:
        nonlocal read
        async for entry in entries(different(1000)):
            read += 1
            yield entry

    outcomes = batch_of(MeasuringJudge()).run(counted())
    await anext(outcomes)
    for _ in range(1000):
        await asyncio.sleep(0)
    assert read <= 4 * AHEAD + 2
    await outcomes.aclose()


async def test_no_more_is_read_than_can_be_judged() -> None:
    """While all slots are taken nothing is read ahead: the next text waits for a slot."""
    judge = MeasuringJudge()
    judge.open.clear()
    outcomes = batch_of(judge).run(entries(different(1000)))
    first = asyncio.ensure_future(anext(outcomes))
    for _ in range(100):
        await asyncio.sleep(0)
    assert (judge.at_once, judge.asked.total()) == (4, 4)
    judge.open.set()
    assert (await first).id == 1
    await outcomes.aclose()


async def test_closing_cancels_what_is_under_way() -> None:
    """Whoever goes away pays for nothing more, and the entries are closed."""
    closed = False

    async def given() -> AsyncGenerator[Entry, None]:
        nonlocal closed
        try:
            async for entry in entries(different(1000)):
                yield entry
        finally:
            closed = True

    judge = MeasuringJudge()
    judge.open.clear()
    outcomes = batch_of(judge).run(given())
    waiting = asyncio.ensure_future(anext(outcomes))
    await judge.until_asked(4)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await outcomes.aclose()
    assert judge.at_once == 0
    assert judge.cancelled == 4
    assert closed


async def test_a_refusal_for_want_of_room_is_waited_out() -> None:
    """Nobody waits for this one text: it comes again when it was told to."""
    busy = [Overloaded("busy", 0.001), UpstreamRateLimited("fake", "slow down", 0.001), Overloaded("busy", 0.001)]
    judge = MeasuringJudge({"text": [*busy]})
    (outcome,) = await judge_list(batch_of(judge), ["text"])
    assert outcome.judged
    assert judge.asked["text"] == 4
    assert outcome.usage.requests == 4


@pytest.mark.parametrize(
    "hopeless",
    [Overloaded("busy", 3600.0), UpstreamRateLimited("fake", "come back tomorrow", 0.001, quota="day")],
    ids=["longer than the call may last", "a quota of the day"],
)
async def test_a_wait_that_is_in_vain_is_an_error(hopeless: Exception) -> None:
    """It is told at once."""
    judge = MeasuringJudge({"text": [hopeless]})
    (outcome,) = await judge_list(batch_of(judge), ["text"])
    assert outcome.error is hopeless


async def test_once_the_budget_is_spent_nobody_is_asked() -> None:
    """What was judged before stays; each text that is left has the error."""
    spent = BudgetExceeded("the budget of today, 1 USD, is spent", 3600.0)
    judge = MeasuringJudge({"last": [spent]})
    outcomes = await judge_list(batch_of(judge, 1), ["a", "b", "last", "c", "d"])
    assert [outcome.error for outcome in outcomes] == [None, None, spent, spent, spent]
    assert judge.asked.total() == 3


async def test_what_the_entries_raise_comes_after_what_was_before_it() -> None:
    """No outcome is lost by a body that breaks off."""

    async def broken() -> AsyncGenerator[Entry, None]:
        async for entry in entries(different(10)):
            yield entry
        raise InvalidRequest("it breaks off")

    outcomes = batch_of(MeasuringJudge()).run(broken())
    assert [(await anext(outcomes)).id for _ in range(10)] == list(range(1, 11))
    with pytest.raises(InvalidRequest, match="breaks off"):
        await anext(outcomes)
