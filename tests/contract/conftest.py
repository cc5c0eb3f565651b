"""Every implementation of the store contract, and every server of the backends' contract, one after the other."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from app.backends.base import Adapter
from indexing.store.base import VectorStore
from indexing.store.embedded import EmbeddedStore
from indexing.store.server import ServerStore
from tests.contract.sides import FakeSide, Side, VllmSide, gemini_side, openai_side

PLENTY_S = 60.0
FAKES: dict[str, Callable[[], AbstractAsyncContextManager[FakeSide]]] = {
    "gemini-camel": lambda: gemini_side("camel"),
    "gemini-snake": lambda: gemini_side("snake"),
    "vllm-fake": lambda: openai_side("vllm"),
    "ollama": lambda: openai_side("ollama"),
    "openai": lambda: openai_side("openai"),
}
REAL = pytest.param("vllm", marks=[pytest.mark.vllm, pytest.mark.timeout(400)])


@pytest.fixture(params=["edge", "memory", "server"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[VectorStore]:
    """Empty, and closed afterwards. A server is one that the tests may empty."""
    opened = _open(request.param, tmp_path)
    for info in await opened.collections():
        await opened.drop(info.name)
    yield opened
    await opened.close()


def _open(kind: str, directory: Path) -> VectorStore:
    if kind == "edge":
        return EmbeddedStore(directory / "index", optimize_from=50)
    if kind == "memory":
        return ServerStore.in_memory()
    url = os.environ.get("QDRANT_URL")
    if not url:
        pytest.skip("QDRANT_URL is not set: no Qdrant server to test against")
    return ServerStore.connect(url, os.environ.get("QDRANT_API_KEY"))


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
