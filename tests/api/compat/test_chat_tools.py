"""Tools that a client offers a backend's model: OpenAI's SDK over sockets, with a model server behind the service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk
from structlog.testing import capture_logs

from app.wiring import Services
from tests.api.conftest import SharedStore
from tests.api.test_answer_storm import listening
from tests.fakes.answering_service import ModelServer, backend_of
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.models import services_for
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import SECRET, OpenAIServer

pytestmark = pytest.mark.anyio
DIALECTS = pytest.mark.parametrize("dialect", ["vllm", "ollama", "openai"])

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather at a place",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
        "strict": True,
    },
}
TIME = {"type": "function", "function": {"name": "time"}}
CALLS = (("weather", '{"place": "Köln"}'), ("time", '{"zone": "CET"}'))
NAMED = {"type": "function", "function": {"name": "time"}}
ASKED: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is it like in Köln?"}]
CHORE = "### Task: a title for <chat_history> USER: Köln </chat_history>"
OFFER: Any = {"tools": [WEATHER, TIME]}


class Running:
    """The service on a port, the model server behind its backend "gemma", and a client."""

    def __init__(self, url: str, services: Services, server: ModelServer) -> None:
        self.services, self.server = services, server
        self.client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)

    @property
    def bodies(self) -> list[Any]:
        """What the model was asked, but for what found out what it is."""
        assert isinstance(self.server, OpenAIServer)
        return [body for body in self.server.bodies() if "Köln" in str(body)]

    async def whole(self, messages: Any = ASKED, **more: Any) -> Any:
        return await self.client.chat.completions.create(**{"model": "gemma", "messages": messages, **more})

    async def chunks(self, messages: Any = ASKED, **more: Any) -> list[ChatCompletionChunk]:
        return [chunk async for chunk in await self.whole(messages, stream=True, **more)]


@asynccontextmanager
async def running(home: Path, store: SharedStore, server: ModelServer) -> AsyncIterator[Running]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(server)
        services = services_for(home, {"gemma": backend_of(server)}, store=store)
        port = await stack.enter_async_context(listening(services))
        started = Running(f"http://127.0.0.1:{port}", services, server)
        await stack.enter_async_context(started.client)
        # What a server cannot do is refused once its probe has told so.
        backend = (await services.pool.get()).router.clients["gemma"]
        while backend.probed is None:  # noqa: ASYNC110 - a test's time limit ends a vain wait
            await asyncio.sleep(0.005)
        yield started


def server_of(dialect: Any, **fields: Any) -> OpenAIServer:
    return OpenAIServer(dialect, model=FakeModel(calls=CALLS, context=8192), **fields)


def joined(chunks: list[ChatCompletionChunk]) -> list[tuple[str | None, str | None, str]]:
    """The calls of a stream, as OpenAI's clients put them together: by their index."""
    calls: dict[int, list[Any]] = {}
    for piece in (piece for chunk in chunks for choice in chunk.choices for piece in choice.delta.tool_calls or ()):
        assert piece.function is not None
        call = calls.setdefault(piece.index, [piece.id, piece.function.name, ""])
        call[2] += piece.function.arguments or ""
    return [(call[0], call[1], call[2]) for _, call in sorted(calls.items())]


@DIALECTS
async def test_a_model_calls_the_clients_tools(tmp_path: Path, store: SharedStore, dialect: str) -> None:
    """Whole or streamed: the same calls, with their ids and arguments, and finish_reason says so; usage counts them."""
    async with running(tmp_path, store, server_of(dialect)) as service:
        reply = await service.whole(**OFFER, parallel_tool_calls=True)
        chunks = await service.chunks(**OFFER, stream_options={"include_usage": True})
        whole = reply.choices[0]
        assert (whole.finish_reason, whole.message.content) == ("tool_calls", None)
        calls = [(call.id, call.function.name, call.function.arguments) for call in whole.message.tool_calls]
        assert [(name, arguments) for _, name, arguments in calls] == list(CALLS)
        assert joined(chunks) == calls
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "tool_calls"
        assert chunks[-1].usage == reply.usage
        first, second = service.bodies
        assert first["tools"] == second["tools"] == [WEATHER, TIME]
        assert (first["tool_choice"], first["parallel_tool_calls"]) == ("auto", True)
        assert "parallel_tool_calls" not in second
        plain = await service.whole()
        assert reply.usage.prompt_tokens > plain.usage.prompt_tokens
        assert whole.message.winnow["usage"]["requests"] == 1
        assert whole.message.winnow["usage"]["input_tokens"] == reply.usage.prompt_tokens


@DIALECTS
async def test_a_model_is_told_what_came_of_its_calls(tmp_path: Path, store: SharedStore, dialect: str) -> None:
    """The client's next turn, with the SDK's own message in it, arrives as it was sent, and text comes back."""
    server = server_of(dialect)
    async with running(tmp_path, store, server) as service:
        called = (await service.whole(**OFFER)).choices[0].message
        results = zip(called.tool_calls, ("rain", ""), strict=True)
        told = [{"role": "tool", "tool_call_id": call.id, "content": content} for call, content in results]
        reply = (await service.whole([*ASKED, called.model_dump(), *told], **OFFER)).choices[0]
    assert (reply.message.content, reply.message.tool_calls, reply.finish_reason) == (server.model.answer, None, "stop")
    system, asked, calling, *heard = service.bodies[-1]["messages"]
    assert [system, asked] == ASKED
    assert calling["tool_calls"] == [call.model_dump() for call in called.tool_calls]
    assert heard == told


@pytest.mark.parametrize(("choice", "names"), [("required", ["weather", "time"]), (NAMED, ["time"]), ("none", [])])
async def test_the_client_says_what_must_be_called(
    tmp_path: Path, store: SharedStore, choice: Any, names: list[str]
) -> None:
    """tool_choice reaches the model; one that must not call speaks."""
    async with running(tmp_path, store, server_of("vllm")) as service:
        chosen = (await service.whole(**OFFER, tool_choice=choice)).choices[0]
    assert [call.function.name for call in chosen.message.tool_calls or ()] == names
    assert bool(chosen.message.content) is not bool(names)
    assert service.bodies[-1]["tool_choice"] == choice


async def test_ollama_chooses_by_itself(tmp_path: Path, store: SharedStore) -> None:
    """It reads no tool_choice: to call nothing it is told of no tools, and to call something is refused."""
    async with running(tmp_path, store, server_of("ollama")) as service:
        assert (await service.whole(**OFFER, tool_choice="none")).choices[0].message.content
        with pytest.raises(openai.BadRequestError, match="ollama"):
            await service.whole(**OFFER, tool_choice="required")
    [body] = service.bodies
    assert not {"tools", "tool_choice"} & body.keys()


@DIALECTS
async def test_who_refuses_tools_is_asked_without(tmp_path: Path, store: SharedStore, dialect: str) -> None:
    """An answer is better than none: the log says why, the refusal is remembered, and what tools said is the user's."""
    server = server_of(dialect, lacks=frozenset(("tools",)))
    call = {"id": "1", "type": "function", "function": {"name": "time", "arguments": "{}"}}
    told = {"role": "tool", "tool_call_id": "1", "content": "noon"}
    messages: Any = [*ASKED, {"role": "assistant", "tool_calls": [call]}, told]
    with capture_logs() as logs:
        async with running(tmp_path, store, server) as service:
            reply = (await service.whole(messages, **OFFER)).choices[0]
            chunks = await service.chunks(messages, **OFFER)
    assert (reply.message.content, reply.finish_reason) == (server.model.answer, "stop")
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == server.model.answer
    assert ["tools" in body for body in service.bodies] == [True, False, False]
    assert service.bodies[-1]["messages"] == [ASKED[0], {"role": "user", "content": "What is it like in Köln?\n\nnoon"}]
    assert [line["backend"] for line in logs if line["event"] == "tools ignored"] == ["gemma", "gemma"]
    assert SECRET not in str(logs)


@pytest.mark.parametrize(
    ("dialect", "words"), [("vllm", "start vLLM with --enable-auto-tool-choice"), ("openai", "choose a model")]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_who_must_call_and_cannot_says_so(
    tmp_path: Path, store: SharedStore, dialect: str, words: str, stream: bool
) -> None:
    """400 that says what to do, in our words; the second time without asking."""
    async with running(tmp_path, store, server_of(dialect, lacks=frozenset(("tools",)))) as service:
        for _ in range(2):
            with pytest.raises(openai.BadRequestError, match=words) as refused:
                await service.whole(**OFFER, tool_choice="required", stream=stream)
            assert SECRET not in str(refused.value)
            assert refused.value.response.headers["x-should-retry"] == "false"
    assert len(service.bodies) == 1


async def test_gemini_answers_without(tmp_path: Path, store: SharedStore) -> None:
    """Tools are not for it so far: it is asked without, and to call one is refused."""
    server = GeminiServer()
    async with running(tmp_path, store, server) as service:
        assert (await service.whole(**OFFER)).choices[0].message.content
        with pytest.raises(openai.BadRequestError, match="Gemini"):
            await service.whole(**OFFER, tool_choice=NAMED)
    [body] = [call.body for call in server.calls if "Köln" in str(call.body)]
    assert "weather" not in str(body)


async def test_a_collection_calls_no_tools(tmp_path: Path, store: SharedStore) -> None:
    """Documents are data: whatever tools come with a question or a background task, no model sees one."""
    async with running(tmp_path, store, server_of("vllm")) as service:
        for tools in ([WEATHER], [{"type": "web_search"}], "nonsense"):
            reply = (await service.whole(model="winnow:default@gemma", tools=tools)).choices[0]
            assert (reply.message.tool_calls, reply.finish_reason) == (None, "stop")
        await service.whole([{"role": "user", "content": CHORE}], model="winnow", **OFFER)
    assert CHORE in str(service.bodies[-1])
    assert not [body for body in service.bodies if "tools" in body]


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"tools": [WEATHER, {"type": "function", "function": {}}]}, "tools.1.function.name"),
        ({"tools": [{"type": "custom", "function": {"name": "f"}}]}, "tools.0.type"),
        ({"tools": "weather"}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": NAMED}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": "any"}, "tool_choice"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}, *ASKED]},
            "messages.0.tool_calls.0.function",
        ),
    ],
)
async def test_wrong_tools_are_named(tmp_path: Path, store: SharedStore, wrong: Any, param: str) -> None:
    """400 by the field, before any model is asked."""
    async with running(tmp_path, store, server_of("vllm")) as service:
        with pytest.raises(openai.BadRequestError) as refused:
            await service.client.chat.completions.create(**{"model": "gemma", "messages": ASKED, **wrong})
    assert refused.value.param == param
    assert not service.bodies
