"""What reaches no route, from clients of other products."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar import Litestar

from tests.api.conftest import local_client
from tests.fakes.models import client_of, services_for

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/v1/rerank", "/v2/embed"])
async def test_a_path_that_is_not_there_is_told_to_every_client(client: httpx.AsyncClient, path: str) -> None:
    """404 where OpenAI's, Cohere's and Jina's clients look for a text, with the paths that there are."""
    response = await client.post(path, json={"model": "winnow"})
    reply = response.json()
    assert (response.status_code, response.headers["content-type"]) == (404, "application/json")
    assert reply["error"]["message"] == reply["message"] == reply["detail"]
    assert "/v1/chat/completions" in reply["message"]


async def test_a_wrong_method_is_told_to_every_client(client: httpx.AsyncClient) -> None:
    """405 with Allow, and a text where they look for it."""
    response = await client.get("/v1/rerank")
    assert (response.status_code, "POST" in response.headers["allow"]) == (405, True)
    assert response.json()["error"]["message"] == response.json()["message"]


async def test_who_is_not_let_in_hears_why(app: Litestar) -> None:
    """The first thing that goes wrong for a product in a container: its users see what to set."""
    async with local_client(app, "172.18.0.5") as stranger:
        response = await stranger.post("/v1/chat/completions", json={})
    assert (response.status_code, response.headers["content-type"]) == (403, "application/json")
    assert "WINNOW_ALLOW_ANONYMOUS=1" in response.json()["error"]["message"]


LONG = "x" * 100_000
TURNS = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/rerank", {"model": f"winnow-rerank@{LONG}", "query": "q", "documents": ["a"]}),
        ("/v1/embeddings", {"model": LONG, "input": "a"}),
        ("/v1/chat/completions", {"model": LONG, "messages": TURNS}),
        ("/v1/chat/completions", {"model": f"winnow:{LONG}", "messages": TURNS}),
        ("/v1/chat/completions", {"model": f"winnow@{LONG}", "messages": TURNS}),
        ("/retrieval", {"knowledge_id": LONG, "query": "q", "retrieval_setting": {"top_k": 1, "score_threshold": 0}}),
        ("/api/v1/retrieval", {"dataset_ids": [LONG], "question": "q"}),
    ],
)
async def test_a_name_without_end_is_not_repeated(tmp_path: Path, path: str, body: dict[str, Any]) -> None:
    """Neither in the reply nor, as it is the same text, in the log."""
    async with client_of(services_for(tmp_path, {})) as client:
        reply = (await client.post(path, json=body)).text
    assert "xxx" in reply
    assert len(reply) < 2_000
