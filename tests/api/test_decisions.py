"""Decision models behind POST /classify and /moderate: Gemini's by the real SDK, OpenAI's, and vLLM's."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from app.backends.settings import PriceSettings
from tests.fakes.faults import Fault
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.labelling_mind import labels_of
from tests.fakes.models import BRISK, client_of, gemini, openai_style, services_for
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import Dialect, OpenAIServer

pytestmark = pytest.mark.anyio

MODEL = "gemini-decision-1"
LIKELY: Mapping[str, Mapping[str, float]] = {
    "bad": {"NEGATIVE": 0.9, "POSITIVE": 0.1, "violence": 0.95},
    "good": {"POSITIVE": 0.8, "NEGATIVE": 0.2},
}


@pytest.fixture
async def server() -> AsyncIterator[GeminiServer]:
    async with GeminiServer(models=(MODEL,), retry_after_s=0.01) as server:
        server.likely = LIKELY
        yield server


@pytest.fixture
async def client(server: GeminiServer, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    priced = msgspec.structs.replace(BRISK, retries=2, price=PriceSettings(input=0.1, output=0.0))
    async with client_of(services_for(tmp_path, {"decision": gemini(server, priced)})) as client:
        yield client


async def _classify(client: httpx.AsyncClient, *texts: str) -> Any:
    body = {"texts": texts, "labels": [{"name": "POSITIVE", "description": "praise"}, "NEGATIVE"]}
    response = await client.post("/classify", json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def test_gemini_decides(client: httpx.AsyncClient, server: GeminiServer) -> None:
    """Each text is the input of a call of its own; the scores are the model's probabilities, the cost is its input."""
    reply = await _classify(client, "a bad day", "a good day")
    assert [result["label"] for result in reply["results"]] == ["NEGATIVE", "POSITIVE"]
    assert reply["results"][0]["scores"] == pytest.approx({"POSITIVE": 0.1, "NEGATIVE": 0.9})
    assert {result["evidence"] for result in reply["results"]} == {"calibrated"}
    asked = [call.body for call in server.calls if call.method == "decide"]
    assert sorted(body["input"] for body in asked) == ["a bad day", "a good day"]
    assert asked[0]["questions"]["0"]["criteria"] == {"POSITIVE": "praise", "NEGATIVE": ""}
    assert reply["usage"]["requests"] == 2
    assert reply["usage"]["cost_usd"] == pytest.approx(server.told.input * 0.1e-6)


async def test_gemini_flags(client: httpx.AsyncClient, server: GeminiServer) -> None:
    """All categories are questions about the same input, in one call."""
    reply = (await client.post("/moderate", json={"texts": ["bad"]})).json()
    [result] = reply["results"]
    assert "violence" in result["categories"]
    assert result["scores"]["violence"] == 0.95
    assert len(server.calls[-1].body["questions"]) == 13
    assert reply["usage"]["requests"] == 1


@pytest.mark.parametrize(
    ("fault", "kind", "calls"),
    [
        (Fault.UNAUTHORIZED, "upstream-rejected", 1),
        (Fault.BLOCKED_PROMPT, "refused", 1),
        (Fault.MALFORMED_JSON, "upstream-bad-reply", 3),
        (Fault.EMPTY_REPLY, "upstream-bad-reply", 3),
        (Fault.SERVER_ERROR, "upstream-unavailable", 3),
        (Fault.DROPPED_BEFORE, "upstream-unavailable", 3),
    ],
)
async def test_the_errors_of_decisions_are_ours(
    client: httpx.AsyncClient, server: GeminiServer, fault: Fault, kind: str, calls: int
) -> None:
    """The SDK's own family of errors is translated, and the SDK itself retries nothing: the retries are ours."""
    server.script.extend([fault] * 3)
    [result] = (await _classify(client, "a bad day"))["results"]
    assert result["error"]["type"] == f"urn:winnow:problem:{kind}"
    assert sum(call.method == "decide" for call in server.calls) == calls


@pytest.mark.parametrize("chance", [float("nan"), float("inf"), -0.5, 5.0])
async def test_what_is_no_probability_is_no_answer(
    client: httpx.AsyncClient, server: GeminiServer, chance: float
) -> None:
    """No such number reaches a client: the text is judged in the next best way."""
    server.likely = {"odd": {"POSITIVE": chance, "NEGATIVE": 1.0, "violence": chance}}
    server.mind = labels_of(lambda _: {"POSITIVE": 70, "NEGATIVE": 30, "violence": 40})
    moderated = (await client.post("/moderate", json={"texts": ["odd"], "categories": ["violence"]})).json()
    assert (moderated["results"][0]["evidence"], moderated["results"][0]["scores"]) == ("stated", {"violence": 0.4})
    if chance != 5.0:  # shares need not sum to 1
        assert (await _classify(client, "odd"))["results"][0]["evidence"] == "stated"


async def test_what_may_pass_is_tried_again(client: httpx.AsyncClient, server: GeminiServer) -> None:
    """After the pause that the server names."""
    server.script.extend([Fault.RATE_LIMITED_WITH_DELAY, Fault.UNAVAILABLE])
    assert (await _classify(client, "a bad day"))["results"][0]["label"] == "NEGATIVE"


@pytest.mark.parametrize(
    ("dialect", "path", "version"),
    [
        ("openai", "/v1/decisions", ""),
        ("vllm", "/v1/systemone", "0.32.0"),
        ("vllm", "/v1/decisions", "0.33.0"),
        ("ollama", "/v1/decisions", "0.35.0"),
    ],
)
async def test_other_servers_decide(tmp_path: Path, dialect: Dialect, path: str, version: str) -> None:
    """What the server has is found out; its probabilities go before log-probabilities."""
    async with (
        OpenAIServer(dialect, version=version, decides=frozenset((path,)), decisions=LIKELY) as server,
        client_of(services_for(tmp_path, {"own": openai_style(server)})) as client,
    ):
        reply = await _classify(client, "a bad day", "a good day")
        moderated = (await client.post("/moderate", json={"texts": ["bad"]})).json()["results"][0]
    assert [(result["label"], result["evidence"]) for result in reply["results"]] == [
        ("NEGATIVE", "calibrated"),
        ("POSITIVE", "calibrated"),
    ]
    assert reply["results"][0]["confidence"] == pytest.approx(0.9)
    assert (moderated["scores"]["violence"], moderated["evidence"]) == (0.95, "calibrated")


async def test_more_labels_than_a_server_decides_between(tmp_path: Path) -> None:
    """The next best way of the same server is taken."""
    labels = [f"label {number}" for number in range(30)]
    model = FakeModel(mind=labels_of(lambda _: {"label 29": 80}))
    async with (
        OpenAIServer("vllm", model, decides=frozenset(("/v1/systemone",))) as server,
        client_of(services_for(tmp_path, {"own": openai_style(server)})) as client,
    ):
        response = await client.post("/classify", json={"texts": ["a"], "labels": labels})
    [result] = response.json()["results"]
    assert (result["label"], result["evidence"]) == ("label 29", "stated")
