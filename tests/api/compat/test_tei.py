"""Text Embeddings Inference's protocol, as its clients use it."""

import httpx
import numpy as np
import pytest

from app.api.compat.tei import tei_failure
from app.api.problem_details import problem_of
from app.errors import Overloaded, RateLimited, TooLarge, UpstreamTimeout
from tests.fakes.embedder import HashEmbedder

pytestmark = [pytest.mark.anyio, pytest.mark.numeric]

QUERY = "When does dental cover start?"
DOCUMENTS = [
    "Parking is free for staff behind the office.",
    "Dental cover starts on the first day of work.",
    "Der Urlaub beträgt dreißig Tage im Jahr.",
]


async def test_rerank(client: httpx.AsyncClient) -> None:
    """A bare list, best first, with the text if asked for; a key in the header changes nothing."""
    sent = {"query": QUERY, "texts": DOCUMENTS, "raw_scores": False, "truncate": True, "return_text": True}
    response = await client.post("/tei/rerank", json=sent, headers={"Authorization": "Bearer x"})
    reply = response.json()
    assert reply[0]["index"] == 1
    assert reply[0]["text"] == DOCUMENTS[1]
    assert all(0 <= found["score"] <= 1 for found in reply)
    bad = await client.post("/tei/rerank", json={"query": QUERY})
    assert (bad.status_code, bad.json()["error_type"]) == (400, "Validation")
    assert "/texts" in bad.json()["error"]


@pytest.mark.parametrize(
    ("exc", "status", "kind"),
    [
        (TooLarge("too many"), 413, "Validation"),
        (Overloaded("busy"), 503, "Overloaded"),
        (RateLimited("slow down", 1.0), 429, "Overloaded"),
        (UpstreamTimeout("g", "late"), 504, "Backend"),
    ],
)
def test_tei_failures_have_teis_kinds(exc: Exception, status: int, kind: str) -> None:
    """Its clients ask again where it was overloaded; the status is ours."""
    found, failure = tei_failure(problem_of(exc, "id", None), exc)
    assert (found, failure["error_type"]) == (status, kind)


async def test_embed(client: httpx.AsyncClient, embedder: HashEmbedder) -> None:
    """A bare list of vectors, of one text too; "query" is for questions."""
    several = await client.post("/tei/embed", json={"inputs": DOCUMENTS, "truncate": True, "normalize": True})
    assert np.array_equal(np.array(several.json(), dtype=np.float32), embedder.embed_documents(DOCUMENTS))
    one = await client.post("/tei/embed", json={"inputs": QUERY, "prompt_name": "query"})
    assert np.array_equal(np.array(one.json(), dtype=np.float32), embedder.embed_queries([QUERY]))


async def test_embed_says_what_is_wrong(client: httpx.AsyncClient) -> None:
    """In TEI's shape, naming its field."""
    for sent, says in (({"inputs": []}, "nothing to embed"), ({"inputs": [{}]}, "/inputs/0"), ({}, "/inputs")):
        reply = await client.post("/tei/embed", json=sent)
        assert (reply.status_code, reply.json()["error_type"]) == (400, "Validation")
        assert says in reply.json()["error"]


async def test_info_and_health(client: httpx.AsyncClient) -> None:
    """What is served and how much at once; 200 without a body when requests can be served."""
    info = (await client.get("/tei/info")).json()
    assert info["max_client_batch_size"] == 2048
    assert info["model_id"]
    assert "embedding" in info["model_type"]
    for path in ("/tei/health", "/health"):
        reply = await client.get(path)
        assert (reply.status_code, reply.content) == (200, b"")
