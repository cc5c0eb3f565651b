"""Three thousand bodies that nobody should send."""

import asyncio
from pathlib import Path

import pytest

from benchmarks.fuzz import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_no_body_makes_the_service_fail(tmp_path: Path) -> None:
    """Whatever is sent wherever, it is served or refused: never a 5xx other than 503."""
    statuses, failures = asyncio.run(run(3000, seed=1, home=tmp_path))
    assert failures == []
    assert all(counts.total() == 150 for counts in statuses.values())
