"""Strategy "decide": decision models rank by a rubric; Gemini's through the real SDK."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from app.backends.settings import PriceSettings
from app.wiring import Services
from tests.fakes.corpus import fill
from tests.fakes.faults import Fault
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.models import BRISK, client_of, gemini, openai_style, services_for
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import Dialect, OpenAIServer

pytestmark = pytest.mark.anyio

MODEL = "gemini-decision-1"
GRADES = {"Urlaub": "3", "office opens": "2", "Dental": "1"}


def rubric(context: str, instructions: str) -> Mapping[str, float]:
    """The passage that the question names, by what it says."""
    number = next(iter(re.findall(r"the passage \[(\d+)\]", instructions)), None)
    if number is None:  # the probe's question
        return {}
    [line] = re.findall(rf"^\w+ \[{number}\] (.*)$", context, re.MULTILINE)
    grade = next((grade for word, grade in GRADES.items() if word in line), "0")
    return {label: 0.91 if label == grade else 0.03 for label in ("0", "1", "2", "3")}


@asynccontextmanager
async def searching(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(services) as client:
        await fill(await services.store.get())
        yield client


async def search(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post("/search", json={"query": "dental cover office", **body})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


@pytest.mark.parametrize("strategy", ["auto", "decide"])
async def test_gemini_decides_in_one_call(tmp_path: Path, strategy: str) -> None:
    """All passages side by side, a question for each; asked again it costs nothing."""
    told = msgspec.structs.replace(BRISK, price=PriceSettings(input=0.1, output=0.0))
    async with GeminiServer(models=(MODEL,)) as server:
        server.likely = rubric
        async with searching(services_for(tmp_path, {"decision": gemini(server, told)})) as client:
            found = await search(client, ranking={"strategy": strategy})
            assert [hit["document_id"] for hit in found["results"]] == ["urlaub", "office", "dental", "parking"]
            assert {hit["ranked_by"] for hit in found["results"]} == {"decision"}
            assert found["usage"]["by_stage"]["rank"]["requests"] == 1
            assert found["usage"]["cost_usd"] == pytest.approx(server.told.input * 0.1e-6)
            assert found["degraded"] == []
            [asked] = [call.body for call in server.calls if call.method == "decide"]
            assert len(asked["questions"]) == 4
            assert asked["questions"]["0"]["criteria"]["3"] == "it holds a full answer to the query"
            assert (await search(client, ranking={"strategy": strategy}))["usage"]["requests"] == 0
            listed = (await client.get("/backends")).json()
            (shown,) = [one for one in listed["backends"] if one["name"] == "decision"]
            assert "rank" in shown["capabilities"]


@pytest.mark.parametrize(
    ("dialect", "path", "calls"),
    [("openai", "/v1/decisions", 1), ("vllm", "/v1/systemone", 4), ("vllm", "/v1/decisions", 4)],
)
async def test_a_small_model_never_reads_them_all_at_once(
    tmp_path: Path, dialect: Dialect, path: str, calls: int
) -> None:
    """On one's own hardware each passage has a call of its own."""
    decides = frozenset((path,))
    async with (
        OpenAIServer(dialect, FakeModel(name="own"), decides=decides, decisions=rubric) as server,
        searching(services_for(tmp_path, {"own": openai_style(server)})) as client,
    ):
        found = await search(client, ranking={"strategy": "decide"})
    assert [hit["document_id"] for hit in found["results"]] == ["urlaub", "office", "dental", "parking"]
    assert found["usage"]["by_stage"]["rank"]["requests"] == calls


async def test_who_does_not_decide_says_so(tmp_path: Path) -> None:
    """Before any model is asked to rank."""
    async with (
        OpenAIServer(model=FakeModel(name="own")) as server,
        searching(services_for(tmp_path, {"own": openai_style(server)})) as client,
    ):
        body = {"query": "dental", "backend": "own", "ranking": {"strategy": "decide"}}
        refused = await client.post("/search", json=body)
    assert refused.status_code == 422
    assert "cannot rank by the strategy 'decide'" in refused.json()["detail"]


async def test_an_answer_that_is_missing_leaves_the_prior(tmp_path: Path) -> None:
    """And a call that fails leaves the order of retrieval."""
    async with GeminiServer(models=(MODEL,)) as server:
        server.likely = lambda context, question: {} if "[1]" not in question else {"3": float("nan")}
        async with searching(services_for(tmp_path, {"decision": gemini(server)})) as client:
            found = await search(client)
            assert any("decision graded 3 of 4 passages" in why for why in found["degraded"])
            server.script.append(Fault.SERVER_ERROR)
            failed = await search(client, query="urlaub")
            assert failed["backend"]["used"] == "none"
