"""POST /v1/score, as vLLM's clients use it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.models import client_of, openai_style, services_for
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import OpenAIServer

pytestmark = [pytest.mark.anyio, pytest.mark.numeric]

QUERY = "When does dental cover start?"
DOCUMENTS = ["Parking is free behind the office.", "Dental cover starts on the first day.", "Der Urlaub ist lang."]


async def post(client: httpx.AsyncClient, path: str = "/v1/score", **fields: Any) -> dict[str, Any]:
    response = await client.post(path, json=fields)
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


def scores(reply: dict[str, Any]) -> list[float]:
    """In the order of the reply, which is that of the pairs."""
    assert [one["index"] for one in reply["data"]] == list(range(len(reply["data"])))
    return [one["score"] for one in reply["data"]]


@pytest.mark.parametrize(
    "names", [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")]
)
@pytest.mark.parametrize("path", ["/v1/score", "/score"])
async def test_one_query_for_all(client: httpx.AsyncClient, path: str, names: tuple[str, str]) -> None:
    """The scores of /v1/rerank in the order of the texts, in the words of every version of vLLM."""
    left, right = names
    reply = await post(client, path, model="m", encoding_format="float", **{left: QUERY, right: DOCUMENTS})
    ranked = (await client.post("/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS})).json()["results"]
    assert dict(enumerate(scores(reply))) == {one["index"]: one["relevance_score"] for one in ranked}
    assert (reply["object"], reply["model"], reply["data"][0]["object"]) == ("list", "m", "score")
    assert reply["usage"]["prompt_tokens"] > 0
    assert reply["meta"]["backend"] == "none"
    assert "total" in reply["meta"]["timings_ms"]


async def test_pair_by_pair(client: httpx.AsyncClient) -> None:
    """As many queries as texts: each text for its own; the same as if asked for one by one."""
    queries = [QUERY, "Is parking free?", QUERY]
    together = scores(await post(client, text_1=queries, text_2=DOCUMENTS))
    for query, text, score in zip(queries, DOCUMENTS, together, strict=True):
        assert scores(await post(client, text_1=query, text_2=text)) == [score]


@pytest.mark.parametrize(
    ("sent", "status", "param", "says"),
    [
        ({}, 400, "queries", "expected `queries`"),
        ({"text_1": "a"}, 400, "queries", "expected `queries`"),
        ({"text_1": "a", "text_2": []}, 400, "text_2", "at least one"),
        ({"text_1": ["a", "b"], "text_2": ["c", "d", "e"]}, 400, "text_1", "for each of the 3"),
        ({"text_1": ["a", "b"], "text_2": "c"}, 400, "text_1", "for each of the 1"),
        ({"queries": ["a", " "], "documents": ["c", "d"]}, 400, "queries.1", "blank"),
        ({"queries": 7, "documents": ["c"]}, 400, "queries", "expected an array"),
        ({"queries": [str(n) for n in range(300)], "documents": ["c"] * 300}, 413, None, "256"),
    ],
)
async def test_it_says_what_is_wrong(
    client: httpx.AsyncClient, sent: Any, status: int, param: str | None, says: str
) -> None:
    """With the field, in the shape that vLLM's clients read."""
    reply = await client.post("/v1/score", json=sent)
    assert reply.status_code == status
    assert reply.json()["error"]["param"] == param
    assert says in reply.json()["error"]["message"]


@pytest.fixture
async def model() -> AsyncIterator[OpenAIServer]:
    likely = {"Dental": {"3": -0.05, "0": -4.0}, "Parking": {"0": -0.02, "1": -4.5}}
    async with OpenAIServer(model=FakeModel(name="gemma-3", likely=likely)) as server:
        yield server


async def test_a_model_scores(model: OpenAIServer, tmp_path: Path) -> None:
    """What it read for all queries is counted, named and in the ledger."""
    async with client_of(services_for(tmp_path, {"gemma": openai_style(model)})) as client:
        reply = await post(client, model="gemma", text_1=[QUERY, "Is it?"], text_2=[DOCUMENTS[1], DOCUMENTS[0]])
        usage = (await client.get("/usage", params={"group_by": "stage"})).json()
    high, low = scores(reply)
    assert high > low
    assert reply["meta"]["backend"] == "gemma"
    assert str(reply["usage"]["prompt_tokens"]) in str(usage)
