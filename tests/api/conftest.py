"""The application over a real store, a fake embedder and a scripted answerer, called in-process."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from litestar import Litestar

from app.main import create_app
from app.settings import Settings
from app.wiring import Services
from indexing.store.base import VectorStore
from indexing.store.embedded import EmbeddedStore
from tests.fakes.answerer import ScriptedAnswerer
from tests.fakes.corpus import fill
from tests.fakes.embedder import HashEmbedder
from tests.fakes.source import GivenEmbedder


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture
def answerer() -> ScriptedAnswerer:
    return ScriptedAnswerer()


@pytest.fixture
def embedder() -> HashEmbedder:
    return HashEmbedder()


@pytest.fixture
def services(settings: Settings, embedder: HashEmbedder, answerer: ScriptedAnswerer, tmp_path: Path) -> Services:
    async def open_store() -> VectorStore:
        store = EmbeddedStore(tmp_path / "index")
        await fill(store)
        return store

    return Services(settings, open_store, GivenEmbedder(embedder), lambda _searcher, _queries: answerer)


@pytest.fixture
def app(settings: Settings, services: Services) -> Litestar:
    return create_app(settings, services)


@pytest.fixture
async def client(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    async with app.lifespan(), local_client(app) as client:
        yield client


def local_client(app: Litestar, host: str = "127.0.0.1") -> httpx.AsyncClient:
    """A client whose address is `host`. An error of the application's is answered, not raised."""
    transport = httpx.ASGITransport(app=app, client=(host, 50000), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")
