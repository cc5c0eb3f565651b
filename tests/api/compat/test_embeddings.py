"""POST /v1/embeddings as OpenAI's clients use it."""

import asyncio
import base64
import struct
from typing import Any

import httpx
import numpy as np
import pytest

from app.config.settings import CompatSettings, Settings
from app.wiring import Services
from indexing.embedding.model import Vectors
from indexing.errors import EmbedderUnavailable
from indexing.settings import EmbeddingSettings
from tests.fakes.embedder import HashEmbedder

pytestmark = [pytest.mark.anyio, pytest.mark.numeric]


async def post(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    response = await client.post("/v1/embeddings", json={"model": "winnow-embed", **fields})
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


def vectors(reply: dict[str, Any]) -> Vectors:
    """In the order of the reply, which is that of the inputs."""
    assert [item["index"] for item in reply["data"]] == list(range(len(reply["data"])))
    return np.array([item["embedding"] for item in reply["data"]], dtype=np.float32)


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ("one text", ["one text"]),
        (["one", "two", "one"], ["one", "two", "one"]),
        ([""], [""]),
        ([35, 6430, 3504], ["Dental cover"]),
        ([[35, 6430, 3504], "two"], ["Dental cover", "two"]),
    ],
)
async def test_inputs_of_all_kinds(
    client: httpx.AsyncClient, embedder: HashEmbedder, given: Any, texts: list[str]
) -> None:
    """A text, texts, and token ids of OpenAI's models become the model's vectors, in order."""
    reply = await post(client, input=given, drop_params=True, user="u")
    assert np.array_equal(vectors(reply), embedder.embed_documents(texts))
    tokens = sum(len(embedder.token_spans(text)) for text in texts)
    assert reply["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert (reply["object"], reply["model"], reply["truncated"]) == ("list", "winnow-embed", [])


async def test_base64_is_the_same_vector(client: httpx.AsyncClient) -> None:
    """Little-endian float32, bit by bit what `float` gives."""
    plain = vectors(await post(client, input="dental", encoding_format="float"))[0]
    coded = (await post(client, input="dental", encoding_format="base64"))["data"][0]["embedding"]
    assert struct.unpack(f"<{len(plain)}f", base64.b64decode(coded)) == tuple(plain)


async def test_what_is_too_long_is_cut_and_said(client: httpx.AsyncClient, embedder: HashEmbedder) -> None:
    """Never 400: the field lists which inputs, the header counts them, and only what was read is used."""
    long = "word " * (embedder.max_tokens + 1)
    response = await client.post(
        "/v1/embeddings", json={"model": "winnow-embed", "input": ["short", long, "z" * 10**6]}
    )
    assert response.json()["truncated"] == [1, 2]
    assert response.headers["x-winnow-truncated"] == "2"
    assert response.json()["usage"]["prompt_tokens"] == 1 + embedder.max_tokens + 1


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_thousands_of_texts_in_one_call(client: httpx.AsyncClient, embedder: HashEmbedder, encoding: str) -> None:
    """As many as OpenAI takes: AnythingLLM sends hundreds, and none may be missing."""
    reply = await post(client, input=[f"text {number}" for number in range(2048)], encoding_format=encoding)
    assert [item["index"] for item in reply["data"]] == list(range(2048))
    assert len(embedder.embedded) == 2048


@pytest.mark.parametrize("name", ["winnow-embed", "all-MiniLM-L6-v2", "text-embedding-ada-002", None])
async def test_the_models_names(client: httpx.AsyncClient, name: str | None) -> None:
    """Ours, the embedding model's own, an alias from the settings, and none."""
    assert (await post(client, model=name, input="a"))["data"]


@pytest.mark.parametrize(
    ("fields", "status", "param", "says"),
    [
        ({"input": "a", "model": "text-embedding-3-small"}, 404, "model", "use 'winnow-embed'"),
        ({}, 400, "input", "required"),
        ({"input": []}, 400, "input", "nothing to embed"),
        ({"input": None}, 400, "input", "expected a string"),
        ({"input": ["a", 1]}, 400, "input.1", "expected a string"),
        ({"input": ["a", [True]]}, 400, "input.1", "expected a string"),
        ({"input": [200_000]}, 400, "input", "check_embedding_ctx_length=False"),
        ({"input": [-1]}, 400, "input", "not all of cl100k_base"),
        ({"input": ["a"] * 2049}, 413, None, "2048"),
        ({"input": "a", "dimensions": 48}, 400, "dimensions", "32, 64"),
        ({"input": "a", "dimensions": -1}, 400, "dimensions", ">= 0"),
        ({"input": "a", "encoding_format": "int8"}, 400, "encoding_format", "one of base64, float, got 'int8'"),
    ],
)
async def test_errors_are_openais(
    client: httpx.AsyncClient, fields: dict[str, Any], status: int, param: str | None, says: str
) -> None:
    """The message says what to do, and `param` where."""
    response = await client.post("/v1/embeddings", json={"model": "winnow-embed", **fields})
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["type"]) == (status, param, "invalid_request_error")
    assert says in error["message"]


async def test_shorter_vectors_where_the_model_has_them(client: httpx.AsyncClient) -> None:
    """Cut and made unit vectors again; all of the dimensions is fine, too, and 0, Infinity's word for it."""
    full = vectors(await post(client, input="dental", dimensions=64))[0]
    assert np.array_equal(full, vectors(await post(client, input="dental", dimensions=0))[0])
    short = vectors(await post(client, input="dental", dimensions=32))[0]
    assert np.allclose(short, full[:32] / np.linalg.norm(full[:32]))


async def test_what_looks_for_something_is_a_query(client: httpx.AsyncClient, embedder: HashEmbedder) -> None:
    """`input_type`, which OpenAI lacks, tells queries from documents."""
    await post(client, input="a document")
    assert embedder.query_calls == []
    await post(client, input="a query", input_type="query")
    assert embedder.query_calls == [["a query"]]


async def test_a_burst_of_single_texts_goes_together(client: httpx.AsyncClient, embedder: HashEmbedder) -> None:
    """Hundreds of requests, few calls of the model; everyone gets the vector of their own text."""
    texts = [f"text number {number}" for number in range(300)]
    replies = await asyncio.gather(*(post(client, input=text) for text in texts))
    found = np.array([vectors(reply)[0] for reply in replies])
    assert embedder.document_calls <= 30
    assert np.array_equal(found, embedder.embed_documents(texts))


async def test_a_model_that_cannot_be_loaded_is_503(
    client: httpx.AsyncClient, services: Services, embedder: HashEmbedder
) -> None:
    """In OpenAI's shape, with the way out."""
    embedder.failure = EmbedderUnavailable("name another model in [embedding] model")
    response = await client.post("/v1/embeddings", json={"input": "a", "input_type": "query"})
    assert response.status_code == 503
    assert response.json()["error"] == {
        "message": "name another model in [embedding] model",
        "type": "server_error",
        "param": None,
        "code": "embedder_unavailable",
    }


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A model whose vectors may be cut to 32, and that has a further name."""
    return Settings(
        service=settings.service,
        index=settings.index,
        embedding=EmbeddingSettings(sizes=(32,)),
        compat=CompatSettings(embed_aliases=("text-embedding-ada-002",)),
    )
