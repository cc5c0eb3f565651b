"""POST /search with models that rank; they are fake servers on real sockets."""

import asyncio
import math
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from app.backends.settings import BackendSettings, BudgetSettings, PriceSettings, RoutingSettings
from app.config.settings import RankingSettings
from app.ranking.calibration import FITS_FILE, Fit, StoredFit, store_fit
from app.ranking.prompts import PROMPT_VERSION
from app.ranking.scoring import sigmoid
from app.wiring import Services
from tests.fakes.corpus import fill
from tests.fakes.faults import Fault
from tests.fakes.gemini_server import GeminiServer, Said
from tests.fakes.models import BRISK, client_of, gemini, openai_style, services_for
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import OpenAIServer

pytestmark = [pytest.mark.anyio, pytest.mark.numeric]

LIKELY = {
    "Urlaub": {"3": -0.05, "0": -4.0},
    "office opens": {"2": -0.1, "1": -3.0},
    "Dental": {"1": -0.1, "0": -3.0},
    "Parking": {"0": -0.02, "1": -4.5},
}
"""A model of a mind of its own: what it thinks best is not what retrieval does."""

BEST_FIRST = ["urlaub", "office", "dental", "parking"]


def scorer(**fields: Any) -> OpenAIServer:
    return OpenAIServer(model=FakeModel(name="gemma", likely=LIKELY), **fields)


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


def names(found: Mapping[str, Any]) -> list[str]:
    return [hit["document_id"] for hit in found["results"]]


def passages_shown(body: Mapping[str, Any]) -> dict[int, str]:
    """What a judge was asked about, by number."""
    text = body["contents"][-1]["parts"][0]["text"]
    return {int(number): line for number, line in re.findall(r"^\w+ \[(\d+)\] (.+)$", text, re.MULTILINE)}


async def test_a_label_scorer_ranks_by_default(tmp_path: Path) -> None:
    """With a server configured, a search that names nobody is ranked by it: scores, grades, who, cost and time."""
    async with scorer() as server, searching(services_for(tmp_path, {"gemma": openai_style(server)})) as client:
        found = await search(client)
        assert names(found) == BEST_FIRST
        assert found["backend"] == {"requested": "auto", "used": "gemma", "model": "gemma", "fallbacks": []}
        assert {hit["ranked_by"] for hit in found["results"]} == {"gemma"}
        scores = [hit["score"] for hit in found["results"]]
        assert scores == sorted(scores, reverse=True)
        assert found["results"][0]["scores"]["grade"] > 0.9 > 0.2 > found["results"][-1]["scores"]["grade"]
        assert found["usage"]["by_stage"].keys() == {"rank"}
        assert found["usage"]["requests"] == 1
        assert found["usage"]["output_tokens"] <= 4 + 3
        assert found["timings_ms"].keys() == {"embed", "retrieve", "rank", "total"}
        assert found["degraded"] == []


async def test_phrasings_are_judged_once_by_the_query(tmp_path: Path) -> None:
    """However many they are, the model reads each candidate once, and as an answer to `query`."""
    async with scorer() as server, searching(services_for(tmp_path, {"gemma": openai_style(server)})) as client:
        found = await search(client, queries=["Urlaub im Jahr", "free parking"])
        assert names(found) == BEST_FIRST
        assert found["usage"]["requests"] == 1
        asked = str(server.bodies("/v1/chat/completions/batch"))
        assert "dental cover office" in asked
        assert "free parking" not in asked


async def test_a_judge_ranks(tmp_path: Path) -> None:
    """A model without log-probabilities orders the passages by the grades that it lists."""
    async with GeminiServer() as server, searching(services_for(tmp_path, {"flash": gemini(server)})) as client:
        server.answers.append(Said(pieces=('{"3": [2], "2": [], "1": [3]}',)))
        found = await search(client)
        shown = passages_shown(server.bodies[-1])
        assert len(shown) == 4
        assert [hit["text"] in shown[number] for hit, number in zip(found["results"], (2, 3), strict=False)] == [
            True
        ] * 2
        assert [hit["scores"]["grade"] for hit in found["results"]] == [
            pytest.approx(5 / 6),
            pytest.approx(1 / 6),
            0,
            0,
        ]
        assert found["backend"]["used"] == "flash"


async def test_none_asks_nobody(tmp_path: Path) -> None:
    """With `backend` "none" the order of retrieval stays, and no model is called."""
    async with scorer() as server, searching(services_for(tmp_path, {"gemma": openai_style(server)})) as client:
        found = await search(client, backend="none")
        assert found["backend"]["used"] == "none"
        assert found["usage"]["requests"] == 0
        assert {hit["ranked_by"] for hit in found["results"]} == {"none"}


async def test_a_repeated_search_costs_nothing(tmp_path: Path) -> None:
    """What was said of a passage for a query is remembered."""
    async with scorer() as server, searching(services_for(tmp_path, {"gemma": openai_style(server)})) as client:
        first, second = await search(client), await search(client)
        assert second["usage"]["requests"] == 0
        assert second["results"] == first["results"]


async def test_the_cache_can_outlive_the_service(tmp_path: Path) -> None:
    """With `cache = "sqlite"` the next service on the same home asks nothing that was said before."""
    async with scorer() as server:
        costs = []
        for number in range(2):
            ranking = RankingSettings(cache="sqlite", controls=False, deadline_ms=60_000)
            services = services_for(tmp_path, {"gemma": openai_style(server)}, ranking=ranking)
            async with client_of(services) as client:
                if not number:
                    await fill(await services.store.get())
                costs.append((await search(client))["usage"]["requests"])
                await services.reranker.close()  # written, however long that takes: the service's end waits for seconds
        assert costs == [1, 0]


async def test_a_fitted_calibration_moves_the_scores(tmp_path: Path) -> None:
    """That of the home is applied when model and prompts are its own."""
    fit = Fit(slope=0.5, offset=-2.0, data_hash="", n=2, positives=1, ece_before=0, ece_after=0, log_loss=0)
    async with scorer() as server:
        async with searching(services_for(tmp_path / "plain", {"gemma": openai_style(server)})) as client:
            plain = await search(client)
        (tmp_path / "fitted").mkdir()
        store_fit(tmp_path / "fitted" / FITS_FILE, StoredFit(model="gemma", prompt_version=PROMPT_VERSION, fit=fit))
        async with searching(services_for(tmp_path / "fitted", {"gemma": openai_style(server)})) as client:
            fitted = await search(client)
    assert names(fitted) == names(plain)
    before, after = (one["results"][0]["score"] for one in (plain, fitted))
    assert after == pytest.approx(sigmoid(0.5 * math.log(before / (1 - before)) - 2.0))


async def test_only_the_depth_is_read(tmp_path: Path) -> None:
    """`depth` bounds what a model reads; the others come after, by their own prior, ranked by nobody."""
    async with scorer() as server, searching(services_for(tmp_path, {"gemma": openai_style(server)})) as client:
        found = await search(client, ranking={"depth": 2})
        assert [hit["ranked_by"] for hit in found["results"]] == ["gemma"] * 2 + ["none"] * 2
        assert [hit["scores"].get("grade") is None for hit in found["results"]] == [False, False, True, True]
        scores = [hit["score"] for hit in found["results"]]
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("strategy", ["graded", "duel", "pointwise", "auto"])
async def test_every_strategy_by_grades_agrees_with_the_model(tmp_path: Path, strategy: str) -> None:
    """The strategies differ in what they add to the grades, not in what the model said."""
    async with scorer() as server, searching(services_for(tmp_path, {"gemma": openai_style(server)})) as client:
        assert names(await search(client, ranking={"strategy": strategy})) == BEST_FIRST


async def test_listwise_orders_by_windows(tmp_path: Path) -> None:
    """ "listwise" asks for an order in RankGPT's way; the places keep retrieval's scores, without grades."""
    async with GeminiServer() as server, searching(services_for(tmp_path, {"flash": gemini(server)})) as client:
        plain = await search(client, backend="none")
        server.answers.append(Said(pieces=("[4] > [2] > [1] > [3]",)))
        found = await search(client, ranking={"strategy": "listwise"})
        before = [hit["id"] for hit in plain["results"]]
        assert [before.index(hit["id"]) for hit in found["results"]] == [3, 1, 0, 2]
        assert [hit["score"] for hit in found["results"]] == [hit["score"] for hit in plain["results"]]
        assert all("grade" not in hit["scores"] for hit in found["results"])
        assert {hit["ranked_by"] for hit in found["results"]} == {"flash"}


async def test_min_score_and_groups_are_of_the_ranking(tmp_path: Path) -> None:
    """`min_score` cuts by the model's score."""
    async with scorer() as server, searching(services_for(tmp_path, {"gemma": openai_style(server)})) as client:
        assert names(await search(client, min_score=0.6, group_by_document=True)) == BEST_FIRST[:2]


async def test_the_next_one_takes_over(tmp_path: Path) -> None:
    """ "auto" goes on to the next backend, of another kind, and says which one did not serve and why."""
    async with scorer() as broken, GeminiServer() as server:
        backends = {"gemma": openai_style(broken), "flash": gemini(server)}
        async with searching(services_for(tmp_path, backends, RoutingSettings(auto=("gemma", "flash")))) as client:
            broken.choose = lambda: Fault.SERVER_ERROR
            found = await search(client)
            assert found["backend"]["used"] == "flash"
            assert [one["backend"] for one in found["backend"]["fallbacks"]] == ["gemma"]
            assert found["degraded"] == []


@pytest.mark.parametrize("fault", [Fault.SERVER_ERROR, Fault.BLOCKED_ANSWER, Fault.RATE_LIMITED, Fault.MALFORMED_JSON])
async def test_when_nobody_can_rank_the_order_of_retrieval_stays(tmp_path: Path, fault: Fault) -> None:
    """Degraded, it says so, and makes up no scores; with `on_failure` "fail" it is the error."""
    async with GeminiServer() as server, searching(services_for(tmp_path, {"flash": gemini(server)})) as client:
        server._choose = lambda: fault
        found, plain = await search(client), await search(client, backend="none")
        assert found["results"] == plain["results"]
        assert len(found["degraded"]) == 1
        assert "flash" in found["degraded"][0]
        assert found["backend"]["used"] == "none"
        assert [one["backend"] for one in found["backend"]["fallbacks"]] == ["flash"]
        response = await client.post("/search", json={"query": "dental", "ranking": {"on_failure": "fail"}})
        assert response.status_code in (502, 503)


async def test_the_deadline_is_kept(tmp_path: Path) -> None:
    """A model that is too slow leaves the order of retrieval, in time, and its call is stopped."""
    async with scorer() as server:
        told = openai_style(server, msgspec.structs.replace(BRISK, timeout_s=30, model="gemma"))
        async with searching(services_for(tmp_path, {"gemma": told})) as client:
            await search(client)
            server.token_s = 30
            found = await search(client, query="parking", ranking={"deadline_ms": 100})
            assert found["timings_ms"]["rank"] < 1000
            assert found["backend"]["used"] == "none"
            assert "timeout" in found["degraded"][0]
            await server.until_busy(0)


async def test_a_client_that_leaves_stops_the_model(tmp_path: Path) -> None:
    """Cancelling the search cancels the call upstream."""
    async with scorer() as server:
        services = services_for(tmp_path, {"gemma": openai_style(server)})
        async with searching(services) as client:
            await search(client)
            server.expect(Fault.SLOW_FIRST_BYTE)
            server.slow_s = 30
            asking = asyncio.ensure_future(search(client, query="parking"))
            await server.until_busy(1)
            asking.cancel()
            await server.until_busy(0)


async def test_who_can_only_talk_cannot_rank(tmp_path: Path) -> None:
    """A backend without log-probabilities and structured output is refused by name, and passed over by "auto"."""
    lacks = frozenset({"logprobs", "structured"})
    async with (
        scorer(lacks=lacks, dialect="openai") as server,
        searching(services_for(tmp_path, {"plain": openai_style(server)})) as client,
    ):
        response = await client.post("/search", json={"query": "dental", "backend": "plain"})
        assert response.status_code == 422
        assert response.json()["type"] == "urn:winnow:problem:missing-capability"
        found = await search(client)
        assert found["backend"]["used"] == "none"
        assert found["backend"]["fallbacks"] == [{"backend": "plain", "reason": "cannot"}]
        shown = {one["name"]: one["capabilities"] for one in (await client.get("/backends")).json()["backends"]}
        assert "rank" not in shown["plain"]


async def test_rankers_are_listed(tmp_path: Path) -> None:
    """GET /backends says who ranks, and who does for "auto"."""
    async with scorer() as one, GeminiServer() as other:
        backends = {"flash": gemini(other), "gemma": openai_style(one)}
        async with searching(services_for(tmp_path, backends, RoutingSettings(auto=("gemma", "flash")))) as client:
            listed = (await client.get("/backends")).json()
            shown = {backend["name"]: backend["capabilities"] for backend in listed["backends"]}
            assert "rank" in shown["flash"]
            assert "rank" in shown["gemma"]
            assert (listed["default"], listed["auto"]) == ("auto", "gemma")


async def test_what_ranking_cost_is_in_the_ledger(tmp_path: Path) -> None:
    """Under the request's id, as stage "rank"."""
    async with scorer() as server, searching(services_for(tmp_path, {"gemma": openai_style(server)})) as client:
        await client.post("/search", json={"query": "dental"}, headers={"X-Request-Id": "req-4711"})
        rows = [msgspec.json.decode(line) for line in (await client.get("/usage/export")).text.splitlines()]
        assert ("req-4711", "rank") in [(row["request_id"], row["stage"]) for row in rows]


async def test_a_spent_budget_leaves_the_order_of_retrieval(tmp_path: Path) -> None:
    """Money that is not there ranks nothing; with `on_failure` "fail" it is 402."""
    price = PriceSettings(input=1000.0, output=1000.0)
    async with scorer() as server:
        told: BackendSettings = openai_style(server, msgspec.structs.replace(BRISK, price=price))
        services = services_for(tmp_path, {"gemma": told}, budgets=BudgetSettings(daily_usd=1e-6))
        async with searching(services) as client:
            found = await search(client)
            assert found["backend"]["fallbacks"] == [{"backend": "gemma", "reason": "over_budget"}]
            failed = {"query": "dental", "ranking": {"on_failure": "fail"}}
            assert (await client.post("/search", json=failed)).status_code == 402


async def test_a_model_whose_grades_say_nothing_does_not_rank(tmp_path: Path) -> None:
    """It grades all controls alike: retrieval's order stays, all say so, and once that is known it is not asked."""
    believing = RankingSettings(deadline_ms=60_000, controls=True)
    async with scorer() as server:
        services = services_for(tmp_path, {"gemma": openai_style(server)}, ranking=believing)
        async with searching(services) as client:
            assert (await client.get("/backends")).json()["auto"] == "gemma"
            plain = await search(client, backend="none")
            for asked in (True, True, False):
                found = await search(client)
                assert names(found) == names(plain)
                assert [hit["score"] for hit in found["results"]] == [hit["score"] for hit in plain["results"]]
                assert found["backend"]["used"] == "none"
                assert found["backend"]["fallbacks"] == [{"backend": "gemma", "reason": "not_trusted"}]
                assert found["degraded"] == ["gemma did not rank (not_trusted); results are in retrieval order"]
                assert bool(found["usage"]["requests"]) == asked
            listed = (await client.get("/backends")).json()
            assert listed["auto"] == "none"
            assert {one["name"]: one["trust"] for one in listed["backends"]}["gemma"] == 0.0
            failed = await client.post(
                "/search", json={"query": "dental", "backend": "gemma", "ranking": {"on_failure": "fail"}}
            )
            assert (failed.status_code, failed.json()["type"]) == (502, "urn:winnow:problem:upstream-untrusted")
        again = services_for(tmp_path, {"gemma": openai_style(server)}, ranking=believing)
        async with client_of(again) as client:
            assert (await search(client))["usage"]["requests"] == 0
