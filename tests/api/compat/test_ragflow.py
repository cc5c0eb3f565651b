"""RAGFlow's retrieval API, by the bodies that its documentation and its clients send."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.compat.ragflow.retrieval import MAX_DATASETS, POOL
from app.config.settings import Settings
from app.main import create_app
from app.wiring import Services
from indexing.errors import StoreUnavailable
from indexing.store.base import VectorStore
from tests.api.conftest import local_client
from tests.api.test_search_ranked import scorer, searching
from tests.fakes.answerer import ScriptedAnswerer
from tests.fakes.corpus import fill, passage
from tests.fakes.embedder import HashEmbedder
from tests.fakes.models import openai_style, services_for
from tests.fakes.source import GivenEmbedder

pytestmark = pytest.mark.anyio

PATH = "/api/v1/retrieval"


async def ask(client: httpx.AsyncClient, path: str = PATH, **body: Any) -> dict[str, Any]:
    sent = {"question": "dental cover", "dataset_ids": ["default"], "similarity_threshold": 0}
    response = await client.post(path, json={**sent, **body}, headers={"Authorization": "Bearer ragflow-key"})
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


async def found(client: httpx.AsyncClient, **body: Any) -> list[str]:
    return [chunk["document_id"] for chunk in (await ask(client, **body))["data"]["chunks"]]


async def test_chunks_have_what_clients_read(client: httpx.AsyncClient) -> None:
    """Code 0; chunks with ids, text, names, and three similarities; counts by document; a total."""
    reply = await ask(client)
    assert reply["code"] == 0
    assert reply["data"]["total"] == 4
    best = reply["data"]["chunks"][0]
    assert best["content"] == "Dental cover starts on the first day of work."
    assert (best["document_id"], best["document_keyword"]) == ("dental", "dental.txt")
    assert (best["dataset_id"], best["kb_id"]) == ("default", "default")
    assert best["term_similarity"] == 1
    assert 0 < best["vector_similarity"] <= 1
    assert best["document_metadata"] == {"lang": "en", "year": 2024}
    assert "highlight" not in best
    similar = [chunk["similarity"] for chunk in reply["data"]["chunks"]]
    assert similar == sorted(similar, reverse=True)
    assert {"doc_name": "dental.txt", "doc_id": "dental", "count": 1} in reply["data"]["doc_aggs"]


async def test_the_full_body_of_the_documentation_is_understood(client: httpx.AsyncClient) -> None:
    """Every documented field, also those that need what we do not have, and a few that are not documented."""
    assert (
        await found(
            client,
            document_ids=[],
            page=1,
            page_size=30,
            vector_similarity_weight=0.3,
            top_k=1024,
            rerank_id=None,
            keyword=True,
            highlight="true",
            cross_languages=["German"],
            metadata_condition=None,
            use_kg=False,
            toc_enhance=False,
            reference_metadata={"include": True, "fields": ["author"]},
            unheard_of=1,
        )
    )[0] == "dental"


async def test_pages_follow_one_another(client: httpx.AsyncClient) -> None:
    """All pages together are the whole list, without a gap or a repetition; `total` is the same on each."""
    whole = await found(client, page_size=100)
    pages = [await ask(client, page=page, page_size=3) for page in (1, 2, 3)]
    assert [chunk["document_id"] for page in pages for chunk in page["data"]["chunks"]] == whole
    assert {page["data"]["total"] for page in pages} == {4}
    assert pages[2]["data"]["chunks"] == []


async def test_late_pages_are_reached(client: httpx.AsyncClient, services: Services) -> None:
    """Beyond the pool of the first pages, as far as there is something."""
    await fill(await services.store.get(), [passage(f"n{n:03}", f"water {n}") for n in range(POOL + 50)], name="many")
    asked: dict[str, Any] = {"dataset_ids": ["many"], "question": "water", "page_size": 30}
    first, last = await ask(client, **asked), await ask(client, **asked, page=9)
    assert (first["data"]["total"], last["data"]["total"]) == (POOL, POOL + 50)
    assert (len(first["data"]["chunks"]), len(last["data"]["chunks"])) == (30, 10)


async def test_thresholds_and_ids_narrow(client: httpx.AsyncClient) -> None:
    """`similarity_threshold` cuts by `similarity`, `document_ids` by document, `top_k` by number."""
    chunks = (await ask(client, similarity_threshold=0.5))["data"]["chunks"]
    assert chunks
    assert min(chunk["similarity"] for chunk in chunks) >= 0.5
    assert len(chunks) < 4
    assert set(await found(client, document_ids=["office", "parking", "nope"])) == {"office", "parking"}
    assert (await ask(client, top_k=2))["data"]["total"] == 2


@pytest.mark.parametrize("asked", ["cafe\u0301", "caf\u00e9"])
async def test_names_are_met_in_either_spelling(client: httpx.AsyncClient, asked: str) -> None:
    """As ids, as names in the list of documents, and in conditions."""
    document = {"id": "cafe\u0301", "text": "dental cover", "source": "cafe\u0301.txt"}
    await client.post("/documents", json={"collection": "spelled", "documents": [document]})
    spelled: dict[str, Any] = {"dataset_ids": ["spelled"]}
    assert await found(client, document_ids=[asked], **spelled) == ["caf\u00e9"]
    condition = {"name": "source", "comparison_operator": "start with", "value": asked}
    assert await found(client, metadata_condition={"conditions": [condition]}, **spelled) == ["caf\u00e9"]
    for wanted in ({"id": asked}, {"name": f"{asked}.txt"}, {"keywords": asked}):
        reply = (await client.get("/api/v1/datasets/spelled/documents", params=wanted)).json()
        assert [one["id"] for one in reply["data"]["docs"]] == ["caf\u00e9"]


@pytest.mark.parametrize(("weight", "calls"), [(0, 0), (0.3, 1), (1, 1), (None, 1)])
async def test_the_ends_of_the_weight_choose_a_side(
    client: httpx.AsyncClient, embedder: HashEmbedder, weight: float | None, calls: int
) -> None:
    """With `vector_similarity_weight` 0 nothing is embedded; otherwise meaning counts."""
    await ask(client, vector_similarity_weight=weight)
    assert len(embedder.query_calls) == calls


async def test_only_meaning_is_one_side_too(client: httpx.AsyncClient) -> None:
    """With weight 1 passages are found that share no word with the question."""
    assert len(await found(client, question="zzz", vector_similarity_weight=1)) == 4
    assert await found(client, question="zzz", vector_similarity_weight=0) == []


async def test_words_of_the_question_are_marked(client: httpx.AsyncClient) -> None:
    """With `highlight` each chunk has its text with <em> around them, in any form."""
    chunks = (await ask(client, question="Which offices close?", highlight=True))["data"]["chunks"]
    marked = {chunk["document_id"]: chunk["highlight"] for chunk in chunks}
    assert marked["office"] == "The <em>office</em> opens at nine and <em>closes</em> at six."
    assert marked["urlaub"] == "Der Urlaub beträgt dreißig Tage im Jahr."


async def test_conditions_select(client: httpx.AsyncClient, manuals: str) -> None:
    """`metadata_condition` in RAGFlow's words; what nothing meets finds nothing."""
    conditions = [
        {"name": "author", "comparison_operator": "is", "value": "bob"},
        {"name": "made", "comparison_operator": "<", "value": "2020-01-01"},
    ]
    asked: dict[str, Any] = {"dataset_ids": [manuals], "question": "water"}
    either = {"logic": "or", "conditions": conditions}
    assert set(await found(client, **asked, metadata_condition=either)) == {"pump", "hose"}
    both = await ask(client, **asked, metadata_condition={"logic": "and", "conditions": conditions})
    assert both["data"] == {"total": 0, "chunks": [], "doc_aggs": []}


async def test_datasets_are_searched_together(client: httpx.AsyncClient, manuals: str) -> None:
    """Passages of several collections come in one list by similarity, each with the collection it is from."""
    asked = ["default", manuals, f"{manuals}@none"]
    chunks = (await ask(client, question="water office", dataset_ids=asked))["data"]["chunks"]
    assert {chunk["dataset_id"] for chunk in chunks} == {"default", manuals}
    assert len({chunk["id"] for chunk in chunks}) == len(chunks) == 8
    similar = [chunk["similarity"] for chunk in chunks]
    assert similar == sorted(similar, reverse=True)


async def test_an_empty_question_finds_nothing(client: httpx.AsyncClient) -> None:
    """Code 0, and `doc_aggs` is then an object."""
    for question in ("", "  ", None):
        assert (await ask(client, question=question))["data"] == {"total": 0, "chunks": [], "doc_aggs": {}}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"dataset_ids": None}, "`dataset_ids` is required."),
        ({"dataset_ids": []}, "`dataset_ids` is required."),
        ({"dataset_ids": ["c"] * (MAX_DATASETS + 1)}, f"at most {MAX_DATASETS}"),
        ({"dataset_ids": "default"}, "/dataset_ids: expected array"),
        ({"dataset_ids": ["default", "nope"]}, "collection 'nope' not found"),
        ({"top_k": 0}, "`top_k` must be greater than 0"),
        ({"rerank_id": "winnow-rerank@nobody"}, "unknown backend 'nobody'; known are"),
        ({"dataset_ids": ["default@nobody"]}, "unknown backend 'nobody'; known are"),
        ({"metadata_condition": {"conditions": [{"name": "a", "comparison_operator": "~"}]}}, "unknown operator"),
    ],
)
async def test_refusals_are_code_102_in_http_200(client: httpx.AsyncClient, body: dict[str, Any], says: str) -> None:
    """As RAGFlow does it: its clients look at `code` and show `message`."""
    reply = await ask(client, **body)
    assert reply["code"] == 102
    assert says in reply["message"]


async def test_a_foreign_rerank_id_is_no_error(client: httpx.AsyncClient) -> None:
    """Who comes from RAGFlow with a model of its own gets the default, and a message that says so."""
    reply = await ask(client, rerank_id="bge-reranker-v2-m3@Xinference")
    assert (reply["code"], reply["data"]["total"]) == (0, 4)
    assert "bge-reranker-v2-m3@Xinference" in reply["message"]
    assert "message" not in await ask(client)


async def test_what_is_no_json_is_refused_alike(client: httpx.AsyncClient) -> None:
    """An empty body, and one that breaks off."""
    for body in (b"", b'{"question"'):
        response = await client.post(PATH, content=body, headers={"Content-Type": "application/json"})
        assert (response.status_code, response.json()["code"]) == (200, 102)


async def test_a_store_that_is_away_is_code_105(settings: Settings, answerer: ScriptedAnswerer) -> None:
    """Still HTTP 200: the code tells that the service stands on something that does not answer."""

    async def away() -> VectorStore:
        raise StoreUnavailable("the store is away")

    services = Services(settings, away, GivenEmbedder(HashEmbedder()), lambda _services: answerer)
    async with local_client(create_app(settings, services)) as client:
        assert await ask(client) == {"code": 105, "message": "the store is away"}


async def test_a_model_ranks(tmp_path: Path) -> None:
    """`rerank_id`, or an @ behind the dataset, names who; its grade is then the `vector_similarity`."""
    async with scorer() as server, searching(services_for(tmp_path, {"gemma": openai_style(server)})) as client:
        for body in (
            {"rerank_id": "gemma", "dataset_ids": ["default@none"]},
            {"rerank_id": "winnow-rerank@gemma"},
            {"rerank_id": "winnow-rerank", "dataset_ids": ["default@gemma"]},
        ):
            best, *_, last = (await ask(client, question="dental cover office", **body))["data"]["chunks"]
            assert best["vector_similarity"] > 0.9 > 0.2 > last["vector_similarity"]
        plain = await ask(client, dataset_ids=["default@none"])
        assert plain["data"]["total"] == 4


async def test_it_serves_dify_too(client: httpx.AsyncClient) -> None:
    """By body and by parameters, with the same records; who gives no `top_k` gets all that is found."""
    body = {"knowledge_id": "default", "query": "dental cover"}
    by_body = (await client.post("/api/v1/dify/retrieval", json={**body, "use_kg": False})).json()
    by_parameters = (await client.get("/api/v1/dify/retrieval", params=body)).json()
    assert by_body == by_parameters
    assert len(by_body["records"]) == 4
    few = await client.get("/api/v1/dify/retrieval", params={**body, "top_k": 1, "score_threshold": 0.1})
    assert len(few.json()["records"]) == 1
    health = await client.get("/api/v1/dify/retrieval/health")
    assert health.json() == {"code": 0, "message": "success", "data": True}


@pytest.mark.parametrize(
    ("params", "status", "code"),
    [
        ({"knowledge_id": "nope", "query": "x"}, 404, 404),
        ({"knowledge_id": "default"}, 400, 101),
        ({"knowledge_id": "default", "query": "x", "top_k": "many"}, 400, 101),
    ],
)
async def test_for_dify_it_refuses_with_a_status(
    client: httpx.AsyncClient, params: dict[str, str], status: int, code: int
) -> None:
    """RAGFlow's codes, with real statuses."""
    response = await client.get("/api/v1/dify/retrieval", params=params)
    assert (response.status_code, response.json()["code"]) == (status, code)


async def test_the_probe_of_dify_is_tolerated(client: httpx.AsyncClient) -> None:
    """An empty body is 400."""
    response = await client.post("/api/v1/dify/retrieval")
    assert (response.status_code, response.json()["code"]) == (400, 101)


async def test_collections_are_datasets(client: httpx.AsyncClient, manuals: str) -> None:
    """Their names are their ids; one that is not there is an error with RAGFlow's code."""
    reply = (await client.get("/api/v1/datasets", params={"name": manuals, "orderby": "create_time"})).json()
    assert [(one["id"], one["name"], one["chunk_count"]) for one in reply["data"]] == [(manuals, manuals, 4)]
    everything = (await client.get("/api/v1/datasets", params={"page_size": 1000})).json()
    assert {"default", manuals} <= {one["name"] for one in everything["data"]}
    assert everything["total_datasets"] == len(everything["data"])
    second = (await client.get("/api/v1/datasets", params={"page": 2, "page_size": 1})).json()
    assert [one["id"] for one in second["data"]] == [everything["data"][1]["id"]]
    assert (await client.get("/api/v1/datasets", params={"name": "nope"})).json()["code"] == 102


async def test_documents_are_listed_by_name(client: httpx.AsyncClient) -> None:
    """So that a client can find the ids to search in."""
    documents = [{"id": f"id{n}", "text": f"dental {n}", "source": f"Guide {n}.pdf"} for n in range(5)]
    await client.post("/documents", json={"collection": "ragdocs", "documents": documents})
    path = "/api/v1/datasets/ragdocs/documents"
    page = (await client.get(path, params={"page": 2, "page_size": 2})).json()
    assert page["data"]["total"] == 5
    assert [document["id"] for document in page["data"]["docs"]] == ["id2", "id3"]
    [named] = (await client.get(path, params={"keywords": "guide 4"})).json()["data"]["docs"]
    assert (named["id"], named["name"], named["run"], named["chunk_count"]) == ("id4", "Guide 4.pdf", "DONE", 1)
    assert (await client.get("/api/v1/datasets/nope/documents")).json()["code"] == 102


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"suffix": "pdf"}, ["a"]),
        ({"suffix": ["pdf", "md"]}, ["a", "b"]),
        ({"run": "DONE"}, ["a", "b", "c"]),
        ({"run": ["UNSTART", "3"]}, ["a", "b", "c"]),
        ({"run": ["FAIL"]}, []),
        ({"create_time_from": 1}, ["a", "b", "c"]),
        ({"create_time_to": 1}, []),
        ({"create_time_from": 0, "create_time_to": 0, "orderby": "create_time", "desc": "True"}, ["a", "b", "c"]),
    ],
)
async def test_the_list_of_documents_is_filtered(
    client: httpx.AsyncClient, asked: dict[str, Any], told: list[str]
) -> None:
    """By the filters of RAGFlow's documentation: everything here is DONE, and was created when it was indexed."""
    files = [("a", "a.pdf"), ("b", "b.md"), ("c", "pdf")]
    documents = [{"id": key, "text": "dental", "source": source} for key, source in files]
    await client.post("/documents", json={"collection": "filtered", "documents": documents})
    reply = (await client.get("/api/v1/datasets/filtered/documents", params=asked)).json()
    assert [one["id"] for one in reply["data"]["docs"]] == told


async def test_the_list_is_not_filtered_by_metadata(client: httpx.AsyncClient) -> None:
    """It says so, instead of listing everything."""
    asked = {"metadata_condition": '{"logic":"and","conditions":[]}'}
    reply = (await client.get("/api/v1/datasets/default/documents", params=asked)).json()
    assert reply["code"] == 102
    assert "`metadata_condition` filters POST /api/v1/retrieval" in reply["message"]


async def test_the_embedding_model_of_a_dataset_is_a_name(client: httpx.AsyncClient, services: Services) -> None:
    """Neither the rest of the fingerprint nor the directory of the model is told."""
    store = await services.store.get()
    await fill(store, name="disk", fingerprint="/srv/models/minilm, files 12ab; chunks 1; bm25")
    reply = (await client.get("/api/v1/datasets", params={"name": "disk"})).json()
    assert reply["data"][0]["embedding_model"] == "minilm"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/chats", 404),
        ("GET", "/api/v1/datasets/default/documents/dental", 404),
        ("POST", "/api/v1/datasets", 405),
        ("DELETE", "/api/v1/datasets/default/documents", 405),
    ],
)
async def test_what_is_not_served_is_said_in_its_shape(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    """`code` and `message` and nothing else: RAGFlow's client saves anything else as the document."""
    response = await client.request(method, path)
    reply = response.json()
    assert (response.status_code, set(reply), reply["code"]) == (status, {"code", "message"}, status)
    assert "does not serve this part of RAGFlow's API" in reply["message"]


async def test_chinese_words_are_marked(client: httpx.AsyncClient, services: Services) -> None:
    """Scripts without spaces are marked by the characters that the question has."""
    await fill(await services.store.get(), [passage("zh", "牙科保险从第一天开始。")], name="chinese")
    reply = await ask(client, question="牙科保险何时开始", dataset_ids=["chinese"], highlight=True)
    [chunk] = reply["data"]["chunks"]
    assert chunk["highlight"] == "<em>牙科保险</em>从第一天<em>开始</em>。"


async def test_the_search_of_the_server_in_go(client: httpx.AsyncClient, manuals: str) -> None:
    """Of datasets or of one, in its words for ids, sizes and metadata; an empty question is refused."""
    body = {"question": "water", "size": 2, "top_k": 1024, "use_kg": False, "similarity_threshold": 0.0}
    several = (await client.post("/api/v1/datasets/search", json={**body, "dataset_ids": [manuals]})).json()
    one = (await client.post(f"/api/v1/datasets/{manuals}/search", json=body)).json()
    assert several == one
    assert (one["code"], len(one["data"]["chunks"]), one["data"]["labels"]) == (0, 2, None)
    chunk = one["data"]["chunks"][0]
    assert chunk["content_with_weight"] == chunk["content"]
    assert (chunk["chunk_id"], chunk["doc_id"], chunk["docnm_kwd"]) == (
        chunk["id"],
        chunk["document_id"],
        chunk["document_keyword"],
    )
    manual = {"method": "manual", "logic": "and", "manual": [{"key": "author", "op": "=", "value": "bob"}]}
    narrowed = [{"meta_data_filter": manual}, {"doc_ids": ["pump"]}]
    for fields in narrowed:
        reply = (await client.post(f"/api/v1/datasets/{manuals}/search", json={**body, **fields})).json()
        assert [found["doc_id"] for found in reply["data"]["chunks"]] == ["pump"]
    for fields, says in (
        ({"question": " "}, "question is required"),
        ({"meta_data_filter": {"method": "manual", "manual": [{"op": 7}]}}, "key, op and value"),
    ):
        refused = (await client.post(f"/api/v1/datasets/{manuals}/search", json={**body, **fields})).json()
        assert refused["code"] == 102
        assert says in refused["message"]
    assert (await client.post("/api/v1/datasets/search", json=body)).json()["code"] == 102
