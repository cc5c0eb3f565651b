"""GET /metrics: what an application tells Prometheus after it was used."""

import asyncio
from pathlib import Path

import httpx
import msgspec
import pytest

from app.access.keys import KeyRequest
from app.backends.settings import BackendSettings, BudgetSettings, KeyBudget, PriceSettings
from app.services.monitoring import MAX_COLLECTIONS, Monitoring
from app.wiring import Services
from indexing.errors import StoreUnavailable
from indexing.store.base import CollectionInfo, CollectionSpec, Damaged
from tests.api.conftest import local_client
from tests.fakes.corpus import fill
from tests.fakes.faults import Fault
from tests.fakes.models import client_of, openai_style, services_for
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.scrape import FAMILIES, samples, value_of

pytestmark = pytest.mark.anyio


async def scrape(client: httpx.AsyncClient) -> bytes:
    response = await client.get("/metrics")
    assert response.status_code == 200
    return response.content


async def test_it_is_text_that_prometheus_reads(client: httpx.AsyncClient) -> None:
    """The media type names the version of the format; the process is described too."""
    response = await client.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert value_of(response.content, "process_resident_memory_bytes") > 0
    assert value_of(response.content, "winnow_build_info") == 1


async def test_requests_are_counted_by_route(client: httpx.AsyncClient) -> None:
    """By the template, not by the path; what no route serves is one series, whatever its path."""
    for name in ("a", "b", "c"):
        await client.get(f"/documents/{name}")
        await client.get(f"/nowhere/{name}")
    text = await scrape(client)
    assert value_of(text, "winnow_requests_total", route="/documents/{document_id}", status="404") == 3
    assert value_of(text, "winnow_requests_total", route="other", status="404") == 3
    assert value_of(text, "winnow_request_duration_seconds_count", route="other") == 3


async def test_the_stages_of_a_search_are_timed(client: httpx.AsyncClient) -> None:
    """Each stage that the response has in `timings_ms` is one observation."""
    response = await client.post("/search", json={"query": "dental cover"})
    text = await scrape(client)
    stages = set(response.json()["timings_ms"]) - {"total"}
    timed = {labels["stage"] for labels, _ in samples(text)["winnow_stage_duration_seconds_count"]}
    assert stages <= timed
    assert value_of(text, "winnow_stage_duration_seconds_count", stage="embed") == 1


async def test_a_repeated_query_hits_the_cache(client: httpx.AsyncClient) -> None:
    """Its vector is looked up twice, and found once."""
    for _ in range(2):
        await client.post("/search", json={"query": "dental cover"})
    text = await scrape(client)
    assert value_of(text, "winnow_cache_lookups_total", cache="queries", result="hit") == 1
    assert value_of(text, "winnow_cache_lookups_total", cache="queries", result="miss") == 1


async def test_strangers_may_not_read_it(services: Services, app: object) -> None:
    """As long as there are no keys, only programs on this machine."""
    async with local_client(app, host="203.0.113.7") as client:  # type: ignore[arg-type]
        assert (await client.get("/metrics")).status_code == 403


async def test_refused_callers_are_counted_by_the_reason(services: Services, client: httpx.AsyncClient) -> None:
    """Also those whose path nobody serves, and whom the client's own format answers with another status."""
    await client.get("/version", headers={"Origin": "https://evil.example"})
    for name, scopes in (("searching", ("search",)), ("watching", ("metrics",))):
        request = KeyRequest(name=name, scopes=scopes, requests_per_minute=2)  # type: ignore[arg-type]
        token = services.access.file.create(request)[1]
        services.access.load()
        for _ in range(3):
            await client.get("/version", headers={"X-API-Key": token})
    await client.get("/collections", headers={"X-API-Key": token})
    await client.post("/retrieval", headers={"X-API-Key": "wrong"}, json={})
    assert (await client.get("/health/live")).status_code == 200
    response = await client.get("/metrics", headers={"X-API-Key": token})
    refused = {labels["kind"]: value for labels, value in samples(response.content)["winnow_requests_refused_total"]}
    assert refused == {"place": 1, "rate": 2, "scope": 1, "key": 1}


async def test_servers_of_one_backend_are_told_apart(tmp_path: Path) -> None:
    """By their numbers: in the usage of a response, among the backends, and in the metrics."""
    async with OpenAIServer(model=FakeModel(name="gemma")) as one, OpenAIServer(model=FakeModel(name="gemma")) as two:
        backend = msgspec.structs.replace(openai_style(one), url=f"{one.url},{two.url}")
        services = services_for(tmp_path, {"gemma": backend})
        async with client_of(services) as client:
            used = set[int]()
            for number in range(20):
                reply = await client.post("/chat", json={"message": f"question {number}"})
                used |= set(reply.json()["usage"]["by_stage"]["chat"]["replicas"])
            await one.stop()
            after = [await client.post("/chat", json={"message": f"question {number}"}) for number in range(20)]
            listed = (await client.get("/backends")).json()["backends"]
            text = await scrape(client)
    assert used == {1, 2}
    assert {reply.status_code for reply in after} == {200}
    assert {reply.json()["usage"]["by_stage"]["chat"]["replicas"][-1] for reply in after} == {2}
    [gemma] = [backend for backend in listed if backend["name"] == "gemma"]
    assert [(each["replica"], each["health"], each["serves"]) for each in gemma["replicas"]] == [
        (1, "down", False),
        (2, "up", True),
    ]
    assert gemma["health"] == "up"
    assert [value_of(text, "winnow_replica_up", replica=number) for number in ("1", "2")] == [0, 1]
    assert value_of(text, "winnow_replica_calls_total", replica="2") >= 20


async def test_calls_of_models_are_counted_with_tokens_and_dollars(tmp_path: Path) -> None:
    """By backend, model and outcome; a degraded ranking shows."""
    async with OpenAIServer(model=FakeModel(name="gemma")) as server:
        backend = msgspec.structs.replace(openai_style(server), price=PriceSettings(input=1.0, output=1.0))
        budgets = BudgetSettings(daily_usd=5.0, keys={"team": KeyBudget(daily_usd=1.0)})
        services = services_for(tmp_path, {"gemma": backend}, budgets=budgets)
        async with client_of(services) as client:
            await fill(await services.store.get())
            assert (await client.post("/chat", json={"message": "hello", "stream": True})).status_code == 200
            server.expect(Fault.SERVER_ERROR)
            await client.post("/search", json={"query": "dental"})
            text = await scrape(client)
    model = {"backend": "gemma", "model": "gemma"}
    assert value_of(text, "winnow_upstream_calls_total", outcome="ok", **model) >= 1
    assert value_of(text, "winnow_upstream_calls_total", outcome="unavailable", **model) == 1
    assert value_of(text, "winnow_upstream_tokens_total", **model, **{"class": "output"}) > 0
    assert value_of(text, "winnow_upstream_cost_usd_total", **model) > 0
    assert value_of(text, "winnow_upstream_first_token_seconds_count", **model) == 1
    assert value_of(text, "winnow_stage_duration_seconds_count", stage="first_token") == 1
    assert value_of(text, "winnow_degraded_total", stage="rank") == 1
    assert value_of(text, "winnow_budget_limit_usd", scope="total", name="", period="day") == 5
    assert value_of(text, "winnow_budget_spent_usd", scope="total", name="", period="day") > 0
    assert value_of(text, "winnow_budget_limit_usd", scope="key", name="team") == 1
    assert value_of(text, "winnow_ledger_written_total") >= 1
    assert sum(v for labels, v in samples(text)["winnow_backend_breaker"] if labels["backend"] == "gemma") == 1


async def test_a_job_is_counted_until_it_ends(tmp_path: Path) -> None:
    """And then among those that have ended."""
    services = services_for(tmp_path, {})
    async with client_of(services) as client:
        documents = [{"id": f"d{n}", "text": "dental cover " * 900} for n in range(120)]
        response = await client.post("/documents", json={"documents": documents})
        assert response.status_code == 202
        for _ in range(3000):
            text = await scrape(client)
            if value_of(text, "winnow_jobs_ended_total", state="done"):
                break
            await asyncio.sleep(0.02)
    assert value_of(text, "winnow_jobs", state="running") == 0
    assert value_of(text, "winnow_index_passages", collection="default") > 100
    assert value_of(text, "winnow_index_bytes", collection="default") > 0


class Holding:
    """A store of which only the sizes are asked; `fails` when it is away."""

    def __init__(self, count: int) -> None:
        self.passages = {f"c{number}": number for number in range(count)}
        self.fails = False
        self.measured = 0

    async def collections(self) -> list[CollectionInfo]:
        if self.fails:
            raise StoreUnavailable("away")
        spec = CollectionSpec(dimension=1, embedder="e")
        return [CollectionInfo(name=n, generation="g", spec=spec, passages=p) for n, p in self.passages.items()]

    async def damaged(self) -> list[Damaged]:
        return [Damaged(name="broken", detail="a file is gone")]

    async def bytes_on_disk(self, name: str) -> int | None:
        self.measured += 1
        return 10 * self.passages[name]


def monitoring_of(services: Services, store: Holding, clock: "Clock") -> Monitoring:
    state = msgspec.structs.replace(services.state(), store=lambda: store)
    return Monitoring(services.metrics, state, clock)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


async def test_ten_thousand_collections_are_a_bounded_number_of_series(services: Services) -> None:
    """The largest have their own, the rest is added up; no more files are measured than that, and not each time."""
    store, clock = Holding(10_000), Clock()
    monitoring = monitoring_of(services, store, clock)
    for _ in range(2):
        text = await monitoring.text()
    passages = samples(text)["winnow_index_passages"]
    assert len(passages) == MAX_COLLECTIONS + 1
    assert sum(value for _, value in passages) == sum(store.passages.values())
    assert passages[0] == ({"collection": "c9999"}, 9999.0)
    assert store.measured == MAX_COLLECTIONS
    assert value_of(text, "winnow_collections", status="damaged") == 1
    clock.at += 61
    await monitoring.text()
    assert store.measured == 2 * MAX_COLLECTIONS


async def test_a_store_that_is_away_does_not_fail_the_scrape(services: Services) -> None:
    """What it holds is left out, and everything else is there."""
    store = Holding(3)
    store.fails = True
    text = await monitoring_of(services, store, Clock()).text()
    assert "winnow_index_passages" not in samples(text)
    assert value_of(text, "winnow_gate_inside", gate="searches") == 0


async def test_budgets_of_unnamed_keys_are_one_series(tmp_path: Path) -> None:
    """The one that has used most of its budget speaks for all of them."""
    budgets = BudgetSettings(keys={"*": KeyBudget(daily_usd=1.0), "team": KeyBudget(daily_usd=2.0)})
    backends = {"gemma": BackendSettings(kind="vllm", url="http://127.0.0.1:9/v1")}
    services = services_for(tmp_path, backends, budgets=budgets)
    for number in range(1000):
        reservation = await services.accounts.budgets.admit("gemma", f"key-{number}", 10**9 * number)
        assert reservation
    text = services.metrics.text(list(services.monitoring.readings({})))
    spent = samples(text)["winnow_budget_reserved_usd"]
    assert {labels["name"] for labels, _ in spent if labels["scope"] == "key"} == {"team", "other"}
    assert value_of(text, "winnow_budget_reserved_usd", scope="key", name="other") == pytest.approx(0.999)


async def test_every_family_is_of_use(client: httpx.AsyncClient) -> None:
    """What is scraped of ours is in the table of families."""
    await client.post("/search", json={"query": "dental cover"})
    known = {family.name for family in FAMILIES}
    suffixes = ("_bucket", "_count", "_sum")
    found = {name for name in samples(await scrape(client)) if name.startswith("winnow_")}
    for suffix in suffixes:
        found = {name.removesuffix(suffix) if name.removesuffix(suffix) in known else name for name in found}
    assert found <= known
