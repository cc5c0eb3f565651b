"""The SDKs of Cohere and OpenAI, and captured requests of other products, against the running service over a socket."""

import asyncio
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from tests.clients.frameworks import DOCUMENTS, KEY, QUERY
from tests.fakes.embedder import HashEmbedder
from tests.fakes.running import RunningServer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its models are written for two versions of pydantic at once
    import cohere

pytestmark = [pytest.mark.anyio, pytest.mark.numeric]

MODEL = "winnow-rerank"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    running = RunningServer(tmp_path_factory.mktemp("home"))
    yield running.url
    running.close()


@pytest.fixture
def connections() -> Iterator[httpx.Client]:
    """Cohere's clients leave theirs open."""
    with httpx.Client() as connections:
        yield connections


@pytest.fixture
def openai_client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def test_cohere_v2(url: str, connections: httpx.Client) -> None:
    """Results, meta and billed units arrive as its types."""
    client = cohere.ClientV2(api_key=KEY, base_url=url, httpx_client=connections)
    reply = client.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS, top_n=2, max_tokens_per_doc=4096)
    assert reply.results[0].index == 1
    assert len(reply.results) == 2
    assert reply.meta is not None
    assert reply.meta.billed_units is not None
    assert (reply.meta.api_version.version, reply.meta.billed_units.search_units) == ("2", 1)  # type: ignore[union-attr]
    assert reply.meta.warnings


def test_cohere_v1(url: str, connections: httpx.Client) -> None:
    """Documents as objects, with fields to rank by, and given back."""
    client = cohere.Client(api_key=KEY, base_url=url, httpx_client=connections)
    documents: list[Any] = [{"text": text, "body": text} for text in DOCUMENTS]
    reply = client.rerank(model=MODEL, query=QUERY, documents=documents, rank_fields=["body"], return_documents=True)
    assert reply.results[0].index == 1
    assert reply.results[0].document is not None
    assert DOCUMENTS[1] in reply.results[0].document.text
    assert len(reply.results) == 3


def test_cohere_reads_our_errors(url: str, connections: httpx.Client) -> None:
    """Its own exception with our message."""
    client = cohere.ClientV2(api_key=KEY, base_url=url, httpx_client=connections)
    with pytest.raises(cohere.UnprocessableEntityError) as caught:
        client.rerank(model="winnow-rerank@nobody", query=QUERY, documents=DOCUMENTS)
    assert "unknown backend 'nobody'" in caught.value.body["message"]


def test_openai_embeddings(openai_client: openai.OpenAI) -> None:
    """In base64, which it asks for by itself, and as numbers."""
    told = openai_client.embeddings.create(model="winnow-embed", input=DOCUMENTS)
    plain = openai_client.embeddings.create(model="winnow-embed", input=DOCUMENTS, encoding_format="float")
    expected = HashEmbedder().embed_documents(DOCUMENTS)
    for reply in (told, plain):
        assert np.allclose([item.embedding for item in reply.data], expected, atol=1e-6)
        assert reply.usage.prompt_tokens > 0
    ids = openai_client.embeddings.create(model="winnow-embed", input=[[35, 6430, 3504]])
    assert np.allclose(ids.data[0].embedding, HashEmbedder().embed_documents(["Dental cover"])[0], atol=1e-6)


def test_openai_models(openai_client: openai.OpenAI) -> None:
    """The list, and one of it."""
    names = [model.id for model in openai_client.models.list()]
    assert {MODEL, "winnow-embed", "winnow", "winnow:default"} <= set(names)
    assert openai_client.models.retrieve("winnow:default").id == "winnow:default"


def test_openai_reads_our_errors(openai_client: openai.OpenAI) -> None:
    """Its own exceptions, with message and parameter."""
    with pytest.raises(openai.NotFoundError, match="model 'nobody' not found"):
        openai_client.models.retrieve("nobody")
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.embeddings.create(model="winnow-embed", input="a", dimensions=7)
    assert caught.value.param == "dimensions"


@pytest.fixture(scope="module")
def pets(url: str) -> str:
    """A collection whose ids have slashes and spaces."""
    documents = [
        {
            "id": f"pets/{name} 1.md",
            "text": f"A {name} {does} all day.",
            "source": f"{name}.md",
            "metadata": {"legs": legs},
        }
        for name, does, legs in (("cat", "sleeps", 4), ("dog", "barks", 4), ("hen", "pecks", 2))
    ]
    sent = httpx.post(f"{url}/documents", json={"collection": "pets", "documents": documents}, timeout=60)
    assert sent.json()["created"] == 3
    return "pets"


def test_openai_searches_a_vector_store(openai_client: openai.OpenAI, pets: str) -> None:
    """From the list of stores to the passages, under conditions, as its types; ours is beside them."""
    assert [store.id for store in openai_client.vector_stores.list(limit=1)] == ["default", "pets"]
    store = openai_client.vector_stores.retrieve(pets)
    assert (store.status, store.file_counts.completed, store.name) == ("completed", 3, "pets")
    page = openai_client.vector_stores.search(
        store.id,
        query="Which animal pecks?",
        filters={
            "type": "or",
            "filters": [{"type": "lt", "key": "legs", "value": 3}, {"type": "eq", "key": "legs", "value": 4}],
        },
        max_num_results=2,
        ranking_options={"ranker": "auto", "score_threshold": 0.1},
        rewrite_query=False,
    )
    best = page.data[0]
    assert (best.file_id, best.filename, best.attributes) == ("pets/hen 1.md", "hen.md", {"legs": 2})
    assert best.content[0].text == "A hen pecks all day."
    assert 0.1 <= best.score <= 1
    assert page.model_extra is not None
    assert page.model_extra["search_query"] == ["Which animal pecks?"]
    assert page.model_extra["winnow"]["usage"]["requests"] == 0
    others = openai_client.vector_stores.search(
        pets, query=["hen", "pecks"], filters={"type": "ne", "key": "legs", "value": 2}
    )
    assert "pets/hen 1.md" not in {found.file_id for found in others}


def test_openai_reads_the_files_of_a_vector_store(openai_client: openai.OpenAI, pets: str) -> None:
    """Page by page, one of them, and its text."""
    files = list(openai_client.vector_stores.files.list(pets, limit=2))
    assert [file.id for file in files] == ["pets/cat 1.md", "pets/dog 1.md", "pets/hen 1.md"]
    assert {file.status for file in files} == {"completed"}
    file = openai_client.vector_stores.files.retrieve(files[2].id, vector_store_id=pets)
    assert (file.attributes, file.vector_store_id) == ({"legs": 2}, "pets")
    [content] = openai_client.vector_stores.files.content(file.id, vector_store_id=pets)
    assert (content.type, content.text) == ("text", "A hen pecks all day.")


def test_openai_reads_what_is_wrong_with_a_vector_store(openai_client: openai.OpenAI, pets: str) -> None:
    """Its own exceptions."""
    for missing in (
        lambda: openai_client.vector_stores.search("nope", query="a"),
        lambda: openai_client.vector_stores.retrieve("nope"),
        lambda: openai_client.vector_stores.files.retrieve("nope", vector_store_id=pets),
        lambda: openai_client.vector_stores.files.content("nope", vector_store_id=pets),
    ):
        with pytest.raises(openai.NotFoundError, match="not found"):
            missing()
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.vector_stores.search(pets, query="a", filters={"type": "gt", "key": "legs", "value": True})
    assert caught.value.param == "filters"
    with pytest.raises(openai.APIStatusError, match="method"):
        openai_client.vector_stores.create(name="new")


async def test_hundreds_of_openai_clients_at_once(url: str) -> None:
    """As Open WebUI embeds a file: one text in each of many requests at once."""
    texts = [f"text {number}" for number in range(300)]
    limits = httpx.Limits(max_connections=100)
    async with openai.AsyncOpenAI(
        base_url=f"{url}/v1",
        api_key=KEY,
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(limits=limits),
    ) as client:
        asked = (client.embeddings.create(model="winnow-embed", input=text) for text in texts)
        replies = await asyncio.gather(*asked)
    found = [reply.data[0].embedding for reply in replies]
    assert np.allclose(found, HashEmbedder().embed_documents(texts), atol=1e-6)


CAPTURED: dict[str, tuple[str, dict[str, Any]]] = {
    "RAGFlow, VLLM": ("/v1/rerank", {"top_n": 3, "return_documents": False}),
    "RAGFlow, OpenAI-API-Compatible": ("/v1/rerank", {"top_n": 3}),
    "RAGFlow, Xinference": ("/v1/rerank", {"return_documents": "true", "return_len": "true"}),
    "RAGFlow, LocalAI": ("/rerank", {"top_n": 3}),
    "RAGFlow, SILICONFLOW": (
        "/v1/rerank",
        {"top_n": 3, "return_documents": False, "max_chunks_per_doc": 1024, "overlap_tokens": 80},
    ),
    "RAGFlow in Go, VLLM, LocalAI and Jina": ("/v1/rerank", {"top_n": 3}),
    "RAGFlow in Go, OpenAI-API-Compatible": ("/v1/rerank/", {"top_n": 3}),
    "RAGFlow in Go, Cohere": ("/v2/rerank", {"top_n": 3}),
    "Dify, a call": ("/v1/rerank", {"top_n": 3, "return_documents": True}),
    "Dify, its validation": ("/v1/rerank", {"top_n": None, "return_documents": True}),
    "Open WebUI": ("/v1/rerank", {"top_n": 3}),
    "LightRAG, cohere": ("/v2/rerank", {"top_n": 3, "return_documents": False}),
    "FastGPT": ("/v1/rerank", {}),
}


def test_ragflow_in_go_lists_and_embeds(url: str) -> None:
    """Its GET has a JSON body, and its embeddings neither an encoding nor an order of their own."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    listed = httpx.request("GET", f"{url}/v1/models", content=b"{}", headers=headers, timeout=60).json()
    assert {MODEL, "winnow-embed"} <= {one["id"] for one in listed["data"]}
    sent = {"model": "winnow-embed", "input": ["test", "b"]}
    reply = httpx.post(f"{url}/v1/embeddings", json=sent, headers=headers, timeout=60).json()
    assert [one["index"] for one in reply["data"]] == [0, 1]
    assert len(reply["data"][0]["embedding"]) > 1


@pytest.mark.parametrize("product", CAPTURED)
def test_captured_reranks(url: str, product: str) -> None:
    """A score for each document, best first, tokens above 0, and no document as a string."""
    path, fields = CAPTURED[product]
    sent = {"model": MODEL, "query": QUERY, "documents": DOCUMENTS, **fields}
    response = httpx.post(f"{url}{path}", json=sent, headers={"Authorization": f"Bearer {KEY}"}, timeout=60)
    assert response.status_code == 200
    reply = response.json()
    assert reply["results"][0]["index"] == 1
    assert sorted(result["index"] for result in reply["results"]) == [0, 1, 2]
    assert all(0 <= result["relevance_score"] <= 1 for result in reply["results"])
    assert not any(isinstance(result.get("document"), str) for result in reply["results"])
    assert reply["usage"]["total_tokens"] > 0
    assert reply["meta"]["tokens"]["input_tokens"] > 0


def test_ragflow_verifies(url: str) -> None:
    """Its pings when a model is added: a rerank, and an embedding with a field that OpenAI does not know."""
    ping = {"model": MODEL, "query": "What's the weather?", "documents": ["Is it sunny today?"], "top_n": 1}
    reply = httpx.post(f"{url}/v1/rerank", json=ping, timeout=60).json()
    assert len(reply["results"]) == 1
    assert reply["usage"]["total_tokens"] > 0
    ping = {"input": ["Test if the api key is available"], "model": "winnow-embed", "encoding_format": "float"}
    reply = httpx.post(f"{url}/v1/embeddings", json={**ping, "drop_params": True}, timeout=60).json()
    assert len(reply["data"][0]["embedding"]) > 0


@pytest.mark.parametrize(
    "sent",
    [
        {"query": QUERY, "texts": DOCUMENTS, "raw_scores": False, "truncate": True},
        {"query": QUERY, "texts": DOCUMENTS, "model-id": "any"},
        {"query": QUERY, "texts": DOCUMENTS, "is_truncated": True},
    ],
    ids=["RAGFlow, HuggingFace", "R2R", "kotaemon"],
)
def test_captured_tei_reranks(url: str, sent: dict[str, Any]) -> None:
    """A bare list of index and score, best first."""
    reply = httpx.post(f"{url}/tei/rerank", json=sent, timeout=60).json()
    assert [result["index"] for result in reply][:1] == [1]
    assert all(set(result) == {"index", "score"} for result in reply)
