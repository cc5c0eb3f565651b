"""One attempt, and the guards that it passes."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from msgspec.structs import replace

from app.backends.attempt import Guard, Outcome, Release, Terms, begin
from app.backends.base import Delta, Reply, tokens_of
from app.domain import TokenCount
from app.errors import Overloaded, UpstreamUnavailable
from tests.fakes.adapters import TOKENS
from tests.fakes.clients import a_call

pytestmark = pytest.mark.anyio

REPLY = Reply(text="It is 42.", finish_reason="stop", tokens=TOKENS, model="fake-1")


class Concerns:
    """Guards that record what they learn; one that `books` takes a moment for it, one that `refuses` lets nobody in."""

    def __init__(self) -> None:
        self.story: list[str] = []
        self.outcomes: list[Outcome] = []

    def guard(self, name: str, *, refuses: bool = False, books: bool = False) -> Guard:
        """One that calls itself `name`."""

        async def book() -> None:
            await asyncio.sleep(0)
            self.story.append(f"{name} booked")

        def release(outcome: Outcome | None) -> Coroutine[Any, Any, None] | None:
            self.story.append(f"{name} undone" if outcome is None else f"{name} {outcome.code}")
            if outcome is not None:
                self.outcomes.append(outcome)
            return book() if books else None

        async def guard(terms: Terms) -> Release:
            if refuses:
                raise Overloaded("full")
            self.story.append(name)
            return release

        return guard


def terms() -> Terms:
    """Those of an ordinary call."""
    return Terms(call=a_call(), worst=TokenCount(input=10, output=100))


async def test_a_refused_attempt_leaves_nothing_taken() -> None:
    """What the earlier guards took is given back in reverse order, and the later ones are not asked."""
    concerns = Concerns()
    guards = [concerns.guard("a"), concerns.guard("b"), concerns.guard("c", refuses=True), concerns.guard("d")]
    with pytest.raises(Overloaded):
        await begin("gemma", guards, terms(), lambda: 0.0, 5)
    assert concerns.story == ["a", "b", "b undone", "a undone"]


async def test_everything_is_given_back_before_it_is_booked() -> None:
    """A slot does not wait for the ledger."""
    concerns = Concerns()
    guards = [concerns.guard("meter", books=True), concerns.guard("slot")]
    attempt = await begin("gemma", guards, terms(), lambda: 0.0, 5)
    assert await attempt.whole(lambda within_s: asyncio.sleep(0, REPLY)) is REPLY
    assert concerns.story == ["meter", "slot", "meter ok", "slot ok", "meter booked"]
    assert [outcome.tokens for outcome in concerns.outcomes] == [TOKENS, TOKENS]


async def test_a_reply_whose_tokens_nobody_counted_is_estimated() -> None:
    """Else no budget would see it: the whole prompt, and the text that came."""
    concerns = Concerns()
    attempt = await begin("gemma", [concerns.guard("meter")], terms(), lambda: 0.0, 5)
    await attempt.whole(lambda within_s: asyncio.sleep(0, replace(REPLY, tokens=TokenCount())))
    (outcome,) = concerns.outcomes
    assert outcome.tokens is None
    assert outcome.estimate == TokenCount(input=10, output=tokens_of(REPLY.text))


async def test_a_stream_whose_tokens_nobody_counted_is_estimated() -> None:
    """As a whole reply is; zeros do not replace what the server has counted before."""
    concerns = Concerns()
    attempt = await begin("gemma", [concerns.guard("meter")], terms(), lambda: 0.0, 5)
    attempt.note(Delta(text=REPLY.text, finish_reason="stop", tokens=TokenCount()))
    await attempt.end()
    counted = await begin("gemma", [concerns.guard("meter")], terms(), lambda: 0.0, 5)
    counted.note(Delta(text=REPLY.text, tokens=TOKENS))
    counted.note(Delta(text="", finish_reason="stop", tokens=TokenCount()))
    await counted.end()
    assert [outcome.tokens for outcome in concerns.outcomes] == [None, TOKENS]
    assert concerns.outcomes[0].estimate == TokenCount(input=10, output=tokens_of(REPLY.text))


async def test_every_guard_learns_how_it_ended() -> None:
    """A failure reaches them all, with the seconds that it took."""
    concerns, times = Concerns(), iter([0.0, 0.0, 3.0])

    async def fail(within_s: float) -> Reply:
        raise UpstreamUnavailable("gemma", "gemma is unavailable (HTTP 503)", tokens=TOKENS)

    attempt = await begin("gemma", [concerns.guard("a"), concerns.guard("b")], terms(), lambda: next(times), 5)
    with pytest.raises(UpstreamUnavailable):
        await attempt.whole(fail)
    assert [(outcome.code, outcome.tokens, outcome.seconds) for outcome in concerns.outcomes] == [
        ("unavailable", TOKENS, 3.0)
    ] * 2


async def test_a_booking_outlives_its_caller() -> None:
    """Whoever is cancelled while the attempt is being booked leaves a booked attempt behind."""
    concerns = Concerns()
    attempt = await begin("gemma", [concerns.guard("meter", books=True)], terms(), lambda: 0.0, 5)
    ending = asyncio.ensure_future(attempt.end())
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert concerns.story[-1] == "meter booked"
