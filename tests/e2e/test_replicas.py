"""Two replicas of the service on one real PostgreSQL: processes of their own, which take turns at the requests."""

from pathlib import Path

import pytest

from benchmarks.replicas import kill_replicas, spend_a_budget
from tests.fakes.postgres import Postgres

pytestmark = [pytest.mark.anyio, pytest.mark.postgres, pytest.mark.timeout(300)]


async def test_two_services_spend_a_budget_once(tmp_path: Path, postgres: Postgres) -> None:
    """Of two hundred requests at once as many are served as the budget pays for, and the others are told so (402)."""
    _, faults = await spend_a_budget(tmp_path, postgres, 120)
    assert faults == []


async def test_kills_leave_the_books_right(tmp_path: Path, postgres: Postgres) -> None:
    """No call is booked twice, what is spent is what the rows say, and no more is reserved than the killed had."""
    site, faults, _ = await kill_replicas(tmp_path, postgres, 2, seed=3)
    assert faults == []
    assert site.answered
