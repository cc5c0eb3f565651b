"""Chat completions of OpenAI-style servers, whole and streamed."""

import base64
import gzip
import json

import pytest

from app.backends.base import ChatRequest, Message
from app.backends.bounds import MAX_REPLY_BYTES
from app.backends.openai_compatible.adapter import OpenAICompatible
from app.backends.settings import BackendSettings
from app.domain import Function, Image, TokenCount, Tools
from app.errors import ConfigError, InvalidRequest, Refused, UpstreamBadReply, UpstreamUnavailable
from tests.fakes.faults import Fault
from tests.fakes.http_server import answering
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import Dialect, OpenAIServer
from tests.unit.app.backends.openai_compatible.opening import TIMEOUT_S, asking, collected, opened

pytestmark = pytest.mark.anyio
DIALECTS = pytest.mark.parametrize("dialect", ["vllm", "ollama", "openai"])


@DIALECTS
async def test_a_reply_is_the_servers_text_with_its_reason_and_tokens(dialect: Dialect) -> None:
    """A completion gives the text, why it ended, the model's name, and the tokens that the server billed."""
    server = OpenAIServer(dialect)
    async with server, opened(server) as adapter:
        before = server.billed
        reply = await adapter.complete(asking(), TIMEOUT_S)
    assert (reply.text, reply.finish_reason, reply.model) == (server.model.answer, "stop", "tiny")
    assert reply.tokens.input == server.billed.input - before.input
    assert reply.tokens.output == server.billed.output - before.output > 0
    assert bool(reply.tokens.cached) is (dialect != "ollama")


@DIALECTS
async def test_the_deltas_make_up_the_reply(dialect: Dialect) -> None:
    """Concatenated deltas are the whole text, and the last one carries the reason and the tokens of a whole reply."""
    server = OpenAIServer(dialect)
    async with server, opened(server) as adapter:
        whole = await adapter.complete(asking(), TIMEOUT_S)
        deltas = await collected(adapter, asking())
    assert "".join(delta.text for delta in deltas) == whole.text
    assert [delta.finish_reason for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
    assert (deltas[-1].finish_reason, deltas[-1].tokens) == ("stop", whole.tokens)


async def test_vllm_counts_along() -> None:
    """A vLLM tells the tokens so far with each piece, so that a stream given up is known by what it cost."""
    server = OpenAIServer("vllm")
    async with server, opened(server) as adapter:
        stream = adapter.stream(asking(), TIMEOUT_S)
        first, second = await anext(stream), await anext(stream)
        await stream.aclose()
    assert first.tokens is not None
    assert second.tokens is not None
    assert (first.tokens.output, second.tokens.output) == (1, 2)
    assert first.tokens.input > 0


@DIALECTS
async def test_the_request_says_everything_that_was_asked_for(dialect: Dialect) -> None:
    """Limit, temperature, stop words, seed and the turns arrive as they were given; guided_* is never used."""
    server = OpenAIServer(dialect)
    request = ChatRequest(
        messages=(Message(role="system", content="Be brief."), Message(role="user", content="Hello")),
        max_output_tokens=7,
        stop=("END",),
        seed=11,
    )
    async with server, opened(server) as adapter:
        await adapter.complete(request, TIMEOUT_S)
    (body,) = server.bodies()
    limit = "max_completion_tokens" if dialect == "openai" else "max_tokens"
    assert (body[limit], body["temperature"], body["stop"], body["seed"]) == (7, 0.0, ["END"], 11)
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    assert not [key for key in body if key.startswith("guided")]


@DIALECTS
async def test_a_reply_cut_for_its_length_says_so(dialect: Dialect) -> None:
    """A reply that reaches the limit ends with "length", whole and streamed."""
    server = OpenAIServer(dialect)
    async with server, opened(server) as adapter:
        reply = await adapter.complete(asking(max_output_tokens=2), TIMEOUT_S)
        deltas = await collected(adapter, asking(max_output_tokens=2))
    assert (reply.finish_reason, reply.tokens.output) == ("length", 2)
    assert deltas[-1].finish_reason == "length"


@DIALECTS
async def test_structured_output_fits_its_schema(dialect: Dialect) -> None:
    """With a schema the text is JSON of that shape; `uniqueItems`, which vLLM refuses, is not sent."""
    server = OpenAIServer(dialect)
    schema = {
        "type": "object",
        "properties": {"grades": {"type": "array", "uniqueItems": True}, "uniqueItems": {"type": "integer"}},
        "required": ["grades", "uniqueItems"],
        "additionalProperties": False,
    }
    async with server, opened(server) as adapter:
        reply = await adapter.complete(asking(schema=schema), TIMEOUT_S)
    assert json.loads(reply.text) == {"grades": [], "uniqueItems": 0}
    sent = server.bodies()[0]["response_format"]["json_schema"]
    assert sent["schema"]["properties"]["grades"] == {"type": "array"}
    assert sent.get("strict") is (True if dialect == "openai" else None)


async def test_vllms_json_cannot_run_away() -> None:
    """For vLLM alone a schema brings stop words against endless white space, beside the caller's own."""
    bodies = {}
    for dialect in ("vllm", "ollama"):
        server = OpenAIServer(dialect)
        async with server, opened(server) as adapter:
            await adapter.complete(asking(schema={"type": "object"}, stop=("END",)), TIMEOUT_S)
        bodies[dialect] = server.bodies()[0]
    assert bodies["ollama"]["stop"] == ["END"]
    assert bodies["vllm"]["stop"][0] == "END"
    assert "\n\n\n" in bodies["vllm"]["stop"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_reply_without_end_is_read_no_further(streamed: bool, packed: bool) -> None:
    """Beyond the limit it counts as one that cannot be read, whether it was sent or unpacked to that size."""
    whole = json.dumps({"choices": [{"message": {"content": "a" * MAX_REPLY_BYTES}, "finish_reason": "stop"}]}).encode()
    body = b"data: %s\n\ndata: [DONE]\n\n" % whole if streamed else whole
    headers = {"Content-Type": "text/event-stream"} if streamed else {}
    if packed:
        body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
    with answering(200, body, headers=headers) as url:
        adapter = OpenAICompatible("gemma", BackendSettings(kind="vllm", url=f"{url}/v1", model="tiny"))
        with pytest.raises(UpstreamBadReply):
            await (collected(adapter, asking()) if streamed else adapter.complete(asking(), TIMEOUT_S))
        await adapter.aclose()


@pytest.mark.parametrize("streamed", [False, True])
async def test_json_that_ran_away_was_cut(streamed: bool) -> None:
    """A document that vLLM stopped for its white space ends with "length": it is not whole."""
    body = {"choices": [{"message": {"content": "{"}, "finish_reason": "stop", "stop_reason": "\n\n\n"}]}
    whole = json.dumps(body).encode()
    with answering(200, b"data: %s\n\ndata: [DONE]\n\n" % whole if streamed else whole) as url:
        adapter = OpenAICompatible("gemma", BackendSettings(kind="vllm", url=f"{url}/v1", model="tiny"))
        if streamed:
            reason = (await collected(adapter, asking(schema={"type": "object"})))[-1].finish_reason
        else:
            reason = (await adapter.complete(asking(schema={"type": "object"}), TIMEOUT_S)).finish_reason
        await adapter.aclose()
    assert reason == "length"


@DIALECTS
async def test_pictures_travel_in_the_request(dialect: Dialect) -> None:
    """A picture is sent as a data: URL before the text, and costs its tokens."""
    server = OpenAIServer(dialect)
    picture = Image(data=b"\x89PNG...", media_type="image/png")
    async with server, opened(server) as adapter:
        blind = await adapter.complete(asking("What is this?"), TIMEOUT_S)
        request = ChatRequest(messages=(Message(role="user", content="What is this?", images=(picture,)),))
        seen = await adapter.complete(request, TIMEOUT_S)
    shown, text = server.bodies()[1]["messages"][0]["content"]
    encoded = shown["image_url"]["url"].removeprefix("data:image/png;base64,")
    assert base64.b64decode(encoded) == picture.data
    assert text == {"type": "text", "text": "What is this?"}
    assert seen.tokens.input > blind.tokens.input


@pytest.mark.parametrize("kind", [True, "inline"])
@DIALECTS
async def test_a_thinking_model_is_told_not_to(dialect: Dialect, kind: bool | str) -> None:
    """A model that can think does not when asked through us, in the way that its server understands."""
    server = OpenAIServer(dialect, FakeModel(thinks=kind))
    async with server, opened(server) as adapter:
        reply = await adapter.complete(asking(), TIMEOUT_S)
    assert (reply.text, reply.tokens.thinking) == (server.model.answer, 0)
    switch = {"enable_thinking": False, "thinking": False}
    body = server.bodies()[0]
    assert body.get("chat_template_kwargs") == (switch if dialect == "vllm" else None)
    assert body.get("reasoning_effort") == (None if dialect == "vllm" else "none")


@pytest.mark.parametrize("kind", [True, "inline"])
async def test_thoughts_never_become_text(kind: bool | str) -> None:
    """What a model thinks all the same, beside the text or between tags in it, is left out of the text."""
    server = OpenAIServer("openai", FakeModel(thinks=kind))
    async with server, opened(server, probe=False, model="tiny") as adapter:
        server.lacks = frozenset({"modern"})
        reply = await adapter.complete(asking(), TIMEOUT_S)
        deltas = await collected(adapter, asking())
    assert reply.text == server.model.answer
    assert "".join(delta.text for delta in deltas) == server.model.answer
    assert reply.tokens.thinking > 0
    assert deltas[-1].tokens == reply.tokens


async def test_a_model_that_only_takes_its_own_temperature_is_not_told_one() -> None:
    """Where a server refuses any temperature but its own, none is sent."""
    server = OpenAIServer("openai", lacks=frozenset({"temperature"}))
    async with server, opened(server) as adapter:
        await adapter.complete(asking(), TIMEOUT_S)
    assert "temperature" not in server.bodies()[0]


@pytest.mark.parametrize("streamed", [False, True])
async def test_out_of_tokens_without_text_is_a_reply(streamed: bool) -> None:
    """A reply whose tokens went before the first word is empty, ends with "length", and its tokens are told."""
    server = OpenAIServer("vllm")
    async with server, opened(server) as adapter:
        server.expect(Fault.OUT_OF_TOKENS)
        if streamed:
            deltas = await collected(adapter, asking(max_output_tokens=3))
            text, reason, tokens = "".join(d.text for d in deltas), deltas[-1].finish_reason, deltas[-1].tokens
        else:
            reply = await adapter.complete(asking(max_output_tokens=3), TIMEOUT_S)
            text, reason, tokens = reply.text, reply.finish_reason, reply.tokens
    assert (text, reason) == ("", "length")
    assert tokens is not None
    assert tokens.thinking == 3


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_blocked_answer_is_refused_with_what_it_cost(streamed: bool) -> None:
    """An answer cut by a content filter raises Refused, which carries the tokens that were billed."""
    server = OpenAIServer("openai")
    async with server, opened(server) as adapter:
        before = server.billed
        server.expect(Fault.BLOCKED_ANSWER)
        with pytest.raises(Refused) as caught:
            await (collected(adapter, asking()) if streamed else adapter.complete(asking(), TIMEOUT_S))
    assert caught.value.tokens is not None
    assert before + caught.value.tokens == server.billed
    assert caught.value.tokens != TokenCount()


async def test_without_a_model_and_a_probe_nothing_can_be_asked() -> None:
    """An adapter that was told no model and could not ask for one says so, as something that may pass."""
    server = OpenAIServer("vllm")
    async with server, opened(server, probe=False) as adapter:
        assert adapter.scorer is None
        with pytest.raises(UpstreamUnavailable, match="its model is not known yet"):
            await adapter.complete(asking(), TIMEOUT_S)
    assert server.requests == []


async def test_half_a_surrogate_pair_is_the_callers_mistake() -> None:
    """A text that cannot be encoded never leaves, and is not blamed on the server."""
    server = OpenAIServer("vllm")
    async with server, opened(server) as adapter:
        with pytest.raises(InvalidRequest, match="surrogate"):
            await adapter.complete(asking("\ud800"), TIMEOUT_S)


def test_a_server_without_a_url_is_a_mistake_of_the_settings() -> None:
    """vLLM and Ollama have no address of their own: without `url` the settings are refused."""
    with pytest.raises(ConfigError, match=r"\[backends.gemma\] needs a url"):
        OpenAICompatible("gemma", BackendSettings(kind="vllm"))


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("tools", [None, Tools(functions=(Function(name="time"),))])
async def test_calls_are_read_where_there_are_tools(streamed: bool, tools: Tools | None) -> None:
    """A call without an id gets one, which clients need; where nobody offered tools, none is read."""
    said = {"content": "", "tool_calls": [{"function": {"name": "time", "arguments": "{}"}}]}
    body = {"choices": [{"delta" if streamed else "message": said, "finish_reason": "tool_calls"}]}
    whole = json.dumps(body).encode()
    with answering(200, b"data: %s\n\ndata: [DONE]\n\n" % whole if streamed else whole) as url:
        adapter = OpenAICompatible("gemma", BackendSettings(kind="vllm", url=f"{url}/v1", model="tiny"))
        if streamed:
            calls = [call for delta in await collected(adapter, asking(tools=tools)) for call in delta.calls]
        else:
            calls = list((await adapter.complete(asking(tools=tools), TIMEOUT_S)).calls)
        await adapter.aclose()
    assert [(call.name, call.arguments, bool(call.id)) for call in calls] == ([("time", "{}", True)] if tools else [])
