"""Fixtures for every test."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio: what the service runs on."""
    return "asyncio"
