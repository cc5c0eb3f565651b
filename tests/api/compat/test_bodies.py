"""Bodies as other products' clients write them."""

import gzip

import httpx
import pytest

pytestmark = pytest.mark.anyio

TYPE = {"Content-Type": "application/json"}


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/v1/embeddings", "/v1/chat/completions", "/tei/rerank"])
async def test_half_a_character_is_refused_by_name(client: httpx.AsyncClient, path: str) -> None:
    """As everywhere else: 400 that says what is wrong."""
    response = await client.post(path, content=rb'{"query": "dental \ud83d", "input": "and more text"}', headers=TYPE)
    assert response.status_code == 400
    assert "lone surrogate" in response.text


async def test_a_packed_body_is_called_so(client: httpx.AsyncClient) -> None:
    """415, not a riddle about byte 0."""
    body = gzip.compress(b'{"query": "a", "documents": ["a"]}')
    response = await client.post("/v1/rerank", content=body, headers={**TYPE, "Content-Encoding": "gzip"})
    assert response.status_code == 415
    assert "Content-Encoding gzip is not supported" in response.json()["message"]
