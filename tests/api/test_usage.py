"""GET /usage and GET /usage/export."""

import time
from pathlib import Path

import httpx
import msgspec
import pytest

from app.accounting.budgets import PICO
from app.accounting.ledger import LEDGER_FILE
from app.accounting.reports import PAGE, ExportedCall
from app.config.settings import Settings
from tests.fakes.money import record, written

pytestmark = pytest.mark.anyio


@pytest.fixture
def ledger(settings: Settings) -> Path:
    return settings.index.home / LEDGER_FILE


def damage(ledger: Path) -> None:
    for path in ledger.parent.glob(f"{LEDGER_FILE}*"):
        path.unlink()
    ledger.write_bytes(b"no database" * 1000)


async def test_without_calls_everything_is_nothing(client: httpx.AsyncClient) -> None:
    """A new service has a report too, with the ledger's health."""
    found = (await client.get("/usage")).json()
    assert (found["group_by"], found["rows"], found["total"]["cost_usd"]) == ("backend", [], 0)
    assert found["ledger"] == {"written": 0, "pending": 0, "lost": 0, "failure": ""}


async def test_groups_and_their_total(client: httpx.AsyncClient, ledger: Path) -> None:
    """Each group's row and the sum of all, the dearest first."""
    now = time.time()
    written(ledger, record(now, backend="b", pico=PICO), record(now, backend="c", pico=2 * PICO, stage="answer"))
    found = (await client.get("/usage", params={"since": "1h"})).json()
    assert [(row["name"], row["cost_usd"]) for row in found["rows"]] == [("c", 2.0), ("b", 1.0)]
    assert (found["total"]["calls"], found["total"]["cost_usd"], found["total"]["thinking_tokens"]) == (2, 3.0, 10)
    by_stage = (await client.get("/usage", params={"group_by": "stage"})).json()
    assert {row["name"] for row in by_stage["rows"]} == {"rank", "answer"}


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"since": "yesterday"}, "since: 'yesterday' is not a date"),
        ({"until": "2026-13-01"}, "until: '2026-13-01' is not a date"),
        ({"since": "1h", "until": "2h"}, "since: 1h is not before until"),
        ({"group_by": "colour"}, "group_by"),
    ],
)
async def test_a_wrong_parameter_is_named(client: httpx.AsyncClient, params: dict[str, str], said: str) -> None:
    """400, with the field and what it takes."""
    response = await client.get("/usage", params=params)
    assert response.status_code == 400
    assert said in response.json()["detail"]


async def test_the_export_has_every_call_in_order(client: httpx.AsyncClient, ledger: Path) -> None:
    """More than a page of them, a JSON object a line with all its fields."""
    now = time.time() - 60
    written(ledger, *(record(now + n / 1000, request_id=f"r{n}", pico=25) for n in range(PAGE + 5)))
    response = await client.get("/usage/export", params={"since": "1h"})
    assert response.headers["content-type"] == "application/x-ndjson"
    calls = [msgspec.json.decode(line, type=ExportedCall) for line in response.content.splitlines()]
    assert [call.request_id for call in calls] == [f"r{n}" for n in range(PAGE + 5)]
    first = msgspec.json.decode(response.content.splitlines()[0])
    assert tuple(first) == ExportedCall.__struct_fields__
    assert (first["cost_usd"], first["cached_tokens"], first["gpu_seconds"]) == (2.5e-11, 40, None)


async def test_an_export_of_nothing_is_empty(client: httpx.AsyncClient) -> None:
    """200 and no line; a wrong span is refused before anything is sent."""
    assert (await client.get("/usage/export")).content == b""
    assert (await client.get("/usage/export", params={"since": "?"})).status_code == 400


async def test_a_damaged_ledger_is_unavailable(client: httpx.AsyncClient, ledger: Path) -> None:
    """503 naming the file, not a 500."""
    damage(ledger)
    response = await client.get("/usage")
    assert response.status_code == 503
    assert LEDGER_FILE in response.json()["detail"]
