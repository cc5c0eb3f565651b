"""Three ways to ask the same of the same server: the SDK itself, our adapter, and all that /chat does."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
from google import genai
from google.genai import types
from openai import AsyncOpenAI

from app.accounting.accounts import Accounts
from app.backends.base import Adapter, ChatRequest, Message
from app.backends.pool import BackendPool
from app.backends.router import Router
from app.backends.settings import BackendSettings, BudgetSettings, RoutingSettings
from app.config.settings import FetchSettings
from app.domain import ANONYMOUS, ChatDone, ChatTask, TextDelta, Turn
from app.services.chat import ChatService
from app.services.fetch import Fetcher
from app.services.pictures import Pictures

Ask = Callable[[str], Awaitable[str]]
"""Sends a text and returns what was said to it."""

MOST_TOKENS = 64
PLENTY_S = 60.0
NAME = "served"

LARGE = BudgetSettings(daily_usd=1e6, monthly_usd=1e6)


class Way(msgspec.Struct, frozen=True):
    """One way, unary and streamed."""

    complete: Ask
    stream: Ask


@asynccontextmanager
async def ways(settings: BackendSettings, home: Path) -> AsyncIterator[Mapping[str, Way]]:
    """All three, the first one named "direct". The server must be there."""
    accounts = Accounts(home, {NAME: settings}, LARGE)
    accounts.open()
    pool = BackendPool({NAME: settings}, RoutingSettings(), accounts.meter)
    async with AsyncExitStack() as stack:
        stack.callback(accounts.close)
        stack.push_async_callback(pool.close)
        client = pool.router.clients[NAME]
        found = await client.replicas.first.discovery.probe()
        pool.start()
        given = msgspec.structs.replace(settings, model=found.model)
        http = await stack.enter_async_context(_http(settings))
        direct = _gemini(given, http) if settings.kind == "gemini" else _openai(given, http)
        yield {"direct": direct, "adapter": _adapter(client.adapter), "whole": _whole(pool.router)}


def _http(settings: BackendSettings) -> httpx2.AsyncClient:
    """Configured like the adapters' own."""
    most = settings.concurrency
    limits = httpx2.Limits(max_connections=most, max_keepalive_connections=most, keepalive_expiry=60)
    return httpx2.AsyncClient(limits=limits, trust_env=False)


def _gemini(settings: BackendSettings, http: httpx2.AsyncClient) -> Way:
    options = types.HttpOptions(base_url=settings.url, httpx_async_client=http)
    models = genai.Client(enterprise=False, api_key=settings.api_key, http_options=options).aio.models
    model = settings.model or ""
    config = types.GenerateContentConfig(
        temperature=0.0,
        max_output_tokens=MOST_TOKENS,
        thinking_config=types.ThinkingConfig(thinking_level=types.ThinkingLevel.MINIMAL),
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        automatic_continuation=False,
    )

    async def complete(text: str) -> str:
        return (await models.generate_content(model=model, contents=text, config=config)).text or ""

    async def stream(text: str) -> str:
        chunks = await models.generate_content_stream(model=model, contents=text, config=config)
        return "".join([chunk.text or "" async for chunk in chunks])

    return Way(complete, stream)


def _openai(settings: BackendSettings, http: httpx2.AsyncClient) -> Way:
    client = AsyncOpenAI(api_key=settings.api_key or "none", base_url=settings.url, max_retries=0, http_client=http)
    told: dict[str, Any] = {"model": settings.model, "max_tokens": MOST_TOKENS, "temperature": 0.0}
    counting: Any = {"include_usage": True, "continuous_usage_stats": True}

    async def complete(text: str) -> str:
        reply = await client.chat.completions.create(messages=[{"role": "user", "content": text}], **told)
        return reply.choices[0].message.content or ""

    async def stream(text: str) -> str:
        chunks = await client.chat.completions.create(
            messages=[{"role": "user", "content": text}], stream=True, stream_options=counting, **told
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices])

    return Way(complete, stream)


def _adapter(adapter: Adapter) -> Way:
    def asking(text: str) -> ChatRequest:
        return ChatRequest(messages=(Message(role="user", content=text),), max_output_tokens=MOST_TOKENS)

    async def complete(text: str) -> str:
        return (await adapter.complete(asking(text), PLENTY_S)).text

    async def stream(text: str) -> str:
        return "".join([delta.text async for delta in adapter.stream(asking(text), PLENTY_S)])

    return Way(complete, stream)


def _whole(router: Router) -> Way:
    async def given() -> Router:
        return router

    tasks = ChatService(given, "auto", PLENTY_S, Pictures(Fetcher(FetchSettings())))
    caller = msgspec.structs.replace(ANONYMOUS, request_id="benchmark")

    def asking(text: str) -> ChatTask:
        return ChatTask(messages=(Turn("user", text),), max_output_tokens=MOST_TOKENS)

    async def complete(text: str) -> str:
        return (await tasks.chat(asking(text), caller)).result.text

    async def stream(text: str) -> str:
        said = ""
        async for event in tasks.stream_chat(asking(text), caller):
            if isinstance(event, TextDelta):
                said += event.text
            elif isinstance(event, ChatDone):
                assert event.result.text == said
        return said

    return Way(complete, stream)
