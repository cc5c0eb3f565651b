"""What tests of the pipeline's rooms work on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from indexing.pipeline.context import PipelineContext
from indexing.store.server import ServerStore
from tests.fakes.embedder import HashEmbedder
from tests.fakes.library import workbench


@pytest.fixture
def embedder() -> HashEmbedder:
    return HashEmbedder()


@pytest.fixture
async def bench(tmp_path: Path, embedder: HashEmbedder) -> AsyncIterator[PipelineContext]:
    bench = workbench(ServerStore.in_memory(), tmp_path / "home", embedder)
    yield bench
    await bench.manifest.close()
    await bench.store.close()
