"""What the adapter makes of real models on llama.cpp's server and on vLLM, compared with the servers themselves."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.backends.base import Adapter, ChatRequest, Delta, Message
from app.backends.registry import open_adapter
from app.errors import PromptTooLong, UpstreamRejected
from tests.real.running import CONTEXT, Server

pytestmark = [pytest.mark.anyio, pytest.mark.real, pytest.mark.timeout(400)]

TALK = (
    Message(role="system", content="Answer in one sentence."),
    Message(role="user", content="Where is the Eiffel Tower?"),
)


@asynccontextmanager
async def adapter_of(server: Server, **changes: object) -> AsyncIterator[Adapter]:
    """A probed one."""
    adapter = open_adapter("real", server.settings(**changes))
    try:
        await adapter.probe(120)
        yield adapter
    finally:
        await adapter.aclose()


async def test_a_probe_finds_model_context_and_abilities(server: Server) -> None:
    """As the server describes itself: no picture is seen, structured output and log-probabilities are there."""
    adapter = open_adapter("real", server.settings())
    try:
        probed = await adapter.probe(120)
    finally:
        await adapter.aclose()
    assert (probed.model, probed.context_tokens) == (server.model, CONTEXT)
    assert {"chat", "structured", "logprobs"} <= probed.capabilities
    assert "images" not in probed.capabilities
    assert probed.requests > 0


async def test_the_template_is_applied_once_and_its_tokens_are_counted(server: Server) -> None:
    """The prompt's tokens are those of the rendered conversation, with each marker once a turn."""
    rendered = server.rendered([{"role": turn.role, "content": turn.content} for turn in TALK])
    async with adapter_of(server) as adapter:
        reply = await adapter.complete(ChatRequest(messages=TALK, max_output_tokens=4), 60)
    assert reply.tokens.input == len(server.tokens(rendered))
    assert rendered.count("Where is the Eiffel Tower?") == 1
    assert rendered.count(server.opens) == rendered.count(server.closes) + 1


async def test_a_stream_is_the_whole_reply_in_pieces(server: Server) -> None:
    """The same text, the same tokens, the same reason to end."""
    request = ChatRequest(messages=TALK, max_output_tokens=24)
    async with adapter_of(server) as adapter:
        whole = await adapter.complete(request, 60)
        deltas: list[Delta] = [delta async for delta in adapter.stream(request, 60)]
    assert "".join(delta.text for delta in deltas) == whole.text
    assert deltas[-1].finish_reason == whole.finish_reason == "length"
    tokens = next(delta.tokens for delta in reversed(deltas) if delta.tokens)
    assert (tokens.input, tokens.output) == (whole.tokens.input, whole.tokens.output)


async def test_the_same_request_has_the_same_reply(server: Server) -> None:
    """At temperature 0, whatever of the prompt is in the server's cache."""
    request = ChatRequest(messages=TALK, max_output_tokens=12)
    async with adapter_of(server) as adapter:
        texts = {(await adapter.complete(request, 60)).text for _ in range(3)}
    assert len(texts) == 1


async def test_labels_are_scored_by_the_first_token(server: Server) -> None:
    """Log-probabilities, none above 0 and together no more than certain."""
    prompt = (Message(role="user", content="Reply with one digit, 0 or 1."),)
    async with adapter_of(server) as adapter:
        assert adapter.scorer is not None
        scoring = await adapter.scorer.score([prompt], ["0", "1"], 60)
    (scores,) = scoring.scores
    assert scores is not None
    assert all(logprob is None or logprob <= 0 for logprob in scores.logprobs)


async def test_structured_output_keeps_to_the_schema(server: Server) -> None:
    """Even of a model that was never instructed."""
    schema = {
        "type": "object",
        "properties": {"grade": {"type": "integer", "enum": [0, 1, 2, 3]}},
        "required": ["grade"],
        "additionalProperties": False,
    }
    async with adapter_of(server) as adapter:
        reply = await adapter.complete(ChatRequest(messages=TALK, max_output_tokens=40, schema=schema), 60)
    assert reply.text.strip().startswith("{")


async def test_a_prompt_beyond_the_context_is_told_as_one(server: Server) -> None:
    """PromptTooLong, with the context."""
    turns = (Message(role="user", content="word " * (CONTEXT + 500)),)
    async with adapter_of(server) as adapter:
        with pytest.raises(PromptTooLong, match="too long"):
            await adapter.complete(ChatRequest(messages=turns, max_output_tokens=4), 60)


async def test_a_model_that_is_not_there_is_named(server: Server) -> None:
    """With those that are."""
    adapter = open_adapter("real", server.settings(model="no-such-model"))
    try:
        with pytest.raises(UpstreamRejected, match=f"'no-such-model'.*{server.model}"):
            await adapter.probe(120)
    finally:
        await adapter.aclose()
