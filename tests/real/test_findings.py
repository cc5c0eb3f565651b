"""What real models showed, each as a test: SmolLM2 on llama.cpp's server, behind the service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.backends.base import ChatRequest, Message
from app.backends.registry import open_adapter
from app.backends.status import NoSuchModel
from app.errors import UpstreamTimeout
from tests.fakes.clients import make_client
from tests.fakes.corpus import fill
from tests.fakes.models import client_of, services_for
from tests.real.running import GEMMA_BASE, SMOL, Server, real_llama
from tests.vllm.running import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.real, pytest.mark.timeout(400)]

FENCE = "mxkqzvbw"
DENTAL = "When does dental cover start?"
LONG = ChatRequest(messages=(Message(role="user", content="Tell a very long story."),), max_output_tokens=400)


@asynccontextmanager
async def service(home: Path, server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """A service over the handbook, whose backend this is."""
    services = services_for(home, {"real": server.settings()})
    async with client_of(services) as client:
        await fill(await services.store.get(), ())
        services.answerer._fence = lambda _: FENCE  # type: ignore[attr-defined]
        yield client


async def answered(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    asked = {"query": DENTAL, "backend": "none", "answer_backend": "real", "min_relevance": 0, "max_output_tokens": 60}
    response = await client.post("/answer", json={**asked, **body})
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


async def test_the_same_question_is_in_the_servers_cache(smol_llama: Server, tmp_path: Path) -> None:
    """Its prompt is the same, byte by byte, and so is what comes of it."""
    async with service(tmp_path, smol_llama) as client:
        first, second = await answered(client), await answered(client)
    assert second["answer"] == first["answer"]
    assert second["usage"]["cached_tokens"] > 0.9 * second["usage"]["input_tokens"]


async def test_no_fence_and_nothing_uncited_leaves(smol_llama: Server, tmp_path: Path) -> None:
    """Whatever a small model writes: the answer is made of sentences with citations, or there is none."""
    async with service(tmp_path, smol_llama) as client:
        for query in (DENTAL, "What do I do about parking?"):
            reply = await answered(client, query=query)
            assert FENCE not in reply["answer"]
            assert reply["answerable"] == any(citation["verified"] for citation in reply["citations"])


async def test_an_unsupported_reply_is_replaced(smol_llama: Server, tmp_path: Path) -> None:
    """A reply of one token supports nothing."""
    async with service(tmp_path, smol_llama) as client:
        reply = await answered(client, max_output_tokens=1, fallback="extractive")
    assert (reply["answerable"], reply["answer_backend"]["used"]) == (True, "extractive")


async def test_a_busy_server_is_busy_and_not_down(smol_llama: Server) -> None:
    """While it works for others its probe waits, once, and nobody takes it for down."""
    busy, client = open_adapter("busy", smol_llama.settings()), None
    try:
        await busy.probe(120)
        work = [asyncio.ensure_future(busy.complete(LONG, 120)) for _ in range(6)]
        await asyncio.sleep(1)
        client = make_client(open_adapter("real", smol_llama.settings()), model=None)
        with pytest.raises(UpstreamTimeout):
            await client.known(0.2)
        assert client.health in ("unknown", "up")
        for call in work:
            call.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        assert (await client.known(120)).model == smol_llama.model
    finally:
        await busy.aclose()
        if client is not None:
            await client.replicas.first.discovery.close()
            await client.adapter.aclose()


async def test_what_was_scored_in_time_counts(smol_llama: Server) -> None:
    """Of more conversations than it can read in the time, those that it has read have scores."""
    adapter = open_adapter("real", smol_llama.settings(concurrency=1))
    try:
        await adapter.probe(120)
        assert adapter.scorer is not None
        prompts = [(Message(role="user", content=f"Reply with 0 or 1. {number} " * 8),) for number in range(200)]
        loop = asyncio.get_running_loop()
        began = loop.time()
        await adapter.scorer.score(prompts[:2], ["0", "1"], 120)
        scoring = await adapter.scorer.score(prompts[2:], ["0", "1"], 5 * (loop.time() - began))
    finally:
        await adapter.aclose()
    assert 0 < sum(score is not None for score in scoring.scores) < len(prompts) - 2


async def test_another_model_on_the_same_port_is_noticed(tmp_path: Path, smol_llama: Server) -> None:
    """llama.cpp's server ignores the name in a request, so that the reply must tell."""
    port = free_port()
    with real_llama(SMOL, tmp_path, slots=1, context=512, port=port) as server:
        adapter = open_adapter("real", server.settings(model=None))
        assert (await adapter.probe(120)).model == server.model
    with real_llama(GEMMA_BASE, tmp_path, slots=1, context=512, port=port):
        request = ChatRequest(messages=(Message(role="user", content="Say 1"),), max_output_tokens=2)
        with pytest.raises(NoSuchModel):
            await adapter.complete(request, 60)
        with pytest.raises(NoSuchModel):
            await adapter.ping(60)
    await adapter.aclose()
