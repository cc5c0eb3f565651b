"""Dedicated rerankers as backends, over HTTP to fake servers on real sockets."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from app.backends.settings import BackendSettings, PriceSettings, RoutingSettings
from app.config.settings import RankingSettings
from app.config.validation import load_settings
from app.errors import ConfigError
from app.ranking.calibration import FITS_FILE, Fit, StoredFit, store_fit
from app.ranking.prompts import PROMPT_VERSION
from app.wiring import Services
from tests.fakes.corpus import fill
from tests.fakes.faults import Fault
from tests.fakes.models import BRISK, client_of, openai_style, services_for
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.rerank_server import KEY, MODEL, RerankServer

pytestmark = pytest.mark.anyio

QUERY = "the office opens"
TEXTS = ["bread rises", "the office opens at nine", "the office"]


def backend(server: RerankServer, **settings: Any) -> BackendSettings:
    given = {"kind": "rerank", "url": f"{server.url}/v1", "api_key": KEY, "model": MODEL}
    return msgspec.structs.replace(BRISK, **(given | settings))


@asynccontextmanager
async def searching(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(services) as client:
        await fill(await services.store.get())
        yield client


async def search(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post("/search", json={"query": QUERY, **body})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def test_a_search_is_ranked_by_a_reranker(tmp_path: Path) -> None:
    """As by any other backend: who, what it read, what it cost, scores in their order; asked again it costs nothing."""
    async with RerankServer("jina") as server, searching(services_for(tmp_path, {"tei": backend(server)})) as client:
        found = await search(client)
        assert found["backend"] == {"requested": "auto", "used": "tei", "model": MODEL, "fallbacks": []}
        assert found["results"][0]["document_id"] == "office"
        assert {hit["ranked_by"] for hit in found["results"]} == {"tei"}
        scores = [hit["score"] for hit in found["results"]]
        assert scores == sorted(scores, reverse=True)
        assert found["usage"]["by_stage"]["rank"]["requests"] == 1
        assert found["usage"]["input_tokens"] > 0
        assert found["degraded"] == []
        again = await search(client)
        assert again["usage"]["requests"] == 0
        assert [hit["score"] for hit in again["results"]] == scores


async def test_it_ranks_a_callers_texts(tmp_path: Path) -> None:
    """In the formats of other products too."""
    async with RerankServer("tei") as server:
        services = services_for(tmp_path, {"tei": backend(server, url=server.url)})
        async with client_of(services) as client:
            body = {"model": "winnow-rerank@tei", "query": QUERY, "documents": TEXTS}
            reply = await client.post("/v1/rerank", json=body)
            assert reply.status_code == 200, reply.text
            assert [one["index"] for one in reply.json()["results"]] == [1, 2, 0]


async def test_a_score_does_not_depend_on_the_other_texts(tmp_path: Path) -> None:
    """The order is by comparison, the score is not: alone or among others, a text has the same."""
    async with RerankServer("jina") as server, client_of(services_for(tmp_path, {"tei": backend(server)})) as client:
        replies = [
            (await client.post("/v1/rerank", json={"query": QUERY, "documents": texts})).json()
            for texts in (TEXTS, TEXTS[1:2], TEXTS[:1])
        ]
        best = [reply["results"][0]["relevance_score"] for reply in replies]
        assert best[0] == pytest.approx(best[1], abs=1e-6)
        assert best[2] < 0.1 < 0.9 < best[0]


async def test_what_it_cannot_do_is_said(tmp_path: Path) -> None:
    """By its name it neither chats, nor answers, nor compares; a strategy that compares is refused too."""
    async with RerankServer("jina") as server, searching(services_for(tmp_path, {"tei": backend(server)})) as client:
        chat = await client.post("/chat", json={"message": "hello", "backend": "tei"})
        assert chat.status_code == 422
        assert "'tei' does not offer chat; " in chat.json()["detail"]
        answer = await client.post("/answer", json={"query": QUERY, "answer_backend": "tei"})
        assert answer.status_code == 422
        assert "the backend 'tei' cannot answer" in answer.json()["detail"]
        body = {"query": QUERY, "backend": "tei", "ranking": {"strategy": "duel"}}
        duel = await client.post("/search", json=body)
        assert duel.status_code == 422
        assert "cannot rank by the strategy 'duel'" in duel.json()["detail"]
        listed = (await client.get("/backends")).json()
        (shown,) = [one for one in listed["backends"] if one["name"] == "tei"]
        assert (shown["kind"], shown["capabilities"]) == ("rerank", ["rank", "rerank"])
        models = (await client.get("/v1/models")).json()["data"]
        assert MODEL not in [model["id"] for model in models]


async def test_others_write_where_a_reranker_is_the_default(tmp_path: Path) -> None:
    """Who ranks by default leaves answers, chats and phrasings to a model, or to the extractive answerer."""
    async with RerankServer("jina") as server, OpenAIServer(model=FakeModel(name="gemma")) as model:
        alone = services_for(tmp_path / "1", {"tei": backend(server)}, default="tei")
        async with searching(alone) as client:
            reply = (await client.post("/answer", json={"query": "when does the office open?"})).json()
            assert (reply["backend"]["used"], reply["answer_backend"]["used"]) == ("tei", "extractive")
        both = services_for(tmp_path / "2", {"tei": backend(server), "gemma": openai_style(model)}, default="tei")
        async with searching(both) as client:
            chat = await client.post("/chat", json={"message": "hello"})
            assert chat.json()["backend"]["used"] == "gemma"
            reply = (await client.post("/answer", json={"query": "when does the office open?"})).json()
            assert (reply["backend"]["used"], reply["answer_backend"]["used"]) == ("tei", "gemma")
            found = await search(client, backend="tei", expand_query="multi")
            assert found["backend"]["used"] == "tei"


async def test_another_takes_over(tmp_path: Path) -> None:
    """A reranker that fails is followed by a language model."""
    async with RerankServer("jina") as server, OpenAIServer(model=FakeModel(name="gemma")) as model:
        backends = {"tei": backend(server), "gemma": openai_style(model)}
        async with searching(services_for(tmp_path, backends, RoutingSettings(auto=("tei", "gemma")))) as client:
            assert (await search(client))["backend"]["used"] == "tei"
            server.failing = [503]
            other = await search(client, query="urlaub")
            assert other["backend"]["used"] == "gemma"
            assert other["backend"]["fallbacks"] == [{"backend": "tei", "reason": "unavailable"}]


async def test_searches_are_billed(tmp_path: Path) -> None:
    """Cohere's price is for a search of up to 100 texts, whatever their length; what failed costs nothing."""
    price = PriceSettings(input=0.0, output=0.0, per_1000_requests=2.0)
    async with RerankServer("cohere") as server:
        services = services_for(tmp_path, {"cohere": backend(server, price=price)})
        async with searching(services) as client:
            found = await search(client)
            assert found["usage"]["cost_usd"] == pytest.approx(0.002)
            server.failing = [503]
            failed = await search(client, query="urlaub")
            assert failed["backend"]["used"] == "none"
            assert failed["usage"]["cost_usd"] == 0


async def test_a_calibration_makes_probabilities_of_its_scores(tmp_path: Path) -> None:
    """As those of a language model."""
    fit = Fit(slope=0.5, offset=-1.0, data_hash="x", n=9, positives=3, ece_before=0.3, ece_after=0.1, log_loss=0.4)
    async with RerankServer("jina") as server:
        async with searching(services_for(tmp_path / "1", {"tei": backend(server)})) as client:
            raw = [hit["score"] for hit in (await search(client))["results"]]
        (tmp_path / "2").mkdir()
        store_fit(tmp_path / "2" / FITS_FILE, StoredFit(model=MODEL, prompt_version=PROMPT_VERSION, fit=fit))
        async with searching(services_for(tmp_path / "2", {"tei": backend(server)})) as client:
            fitted = [hit["score"] for hit in (await search(client))["results"]]
        assert fitted == pytest.approx([1 / (1 + math.exp(1 - 0.5 * math.log(one / (1 - one)))) for one in raw])


async def test_a_reranker_reads_before_a_language_model(tmp_path: Path) -> None:
    """In a cascade the model reads only what may still belong to the top; both are in usage and ledger."""
    texts = [f"the office opens at nine {number}" for number in range(6)] + [f"bread {n}" for n in range(20)]
    ranking = RankingSettings(cascade="tei", deadline_ms=60_000, controls=False)
    async with RerankServer("jina") as server, OpenAIServer(model=FakeModel(name="gemma")) as model:
        backends = {"gemma": openai_style(model), "tei": backend(server)}
        async with client_of(services_for(tmp_path, backends, ranking=ranking)) as client:
            body = {"query": QUERY, "documents": texts, "top_n": 3}
            reply = (await client.post("/v1/rerank", json=body)).json()
            assert {one["index"] for one in reply["results"]} <= set(range(6))
            rows = [msgspec.json.decode(line) for line in (await client.get("/usage/export")).text.splitlines()]
            assert {(row["stage"], row["backend"]) for row in rows} >= {("rerank", "tei"), ("rank", "gemma")}
            shown = [asked.body.decode() for asked in model.requests]
            assert any("opens at nine" in prompt for prompt in shown)
            assert not any("bread" in prompt for prompt in shown)


async def test_a_cascade_survives_either_half(tmp_path: Path) -> None:
    """Without the reranker the model reads all, without the model the reranker's order stays; both are said."""
    ranking = RankingSettings(cascade="tei", deadline_ms=60_000, controls=False)
    async with RerankServer("jina") as server, OpenAIServer(model=FakeModel(name="gemma")) as model:
        backends = {"gemma": openai_style(model), "tei": backend(server)}
        async with searching(services_for(tmp_path, backends, ranking=ranking)) as client:
            assert (await search(client))["backend"]["used"] == "gemma"
            server.failing = [503]
            found = await search(client, query="urlaub")
            assert (found["backend"]["used"], found["degraded"]) == ("gemma", ["tei did not read first (unavailable)"])
            model.expect(Fault.SERVER_ERROR, Fault.SERVER_ERROR)
            found = await search(client, query="office dental", ranking={"strategy": "graded"})
            assert found["backend"]["used"] == "tei"
            assert found["backend"]["fallbacks"] == [{"backend": "gemma", "reason": "unavailable"}]
            assert found["degraded"] == ["gemma did not read what tei left open (unavailable)"]
            found = await search(client, query="parking", ranking={"strategy": "pointwise"})
            assert "rerank" not in found["usage"]["by_stage"]


async def test_a_request_has_its_own_cascade(tmp_path: Path) -> None:
    """It names a reranker, or goes without that of the settings; what is no reranker is refused before any work."""
    ranking = RankingSettings(cascade="tei", deadline_ms=60_000, controls=False)
    async with RerankServer("jina") as server, OpenAIServer(model=FakeModel(name="gemma")) as model:
        backends = {"gemma": openai_style(model), "tei": backend(server)}
        for settings, asked in ((None, {"cascade": "tei"}), (ranking, {"cascade": "none"}), (ranking, {})):
            home = tmp_path / f"{settings is None} {asked}"
            home.mkdir()
            async with searching(services_for(home, backends, ranking=settings)) as client:
                found = await search(client, ranking={"strategy": "graded", **asked})
                assert ("rerank" in found["usage"]["by_stage"]) == (asked.get("cascade") != "none")
                for name, problem in (("gemma", "missing-capability"), ("nobody", "unknown-backend")):
                    body = {"query": QUERY, "ranking": {"cascade": name}}
                    refused = await client.post("/search", json=body)
                    assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (422, problem)


def test_a_cascade_names_a_reranker(tmp_path: Path) -> None:
    """At the start."""
    (tmp_path / "winnow.toml").write_text(
        '[ranking]\ncascade = "gemma"\n[backends.gemma]\nkind = "vllm"\nurl = "http://127.0.0.1:1/v1"\n',
        encoding="utf-8",
    )
    with pytest.raises(ConfigError, match=r"cascade = 'gemma' in \[ranking\] is no reranker"):
        load_settings({}, tmp_path)
