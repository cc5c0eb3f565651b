"""Every implementation of the store contract, one after the other."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from indexing.store.base import VectorStore
from indexing.store.embedded import EmbeddedStore
from indexing.store.server import ServerStore


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
