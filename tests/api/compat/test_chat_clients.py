"""OpenAI's SDK against the running service: over sockets, with a model server behind it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from app.backends.client import BackendClient
from app.wiring import Services
from tests.api.conftest import SharedStore
from tests.api.test_answer_storm import listening
from tests.fakes.answering_model import AnsweringModel, plain
from tests.fakes.answering_service import PATIENT, backend_of, server_of
from tests.fakes.chat_chunks import deltas, read_chunks
from tests.fakes.models import services_for
from tests.fakes.openai_server import OpenAIServer

pytestmark = pytest.mark.anyio

QUESTIONS = ("When does dental cover start?", "Where is parking free?", "Wann ist Urlaub im Jahr?", "Hi")
EXTRACTS = "winnow@extractive"
STREAMS, LEAVING = 100, 30
MOST = 1024


class Running:
    """The service on a port, the model server behind it, and a client."""

    def __init__(self, url: str, services: Services, server: OpenAIServer) -> None:
        self.url, self.services, self.server = url, services, server
        self.client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)

    async def line(self) -> BackendClient:
        return (await self.services.pool.get()).router.clients["gemma"]

    async def create(self, question: str, model: str, **more: Any) -> Any:
        turns: list[Any] = [{"role": "user", "content": question}]
        return await self.client.chat.completions.create(model=model, messages=turns, **more)

    async def whole(self, question: str, model: str, **more: Any) -> ChatCompletion:
        reply: ChatCompletion = await self.create(question, model, **more)
        return reply

    async def chunks(self, question: str, model: str, **more: Any) -> list[ChatCompletionChunk]:
        return [chunk async for chunk in await self.create(question, model, stream=True, **more)]


def mind(turns: Any, schema: Any) -> str | None:
    """Says two sentences, or, where the question wants it, goes on and on."""

    def at_length(sentences: Mapping[str, str]) -> str:
        return plain(sentences) + " It is so." * MOST

    endless = "endless" in str(turns)
    return AnsweringModel(least=0.2, most=1 if endless else 2, dress=at_length if endless else plain)(turns, schema)


@pytest.fixture
async def running(tmp_path: Path, store: SharedStore) -> AsyncIterator[Running]:
    """With a backend "gemma", whose model is "tiny"."""
    server = server_of("vllm", mind)
    assert isinstance(server, OpenAIServer)
    async with server:
        told = msgspec.structs.replace(PATIENT, concurrency=STREAMS)
        services = services_for(tmp_path, {"gemma": backend_of(server, told)}, store=store)
        async with listening(services) as port:
            started = Running(f"http://127.0.0.1:{port}", services, server)
            await (await started.line()).known()
            async with started.client:
                yield started


def said(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def extra(chunks: list[ChatCompletionChunk], name: str) -> list[Any]:
    """What our deltas have beside OpenAI's fields."""
    found = ((chunk.choices[0].delta.model_extra or {}).get(name) for chunk in chunks if chunk.choices)
    return [part for part in found if part]


async def test_a_stream_is_the_completion(running: Running) -> None:
    """Whoever answers: the concatenated deltas are the content, with the same annotations, and usage comes once."""
    for model in ("winnow", "winnow@extractive", "winnow:default@gemma", "tiny", "gemma"):
        for question in QUESTIONS:
            whole = await running.whole(question, model)
            chunks = await running.chunks(question, model, stream_options={"include_usage": True})
            message = whole.choices[0].message
            assert said(chunks) == message.content
            annotations = [one for some in extra(chunks, "annotations") for one in some]
            assert annotations == [one.model_dump() for one in message.annotations or ()]
            [usage] = [chunk.usage for chunk in chunks if chunk.usage]
            [about] = extra(chunks, "winnow")
            assert usage.completion_tokens == about["usage"]["output_tokens"]
            assert message.model_extra is not None
            assert about.get("citations") == message.model_extra["winnow"].get("citations")


@pytest.mark.parametrize("model", ["winnow", "winnow:default@gemma"])
async def test_a_cut_answer_says_so(running: Running, model: str) -> None:
    """finish_reason length, streamed or not; stop where the model came to its end, and where there was none."""
    endless, modest = f"endless: {QUESTIONS[0]}", QUESTIONS[0]
    for question, writer, reason in ((endless, model, "length"), (modest, model, "stop"), (endless, EXTRACTS, "stop")):
        whole = await running.whole(question, writer, max_tokens=100)
        chunks = await running.chunks(question, writer, max_tokens=100)
        assert said(chunks) == whole.choices[0].message.content
        assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == reason
        assert whole.choices[0].finish_reason == reason


async def test_markers_count_the_links(running: Running) -> None:
    """[2] is the second link of the answer: Open WebUI takes one URL for one source, and counts them."""
    reply = await running.whole("When does dental cover start and when does the office open?", "winnow:default@gemma")
    message = reply.choices[0].message
    links = [one.url_citation.url for one in message.annotations or ()]
    order = list(dict.fromkeys(links))
    assert len(order) == 2
    assert message.model_extra is not None
    markers = [citation["marker"] for citation in message.model_extra["winnow"]["citations"]]
    assert [order.index(link) + 1 for link in links] == markers


async def test_citations_lead_to_the_text(running: Running) -> None:
    """An annotation's link is this service's document, whose passage has the quote where the link says."""
    reply = await running.whole(QUESTIONS[0], "winnow@extractive")
    message = reply.choices[0].message
    assert message.annotations is not None
    [annotation] = message.annotations
    found = annotation.url_citation
    assert found.url.startswith(f"{running.url}/documents/dental?collection=default&quote=")
    assert message.content is not None
    assert message.content[found.start_index : found.end_index] == "Dental cover starts on the first day of work"
    assert message.model_extra is not None
    [citation] = message.model_extra["winnow"]["citations"]
    start, end = map(int, found.url.partition("#char=")[2].split(","))
    assert (citation["start"], citation["end"]) == (start, end)


async def test_what_the_list_of_models_offers_can_be_asked(running: Running) -> None:
    """Every model of GET /v1/models that is no reranker and no embedder answers."""
    listed = [model.id async for model in running.client.models.list()]
    chats = [model for model in listed if not any(word in model for word in ("rerank", "embed", "MiniLM"))]
    assert {"winnow", "winnow:default", "tiny"} <= set(chats)
    for model in chats:
        assert (await running.whole("When does dental cover start?", model)).choices[0].message.content


async def test_errors_are_the_sdks_own(running: Running) -> None:
    """Its classes by status, with our message, code and field, streamed or not."""
    for stream in (False, True):
        with pytest.raises(openai.NotFoundError) as missing:
            await running.create("Hi", "winnow:nowhere", stream=stream)
        assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.BadRequestError) as wrong:
            await running.create("Hi", "winnow", n=3, stream=stream)
        assert wrong.value.param == "n"


async def test_ragflow_can_verify_us(running: Running) -> None:
    """Its "Verify" wants a first text without **ERROR**; here it is the abstention, since nobody wrote about "Hi"."""
    chunks = await running.chunks("Hi", "winnow", temperature=0.9)
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert texts
    assert "**ERROR**" not in texts[0]
    [about] = extra(chunks, "winnow")
    assert not about["answerable"]


async def test_a_client_of_ragflow_gets_ragflows_shape(running: Running) -> None:
    """By the base URL that RAGFlow's manual names, with its extra_body inside the SDK's."""
    turns: list[Any] = [{"role": "user", "content": QUESTIONS[0]}]
    asked: dict[str, Any] = {"model": "model", "messages": turns, "extra_body": {"extra_body": {"reference": True}}}
    for path in ("openai", "chats_openai"):
        base = f"{running.url}/api/v1/{path}/default@gemma"
        async with openai.AsyncOpenAI(base_url=base, api_key="any", max_retries=0) as client:
            whole = await client.chat.completions.create(**asked)
            chunks = [chunk async for chunk in await client.chat.completions.create(**asked, stream=True)]
        content = whole.choices[0].message.content
        assert content is not None
        assert said(chunks) == content == extra(chunks, "final_content")[0]
        assert "[ID:0]" in content
        [reference] = extra(chunks, "reference")
        assert reference[0]["content"] == "Dental cover starts on the first day of work."
        assert whole.choices[0].message.model_extra == {"reference": reference}


RAGFLOW_CHAT = {
    "model": "winnow",
    "messages": [
        {"role": "system", "content": "You are an intelligent assistant. Here is the knowledge base: …"},
        {"role": "user", "content": "When does dental cover start?"},
    ],
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.1,
    "top_p": 0.3,
    "presence_penalty": 0.4,
    "frequency_penalty": 0.7,
}
OPEN_WEBUI_CHAT = {
    "stream": True,
    "model": "winnow",
    "messages": [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": [{"type": "text", "text": "When does dental cover start?"}]},
    ],
    "params": {},
    "tool_ids": None,
    "features": {"web_search": False},
    "stream_options": {"include_usage": True},
}


@pytest.mark.parametrize("body", [RAGFLOW_CHAT, OPEN_WEBUI_CHAT])
async def test_captured_requests_are_answered(running: Running, body: dict[str, Any]) -> None:
    """RAGFlow's and Open WebUI's bodies as their sources build them, unknown fields and all."""
    async with httpx.AsyncClient(base_url=running.url, timeout=60) as client:
        response = await client.post("/v1/chat/completions", json=body, headers={"Authorization": "Bearer any"})
    chunks = read_chunks(response.text)
    assert "Dental cover starts on the first day of work [1]." in "".join(deltas(chunks))
    assert sum("usage" in chunk for chunk in chunks) == 1


@pytest.mark.slow
async def test_clients_that_leave_leave_nothing_behind(running: Running) -> None:
    """Of a hundred streams, thirty are left in the middle: their calls upstream end, and all others are whole."""
    line = await running.line()
    await running.chunks(QUESTIONS[0], "winnow:default@gemma")

    async def leave(number: int) -> None:
        model = ("tiny", "winnow@gemma")[number % 2]
        stream = await running.create("endless: dental cover?", model, stream=True, max_tokens=MOST)
        async with stream, aclosing(aiter(stream)) as chunks:
            await anext(chunks)

    leavers = [leave(number) for number in range(LEAVING)]
    stayers = [running.chunks(QUESTIONS[0], "winnow:default@gemma") for _ in range(STREAMS - LEAVING)]
    _, replies = await asyncio.gather(asyncio.gather(*leavers), asyncio.gather(*stayers))
    await running.server.until_busy(0)
    while line.status().in_flight or line.status().waiting:  # noqa: ASYNC110 - a time limit ends a vain wait
        await asyncio.sleep(0.001)
    assert {said(chunks) for chunks in replies} == {said(replies[0])}
    assert all(extra(chunks, "winnow") for chunks in replies)
    assert running.server.billed.output < LEAVING * MOST / 2
