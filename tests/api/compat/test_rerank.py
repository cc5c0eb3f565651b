"""Reranking in the formats of Cohere, Jina and vLLM: the rules that real clients break on."""

import asyncio
import math
import re
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from structlog.testing import capture_logs

from app.backends.settings import BudgetSettings, PriceSettings
from app.config.settings import CompatSettings
from app.errors import ConfigError
from app.wiring import Services
from indexing.errors import EmbedderUnavailable
from tests.fakes.embedder import HashEmbedder
from tests.fakes.faults import Fault
from tests.fakes.models import BRISK, client_of, openai_style, services_for
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import OpenAIServer

pytestmark = [pytest.mark.anyio, pytest.mark.numeric]

PATHS = ("/v1/rerank", "/v2/rerank", "/rerank")
QUERY = "When does dental cover start?"
DOCUMENTS = [
    "Parking is free for staff behind the office.",
    "Dental cover starts on the first day of work.",
    "Der Urlaub beträgt dreißig Tage im Jahr.",
]
LIKELY = {"Urlaub": {"3": -0.05, "0": -4.0}, "Dental": {"1": -0.1, "0": -3.0}, "Parking": {"0": -0.02, "1": -4.5}}
"""A model of a mind of its own."""


@pytest.fixture
async def model() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer(model=FakeModel(name="gemma-3", likely=LIKELY)) as server:
        yield server


@pytest.fixture
async def ranked(model: OpenAIServer, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A service with a model."""
    async with client_of(services_for(tmp_path, {"gemma": openai_style(model)})) as client:
        yield client


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "winnow-rerank", "query": QUERY, "documents": DOCUMENTS, **fields}


async def post(client: httpx.AsyncClient, path: str = "/v1/rerank", **fields: Any) -> dict[str, Any]:
    response = await client.post(path, json=body(**fields))
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


def order(reply: dict[str, Any]) -> list[int]:
    return [result["index"] for result in reply["results"]]


def scores(reply: dict[str, Any]) -> list[float]:
    """By index."""
    return [result["relevance_score"] for result in sorted(reply["results"], key=lambda result: int(result["index"]))]


async def test_a_model_reads_while_the_texts_are_matched_by_vectors(
    ranked: httpx.AsyncClient, model: OpenAIServer, tmp_path: Path
) -> None:
    """It is asked before the embedder has answered, and the scores are those of a fast embedder."""
    at_once = await post(ranked)
    slow = HashEmbedder(gate=threading.Event())
    services = services_for(tmp_path / "slow", {"gemma": openai_style(model)}, embedder=slow)
    async with client_of(services) as client:
        before = asked_to_grade(model)
        waiting = asyncio.ensure_future(post(client))
        while asked_to_grade(model) == before:  # noqa: ASYNC110 - the model is another server
            await asyncio.sleep(0.01)
        assert not waiting.done()
        assert slow.gate is not None
        slow.gate.set()
        reply = await waiting
    assert reply["results"] == at_once["results"]


def asked_to_grade(model: OpenAIServer) -> int:
    """Requests that hold one of the documents."""
    return sum(b"Dental cover" in (asked.body or b"") for asked in model.requests)


async def test_matches_by_vectors_count_where_a_model_ranks(model: OpenAIServer, tmp_path: Path) -> None:
    """They are joined when they come: without them the scores are others."""
    spoken = []
    for embedded in (0, 32):
        compat = CompatSettings(rerank_embedded=embedded)
        services = services_for(tmp_path / f"{embedded}", {"gemma": openai_style(model)}, compat=compat)
        async with client_of(services) as client:
            spoken.append(scores(await post(client)))
    assert spoken[0] != spoken[1]


@pytest.mark.parametrize("path", PATHS)
async def test_a_model_ranks(ranked: httpx.AsyncClient, path: str) -> None:
    """Every path gives every document once, best first by the model, scores finite in [0,1], usage both ways."""
    reply = await post(ranked, path)
    assert order(reply) == [2, 1, 0]
    found = [result["relevance_score"] for result in reply["results"]]
    assert found == sorted(found, reverse=True)
    assert all(math.isfinite(score) and 0 <= score <= 1 for score in found)
    assert reply["usage"]["total_tokens"] >= reply["usage"]["prompt_tokens"] > 0
    assert reply["meta"]["tokens"]["input_tokens"] == reply["usage"]["prompt_tokens"]
    assert (reply["meta"]["backend"], reply["meta"]["warnings"]) == ("gemma", [])
    assert reply["meta"]["billed_units"] == {"search_units": 1}
    assert "document" not in reply["results"][0]


async def test_without_a_model_matches_rank(client: httpx.AsyncClient) -> None:
    """200 with absolute scores by words and vectors, and a warning that says so, in the log too."""
    with capture_logs() as logged:
        reply = await post(client)
    assert order(reply)[0] == 1
    assert scores(reply)[1] > 0.5 > scores(reply)[0]
    assert "no language model ranked" in reply["meta"]["warnings"][0]
    assert reply["meta"]["warnings"] in [line.get("notes") for line in logged]
    assert reply["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("fault", [Fault.SERVER_ERROR, Fault.UNAUTHORIZED, Fault.MALFORMED_JSON, Fault.RATE_LIMITED])
async def test_a_failing_model_is_a_degraded_200(ranked: httpx.AsyncClient, model: OpenAIServer, fault: Fault) -> None:
    """All documents keep their places by match; the warning names the backend, not what it said."""
    await post(ranked)
    model.choose = lambda: fault
    reply = await post(ranked, documents=[f"{text} Really." for text in DOCUMENTS])
    assert sorted(order(reply)) == [0, 1, 2]
    assert order(reply)[0] == 1
    assert "gemma did not rank" in reply["meta"]["warnings"][0]
    assert "EVIL" not in str(reply)


async def test_a_spent_budget_is_a_degraded_200(model: OpenAIServer, tmp_path: Path) -> None:
    """Money that is not there ranks nothing, and the matches still come."""
    told = openai_style(model, msgspec.structs.replace(BRISK, price=PriceSettings(input=1000.0, output=1000.0)))
    async with client_of(services_for(tmp_path, {"gemma": told}, budgets=BudgetSettings(daily_usd=1e-6))) as client:
        reply = await post(client)
    assert order(reply)[0] == 1
    assert "gemma did not rank (over_budget)" in reply["meta"]["warnings"][0]


async def test_a_model_that_hangs_does_not_hold_the_client(model: OpenAIServer, tmp_path: Path) -> None:
    """The deadline is the service's own, well below the 30 s that clients wait."""
    assert CompatSettings().rerank_deadline_ms < 10_000
    services = services_for(tmp_path, {"gemma": openai_style(model)}, compat=CompatSettings(rerank_deadline_ms=300))
    model.slow_s, model.choose = 60.0, lambda: Fault.SLOW_FIRST_BYTE
    async with client_of(services) as client:
        reply = await asyncio.wait_for(post(client), 20)
    assert order(reply)[0] == 1
    assert "gemma did not rank" in reply["meta"]["warnings"][0]


async def test_scores_are_absolute(client: httpx.AsyncClient) -> None:
    """A document alone, among twins or among others has nearly the same score: nothing is min-max'ed."""
    alone = scores(await post(client, documents=DOCUMENTS[1:2]))[0]
    twins = scores(await post(client, documents=[DOCUMENTS[1]] * 3))
    among = scores(await post(client))[1]
    bad = scores(await post(client, documents=DOCUMENTS[:1]))[0]
    assert twins == [twins[0]] * 3
    assert alone == pytest.approx(among, abs=0.05)
    assert alone == pytest.approx(twins[0], abs=0.05)
    assert bad < 0.5 < alone


async def test_a_models_scores_are_absolute(ranked: httpx.AsyncClient) -> None:
    """A document's score does not depend on what else is in the list."""
    among = scores(await post(ranked))
    alone = [scores(await post(ranked, documents=[document]))[0] for document in DOCUMENTS]
    assert alone == pytest.approx(among, abs=1e-6)  # float32 products differ with the shape of a batch
    assert alone[0] < 0.1 < 0.9 < alone[2]


async def test_ties_are_by_index(client: httpx.AsyncClient) -> None:
    """Equal documents come in the order in which they were sent."""
    assert order(await post(client, documents=[DOCUMENTS[1]] * 12)) == list(range(12))


async def test_a_thousand_documents(ranked: httpx.AsyncClient) -> None:
    """All of them come back, those that the model did not read by what their match lets expect."""
    documents = [f"Note {number} about parking." for number in range(999)]
    reply = await post(ranked, documents=[*documents, DOCUMENTS[1]])
    assert sorted(order(reply)) == list(range(1000))
    assert order(reply)[0] == 999
    assert reply["meta"]["billed_units"] == {"search_units": 10}


async def test_a_model_reads_the_best_by_their_match(model: OpenAIServer, tmp_path: Path) -> None:
    """`rerank_depth` of them, and it reads no others."""
    compat = CompatSettings(rerank_depth=4)
    documents = [f"Memo {number} on {'dental cover' if number % 10 == 0 else 'parking'}." for number in range(40)]
    async with client_of(services_for(tmp_path, {"gemma": openai_style(model)}, compat=compat)) as client:
        await post(client, documents=documents)
    read = " ".join(str(asked.body) for asked in model.requests)
    assert set(re.findall(r"Memo (\d+) on", read)) == {"0", "10", "20", "30"}


async def test_too_many_documents_are_413(client: httpx.AsyncClient) -> None:
    """Beyond Cohere's own limit of 10,000."""
    response = await client.post("/v1/rerank", json=body(documents=["a"] * 10_001))
    assert response.status_code == 413
    assert "10000" in response.json()["message"]


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({}, 3),
        ({"top_n": None}, 3),
        ({"top_n": 0}, 3),
        ({"top_n": -1}, 3),
        ({"top_n": 2}, 2),
        ({"top_n": "2"}, 2),
        ({"top_n": 99}, 3),
        ({"documents": []}, 0),
        ({"documents": "one alone"}, 1),
    ],
)
async def test_top_n(client: httpx.AsyncClient, fields: dict[str, Any], count: int) -> None:
    """Missing, null, 0 and more than there are mean all of them."""
    assert len((await post(client, **fields))["results"]) == count


@pytest.mark.parametrize(("asked", "shown"), [(True, True), ("true", True), (False, False), ("false", False)])
async def test_documents_come_back_as_objects(client: httpx.AsyncClient, asked: object, shown: bool) -> None:
    """Only if asked for, in Python's words too; never as a string."""
    reply = await post(client, return_documents=asked)
    found = [result.get("document") for result in reply["results"]]
    assert found == [{"text": DOCUMENTS[index]} for index in order(reply)] if shown else found == [None] * 3


async def test_documents_of_all_kinds(client: httpx.AsyncClient) -> None:
    """Objects with a text, with fields, null and blank ones keep their index; what is blank has score 0."""
    documents = [{"text": DOCUMENTS[1]}, {"title": "Dental", "body": "cover starts"}, None, "", " \n", DOCUMENTS[0]]
    reply = await post(client, documents=documents)
    assert sorted(order(reply)) == list(range(6))
    assert scores(reply)[2:5] == [0, 0, 0]
    by_field = await post(client, documents=[{"text": "x", "extra": DOCUMENTS[1]}], rank_fields=["extra"])
    assert scores(by_field)[0] > 0.5


async def test_unknown_fields_are_ignored(client: httpx.AsyncClient) -> None:
    """What RAGFlow, Xinference's driver, Cohere and SILICONFLOW add."""
    extra = {"return_len": "true", "priority": 0, "max_chunks_per_doc": 1024, "overlap_tokens": 80, "drop_params": True}
    assert len((await post(client, **extra))["results"]) == 3


async def test_huge_texts_are_cut_not_refused(client: httpx.AsyncClient) -> None:
    """And the warnings say which."""
    reply = await post(client, documents=["dental " * 100_000, DOCUMENTS[0]], query=f"{QUERY} {'x' * 9_000}")
    warnings = " ".join(reply["meta"]["warnings"])
    assert "of documents 0 only the first 50000 characters were read" in warnings
    assert "the query was cut" in warnings


@pytest.mark.parametrize(
    ("name", "backend", "warned"),
    [
        ("winnow-rerank", "gemma", False),
        ("winnow-rerank@gemma", "gemma", False),
        ("winnow-rerank@none", "none", False),
        ("gemma", "gemma", False),
        ("gemma-3", "gemma", False),
        ("rerank-v3.5", "none", False),
        ("jina-reranker-v2", "gemma", True),
        (None, "gemma", False),
    ],
)
async def test_models_by_name(
    model: OpenAIServer, tmp_path: Path, name: str | None, backend: str, warned: bool
) -> None:
    """Ours, a backend's, its model's, an alias; any other name is the default's, with a warning."""
    compat = CompatSettings(rerank_aliases={"rerank-v3.5": "none"})
    async with client_of(services_for(tmp_path, {"gemma": openai_style(model)}, compat=compat)) as client:
        await post(client)  # what the server calls its model is known after the first contact
        reply = await post(client, model=name)
    assert reply["meta"]["backend"] == backend
    assert bool(reply["meta"]["warnings"]) is warned
    assert reply["model"] == (name or "winnow-rerank")


def test_an_alias_of_nobody_is_a_config_error(tmp_path: Path) -> None:
    """It is found at the start, and the message says where."""
    with pytest.raises(ConfigError, match=r"rerank_aliases in \[compat\]: 'a' cannot stand for 'nobody'"):
        services_for(tmp_path, {}, compat=CompatSettings(rerank_aliases={"a": "nobody"}))


@pytest.mark.parametrize(
    ("sent", "status", "param", "says"),
    [
        (b"", 400, None, "the body is empty"),
        (b"{", 400, None, "not JSON"),
        (b'{"documents": ["a"]}', 400, "query", "required"),
        (b'{"query": "a"}', 400, "documents", "required"),
        (b'{"query": " ", "documents": ["a"]}', 400, "query", "blank"),
        (b'{"query": ["a"], "documents": ["a"]}', 400, "query", "expected a string"),
        (b'{"query": "a", "documents": ["a", 7]}', 400, "documents.1", "expected a string or an object"),
        (b'{"query": "a", "documents": [{"image": {}}]}', 400, "documents.0", "only texts"),
        (b'{"query": "a", "documents": {"a": 1}}', 400, "documents", "expected an array"),
        (b'{"query": "a", "documents": ["a"], "top_n": "many"}', 400, "top_n", "expected int"),
        (b'{"query": "a", "documents": ["a"], "model": "winnow-rerank@nobody"}', 422, "model", "known are auto, none"),
        (b'{"query": "a", "documents": ["a"], "model": "winnow-rerank@extractive"}', 422, "model", "cannot rank"),
    ],
)
async def test_errors_in_every_clients_shape(
    client: httpx.AsyncClient, sent: bytes, status: int, param: str | None, says: str
) -> None:
    """Cohere's clients find `message`, Jina's `detail`, vLLM's `error`."""
    response = await client.post("/v1/rerank", content=sent, headers={"Content-Type": "application/json"})
    reply = response.json()
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json")
    assert reply["message"] == reply["detail"] == reply["error"]["message"]
    assert says in reply["message"]
    assert (reply["error"]["param"], reply["error"]["type"]) == (param, "invalid_request_error")
    assert reply["id"] == response.headers["x-request-id"]


async def test_an_embedder_that_fails_leaves_the_words(services: Services, app: Any, embedder: HashEmbedder) -> None:
    """The scores are those of the words alone, and the warning says so."""
    embedder.failure = EmbedderUnavailable("gone")
    transport = httpx.ASGITransport(app=app)
    async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        reply = await post(client)
    assert order(reply)[0] == 1
    assert any("by their words alone" in warning for warning in reply["meta"]["warnings"])


async def test_the_door_stays_shut_for_foreign_pages(client: httpx.AsyncClient) -> None:
    """A web page of another origin is refused here too."""
    response = await client.post("/v1/rerank", json=body(), headers={"Origin": "https://evil.example"})
    assert response.status_code == 403


async def test_a_rerank_is_in_the_ledger(ranked: httpx.AsyncClient) -> None:
    """What the model read is booked, and told in the reply."""
    reply = await post(ranked)
    usage = (await ranked.get("/usage", params={"group_by": "stage"})).json()
    assert str(reply["usage"]["prompt_tokens"]) in str(usage)
