"""What is asked for by a number or a code, in any width, from POST /documents to /search and /v1/rerank."""

from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.anyio

TEXTS = {
    "a": "Receipt 5301 was booked.",
    "b": "Receipt 5302 was booked.",
    "c": "Receipt 9914 was booked.",
    "wide": "品番ＸＫ－２０４５の重さは７㎏です。",
    "half": "ﾃﾚﾋﾞの台は別売です。",
    "soft": "Die Haft\u00adpflicht\u00adpolice ist kostenlos.",
    "plain": "Die Gebühr bleibt.",
    "price": "Das Angebot beläuft sich auf 2.715,80 Euro.",
    "near": "Das Angebot beläuft sich auf 2.715,90 Euro.",
}


async def first(client: httpx.AsyncClient, query: str) -> dict[str, Any]:
    """The first result among `TEXTS`, by words. The store is shared: the collection is deleted at once."""
    documents = [{"id": id, "text": text} for id, text in TEXTS.items()]
    response = await client.post("/documents", json={"collection": "codes", "documents": documents})
    assert response.status_code == 200, response.text
    response = await client.post("/search", json={"query": query, "collection": "codes", "mode": "sparse"})
    assert response.status_code == 200, response.text
    assert (await client.delete("/collections/codes")).is_success
    hit: dict[str, Any] = response.json()["results"][0]
    return hit


@pytest.mark.parametrize(
    ("query", "best"),
    [
        ("5302", "b"),
        ("receipt 9914", "c"),
        ("XK-2045", "wide"),
        ("xk2045", "wide"),
        ("7kg", "wide"),
        ("テレビ", "half"),
        ("Haftpflichtpolice", "soft"),
        ("offer of 2,715.80", "price"),
    ],
)
async def test_a_code_is_found_by_words_in_any_form(client: httpx.AsyncClient, query: str, best: str) -> None:
    """Digits are words, and half- and full-width forms, hyphens, soft hyphens and separators make no difference."""
    hit = await first(client, query)
    assert hit["document_id"] == best


async def test_texts_keep_their_characters(client: httpx.AsyncClient) -> None:
    """The analyser sees one form; what is returned is what was sent, at its offsets."""
    hit = await first(client, "XK-2045")
    assert (hit["text"], hit["start"], hit["end"]) == (TEXTS["wide"], 0, len(TEXTS["wide"]))


async def test_a_ranking_tells_numbers_apart(client: httpx.AsyncClient) -> None:
    """Without a model: the text with the number is first, the others clearly below."""
    texts = [
        "Receipt 5301 was booked.",
        "Receipt 5302 was booked.",
        "Receipt 5303 was booked.",
        "Receipt 1108 was sent.",
    ]
    response = await client.post(
        "/v1/rerank", json={"model": "winnow-rerank@none", "query": "receipt 5302", "documents": texts}
    )
    assert response.status_code == 200, response.text
    first, second, *_ = response.json()["results"]
    assert first["index"] == 1
    assert first["relevance_score"] > second["relevance_score"] + 0.05
