"""The application over a real store, a fake embedder and a scripted answerer, called in-process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from litestar import Litestar

from app.config.settings import IndexSection, ServiceSettings, Settings
from app.wiring import Services
from indexing.store.base import VectorStore
from indexing.store.embedded import EmbeddedStore
from tests.fakes.answerer import ScriptedAnswerer
from tests.fakes.applications import application
from tests.fakes.corpus import fill
from tests.fakes.embedder import HashEmbedder
from tests.fakes.running import RunningServer
from tests.fakes.source import GivenEmbedder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(service=ServiceSettings(ping_s=0.1), index=IndexSection(home=tmp_path))


@pytest.fixture
def answerer() -> ScriptedAnswerer:
    return ScriptedAnswerer()


@pytest.fixture
def embedder() -> HashEmbedder:
    return HashEmbedder()


class SharedStore(EmbeddedStore):
    """Outlives the services that use it: making one takes a second. Tests that write use collections of their own."""

    async def close(self) -> None:
        """Not yet."""

    async def close_at_last(self) -> None:
        await super().close()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedStore]:
    store = SharedStore(tmp_path_factory.mktemp("index"))
    asyncio.run(fill(store))
    yield store
    asyncio.run(store.close_at_last())


@pytest.fixture
def services(settings: Settings, embedder: HashEmbedder, answerer: ScriptedAnswerer, store: SharedStore) -> Services:
    async def open_store() -> VectorStore:
        return store

    return Services(settings, open_store, GivenEmbedder(embedder), lambda _services: answerer)


@pytest.fixture
def app(services: Services) -> Iterator[Litestar]:
    with application(services) as app:
        yield app


@pytest.fixture
async def client(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    async with app.lifespan(), local_client(app) as client:
        yield client


def local_client(app: Litestar, host: str = "127.0.0.1") -> httpx.AsyncClient:
    """A client whose address is `host`. An error of the application's is answered, not raised."""
    transport = httpx.ASGITransport(app=app, client=(host, 50000), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server process that the tests of a module share: none of them stops it."""
    running = RunningServer(tmp_path_factory.mktemp("home"))
    yield running
    running.close()
