"""What every adapter makes of a bad day: the same errors, whoever's server it is."""

from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from app.backends.base import Adapter, Delta, Reply
from app.errors import (
    UpstreamError,
    UpstreamRateLimited,
)
from tests.contract.sides import NAME, FakeSide, asking
from tests.fakes.faults import ERRORS, Fault

pytestmark = pytest.mark.anyio

PLENTY_S = 20.0
BRIEF_S = 0.4

NO_ERROR = {Fault.OK, Fault.OUT_OF_TOKENS}

HOW = pytest.mark.parametrize("how", ["complete", "stream"])


@pytest.fixture
async def adapter(fake: FakeSide) -> AsyncIterator[Adapter]:
    """Probed on a good day."""
    opened = fake.open()
    await opened.probe(PLENTY_S)
    yield opened
    await opened.aclose()


async def text_of(adapter: Adapter, how: str, timeout_s: float = PLENTY_S) -> str:
    if how == "complete":
        return (await adapter.complete(asking(), timeout_s)).text
    async with aclosing(adapter.stream(asking(), timeout_s)) as pieces:
        return "".join([piece.text async for piece in pieces])


async def error_of(adapter: Adapter, how: str, timeout_s: float = PLENTY_S) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await text_of(adapter, how, timeout_s)
    return caught.value


def test_every_fault_has_its_error() -> None:
    """A fault that is added to the fakes needs a line here."""
    assert set(ERRORS) | NO_ERROR == set(Fault)


@HOW
@pytest.mark.parametrize("fault", ERRORS)
async def test_a_fault_becomes_its_error(fake: FakeSide, adapter: Adapter, fault: Fault, how: str) -> None:
    """It names the backend and not what the server wrote, and the call after it goes well."""
    fake.expect(fault)
    slow = fault in (Fault.SLOW_FIRST_BYTE, Fault.SLOW_TRICKLE)
    error = await error_of(adapter, how, BRIEF_S if slow else PLENTY_S)
    assert isinstance(error, ERRORS[fault]), repr(error)
    assert error.service == NAME
    assert NAME in str(error)
    assert fake.secret not in str(error)
    assert await text_of(adapter, how)


@HOW
async def test_no_tokens_left_for_text_is_no_error(fake: FakeSide, adapter: Adapter, how: str) -> None:
    """The text is empty, the finish reason says why, and the tokens are counted."""
    fake.expect(Fault.OUT_OF_TOKENS)
    told: list[Reply | Delta] = []
    if how == "complete":
        told.append(await adapter.complete(asking(), PLENTY_S))
    else:
        async with aclosing(adapter.stream(asking(), PLENTY_S)) as pieces:
            told.extend([piece async for piece in pieces])
    assert {piece.text for piece in told} == {""}
    ended = told[-1]
    assert ended.finish_reason == "length"
    assert ended.tokens is not None
    assert ended.tokens.output + ended.tokens.thinking > 0


@HOW
@pytest.mark.parametrize(("fault", "seconds"), [(Fault.RATE_LIMITED_WITH_DELAY, 7.0), (Fault.RATE_LIMITED, None)])
async def test_a_limit_of_the_minute_says_until_when(
    fake: FakeSide, adapter: Adapter, fault: Fault, seconds: float | None, how: str
) -> None:
    """The seconds that the server named; None when it named none."""
    fake.expect(fault)
    error = await error_of(adapter, how)
    assert isinstance(error, UpstreamRateLimited)
    assert (error.quota, error.retry_after) == ("minute", seconds)


@HOW
async def test_a_limit_of_the_day_is_told_from_one_of_the_minute(fake: FakeSide, adapter: Adapter, how: str) -> None:
    """Whatever it says of seconds: it is not worth waiting for."""
    fake.expect(Fault.QUOTA_OF_THE_DAY)
    error = await error_of(adapter, how)
    assert isinstance(error, UpstreamRateLimited)
    assert error.quota == "day"


@pytest.mark.parametrize("fault", [Fault.ERROR_IN_STREAM, Fault.TRUNCATED_STREAM, Fault.DROPPED_MIDWAY])
async def test_what_was_streamed_before_a_break_was_delivered(fake: FakeSide, adapter: Adapter, fault: Fault) -> None:
    """The text so far comes first, then the error: never an end that looks like a good one."""
    fake.expect(fault)
    pieces: list[Delta] = []

    async def read() -> None:
        async for piece in adapter.stream(asking(), PLENTY_S):
            pieces.append(piece)

    with pytest.raises(UpstreamError):
        await read()
    assert "".join(piece.text for piece in pieces)
    assert {piece.finish_reason for piece in pieces} == {None}
