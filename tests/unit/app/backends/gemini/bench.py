"""The real adapter against the fake server, for the tests of both."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from app.backends.base import ChatRequest, Delta, Message
from app.backends.gemini.adapter import GeminiAdapter
from app.backends.settings import BackendSettings
from app.errors import WinnowError
from tests.fakes.gemini_refusals import KEY
from tests.fakes.gemini_server import GeminiServer

NAME = "flash"
PLENTY_S = 10.0


class Bench(msgspec.Struct):
    """A server, and the adapter that talks to it."""

    server: GeminiServer
    gemini: GeminiAdapter


@asynccontextmanager
async def bench(server: GeminiServer | None = None, **settings: Any) -> AsyncIterator[Bench]:
    """Afterwards no connection may be left, whatever happened within."""
    async with server or GeminiServer() as running:
        gemini = GeminiAdapter(NAME, settings_for(running, **settings))
        try:
            yield Bench(running, gemini)
        finally:
            await gemini.aclose()
            await running.settled()


def settings_for(server: GeminiServer, **settings: Any) -> BackendSettings:
    """A key, and the server's address."""
    return BackendSettings(kind="gemini", **{"url": server.url, "api_key": KEY, **settings})


def asking(text: str = "What is due on Friday?", **more: Any) -> ChatRequest:
    """One turn of the user's."""
    return ChatRequest(messages=(Message(role="user", content=text),), **more)


async def streamed(gemini: GeminiAdapter, request: ChatRequest, timeout_s: float = PLENTY_S) -> list[Delta]:
    """The whole stream."""
    return [delta async for delta in gemini.stream(request, timeout_s)]


async def failure(gemini: GeminiAdapter, how: str, timeout_s: float = PLENTY_S) -> WinnowError | None:
    """What the call ended with; None if it went well. `how`: "complete" or "stream"."""
    try:
        if how == "complete":
            await gemini.complete(asking(), timeout_s)
        else:
            await streamed(gemini, asking(), timeout_s)
    except WinnowError as exc:
        return exc
    return None
