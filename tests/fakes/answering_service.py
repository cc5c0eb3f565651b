"""The service over a small corpus, with models that answer: fake servers of each dialect, one mind."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from app.backends.settings import BackendSettings
from app.config.settings import RankingSettings
from app.wiring import Services
from indexing.documents import Passage
from tests.fakes.corpus import fill
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.mind import Mind
from tests.fakes.models import BRISK, client_of, gemini, openai_style, services_for
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import OpenAIServer

KINDS = ("gemini", "vllm", "ollama", "openai")

PATIENT = msgspec.structs.replace(BRISK, timeout_s=60, first_token_s=60, connect_timeout_s=10)
"""No test of answering is about time; and simulated models think on the event loop."""

ModelServer = GeminiServer | OpenAIServer


def server_of(kind: str, mind: Mind, **fields: Any) -> ModelServer:
    """One of `KINDS`, whose model thinks so."""
    if kind == "gemini":
        server = GeminiServer(**fields)
        server.mind = mind
        return server
    return OpenAIServer(dialect=kind, model=FakeModel(name="tiny", context=8192, mind=mind), **fields)  # type: ignore[arg-type]


def backend_of(server: ModelServer, told: BackendSettings = PATIENT) -> BackendSettings:
    """A backend of this server."""
    return gemini(server, told) if isinstance(server, GeminiServer) else openai_style(server, told)


class AnsweringService:
    """The running service, its servers by name, and a client."""

    def __init__(self, services: Services, servers: dict[str, ModelServer], client: httpx.AsyncClient) -> None:
        self.services, self.servers, self.client = services, servers, client

    @property
    def server(self) -> ModelServer:
        """The first one."""
        return next(iter(self.servers.values()))

    async def ask(self, query: str, status: int = 200, **body: Any) -> dict[str, Any]:
        """POST /answer; the body of the response. Nobody ranks unless the body says who."""
        told = {"query": query, "backend": "none", "answer_backend": "auto", **body}
        response = await self.client.post("/answer", json=told)
        assert response.status_code == status, response.text
        reply: dict[str, Any] = response.json()
        return reply

    async def stream(self, query: str, **body: Any) -> list[tuple[str, Any]]:
        """The (name, data) of each event."""
        told = {"query": query, "backend": "none", "answer_backend": "auto", "stream": True, **body}
        response = await self.client.post("/answer", json=told)
        assert response.status_code == 200, response.text
        return events_of(response.text)

    async def idle(self) -> None:
        """Nothing is in flight any more on our side."""
        for line in (await self.services.pool.get()).router.clients.values():
            assert (line.status().in_flight, line.status().waiting) == (0, 0)


def events_of(text: str) -> list[tuple[str, Any]]:
    """The (name, data) of each event of a stream; comments are left out."""
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    lines = [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]
    return [(line["event"], msgspec.json.decode(line["data"])) for line in lines]


def text_of(events: Sequence[tuple[str, Any]]) -> str:
    """The concatenated deltas."""
    return "".join(data["text"] for name, data in events if name == "delta")


@asynccontextmanager
async def answering_service(
    home: Path,
    servers: dict[str, ModelServer],
    passages: Sequence[Passage] = (),
    told: BackendSettings = PATIENT,
    **settings: Any,
) -> AsyncIterator[AnsweringService]:
    """The servers run, as backends of these names; the passages, or HANDBOOK, are indexed unless there is a `store`.

    Models rank by one call, for grades, which the fakes give alike to all: the order is that of retrieval.
    """
    async with AsyncExitStack() as stack:
        for server in servers.values():
            await stack.enter_async_context(server)
        backends = {name: backend_of(server, told) for name, server in servers.items()}
        ranking = RankingSettings(strategy="graded", deadline_ms=60_000, controls=False)
        services = services_for(home, backends, **{"ranking": ranking, **settings})
        client = await stack.enter_async_context(client_of(services))
        if "store" not in settings:
            await fill(await services.store.get(), passages)
        yield AnsweringService(services, servers, client)
