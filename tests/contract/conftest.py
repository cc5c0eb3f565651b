"""Every implementation of the store contract, and every server of the backends' contract, one after the other."""

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

import portalocker
import pytest

from app.backends.base import Adapter
from indexing.settings import StoreSettings
from indexing.store.base import VectorStore
from indexing.store.embedded import EmbeddedStore
from indexing.store.server import ServerStore
from tests.contract.sides import FakeSide, Side, VllmSide, gemini_side, openai_side
from tests.fakes.qdrant_server.server import running

PLENTY_S = 60.0
FAKES: dict[str, Callable[[], AbstractAsyncContextManager[FakeSide]]] = {
    "gemini-camel": lambda: gemini_side("camel"),
    "gemini-snake": lambda: gemini_side("snake"),
    "vllm-fake": lambda: openai_side("vllm"),
    "ollama": lambda: openai_side("ollama"),
    "openai": lambda: openai_side("openai"),
}
REAL = pytest.param("vllm", marks=[pytest.mark.vllm, pytest.mark.timeout(400)])


QDRANT = pytest.param("server", marks=pytest.mark.qdrant)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what needs a Qdrant server where QDRANT_URL names none."""
    if os.environ.get("QDRANT_URL"):
        return
    deselected = [item for item in items if item.get_closest_marker("qdrant")]
    config.hook.pytest_deselected(items=deselected)
    items[:] = [item for item in items if item not in deselected]


@pytest.fixture(params=["edge", "grpc", "rest", QDRANT])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[VectorStore]:
    """An empty store of each kind, closed afterwards: Edge, a fake server over both of its protocols, a real one.

    Every collection of the server at QDRANT_URL is dropped.
    """
    async with AsyncExitStack() as stack:
        match request.param:
            case "edge":
                opened: VectorStore = EmbeddedStore(tmp_path / "index", optimize_from=50)
            case "server":
                # Workers that run tests in parallel have one server between them: it belongs to one test at a time.
                turn = tmp_path_factory.getbasetemp().parent / "qdrant.lock"
                stack.enter_context(portalocker.Lock(turn, timeout=PLENTY_S))
                opened = ServerStore.connect(_at_qdrant_url(os.environ))
            case protocol:
                fake = stack.enter_context(running())
                grpc_port = fake.grpc_port if protocol == "grpc" else 0
                opened = ServerStore.connect(StoreSettings(url=fake.url, grpc_port=grpc_port))
        stack.push_async_callback(opened.close)
        for info in await opened.collections():
            await opened.drop(info.name)
        yield opened


def _at_qdrant_url(environ: Mapping[str, str]) -> StoreSettings:
    return StoreSettings(
        url=environ["QDRANT_URL"],
        api_key=environ.get("QDRANT_API_KEY"),
        grpc_port=int(environ.get("WINNOW_STORE_GRPC_PORT", StoreSettings().grpc_port)),
    )


@pytest.fixture(params=[*FAKES, REAL])
async def side(request: pytest.FixtureRequest) -> AsyncIterator[Side]:
    """A server; no connection to a fake one may be left afterwards."""
    if request.param == "vllm":
        yield VllmSide(request.getfixturevalue("vllm"))
        return
    async with FAKES[request.param]() as opened:
        yield opened


@pytest.fixture(params=FAKES)
async def fake(request: pytest.FixtureRequest) -> AsyncIterator[FakeSide]:
    """A server that can have bad days; no connection may be left afterwards."""
    async with FAKES[request.param]() as opened:
        yield opened


@pytest.fixture
async def adapter(side: Side) -> AsyncIterator[Adapter]:
    """Probed."""
    opened = side.open()
    await opened.probe(PLENTY_S)
    yield opened
    await opened.aclose()
