"""Fixtures for every test."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.vllm.running import RunningVllm

settings.register_profile("winnow", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("winnow")


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio: what the service runs on."""
    return "asyncio"


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[RunningVllm]":
    """The real vLLM: one for all tests, started when the first of them asks for it."""
    from tests.vllm.running import VllmFailed, real_vllm

    try:
        with real_vllm(tmp_path_factory.mktemp("vllm"), os.environ) as server:
            yield server
    except VllmFailed as exc:
        pytest.fail(str(exc), pytrace=False)
