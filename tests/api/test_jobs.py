"""Large uploads: 202, and GET /jobs/{id}."""

import asyncio
from typing import Any

import httpx
import pytest

from app.wiring import Services

pytestmark = pytest.mark.anyio


async def finished(client: httpx.AsyncClient, location: str) -> dict[str, Any]:
    """The job once it has ended."""
    async with asyncio.timeout(60):
        while True:
            job: dict[str, Any] = (await client.get(location)).json()
            if job["state"] in ("done", "failed"):
                return job
            await asyncio.sleep(0.02)


async def test_a_caller_need_not_wait(client: httpx.AsyncClient) -> None:
    """`wait=false` answers 202 with where to look; the job counts what was done and tells what failed."""
    documents = [{"id": "d", "text": "dental"}, {"text": 1}, {"id": "o", "text": "office"}]
    body = {"collection": "later", "documents": documents}
    response = await client.post("/documents?wait=false", json=body)
    assert response.status_code == 202
    assert response.json()["state"] == "queued"
    job = await finished(client, response.headers["location"])
    assert (job["state"], job["documents"], job["created"], job["failed"]) == ("done", 3, 2, 1)
    assert (job["errors"][0]["reason"], job["detail"]) == ("invalid", None)
    assert "/documents/1" in job["errors"][0]["detail"]
    found = await client.post("/search", json={"query": "dental", "collection": "later"})
    assert found.json()["results"][0]["document_id"] == "d"


async def test_many_documents_are_a_job(client: httpx.AsyncClient) -> None:
    """More than 200 documents answer 202, whether they come as JSON or as one file of records."""
    documents = [{"id": str(n), "text": f"text {n}"} for n in range(201)]
    large = await client.post("/documents", json={"collection": "many", "documents": documents})
    rows = b"".join(b'{"id": "%d", "text": "text %d"}\n' % (n, n) for n in range(201))
    files = {"files": ("rows.jsonl", rows, "application/jsonl")}
    read = await client.post("/documents", files=files, data={"collection": "many"})
    assert (large.status_code, read.status_code) == (202, 202)
    first, second = await finished(client, large.headers["location"]), await finished(client, read.headers["location"])
    assert (first["created"], second["documents"]) == (201, 201)
    assert second["created"] == 0
    assert (await client.get("/collections/many")).json()["documents"] == 201


async def test_much_text_is_a_job(client: httpx.AsyncClient) -> None:
    """More than 5 MB answer 202."""
    body = {"collection": "much", "documents": [{"id": "d", "text": " " * 5_000_000 + "dental"}]}
    response = await client.post("/documents", json=body)
    assert response.status_code == 202
    assert (await finished(client, response.headers["location"]))["created"] == 1


async def test_a_job_for_a_bad_collection_is_refused_at_once(client: httpx.AsyncClient) -> None:
    """What cannot work is not queued."""
    body = {"collection": "a b", "documents": [{"text": "x"}]}
    assert (await client.post("/documents?wait=false", json=body)).status_code == 400


async def test_an_unknown_job_is_not_found(client: httpx.AsyncClient) -> None:
    """404 that says why a job may be forgotten."""
    response = await client.get("/jobs/nope")
    assert response.status_code == 404
    assert "restart" in response.json()["detail"]


async def test_a_full_queue_says_when_to_come_back(client: httpx.AsyncClient, services: Services) -> None:
    """503 with Retry-After, and nothing of it is indexed."""

    running = asyncio.Event()

    async def never(_: object) -> None:
        running.set()
        await asyncio.Event().wait()

    services.jobs.submit("full", never, 1)
    await running.wait()  # it has left the queue
    for _ in range(100):
        services.jobs.submit("full", never, 1)
    response = await client.post("/documents?wait=false", json={"collection": "full", "documents": [{"text": "x"}]})
    assert (response.status_code, response.json()["type"]) == (503, "urn:winnow:problem:overloaded")
    assert int(response.headers["retry-after"]) > 0
