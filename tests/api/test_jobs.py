"""Large uploads: 202, GET /jobs, GET and DELETE /jobs/{id}."""

import asyncio
from typing import Any

import httpx
import pytest

from app.services.documents import MAX_BODY_BYTES
from app.services.jobs import JobLimits, Jobs
from app.wiring import Services

pytestmark = pytest.mark.anyio


async def finished(client: httpx.AsyncClient, location: str) -> dict[str, Any]:
    """The job once it has ended."""
    async with asyncio.timeout(60):
        while True:
            job: dict[str, Any] = (await client.get(location)).json()
            if job["finished_at"] is not None:
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


async def test_files_are_read_by_the_job(client: httpx.AsyncClient) -> None:
    """A file of records gives several documents, which are counted once it has been read."""
    rows = b"".join(b'{"id": "%d", "text": "text %d"}\n' % (n, n) for n in range(3))
    files = {"files": ("rows.jsonl", rows, "application/jsonl")}
    response = await client.post("/documents?wait=false", files=files, data={"collection": "rows"})
    assert (response.status_code, response.json()["documents"]) == (202, None)
    job = await finished(client, response.headers["location"])
    assert (job["state"], job["documents"], job["created"], job["seconds_left"]) == ("done", 3, 3, None)


async def test_what_takes_long_is_a_job(client: httpx.AsyncClient, services: Services) -> None:
    """By the passages that are expected and the measured speed, whether as JSON or as a file; a sentence is none."""
    services.documents.indexing_time.add(2000, 200)  # 10 passages a second
    long = {"collection": "much", "documents": [{"id": "d", "text": "dental cover " + " " * 60_000}]}
    response = await client.post("/documents", json=long)
    assert (response.status_code, response.json()["documents"]) == (202, 1)
    files = {"files": ("long.txt", b"office hours " + b" " * 60_000)}
    as_file = await client.post("/documents", files=files, data={"collection": "much"})
    assert (as_file.status_code, as_file.json()["documents"]) == (202, None)
    for job in (response, as_file):
        assert (await finished(client, job.headers["location"]))["created"] == 1
    short = await client.post("/documents", json={"collection": "much", "documents": [{"text": "A sentence."}]})
    assert (short.status_code, short.json()["created"]) == (200, 1)


async def test_a_caller_may_wait_in_any_case(client: httpx.AsyncClient, services: Services) -> None:
    """`wait=true` answers when everything is indexed."""
    services.documents.indexing_time.add(2000, 200)
    body = {"collection": "patient", "documents": [{"id": "d", "text": "dental cover " + " " * 60_000}]}
    response = await client.post("/documents?wait=true", json=body)
    assert (response.status_code, response.json()["created"]) == (200, 1)


async def test_a_job_for_a_bad_collection_is_refused_at_once(client: httpx.AsyncClient) -> None:
    """What cannot work is not queued."""
    body = {"collection": "a b", "documents": [{"text": "x"}]}
    assert (await client.post("/documents?wait=false", json=body)).status_code == 400


async def test_an_unknown_job_is_not_found(client: httpx.AsyncClient) -> None:
    """404 that says which jobs are remembered; for cancelling, too."""
    for response in (await client.get("/jobs/nope"), await client.delete("/jobs/nope")):
        assert response.status_code == 404
        assert "the last 1000" in response.json()["detail"]


async def test_jobs_are_listed_and_forgotten(client: httpx.AsyncClient) -> None:
    """The newest first, page by page, by state and collection; DELETE forgets a finished one."""
    locations = []
    for name in ("one", "two", "one"):
        body = {"collection": f"listed-{name}", "documents": [{"text": name}]}
        locations.append((await client.post("/documents?wait=false", json=body)).headers["location"])
        await finished(client, locations[-1])
    first = (await client.get("/jobs?limit=2")).json()
    second = (await client.get("/jobs", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [f"/jobs/{job['id']}" for job in first["jobs"] + second["jobs"]][:3] == locations[::-1]
    assert "errors" not in first["jobs"][0]
    of_two = (await client.get("/jobs?collection=listed-two&state=done")).json()["jobs"]
    assert [f"/jobs/{job['id']}" for job in of_two] == [locations[1]]
    assert (await client.get("/jobs?state=failed")).json() == {"jobs": [], "next_cursor": None}
    assert (await client.delete(locations[1])).status_code == 204
    assert (await client.get(locations[1])).status_code == 404


@pytest.mark.parametrize("query", ["cursor=x", "cursor=1" + "0" * 30, "limit=0", "state=odd"])
async def test_a_bad_page_of_jobs_is_refused(client: httpx.AsyncClient, query: str) -> None:
    """400, naming the parameter."""
    response = await client.get(f"/jobs?{query}")
    assert response.status_code == 400
    assert query.partition("=")[0] in response.json()["detail"]


async def test_too_many_jobs_say_when_to_come_back(client: httpx.AsyncClient, services: Services) -> None:
    """503 with Retry-After, and nothing of it is indexed."""
    services.jobs = Jobs(services.settings.index.home, services.documents, services.disk, JobLimits(unfinished=0))
    response = await client.post("/documents?wait=false", json={"collection": "full", "documents": [{"text": "x"}]})
    assert (response.status_code, response.json()["type"]) == (503, "urn:winnow:problem:overloaded")
    assert int(response.headers["retry-after"]) > 0
    assert (await client.get("/collections/full")).status_code == 404


async def test_bodies_that_do_not_fit_into_memory_are_refused(client: httpx.AsyncClient, services: Services) -> None:
    """503 with Retry-After while too much is being received; what is held is let go when a request ends."""
    body = {"collection": "memory", "documents": [{"text": "x"}]}
    with services.documents.receiving() as count:
        count(MAX_BODY_BYTES)
        refused = await client.post("/documents", json=body)
    assert (refused.status_code, refused.json()["type"]) == (503, "urn:winnow:problem:overloaded")
    for _ in range(2):
        assert (await client.post("/documents", json=body)).status_code == 200


async def test_who_writes_while_a_job_runs_has_the_last_word(client: httpx.AsyncClient) -> None:
    """What is put or deleted after a job was taken stays so, whether the job had written it yet or not."""
    texts = [{"id": f"d{n:03}", "text": f"the text of the job, number {n}"} for n in range(300)]
    before = await client.post("/documents", json={"collection": "order", "documents": texts[-2:]})
    assert before.json()["created"] == 2
    job = await client.post(
        "/documents?wait=false",
        json={
            "collection": "order",
            "documents": texts[:298] + [{"id": document["id"], "text": "of the job"} for document in texts[-2:]],
        },
    )
    put = await client.post(
        "/documents?wait=true",
        json={
            "collection": "order",
            "documents": [{"id": "d000", "text": "of the caller"}, {"id": "d150", "text": "of the caller"}, texts[-2]],
        },
    )
    assert put.json()["failed"] == 0
    assert (await client.delete("/documents/d299?collection=order")).status_code == 204
    assert (await finished(client, job.headers["location"]))["state"] == "done"
    for document_id, text in (("d000", "of the caller"), ("d150", "of the caller"), ("d298", texts[-2]["text"])):
        shown = await client.get(f"/documents/{document_id}?collection=order")
        assert shown.json()["text"] == text
    assert (await client.get("/documents/d299?collection=order")).status_code == 404
    assert (await client.get("/documents/d001?collection=order")).status_code == 200
