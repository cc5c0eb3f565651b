"""Open WebUI's external document loader and external web search."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, unquote

import httpx
import pytest

from app.api.multipart import MAX_UPLOAD_BYTES
from app.config.settings import Settings
from app.wiring import Services
from tests.fakes.corpus import fill, passage
from tests.unit.indexing.readers.making import pdf, zipped

pytestmark = pytest.mark.anyio


async def process(client: httpx.AsyncClient, data: bytes, name: str, media_type: str = "") -> httpx.Response:
    """The request that Open WebUI sends."""
    headers = {"X-Filename": quote(name), "Authorization": "Bearer key", "X-OpenWebUI-User-Name": "Ann"}
    return await client.put("/process", content=data, headers={**headers, "Content-Type": media_type})


async def test_a_text_becomes_a_document(client: httpx.AsyncClient) -> None:
    """Its text and what is known of it, under the name that the file had."""
    response = await process(client, "# Zähne\n\nGut putzen.".encode(), "Über Zähne.md", "text/markdown")
    assert response.status_code == 200
    [document] = response.json()
    assert document["page_content"] == "# Zähne\n\nGut putzen."
    assert document["metadata"]["source"] == "Über Zähne.md"
    assert document["metadata"]["title"] == "Zähne"


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("aa0d0ceb-0abc-4bb4-ab1c-15e5adfe27d4_price list.csv", "price list"),
        ("aa0d0ceb-0abc-4bb4-ab1c-15e5adfe27d4_.csv", ".csv"),
        ("2024_prices.csv", "2024_prices"),
    ],
)
async def test_a_file_has_its_users_name(client: httpx.AsyncClient, sent: str, name: str) -> None:
    """Without the id that Open WebUI keeps it under, which stands before it."""
    [document] = (await process(client, b"item,price\npen,2\n", sent, "text/csv")).json()
    assert document["metadata"]["title"] == name
    assert document["metadata"]["source"] == f"{name.removesuffix('.csv')}.csv"


async def test_pages_come_one_by_one(client: httpx.AsyncClient) -> None:
    """Numbered from 0, since Open WebUI adds one when it shows them."""
    data = pdf([(72, 72, "First page here.")], [(72, 72, "Second page there.")])
    first, second = (await process(client, data, "two.pdf", "application/pdf")).json()
    assert (first["page_content"], second["page_content"]) == ("First page here.", "Second page there.")
    assert [one["metadata"]["page"] for one in (first, second)] == [0, 1]
    assert [one["metadata"]["page_label"] for one in (first, second)] == ["1", "2"]


async def test_records_come_one_by_one(client: httpx.AsyncClient) -> None:
    """A file of records is several documents."""
    data = b'{"id": "a", "text": "cats", "kind": "pet"}\n{"id": "b", "text": "cows"}\n'
    cats, cows = (await process(client, data, "animals.jsonl")).json()
    assert (cats["page_content"], cows["page_content"]) == ("cats", "cows")
    assert cats["metadata"]["kind"] == "pet"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"", "empty.txt"),
        (b" \n", "blank.md"),
        (b"x", "old.mobi"),
        (bytes(range(256)) * 8, "noise.bin"),
        (pdf([]), "scan.pdf"),
    ],
)
async def test_what_others_may_read_is_left_to_them(client: httpx.AsyncClient, data: bytes, name: str) -> None:
    """422 with the words upon which Open WebUI tries its own readers."""
    response = await process(client, data, name)
    assert response.status_code == 422
    assert "No extractable text" in response.json()["detail"]


@pytest.mark.parametrize(
    ("data", "name"),
    [(b"%PDF-1.7 and no more", "broken.pdf"), (zipped({"word/document.xml": b"\0" * 30_000_000}), "bomb.docx")],
)
async def test_what_is_damaged_or_hostile_goes_no_further(client: httpx.AsyncClient, data: bytes, name: str) -> None:
    """422 with the reason, and without those words: its own readers are not to try."""
    response = await process(client, data, name)
    assert response.status_code == 422
    assert response.json()["detail"]
    assert "No extractable text" not in response.json()["detail"]


async def test_a_file_may_be_larger_than_a_json_body(client: httpx.AsyncClient, settings: Settings) -> None:
    """Up to the limit of uploads; above it, 413."""
    piece = b"word " * (settings.service.max_body_bytes // 5)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(MAX_UPLOAD_BYTES // len(piece) + 1):
            yield piece

    assert (await process(client, piece + b"more words", "big.txt")).status_code == 200
    response = await client.put("/process", content=pieces())
    assert (response.status_code, set(response.json())) == (413, {"detail"})


async def test_nothing_is_indexed(client: httpx.AsyncClient) -> None:
    """Open WebUI keeps what it reads itself."""

    async def passages() -> dict[str, int]:
        # Not the documents: the corpus has no manifest, and its documents are recovered in the background.
        collections = (await client.get("/collections")).json()["collections"]
        return {collection["name"]: collection["passages"] for collection in collections}

    before = await passages()
    await process(client, b"secret words", "a.txt")
    assert await passages() == before


async def search(client: httpx.AsyncClient, query: str = "dental", **parameters: str) -> list[dict[str, Any]]:
    body = {"query": query, "count": 2}
    response = await client.post("/openwebui/search", json=body, params=parameters)
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()
    return results


async def test_passages_look_like_pages_of_the_web(client: httpx.AsyncClient) -> None:
    """`count` results with link, title and snippet; the link leads to the passage in the document here."""
    results = await search(client)
    assert len(results) == 2
    assert results[0] == {
        "link": "http://localhost/documents/dental?collection=default&quote=0,45#char=0,45",
        "title": "Dental",
        "snippet": "Dental cover starts on the first day of work.",
    }


async def test_links_lead_somewhere(client: httpx.AsyncClient) -> None:
    """To the page itself where the document is one; else to the document, whatever its id is made of."""
    await client.post(
        "/documents",
        json={
            "collection": "web",
            "documents": [
                {"id": "a/b c?d", "text": "dental one"},
                {"id": "page", "text": "dental page", "source": "https://example.org/x?y=1"},
            ],
        },
    )
    links = {result["snippet"]: result["link"] for result in await search(client, collection="web")}
    assert links["dental page"] == "https://example.org/x?y=1"
    kept = await client.get(links["dental one"].removeprefix("http://localhost"))
    assert kept.json()["id"] == "a/b c?d" == unquote(links["dental one"].rsplit("/", 1)[1].partition("?")[0])


async def test_refusals_are_in_its_shape(client: httpx.AsyncClient) -> None:
    """A `detail`, and the status of the error."""
    response = await client.post("/openwebui/search?collection=nope", json={"query": "x", "count": 3})
    assert (response.status_code, set(response.json())) == (404, {"detail"})
    response = await client.post("/openwebui/search", json={"query": ""})
    assert (response.status_code, set(response.json())) == (400, {"detail"})


async def test_any_collection_can_be_searched(client: httpx.AsyncClient, services: Services) -> None:
    """It and who ranks are parameters of the address."""
    await fill(await services.store.get(), [passage("other", "elsewhere")], name="annex")
    [result] = await search(client, "elsewhere", collection="annex", backend="none")
    assert result["title"] == "Other"
