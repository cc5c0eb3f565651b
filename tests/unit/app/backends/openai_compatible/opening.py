"""What the tests of the OpenAI-style adapter begin with."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from app.backends.base import ChatRequest, Conversation, Delta, Message
from app.backends.openai_compatible.adapter import OpenAICompatible
from app.backends.settings import BackendSettings
from tests.fakes.openai_server import OpenAIServer

TIMEOUT_S = 5.0


@asynccontextmanager
async def opened(server: OpenAIServer, *, probe: bool = True, **settings: Any) -> AsyncIterator[OpenAICompatible]:
    """An adapter for a running server; probed, and what the probe asked for forgotten."""
    given = {"kind": server.dialect, "url": server.url, "api_key": server.api_key, **settings}
    adapter = OpenAICompatible("gemma", BackendSettings(**given))
    try:
        if probe:
            await adapter.probe(TIMEOUT_S)
            server.requests.clear()
        yield adapter
    finally:
        await adapter.aclose()


def conversation(text: str = "When does dental cover start?") -> Conversation:
    return (Message(role="user", content=text),)


def asking(text: str = "When does dental cover start?", **more: Any) -> ChatRequest:
    return ChatRequest(messages=conversation(text), **more)


async def collected(adapter: OpenAICompatible, request: ChatRequest, timeout_s: float = TIMEOUT_S) -> list[Delta]:
    return [delta async for delta in adapter.stream(request, timeout_s)]
