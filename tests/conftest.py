"""Fixtures for every test."""

import pytest
from hypothesis import settings

settings.register_profile("winnow", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("winnow")


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio: what the service runs on."""
    return "asyncio"
