"""Passages with metadata of every kind, in a collection of their own."""

import pytest

from app.wiring import Services
from tests.fakes.corpus import fill, passage

MANUALS = [
    ("pump", "The pump delivers cold water.", {"author": "Bob", "year": 2024, "made": "2024-03-01", "tags": ["blue"]}),
    ("valve", "The valve stops water.", {"author": "Ann Bobson", "year": "2022", "made": "2022-07-15", "tags": []}),
    ("hose", "The hose leads water away.", {"author": "CARL", "year": 2019, "made": "2019-01-31T12:00:00Z"}),
    ("tap", "A tap lets water out.", {}),
]


@pytest.fixture
async def manuals(services: Services) -> str:
    """The name of the collection."""
    await fill(await services.store.get(), [passage(*entry) for entry in MANUALS], name="manuals")
    return "manuals"
