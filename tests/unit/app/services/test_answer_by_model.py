"""Answers that a model writes, over scripted backends."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal

import msgspec
import pytest

from app.backends.base import ChatRequest, Delta
from app.backends.client import BackendClient
from app.backends.router import Backend, Backends, Router
from app.backends.settings import RoutingSettings
from app.domain import ANONYMOUS, AnswerDone, AnswerEvent, Query, Question, SourcesFound, TextDelta
from app.errors import UpstreamBadReply, UpstreamUnavailable
from app.services.answer import Answerer
from app.text.fencing import DrawFence, draw_fence
from tests.fakes.adapters import Plan, ScriptedAdapter
from tests.fakes.answering import FoundPassages, WordVectors
from tests.fakes.clients import make_client

pytestmark = pytest.mark.anyio

PASSAGE = "Dental cover starts on day one. It is free."
SAYS = "Dental cover starts on day one [1.1]."


class CountingAdapter(ScriptedAdapter):
    """Counts the pieces that were taken from it."""

    taken = 0

    async def stream(self, request: ChatRequest, timeout_s: float) -> AsyncGenerator[Delta, None]:
        async with aclosing(super().stream(request, timeout_s)) as deltas:
            async for delta in deltas:
                self.taken += 1
                yield delta


def answerer(*lines: BackendClient, fence: DrawFence = draw_fence) -> Answerer:
    async def router() -> Router:
        return Router(lines, RoutingSettings())

    backends = Backends([Backend(name=line.name, kind="vllm", roles=("rank", "answer")) for line in lines])
    return Answerer(FoundPassages(PASSAGE), backends, router, WordVectors().embed, deadline_s=100, fence=fence)


def question(text: str = "When does dental cover start?") -> Question:
    return Question(search=Query(text=text, backend="none"), answer_backend="auto")


def talking(*pieces: str) -> CountingAdapter:
    return CountingAdapter(rest=Plan(seconds=0, apart=0, pieces=pieces))


async def test_a_slow_reader_is_not_written_ahead_of() -> None:
    """Nothing is taken from the model that nobody asked for; closing the answer ends the call."""
    # What a model says twice in a row is said once, so that each sentence has to differ from the one before.
    adapter = talking(SAYS, *[" And it is free [1.2].", f" {SAYS}"] * 500)
    events = answerer(make_client(adapter)).stream(question(), ANONYMOUS)
    async with aclosing(events):
        for taken in range(1, 50):
            await anext(events)
            assert adapter.taken <= taken + 1
    assert (adapter.under_way, adapter.stopped) == (0, 1)


async def test_sources_come_before_the_first_support_does() -> None:
    """What is held back is text; what was found is known before."""
    events = answerer(make_client(talking("Well, ", "let us see. ", SAYS))).stream(question(), ANONYMOUS)
    kinds = [type(event) async for event in events]
    assert kinds[0] is SourcesFound
    assert kinds[-1] is AnswerDone
    assert TextDelta in kinds


LONG_S = 60.0


@pytest.mark.parametrize(
    ("plan", "events"),
    [
        (Plan(seconds=LONG_S), 0),
        (Plan(seconds=0, apart=LONG_S, pieces=("Dental cover",)), 1),
        (Plan(seconds=0, apart=0, pieces=(SAYS, *[" And it is free [1.2]."] * 1000)), 5),
    ],
)
async def test_leaving_in_any_moment_ends_the_call(plan: Plan, events: int) -> None:
    """Before the first token, while text is held back, or in the middle of the answer."""
    adapter = ScriptedAdapter(rest=plan)
    line = make_client(adapter)
    received: list[AnswerEvent] = []

    async def consume() -> None:
        async with aclosing(answerer(line).stream(question(), ANONYMOUS)) as stream:
            async for event in stream:
                received.append(event)

    asking = asyncio.create_task(consume())
    while len(received) < events or not adapter.begun:  # noqa: ASYNC110 - the test's time limit ends a vain wait
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert (adapter.under_way, adapter.stopped, line.status().in_flight) == (0, 1, 0)


async def test_giving_up_a_whole_answer_ends_the_call() -> None:
    """As a client that hangs up does."""
    adapter = ScriptedAdapter(rest=Plan(seconds=LONG_S))
    line = make_client(adapter)
    asking = asyncio.create_task(answerer(line).answer(question(), ANONYMOUS))
    while not adapter.begun:  # noqa: ASYNC110 - the test's time limit ends a vain wait
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert (adapter.under_way, adapter.stopped, line.status().in_flight) == (0, 1, 0)


async def test_usage_is_of_the_whole_request() -> None:
    """The model's call is on the bill of the answer."""
    answer = await answerer(make_client(talking(SAYS))).answer(question(), ANONYMOUS)
    assert answer.answer == "Dental cover starts on day one [1]."
    assert answer.usage.by_stage.keys() == {"answer"}


async def test_the_backend_that_fails_is_followed_by_the_next() -> None:
    """Before its first token; it is named in the answer."""
    away = ScriptedAdapter(rest=Plan(pieces=(), failure=UpstreamUnavailable("one", "away")))
    lines = make_client(away, name="one", retries=0), make_client(talking(SAYS), name="two")
    [*_, done] = [event async for event in answerer(*lines).stream(question(), ANONYMOUS)]
    assert isinstance(done, AnswerDone)
    assert [one.backend for one in done.answer.answer_backend.fallbacks] == ["one"]
    assert done.answer.answer_backend.used == "two"


@pytest.mark.parametrize(
    ("reply", "checked", "reason", "cut"),
    [
        (SAYS, "structural", None, True),
        (SAYS + " And it", "structural", None, True),
        (SAYS + " NO_ANSWER", "structural", None, True),
        (SAYS, "model", "unsupported", True),
        ("As far as I can", "structural", "unsupported", True),
        ("NO_ANSWER: the passages", "structural", "model_declined", False),
        ("Let me see. NO_ANSWER, since", "structural", "model_declined", False),
    ],
)
async def test_an_answer_that_was_cut_says_so(
    reply: str, checked: Literal["structural", "model"], reason: str | None, cut: bool
) -> None:
    """Whole and streamed, with a warning, whatever is left of it; not where the model said that there is none."""
    service = answerer(make_client(ScriptedAdapter(rest=Plan(seconds=0, apart=0, pieces=(reply,), reason="length"))))
    asked = msgspec.structs.replace(question(), check_citations=checked)
    [*_, streamed] = [event async for event in service.stream(asked, ANONYMOUS)]
    for done in (await service.whole(asked, ANONYMOUS), streamed):
        assert isinstance(done, AnswerDone)
        assert (done.answer.abstain_reason, done.cut) == (reason, cut)
        assert done.answer.warnings == cut * ("The answer was cut off: it used up max_output_tokens.",)


async def test_tokens_spent_on_thoughts_say_nothing_about_the_documents() -> None:
    """An error that names the fix, whole and streamed, not an abstention."""
    silent = Plan(seconds=0, apart=0, pieces=("",), reason="length")
    service = answerer(make_client(ScriptedAdapter(rest=silent)))
    with pytest.raises(UpstreamBadReply, match="raise `max_output_tokens`"):
        await service.whole(question(), ANONYMOUS)
    with pytest.raises(UpstreamBadReply, match="raise `max_output_tokens`"):
        [_ async for _ in service.stream(question(), ANONYMOUS)]


@pytest.mark.parametrize("reply", ["As far as I know, it is a matter of taste.", ""])
async def test_a_reply_without_support_can_be_replaced(reply: str) -> None:
    """By the passages' own sentences, which is said in `degraded` and in who answered; a model may still decline."""
    unsupported = Plan(seconds=0, apart=0, pieces=(reply,), reason="length")
    service = answerer(make_client(ScriptedAdapter(rest=unsupported)))
    asked = msgspec.structs.replace(question(), fallback="extractive", min_relevance=0.0)
    answer = await service.answer(asked, ANONYMOUS)
    assert (answer.answerable, answer.answer_backend.used) == (True, "extractive")
    assert [one.reason for one in answer.answer_backend.fallbacks] == ["unsupported"]
    assert "the answer is extractive" in answer.degraded[-1]
    assert answer.citations[0].verified
    declined = answerer(make_client(talking("NO_ANSWER")))
    assert (await declined.answer(asked, ANONYMOUS)).abstain_reason == "model_declined"


async def test_no_fence_leaves_an_answer() -> None:
    """The model is told to stop there; one that does not is ended."""
    adapter = ScriptedAdapter(rest=Plan(seconds=0, apart=0, pieces=(SAYS, "\nmxkqzvbw passage 2\nIt is free.")))
    service = answerer(make_client(adapter), fence=lambda _: "mxkqzvbw")
    assert (await service.answer(question(), ANONYMOUS)).answer == "Dental cover starts on day one [1]."


async def test_others_get_their_turn_while_a_long_reply_is_read() -> None:
    """A reply that comes as a whole is read in small pieces, between which the event loop goes on."""
    turns = found = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    reply = SAYS + " And it is free [1.2]." * 300
    counting = asyncio.create_task(count())
    async for event in answerer(make_client(talking(reply))).stream(question(), ANONYMOUS):
        found = turns if isinstance(event, SourcesFound) else found
    counting.cancel()
    assert turns - found > len(reply) / 64
