"""Many texts as JSON lines while a tenth of the calls fails: nothing is lost or doubled, and all is in the ledger."""

from pathlib import Path
from random import Random

import httpx
import msgspec
import pytest

from app.backends.settings import RoutingSettings
from tests.fakes.faults import Fault
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.labelling_mind import labels_of
from tests.fakes.models import BRISK, client_of, gemini, services_for

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

FAULTS = (Fault.SERVER_ERROR, Fault.MALFORMED_JSON, Fault.DROPPED_MIDWAY, Fault.EMPTY_REPLY)
TEXTS = 1000


async def test_a_tenth_of_failing_calls_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Each row has the label of its own text; each call that the server billed is in the ledger, once."""
    random = Random(14)

    def choose() -> Fault:
        return random.choice(FAULTS) if random.random() < 0.1 else Fault.SLOW_FIRST_BYTE

    async with GeminiServer(choose=choose, slow_s=0.15) as server:
        server.mind = labels_of()
        told = msgspec.structs.replace(BRISK, retries=5)
        services = services_for(tmp_path, {"flash": gemini(server, told)}, RoutingSettings(failures=1000))
        async with client_of(services) as client:
            rows = await _classified(client)
            usage = services.accounts.usage().total
    assert [row["id"] for row in rows] == list(range(1, TEXTS + 1))
    assert [row["label"] for row in rows] == ["POSITIVE" if n % 2 else "NEGATIVE" for n in range(TEXTS)]
    generated = [call for call in server.calls if call.method == "generateContent"]
    assert usage.requests == len(generated)
    assert usage.input_tokens >= server.told.input
    assert usage.output_tokens >= server.told.output
    assert sum(row["cost_usd"] for row in rows) == pytest.approx(usage.cost_usd)


async def _classified(client: httpx.AsyncClient) -> list[dict[str, object]]:
    texts = (f"a {'good' if number % 2 else 'bad'} day, number {number}" for number in range(TEXTS))
    body = b"\n".join(map(msgspec.json.encode, texts))
    query = 'labels=["POSITIVE","NEGATIVE"]&concurrency=50'
    reply = await client.post(f"/classify?{query}", content=body, headers={"content-type": "application/x-ndjson"})
    *rows, ending = [msgspec.json.decode(line) for line in reply.content.splitlines()]
    assert (ending["done"], ending["failed"]) == (True, 0)
    return rows
