"""What every adapter must do, against every server: the ports' contract on good days."""

import asyncio
import json
from contextlib import aclosing

import pytest

from app.backends.base import Adapter, ChatRequest, Delta, LabelScorer, Message, Reply
from app.domain import TokenCount
from app.errors import UpstreamRejected, UpstreamTimeout, UpstreamUnavailable
from tests.contract.sides import FOR_EVER, Side, asking, until

pytestmark = pytest.mark.anyio

PLENTY_S = 60.0
AT_ONCE = 32

SCHEMA = {
    "type": "object",
    "properties": {"verdict": {"enum": ["yes", "no"]}, "sure": {"type": "boolean"}},
    "required": ["verdict", "sure"],
    "additionalProperties": False,
}


def written(tokens: TokenCount) -> int:
    """What is billed as output."""
    return tokens.output + tokens.thinking


async def streamed(adapter: Adapter, request: ChatRequest, timeout_s: float = PLENTY_S) -> list[Delta]:
    async with aclosing(adapter.stream(request, timeout_s)) as pieces:
        return [piece async for piece in pieces]


async def test_a_completion_is_what_the_server_says_when_asked_directly(side: Side, adapter: Adapter) -> None:
    """Text, tokens and the model's name are the server's own."""
    request = asking()
    truth = await side.ask(request.messages[0].content, request.max_output_tokens)
    reply = await adapter.complete(request, PLENTY_S)
    assert reply.text == truth.text != ""
    assert (reply.tokens.input, written(reply.tokens)) == (truth.input, truth.output)
    assert reply.model.startswith(side.model)


async def test_a_stream_tells_what_a_completion_tells(adapter: Adapter) -> None:
    """The pieces are the text; the last one has the finish reason and the tokens of it all, and no other ends it."""
    request = asking()
    whole = await adapter.complete(request, PLENTY_S)
    pieces = await streamed(adapter, request)
    *earlier, last = pieces
    assert "".join(piece.text for piece in pieces) == whole.text
    assert len([piece for piece in earlier if piece.text]) > 1
    assert {piece.finish_reason for piece in earlier} == {None}
    assert last.finish_reason == whole.finish_reason
    assert last.tokens is not None
    assert (last.tokens.input, written(last.tokens)) == (whole.tokens.input, written(whole.tokens))


@pytest.mark.parametrize("limit", [1, 3])
async def test_a_reply_ends_at_its_length(adapter: Adapter, limit: int) -> None:
    """It says so, whole or streamed, and is no longer than was allowed."""
    request = asking(max_output_tokens=limit)
    reply = await adapter.complete(request, PLENTY_S)
    assert (reply.finish_reason, written(reply.tokens)) == ("length", limit)
    assert (await streamed(adapter, request))[-1].finish_reason == "length"


async def test_a_reply_ends_before_a_stop_text(adapter: Adapter) -> None:
    """The stop text is not a part of it."""
    text = (await adapter.complete(asking(), PLENTY_S)).text
    stop = text[len(text) // 2 :][:3]
    request = asking(stop=(stop,))
    reply = await adapter.complete(request, PLENTY_S)
    assert (reply.text, reply.finish_reason) == (text.partition(stop)[0], "stop")
    pieces = await streamed(adapter, request)
    assert ("".join(piece.text for piece in pieces), pieces[-1].finish_reason) == (reply.text, "stop")


async def test_the_system_and_earlier_turns_are_read(adapter: Adapter) -> None:
    """Each of them makes the prompt longer; none is refused or lost."""
    system = Message(role="system", content="Answer in one word.")
    first = Message(role="user", content="Is twelve even?")
    talk = (first, Message(role="assistant", content="Yes."), Message(role="user", content="And seven?"))
    lengths = [
        (await adapter.complete(ChatRequest(messages=turns, max_output_tokens=4), PLENTY_S)).tokens.input
        for turns in ((first,), (system, first), talk, (system, *talk))
    ]
    assert lengths[0] < lengths[1] < lengths[3]
    assert lengths[0] < lengths[2] < lengths[3]
    assert lengths[3] - lengths[2] == lengths[1] - lengths[0]


async def test_a_schema_makes_json(adapter: Adapter) -> None:
    """Whole or streamed, it is JSON that fits."""
    request = asking(schema=SCHEMA, max_output_tokens=100)
    texts = [
        (await adapter.complete(request, PLENTY_S)).text,
        "".join(piece.text for piece in await streamed(adapter, request)),
    ]
    for told in map(json.loads, texts):
        assert set(told) == {"verdict", "sure"}
        assert told["verdict"] in ("yes", "no")
        assert isinstance(told["sure"], bool)


async def test_a_probe_finds_what_the_server_is(side: Side) -> None:
    """Model, context and capabilities; log-probabilities are there exactly when a scorer is."""
    adapter = side.open()
    assert adapter.scorer is None
    found = await adapter.probe(PLENTY_S)
    assert (found.model, found.context_tokens, found.capabilities) == (side.model, side.context, side.capabilities)
    assert (adapter.scorer is not None) == ("logprobs" in found.capabilities)
    assert await adapter.probe(PLENTY_S) == found
    await adapter.aclose()


async def test_a_probe_costs_next_to_nothing(side: Side) -> None:
    """A service that starts several times a day does not notice it on the bill."""
    before = await side.counted()
    adapter = side.open()
    await adapter.probe(PLENTY_S)
    await adapter.aclose()
    after = await side.counted()
    assert (after.input + written(after)) - (before.input + written(before)) < 400


async def test_a_ping_spends_no_token(side: Side, adapter: Adapter) -> None:
    """It only looks whether the server is there and takes the key."""
    before = await side.counted()
    await adapter.ping(PLENTY_S)
    assert await side.counted() == before


@pytest.fixture
def scorer(adapter: Adapter) -> LabelScorer:
    if adapter.scorer is None:
        pytest.skip("it gives no log-probabilities")
    return adapter.scorer


async def test_labels_are_scored_as_the_server_scores_them(side: Side, scorer: LabelScorer) -> None:
    """Natural log-probabilities, not above 0, in the order of the labels, whichever that is."""
    prompt = Message(role="user", content="Which grade, from 0 to 3?")
    for labels in (["0", "1", "2", "3"], ["3", "1", "0", "2"]):
        scoring = await scorer.score([(prompt,)], labels, PLENTY_S)
        (scores,) = scoring.scores
        assert scores is not None
        assert list(scores.logprobs) == pytest.approx(list(await side.likely(prompt, labels)), abs=0.02)
        assert all(value is not None and scores.floor <= value <= 0 for value in scores.logprobs)


async def test_many_conversations_are_scored_in_their_order(scorer: LabelScorer) -> None:
    """Each has the scores that it has alone; all their tokens are counted."""
    prompts = [(Message(role="user", content=f"{'very ' * number}good: a grade?"),) for number in range(9)]
    alone = [await scorer.score([prompt], ["0", "1"], PLENTY_S) for prompt in prompts]
    together = await scorer.score(prompts, ["0", "1"], PLENTY_S)
    for one, same in zip(alone, together.scores, strict=True):
        assert one.scores[0] is not None
        assert same is not None
        assert list(same.logprobs) == pytest.approx(list(one.scores[0].logprobs), abs=0.05)
    assert together.tokens.input == sum(one.tokens.input for one in alone)
    assert 1 <= together.requests <= len(prompts)


async def test_32_calls_at_once_are_told_apart_and_counted(side: Side, adapter: Adapter) -> None:
    """Each reply belongs to its question, and the tokens of all are those that the server counted."""
    before = await side.counted()
    questions = [asking("word " * (3 * number + 1), max_output_tokens=4) for number in range(AT_ONCE)]
    replies = await asyncio.gather(*(adapter.complete(question, PLENTY_S) for question in questions))
    lengths = [reply.tokens.input for reply in replies]
    assert lengths == sorted(set(lengths))

    async def counted() -> tuple[int, int]:
        now = await side.counted()
        return now.input - before.input, written(now) - written(before)

    await until(counted, (sum(lengths), sum(written(reply.tokens) for reply in replies)))


async def let_go(side: Side) -> None:
    """The server stops now, long before it has written all that it was asked for.

    What it wrote before does not count: a starved vLLM may write a lot before it sends the first piece of it.
    """
    before = written(await side.counted())
    await until(side.busy, 0)
    assert written(await side.counted()) - before < FOR_EVER / 2


@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_who_leaves_a_stream_ends_the_call_upstream(side: Side, adapter: Adapter, how: str) -> None:
    """The server stops working on it, and the adapter is as good as before."""
    side.linger()
    seen = asyncio.Event()

    async def read() -> None:
        async with aclosing(adapter.stream(asking(max_output_tokens=FOR_EVER), PLENTY_S)) as pieces:
            async for _ in pieces:  # a random model may write for long what is no text
                seen.set()
                if how == "closed":
                    return

    reading = asyncio.create_task(read())
    await seen.wait()
    if how == "cancelled":
        reading.cancel()
    await asyncio.wait([reading])
    assert reading.cancelled() == (how == "cancelled")
    await let_go(side)
    assert (await adapter.complete(asking(), PLENTY_S)).text


async def _lingering(side: Side, adapter: Adapter) -> "asyncio.Task[Reply]":
    """A call that the server is seen to work on. Of one call in four, vLLM's metrics do not hear."""
    for _ in range(12):
        call = asyncio.create_task(adapter.complete(asking(max_output_tokens=FOR_EVER), PLENTY_S))
        try:
            await until(side.busy, 1, 5)
        except AssertionError:
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        else:
            return call
    raise AssertionError("the server is not seen to work on any call")


async def test_a_cancelled_completion_ends_the_call_upstream(side: Side, adapter: Adapter) -> None:
    """The server stops working on it, and the adapter is as good as before."""
    side.linger()
    call = await _lingering(side, adapter)
    call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()
    await let_go(side)
    assert (await adapter.complete(asking(), PLENTY_S)).text


@pytest.mark.parametrize("how", ["complete", "stream"])
async def test_a_call_ends_with_its_time(side: Side, adapter: Adapter, how: str) -> None:
    """It raises UpstreamTimeout, even where pieces keep coming, and the server stops working on it."""
    side.linger()
    request = asking(max_output_tokens=FOR_EVER)
    with pytest.raises(UpstreamTimeout):
        await (adapter.complete(request, 0.3) if how == "complete" else streamed(adapter, request, 0.3))
    await let_go(side)


async def test_a_wrong_key_is_rejected(side: Side) -> None:
    """By a ping, a probe and a call alike; the text names the setting, not the key."""
    adapter = side.open(api_key="a-wrong-key", model=side.model)
    for call in (adapter.ping(PLENTY_S), adapter.probe(PLENTY_S), adapter.complete(asking(), PLENTY_S)):
        with pytest.raises(UpstreamRejected, match="key") as caught:
            await call
        assert "a-wrong-key" not in str(caught.value)
    await adapter.aclose()


async def test_an_unknown_model_is_rejected(side: Side) -> None:
    """By a probe and a call alike; the text names it."""
    adapter = side.open(model="no-such-model")
    for call in (adapter.probe(PLENTY_S), adapter.complete(asking(), PLENTY_S)):
        with pytest.raises(UpstreamRejected, match="no-such-model"):
            await call
    await adapter.aclose()


async def test_nobody_there_is_unavailable(side: Side, free_tcp_port: int) -> None:
    """A refused connection, whatever was asked for."""
    adapter = side.open(url=f"http://127.0.0.1:{free_tcp_port}/v1", model=side.model)
    calls = (
        adapter.ping(PLENTY_S),
        adapter.probe(PLENTY_S),
        adapter.complete(asking(), PLENTY_S),
        streamed(adapter, asking()),
    )
    for call in calls:
        with pytest.raises(UpstreamUnavailable) as caught:
            await call
        assert caught.value.service == "tested"
    await adapter.aclose()
