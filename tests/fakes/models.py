"""An application whose backends are fake servers on real sockets, through the real SDKs."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec

from app.backends.settings import AUTO, BackendSettings, BudgetSettings, RoutingSettings
from app.config.settings import AnswerSettings, CompatSettings, IndexSection, RankingSettings, ServiceSettings, Settings
from app.wiring import Services
from indexing.store.base import VectorStore
from indexing.store.embedded import EmbeddedStore
from tests.fakes.applications import application
from tests.fakes.embedder import HashEmbedder
from tests.fakes.gemini_refusals import KEY
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.source import GivenEmbedder

BRISK = BackendSettings(kind="vllm", timeout_s=60, first_token_s=60, connect_timeout_s=60, retries=0)
"""Nothing is tried twice, so that a test sees what one failure does; nothing is given up on a busy machine."""


def gemini(server: GeminiServer, told: BackendSettings = BRISK) -> BackendSettings:
    """A backend of this server."""
    return msgspec.structs.replace(told, kind="gemini", url=server.url, api_key=KEY, model=server.models[0])


def openai_style(server: OpenAIServer, told: BackendSettings = BRISK) -> BackendSettings:
    """A backend of this server."""
    return msgspec.structs.replace(told, kind=server.dialect, url=server.url, api_key=server.api_key)


def services_for(
    home: Path,
    backends: Mapping[str, BackendSettings],
    routing: RoutingSettings | None = None,
    budgets: BudgetSettings | None = None,
    ranking: RankingSettings | None = None,
    answer: AnswerSettings | None = None,
    store: VectorStore | None = None,
    compat: CompatSettings | None = None,
    embedder: HashEmbedder | None = None,
    default: str = AUTO,
) -> Services:
    """The real services over an empty index, or over `store`, with these backends. They refuse nobody: many come."""
    settings = Settings(
        service=ServiceSettings(port=0, ping_s=0.1, backend=default),
        index=IndexSection(home=home),
        backends=dict(backends),
        routing=routing or RoutingSettings(),
        budgets=budgets or BudgetSettings(),
        ranking=ranking or RankingSettings(deadline_ms=60_000, controls=False),
        answer=answer or AnswerSettings(),
        compat=compat or CompatSettings(),
    )

    async def open_store() -> VectorStore:
        return store or EmbeddedStore(home / "index")

    return Services(settings, open_store, GivenEmbedder(embedder or HashEmbedder()), patient=True)


@asynccontextmanager
async def client_of(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """The running application, called in-process."""
    with application(services) as app:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client
