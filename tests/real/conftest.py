"""Real models on real servers: each server is started when a test first asks for it, and serves all tests."""

import os
from collections.abc import Iterator

import pytest

from tests.real.running import GEMMA_BASE, SMOL, NotHere, Server, real_llama, real_vllm_of
from tests.vllm.running import VllmFailed


@pytest.fixture(scope="session")
def smol_llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """SmolLM2 on llama.cpp's server."""
    try:
        with real_llama(SMOL, tmp_path_factory.mktemp("llama")) as server:
            yield server
    except NotHere as exc:
        pytest.skip(str(exc))


@pytest.fixture(scope="session")
def gemma_llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Gemma 3 270M, which was never instructed, on llama.cpp's server."""
    try:
        with real_llama(GEMMA_BASE, tmp_path_factory.mktemp("llama")) as server:
            yield server
    except NotHere as exc:
        pytest.skip(str(exc))


@pytest.fixture(scope="session")
def smol_vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """SmolLM2 on vLLM."""
    try:
        with real_vllm_of(SMOL, tmp_path_factory.mktemp("vllm"), os.environ) as server:
            yield server
    except NotHere as exc:
        pytest.skip(str(exc))
    except VllmFailed as exc:
        pytest.fail(str(exc), pytrace=False)


@pytest.fixture(params=["smol_llama", "gemma_llama", "smol_vllm"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each of them in turn."""
    found: Server = request.getfixturevalue(request.param)
    return found
