"""Texts that are labelled together: what they cost each, and that nobody waits for ever."""

import asyncio
from typing import Any, cast

import pytest

from app.backends.base import Account, Call, ChatRequest, Reply, Scoring, call_of
from app.backends.router import Route, Served
from app.classification import labelling_of
from app.domain import ANONYMOUS, BackendUse, Label, TokenCount
from app.errors import UpstreamUnavailable
from app.services.labelling import Labeller
from tests.fakes.labelling_mind import labels_of

pytestmark = pytest.mark.anyio

LABELLING = labelling_of((Label(name="POSITIVE"), Label(name="NEGATIVE")))
TOKENS = TokenCount(input=101, output=11)


class OneClient:
    """A backend that states labels, and books what each call used."""

    name, local = "gemma", False

    def __init__(self, fault: Exception | None = None, scoring_fault: Exception | None = None) -> None:
        self.calls = 0
        self._fault, self._scoring_fault, self._mind = fault, scoring_fault, labels_of(leaves_out="odd")

    def offers(self, needs: frozenset[str]) -> bool:
        return "structured" in needs or ("logprobs" in needs and self._scoring_fault is not None)

    async def known(self, _: float) -> None:
        """It is."""

    async def complete(self, request: ChatRequest, call: Call, _: object) -> Reply:
        self.calls += 1
        await asyncio.sleep(0)
        if self._fault:
            raise self._fault
        call.account.add(call.stage, 1, TOKENS, 0.1)
        text = self._mind([(turn.role, turn.content) for turn in request.messages], request.schema)
        return Reply(text=text or "", finish_reason="stop", tokens=TOKENS, model="gemma-3")

    async def score(self, *_: object) -> Scoring:
        """What it offers does not work."""
        assert self._scoring_fault
        raise self._scoring_fault


class OneRoute:
    """A route to it alone."""

    def __init__(self, client: OneClient) -> None:
        self.clients = (client,)

    async def first(self, _: Call, serve: Any) -> Served[Any]:
        return Served(await serve(self.clients[0], None), BackendUse(requested="auto", used="gemma"))


def _labeller(client: OneClient) -> Labeller:
    return Labeller(cast(Route, OneRoute(client)), LABELLING)


def _calls(count: int) -> list[Call]:
    return [call_of("classify", 60, ANONYMOUS) for _ in range(count)]


def _used(accounts: list[Account]) -> tuple[int, int, int, float]:
    usages = [account.usage() for account in accounts]
    return (
        sum(usage.requests for usage in usages),
        sum(usage.input_tokens for usage in usages),
        sum(usage.output_tokens for usage in usages),
        sum(usage.cost_usd for usage in usages),
    )


async def test_texts_of_one_call_share_what_it_used() -> None:
    """Together they have exactly the call's tokens, and each has its part of the cost."""
    client, calls = OneClient(), _calls(3)
    labeller = _labeller(client)
    labelled = await asyncio.gather(*(labeller.label(f"good {n}", call) for n, call in enumerate(calls)))
    assert {one.judgement.scores for one in labelled} == {(0.9, 0.1)}
    assert client.calls == 1
    assert _used([call.account for call in calls]) == (1, 101, 11, pytest.approx(0.1))
    assert [call.account.usage().input_tokens for call in calls] == [35, 33, 33]


async def test_what_one_way_said_stays_when_the_next_fails() -> None:
    """A text that the model left out does not cost the others their labels."""
    client = OneClient(scoring_fault=UpstreamUnavailable("gemma", "gemma is away"))
    labelling = labelling_of((Label(name="POSITIVE"), Label(name="NEGATIVE")), exclusive=False)
    labeller = Labeller(cast(Route, OneRoute(client)), labelling)
    texts = ("good 1", "odd", "bad 2")
    waiting = (labeller.label(text, call) for text, call in zip(texts, _calls(3), strict=True))
    labelled = await asyncio.gather(*waiting)
    assert [one.judgement.scores for one in labelled] == [(0.9, 0.1), (0.5, 0.5), (0.2, 0.8)]
    assert client.calls == 2


async def test_a_fault_of_ours_reaches_all_who_wait() -> None:
    """They get it, instead of waiting for a result that will never come."""
    labeller = _labeller(OneClient(RuntimeError("a fault")))
    waiting = (labeller.label(f"good {n}", call) for n, call in enumerate(_calls(2)))
    async with asyncio.timeout(60):
        ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(one) for one in ended] == [RuntimeError, RuntimeError]


async def test_who_leaves_does_not_stop_the_others() -> None:
    """The call goes on for those who are left, and ends when nobody is."""
    client = OneClient()
    labeller = _labeller(client)
    first, second = (asyncio.create_task(labeller.label(f"good {n}", call)) for n, call in enumerate(_calls(2)))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).judgement.scores == (0.9, 0.1)
    await asyncio.gather(first, return_exceptions=True)
    assert first.cancelled()
