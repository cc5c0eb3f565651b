"""POST /search."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from app.config.settings import Settings
from app.main import create_app
from app.wiring import CORES, Services
from indexing.errors import StoreUnavailable
from indexing.store.base import VectorStore
from tests.api.conftest import local_client
from tests.fakes.answerer import ScriptedAnswerer
from tests.fakes.corpus import fill, passage
from tests.fakes.embedder import HashEmbedder
from tests.fakes.source import GivenEmbedder

pytestmark = [pytest.mark.anyio, pytest.mark.numeric]


async def search(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post("/search", json={"query": "dental cover", **body})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def test_the_answer_has_the_documented_shape(client: httpx.AsyncClient) -> None:
    """A search returns the query, hits with their evidence, the backend, usage and timings."""
    found = await search(client)
    assert set(found) == {
        "query",
        "collection",
        "results",
        "backend",
        "degraded",
        "warnings",
        "usage",
        "timings_ms",
    }
    best = found["results"][0]
    assert best["document_id"] == "dental"
    assert (best["text"], best["start"], best["end"]) == ("Dental cover starts on the first day of work.", 0, 45)
    assert best["metadata"] == {"lang": "en", "year": 2024}
    assert set(best["scores"]) == {"dense", "sparse", "fused"}
    assert best["ranked_by"] == "none"
    assert found["backend"] == {"requested": "auto", "used": "none", "model": None, "fallbacks": []}
    assert found["usage"]["requests"] == 0
    assert set(found["timings_ms"]) == {"embed", "retrieve", "total"}
    assert found["timings_ms"]["total"] >= found["timings_ms"]["embed"] + found["timings_ms"]["retrieve"]


async def test_scores_are_sorted_and_within_the_unit_interval(client: httpx.AsyncClient) -> None:
    """Results come by descending score, each in [0,1]."""
    scores = [hit["score"] for hit in (await search(client, query="office parking"))["results"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


@pytest.mark.parametrize(("mode", "sides"), [("dense", {"dense", "fused"}), ("sparse", {"sparse", "fused"})])
async def test_a_mode_searches_its_side_alone(client: httpx.AsyncClient, mode: str, sides: set[str]) -> None:
    """Dense and sparse searches carry no evidence of the other side."""
    found = await search(client, mode=mode)
    assert found["results"][0]["document_id"] == "dental"
    assert set(found["results"][0]["scores"]) == sides


async def test_a_sparse_search_embeds_nothing(client: httpx.AsyncClient, embedder: HashEmbedder) -> None:
    """Mode "sparse" does not call the embedding model, and reports no time for it."""
    found = await search(client, mode="sparse")
    assert embedder.query_calls == []
    assert "embed" not in found["timings_ms"]


async def test_a_query_without_words_finds_nothing_on_the_sparse_side(client: httpx.AsyncClient) -> None:
    """Mode "sparse" for punctuation alone is an empty result with a warning, not an error."""
    found = await search(client, query="?!", mode="sparse")
    assert found["results"] == []
    assert len(found["warnings"]) == 1


async def test_filters_narrow_the_search(client: httpx.AsyncClient) -> None:
    """Only passages that the filter lets through are found."""
    found = await search(client, query="office", filter={"year": {"gte": 2021}, "lang": "en"})
    assert {hit["document_id"] for hit in found["results"]} == {"dental", "office"}


async def test_limit_and_min_score_cut_the_list(client: httpx.AsyncClient) -> None:
    """`limit` bounds the count, `min_score` drops what is below."""
    assert len((await search(client, limit=1))["results"]) == 1
    kept = (await search(client, min_score=0.5))["results"]
    assert kept
    assert all(hit["score"] >= 0.5 for hit in kept)


@pytest.mark.parametrize("backend", ["none", "auto"])
async def test_how_to_rank_is_warned_of_where_nobody_ranks(client: httpx.AsyncClient, backend: str) -> None:
    """`strategy` and `depth` have no effect then; a deadline and `on_failure` hold by themselves."""
    ranking = {"strategy": "graded", "depth": 5, "deadline_ms": 100, "on_failure": "fail"}
    body = (await client.post("/search", json={"query": "tea", "backend": backend, "ranking": ranking})).json()
    assert [warning.split()[0] for warning in body["warnings"]] == ["`ranking.strategy`", "`ranking.depth`"]


async def test_text_can_be_left_out(client: httpx.AsyncClient) -> None:
    """With `include_text` false every text is null."""
    assert {hit["text"] for hit in (await search(client, include_text=False))["results"]} == {None}


async def test_the_same_text_comes_once(client: httpx.AsyncClient, services: Services) -> None:
    """Copies of a passage in several documents are one result."""
    copies = [passage(name, "Dental cover for all.") for name in ("a", "b", "c")]
    await fill(await services.store.get(), copies, name="copies")
    assert len((await search(client, collection="copies"))["results"]) == 1


async def test_grouping_keeps_the_best_passage_of_each_document(client: httpx.AsyncClient, services: Services) -> None:
    """With `group_by_document` no document comes twice, and its best passage stays."""
    parts = [passage("book", f"{word} cover and more", ordinal=i) for i, word in enumerate(("hard", "dental"))]
    await fill(await services.store.get(), [*parts, passage("leaflet", "dental care")], name="books")
    found = (await search(client, collection="books", group_by_document=True))["results"]
    assert sorted(hit["document_id"] for hit in found) == ["book", "leaflet"]
    assert next(hit for hit in found if hit["document_id"] == "book")["text"] == "dental cover and more"


async def test_phrasings_are_searched_together(client: httpx.AsyncClient, embedder: HashEmbedder) -> None:
    """Each says what it finds, no passage comes twice, one call embeds them all, and the response lists them."""
    found = await search(client, query="teeth", queries=["dental cover", "Parken Urlaub", "teeth"], limit=2)
    assert [hit["document_id"] for hit in found["results"]] == ["dental", "urlaub"]
    assert (found["query"], found["queries"]) == ("teeth", ["teeth", "dental cover", "Parken Urlaub"])
    assert embedder.query_calls == [["teeth", "dental cover", "Parken Urlaub"]]
    everything = await search(client, queries=["dental cover", "office"])
    ids = [hit["id"] for hit in everything["results"]]
    assert len(ids) == len(set(ids)) > 2
    assert all(0 <= hit["score"] <= 1 for hit in everything["results"])


async def test_queries_may_stand_for_the_query(client: httpx.AsyncClient) -> None:
    """The first one is the query then, and one alone is a plain search."""
    response = await client.post("/search", json={"queries": ["dental cover"]})
    plain = (await search(client)) | {"timings_ms": {}}
    assert response.json() | {"timings_ms": {}} == plain
    assert "queries" not in plain


@pytest.mark.parametrize("mode", ["dense", "sparse"])
async def test_a_phrasing_without_words_has_no_say(client: httpx.AsyncClient, mode: str) -> None:
    """Neither on one side alone, nor is there a warning as long as another one has words."""
    found = await search(client, queries=["office"], query="?!" if mode == "sparse" else "parking", mode=mode)
    assert "office" in {hit["document_id"] for hit in found["results"][:2]}
    assert found["warnings"] == []


async def test_copies_that_different_phrasings_find_come_once(client: httpx.AsyncClient, services: Services) -> None:
    """As within one search."""
    copies = [passage(name, "Dental cover for all.") for name in ("a", "b")]
    await fill(await services.store.get(), copies, name="twins")
    assert len((await search(client, collection="twins", queries=["cover", "all"]))["results"]) == 1


async def test_new_passages_appear_in_the_next_search(client: httpx.AsyncClient, services: Services) -> None:
    """The index may change while the service runs."""
    store = await services.store.get()
    await fill(store, [passage("old", "dental cover")], name="growing")
    await search(client, collection="growing")
    await fill(store, [passage("new", "dental cover abroad")], name="growing")
    assert "new" in {hit["document_id"] for hit in (await search(client, collection="growing"))["results"]}


async def test_an_empty_collection_is_an_empty_result(client: httpx.AsyncClient, services: Services) -> None:
    """Nothing indexed is nothing found."""
    store = await services.store.get()
    await fill(store, [passage("only", "dental")], name="emptied")
    await store.delete_documents("emptied", ["only"])
    assert (await search(client, collection="emptied"))["results"] == []


@pytest.mark.parametrize("query", ["nul\0inside", "𝒟ental 🦷", "歯科", "a" * 8192])
async def test_any_text_can_be_looked_for(client: httpx.AsyncClient, query: str) -> None:
    """NUL characters, any script and the longest query are searched, and the answer is finite."""
    found = await search(client, query=query)
    assert all(hit["score"] is not None for hit in found["results"])
    assert "\0" not in found["query"]


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        ({"collection": "nope"}, 404, "collection-not-found", "nope"),
        ({"collection": "../etc"}, 404, "collection-not-found", "../etc"),
        ({"backend": "gpt"}, 422, "unknown-backend", "auto, none, extractive"),
        ({"backend": "extractive"}, 422, "missing-capability", "cannot rank"),
    ],
)
async def test_what_cannot_be_served_says_why(
    client: httpx.AsyncClient, body: dict[str, Any], status: int, code: str, says: str
) -> None:
    """Unknown collections and backends, and backends that cannot rank, are refused with the reason."""
    response = await client.post("/search", json={"query": "x", **body})
    problem = response.json()
    assert (response.status_code, problem["status"]) == (status, status)
    assert problem["type"] == f"urn:winnow:problem:{code}"
    assert says in problem["detail"]


async def test_another_models_vectors_are_not_searched(client: httpx.AsyncClient, services: Services) -> None:
    """A collection of another embedder is a conflict that names the command; its words can still be searched."""
    await fill(await services.store.get(), name="old", fingerprint="another model")
    response = await client.post("/search", json={"query": "dental", "collection": "old"})
    assert response.status_code == 409
    assert "winnow index --rebuild --collection old" in response.json()["detail"]
    assert (await search(client, collection="old", mode="sparse"))["results"]


async def test_a_store_that_is_down_is_unavailable(settings: Settings, answerer: ScriptedAnswerer) -> None:
    """StoreUnavailable is 503 with the store's own words."""

    async def away() -> VectorStore:
        raise StoreUnavailable("the store is away")

    services = Services(settings, away, GivenEmbedder(HashEmbedder()), lambda _services: answerer)
    async with local_client(create_app(settings, services)) as client:
        response = await client.post("/search", json={"query": "dental"})
    assert response.status_code == 503
    assert response.json()["detail"] == "the store is away"


async def test_a_crowd_is_refused_early_and_health_is_not(client: httpx.AsyncClient, services: Services) -> None:
    """503 with Retry-After while the line is long; those in it are served, with the time they waited."""
    services.gates.searches._visit_s = 1.0  # as if a search took a second of late
    async with AsyncExitStack() as places:
        for _ in range(CORES):
            place = services.gates.searches.visit()
            if services.gates.searches.expected_wait_s == 0:
                await places.enter_async_context(place)
        crowd = [asyncio.ensure_future(client.post("/search", json={"query": "dental"})) for _ in range(60 * CORES)]
        await asyncio.wait(crowd, return_when=asyncio.FIRST_COMPLETED)
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/health/ready")).status_code == 200
    replies = await asyncio.gather(*crowd)
    refused = [reply for reply in replies if reply.status_code == 503]
    assert {reply.status_code for reply in replies} == {200, 503}
    assert {reply.json()["type"] for reply in refused} == {"urn:winnow:problem:overloaded"}
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
    assert any("wait" in reply.json()["timings_ms"] for reply in replies if reply.status_code == 200)
