"""The servers that every adapter must pass the same suite against: fakes on a real socket, and the real vLLM."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec

from app.backends.base import Adapter, Capability, ChatRequest, Message
from app.backends.gemini.adapter import GeminiAdapter
from app.backends.openai_compatible.adapter import OpenAICompatible
from app.backends.settings import BackendSettings
from app.domain import TokenCount
from tests.fakes import gemini_refusals, openai_server
from tests.fakes.faults import Fault
from tests.fakes.gemini_server import MODEL as GEMINI
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import Dialect, OpenAIServer
from tests.fakes.wire import Answering, Asked
from tests.vllm import running
from tests.vllm.running import RunningVllm

NAME = "tested"
KEY = "the-right-key"
GRADES = {"0": -3.0, "1": -0.2, "2": -2.5, "3": -3.5}
"""What the fakes say of a question with the word "grade" in it."""

FOR_EVER = 3_000
"""More tokens than any test waits for."""


class Truth(msgspec.Struct, frozen=True):
    """What a server says when it is asked without an adapter."""

    text: str
    input: int
    output: int


class Side(ABC):
    """A server, and the way to open adapters to it. `open` has the right key; no model is named to it."""

    capabilities: frozenset[Capability]
    model: str
    context: int | None

    @abstractmethod
    def open(self, **settings: Any) -> Adapter:
        """Not probed."""

    @abstractmethod
    async def ask(self, text: str, max_tokens: int) -> Truth:
        """One turn of the user's at temperature 0, without an adapter."""

    @abstractmethod
    async def counted(self) -> TokenCount:
        """What all calls so far have used, as far as the server knows."""

    @abstractmethod
    async def busy(self) -> int:
        """How many calls it is working on."""

    @abstractmethod
    async def likely(self, prompt: Message, labels: Sequence[str]) -> tuple[float, ...]:
        """The labels' log-probabilities as the first token, without an adapter."""

    @abstractmethod
    def linger(self) -> None:
        """The next call goes on until the client leaves, if it asks for FOR_EVER."""


class FakeSide(Side):
    """A server that can have bad days. `secret` stands in all that it writes about errors."""

    secret: str

    @abstractmethod
    def expect(self, *faults: Fault) -> None:
        """Those of the coming calls."""

    @abstractmethod
    def open_connections(self) -> int:
        """Connections that nobody has closed."""

    async def likely(self, prompt: Message, labels: Sequence[str]) -> tuple[float, ...]:
        return tuple(GRADES[label] for label in labels)

    def linger(self) -> None:
        self.expect(Fault.SLOW_TRICKLE)


class _BusyGemini(GeminiServer):
    busy = 0

    async def answer(self, asked: Asked, answering: Answering) -> None:
        self.busy += 1
        try:
            await super().answer(asked, answering)
        finally:
            self.busy -= 1


class GeminiSide(FakeSide):
    """The real google-genai against Gemini's wire protocol."""

    capabilities = frozenset({"chat", "structured", "images", "thinking"})
    model = GEMINI
    context = 1_048_576
    secret = gemini_refusals.SECRET

    def __init__(self, server: _BusyGemini) -> None:
        self._server = server

    def open(self, **settings: Any) -> Adapter:
        given = {"url": self._server.url, "api_key": gemini_refusals.KEY, **settings}
        return GeminiAdapter(NAME, BackendSettings(kind="gemini", **given))

    async def ask(self, text: str, max_tokens: int) -> Truth:
        body = {
            "contents": [{"role": "user", "parts": [{"text": text}]}],
            "generationConfig": {"maxOutputTokens": max_tokens, "temperature": 0},
        }
        url = f"{self._server.url}/v1/models/{GEMINI}:generateContent"
        reply = await _post(url, body, {"x-goog-api-key": gemini_refusals.KEY})
        usage = reply["usageMetadata"]
        counts = [usage.get(key) or usage[_snake[key]] for key in _snake]
        return Truth(reply["candidates"][0]["content"]["parts"][0]["text"], *counts)

    async def counted(self) -> TokenCount:
        return self._server.told

    async def busy(self) -> int:
        return self._server.busy

    def expect(self, *faults: Fault) -> None:
        self._server.script.extend(faults)

    def open_connections(self) -> int:
        return self._server.open_connections


_snake = {"promptTokenCount": "prompt_token_count", "candidatesTokenCount": "candidates_token_count"}


class OpenAISide(FakeSide):
    """The real openai SDK against a dialect of OpenAI's protocol."""

    secret = openai_server.SECRET

    def __init__(self, server: OpenAIServer) -> None:
        self._server = server
        self.model = server.model.name
        self.context = None if server.dialect == "openai" else server.model.context
        self.capabilities = frozenset({"chat", "structured", "images", "logprobs"})

    def open(self, **settings: Any) -> Adapter:
        given = {"url": self._server.url, "api_key": KEY, **settings}
        return OpenAICompatible(NAME, BackendSettings(kind=self._server.dialect, **given))

    async def ask(self, text: str, max_tokens: int) -> Truth:
        limit = "max_completion_tokens" if self._server.dialect == "openai" else "max_tokens"
        return await _ask_openai(self._server.url, KEY, self.model, text, {limit: max_tokens})

    async def counted(self) -> TokenCount:
        return self._server.billed

    async def busy(self) -> int:
        return self._server.busy

    def expect(self, *faults: Fault) -> None:
        self._server.expect(*faults)

    def open_connections(self) -> int:
        return self._server.open_connections


class VllmSide(Side):
    """The real openai SDK against the real vLLM."""

    capabilities = frozenset({"chat", "structured", "logprobs"})
    model = running.MODEL
    context = running.CONTEXT

    def __init__(self, server: RunningVllm) -> None:
        self._server = server

    def open(self, **settings: Any) -> Adapter:
        given = {"url": self._server.url, "api_key": running.KEY, **settings}
        return OpenAICompatible(NAME, BackendSettings(kind="vllm", **given))

    async def ask(self, text: str, max_tokens: int) -> Truth:
        return await _ask_openai(self._server.url, running.KEY, self.model, text, {"max_tokens": max_tokens})

    async def counted(self) -> TokenCount:
        read, written = (self._server.metric(f"vllm:{kind}_tokens_total") for kind in ("prompt", "generation"))
        return TokenCount(input=int(read), output=int(written))

    async def busy(self) -> int:
        return self._server.running()

    def linger(self) -> None:
        """Its random model hardly ever ends by itself."""

    async def likely(self, prompt: Message, labels: Sequence[str]) -> tuple[float, ...]:
        ids = [self._server.token(label) for label in labels]
        body = {
            **{"model": self.model, "messages": [{"role": prompt.role, "content": prompt.content}], "max_tokens": 1},
            **{"temperature": 0, "logprobs": True, "logprob_token_ids": ids},
        }
        reply = await _post(f"{self._server.url}/chat/completions", body, _bearer(running.KEY))
        told = {
            chance["token"]: chance["logprob"]
            for chance in reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        }
        return tuple(told[label] for label in labels)


async def _ask_openai(url: str, key: str, model: str, text: str, limit: dict[str, int]) -> Truth:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0, **limit}
    reply = await _post(f"{url}/chat/completions", body, _bearer(key))
    usage = reply["usage"]
    return Truth(reply["choices"][0]["message"]["content"], usage["prompt_tokens"], usage["completion_tokens"])


async def _post(url: str, body: dict[str, Any], headers: dict[str, str]) -> Any:
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        reply = await client.post(url, json=body, headers=headers)
        reply.raise_for_status()
        return reply.json()


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@asynccontextmanager
async def gemini_side(casing: Any) -> AsyncIterator[GeminiSide]:
    """A fresh server."""
    async with _BusyGemini(casing=casing, slow_s=60) as server:
        side = GeminiSide(server)
        yield side
        await until(side.open_connections, 0)


@asynccontextmanager
async def openai_side(dialect: Dialect) -> AsyncIterator[OpenAISide]:
    """A fresh server."""
    server = OpenAIServer(dialect, FakeModel(likely={"grade": GRADES}), api_key=KEY, slow_s=60)
    async with server:
        side = OpenAISide(server)
        yield side
        await until(side.open_connections, 0)


async def until(told: Callable[[], Awaitable[object] | object], wanted: object, seconds: float = 30) -> None:
    """Wait for `told` to say `wanted`; it fails with what was said last."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    while True:
        said = told()
        said = await said if isinstance(said, Awaitable) else said
        if said == wanted:
            return
        assert clock() < deadline, f"{said} instead of {wanted}"
        await asyncio.sleep(0.02)


def asking(text: str = "What is due on Friday, and who has to be told of it?", **more: Any) -> ChatRequest:
    """One turn of the user's, and a short answer."""
    return ChatRequest(messages=(Message(role="user", content=text),), **{"max_output_tokens": 24, **more})
