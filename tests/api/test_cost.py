"""POST /cost/estimate."""

from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.anyio

MONTH = {"input_tokens": 10_000_000, "output_tokens": 2_000_000}


async def test_an_estimate_without_any_configuration(client: httpx.AsyncClient) -> None:
    """Gemini's default model is there to compare with, at 0.25 and 1.50 dollars a million, and GPUs beside it."""
    found = (await client.post("/cost/estimate", json=MONTH)).json()
    (api,) = found["apis"]
    assert (api["backend"], api["reference"], api["usd"]) == ("reference", True, 5.5)
    assert api["formula"] == "(10,000,000 input x $0.25 + 2,000,000 output x $1.50) / 1,000,000 = $5.50"
    assert {row["gpu"] for row in found["self_hosted"]} == {"RTX 3060", "RTX 3080", "RTX 4090"}
    assert all(assumption["source"] for assumption in found["assumptions"])


async def test_a_gpu_of_ones_own_price(client: httpx.AsyncClient) -> None:
    """Only the GPUs that are named are looked at, and by the hour where one says so."""
    found = (await client.post("/cost/estimate", json={**MONTH, "gpus": {"RTX 4090": 0.4}, "hours": "needed"})).json()
    assert {(row["gpu"], row["usd_per_hour"], row["rented_hours"]) for row in found["self_hosted"]} == {
        ("RTX 4090", 0.4, None)
    }


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/input_tokens"),
        ({"input_tokens": -1}, "/input_tokens"),
        ({**MONTH, "cached_share": 2}, "/cached_share"),
        ({**MONTH, "hours": 800}, "/hours"),
        ({**MONTH, "hours": 5e-324}, "/hours"),
        ({**MONTH, "hours": "always"}, "/hours"),
        ({**MONTH, "gpus": {"RTX 9": 1}}, "/gpus"),
        ({**MONTH, "output_token": 1}, "/output_token"),
    ],
)
async def test_a_wrong_field_is_named(client: httpx.AsyncClient, body: dict[str, Any], pointer: str) -> None:
    """400 with a pointer."""
    response = await client.post("/cost/estimate", json=body)
    assert response.status_code == 400
    assert response.json()["errors"][0]["pointer"] == pointer
