"""Two replicas of the service on one real PostgreSQL: processes of their own, which take turns at the requests."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.replicas import kill_replicas, qdrant, spend_a_budget
from benchmarks.service import Service, documents, found, rare_word
from indexing.postgres import Database
from indexing.writer import WriterLock
from tests.fakes.balancer import Balancer, balancing
from tests.fakes.postgres import Postgres

pytestmark = [pytest.mark.anyio, pytest.mark.postgres, pytest.mark.timeout(300)]


async def test_two_services_spend_a_budget_once(tmp_path: Path, postgres: Postgres) -> None:
    """Of two hundred requests at once as many are served as the budget pays for, and the others are told so (402)."""
    _, faults = await spend_a_budget(tmp_path, postgres, 120)
    assert faults == []


async def test_kills_leave_the_books_right(tmp_path: Path, postgres: Postgres) -> None:
    """No call is booked twice, what is spent is what the rows say, and no more is reserved than the killed had."""
    site, faults, _ = await kill_replicas(tmp_path, postgres, 2, seed=3)
    assert faults == []
    assert site.answered


async def answered(client: httpx.AsyncClient, path: str, within_s: float = 120) -> dict[str, Any]:
    """What the replica says, once it does: one that waits for its turn to write knows of no documents."""
    async with asyncio.timeout(within_s):
        while (response := await client.get(path)).status_code == httpx.codes.SERVICE_UNAVAILABLE:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    response.raise_for_status()
    return dict(response.json())


async def job_after(client: httpx.AsyncClient, job_id: str, documents: int) -> dict[str, Any]:
    """The job, once so many of its documents are indexed."""
    async with asyncio.timeout(120):
        while True:
            job = await answered(client, f"/jobs/{job_id}")
            if job["created"] >= documents:
                return job
            await asyncio.sleep(0.05)


KEY = {"X-API-Key": "k" * 40}
"""The admin's."""


async def test_any_replica_takes_uploads(tmp_path: Path, postgres: Postgres) -> None:
    """Behind a plain proxy documents, jobs, agents and commands reach the one that writes; when it is killed in the
    midst of a job, the other takes over, and indexes each document once.
    """
    many = 200
    with qdrant(tmp_path / "qdrant") as store:
        settings = {
            **store,
            "WINNOW_DATABASE_URL": postgres.database(),
            "WINNOW_TEST_PASSAGE_MS": "10",
            "WINNOW_ADMIN_KEY": KEY["X-API-Key"],
            "WINNOW_SERVICE_MAX_BODY_BYTES": "100000",
            "WINNOW_SERVICE_MAX_UPLOAD_BYTES": "6000000",
        }
        first, second = (
            Service(tmp_path / f"home{n}", tmp_path / f"service{n}.log", settings=settings) for n in range(2)
        )
        try:
            await first.start()
            async with first.client() as client:
                client.headers.update(KEY)
                await answered(client, "/jobs")  # it writes
            await second.start()
            async with second.client() as client:
                await uses_everything(client, second)
            await takes_the_same_heads(first, second)
            status, said = await first.run("serve", "--port", "0")
            assert (status, f"holds the home {first.home}" in said, "WINNOW_HOME" in said) == (3, True, True)
            await commands_reach_the_writer(Service(tmp_path / "none", tmp_path / "none.log", settings=settings))
            await survive_outages(first, second, postgres, settings["WINNOW_DATABASE_URL"])
            async with balancing(lambda: [first.url, second.url]) as proxy, client_of(proxy) as client:
                await counts_a_rate_once(client)
                words = {f"d{n}": rare_word(n) for n in range(many)}
                body = {"collection": "letters", "documents": documents(words, 3)}
                job = (await client.post("/documents", json=body, params={"wait": "false"})).json()
                before = await job_after(client, job["id"], 1)
                first.kill()
                assert before["created"] < many
                done = await job_after(client, job["id"], many)
                assert [done[name] for name in ("created", "updated", "unchanged", "failed")] == [many, 0, 0, 0]
                letters = await answered(client, "/collections/letters")
                assert (letters["documents"], letters["passages"]) == (many, many)
                for word in list(words.values())[:: many // 20]:
                    assert len(await found(client, "letters", word)) == 1
            await ends_when_it_is_replaced(second, postgres, settings["WINNOW_DATABASE_URL"])
            assert second.unexpected == ""
        finally:
            first.kill()
            second.kill()


async def ends_when_it_is_replaced(writer: Service, postgres: Postgres, url: str) -> None:
    """One that lost its connection, and with it the lock, to another replica."""
    end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory' AND granted"
    postgres.sql(url.rpartition("/")[2].partition("?")[0], end)
    database = Database(url)
    lock = WriterLock(database)
    async with asyncio.timeout(60):
        while writer.exit_status is None:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert (writer.exit_status, "winnow: another replica" in writer.said) == (3, True)
    lock.release()
    database.close()


async def uses_everything(client: httpx.AsyncClient, standby: Service) -> None:
    """What only the writer can serve, by a replica that does not write."""
    body = {"collection": "notes", "documents": documents({"a": rare_word("a")}, 2)}
    assert (await client.post("/documents", json=body)).status_code == httpx.codes.UNAUTHORIZED
    client.headers.update(KEY)
    stored = await client.post("/documents", json=body, headers={"X-Request-Id": "mine"})
    assert (stored.status_code, stored.json()["created"]) == (httpx.codes.OK, 1)
    assert stored.headers.get_list("x-request-id") == ["mine"]
    for many in (3000, 100_000):  # as much as fits into the buffers of the sockets, and more
        large = {"collection": "notes", "documents": documents({"b": rare_word("b")}, many)}
        refused = await client.post("/documents", json=large)
        assert refused.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
        assert "100000" in refused.json()["detail"]
    upload = await client.post("/documents", data={"collection": "notes"}, files={"files": ("c.txt", b"A cellar.")})
    assert upload.json()["created"] == 1
    await uploads_large_files(client, standby)
    assert (await client.delete("/documents/no%2Fsuch", params={"collection": "notes"})).status_code == 404
    page = await client.get("/documents/a", params={"collection": "notes"}, headers={"Accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")
    assert (await client.put("/collections/empty")).status_code == httpx.codes.CREATED
    assert (await client.delete("/collections/empty")).status_code == httpx.codes.NO_CONTENT
    call = {"name": "add_document", "arguments": {"id": "d", "text": "By an agent.", "collection": "notes"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    accept = {"Accept": "application/json, text/event-stream"}
    assert '"status":"created"' in (await client.post("/mcp", json=message, headers=accept)).text.replace("\\", "")
    file = standby.log.parent / "e.txt"
    file.write_text("By a command.")
    assert (await standby.run("index", str(file), "--collection", "notes"))[0] == 0
    assert (await client.get("/collections/notes")).json()["documents"] == 4
    status, said = await standby.run("documents", "list", "--collection", "notes")
    assert (status, "e.txt" in said) == (0, True)
    looped = await client.get("/jobs", headers={"X-Winnow-Hop": "guessed operator"})
    assert (looped.status_code, looped.headers["retry-after"]) == (httpx.codes.SERVICE_UNAVAILABLE, "2")


async def commands_reach_the_writer(alone: Service) -> None:
    """Of a home without a service: the replica that writes does the work."""
    file = alone.log.parent / "f.txt"
    file.write_text("By a command, without a service.")
    assert (await alone.run("index", str(file), "--collection", "notes"))[0] == 0
    for command in (("documents", "list", "--collection", "notes"), ("jobs", "list"), ("collections", "list")):
        status, said = await alone.run(*command)
        assert (status, "Traceback" in said) == (0, False)
    assert "f.txt" in (await alone.run("documents", "list", "--collection", "notes"))[1]


async def survive_outages(writer: Service, standby: Service, postgres: Postgres, url: str) -> None:
    """When the database is back the same replica writes, and the other one still does not."""

    def token() -> str:
        return postgres.sql(url.rpartition("/")[2].partition("?")[0], "SELECT token FROM winnow.writer WHERE url <> ''")

    before = token()
    for _ in range(3):
        postgres.stop()
        await asyncio.sleep(1)
        postgres.start()
        for one in (standby, writer):
            async with one.client() as client:
                client.headers.update(KEY)
                await answered(client, "/jobs")
        await asyncio.sleep(4)  # as long as two looks of the one that does not write
    assert (token(), writer.exit_status, standby.exit_status) == (before, None, None)


async def takes_the_same_heads(writer: Service, standby: Service) -> None:
    """What a standby hands on may have as many headers and bytes as what the writer is asked itself."""
    for many, padding, status in ((194, 1, 200), (195, 1, 431), (1, 65_200, 200), (1, 65_600, 431)):
        headers = {**KEY, **{f"X-{n}": "v" * padding for n in range(many)}}  # beside five of the client's own
        for one in (standby, writer):
            async with one.client() as client:
                answered = await client.get("/jobs", headers=headers)
            assert (answered.status_code, many, padding) == (status, many, padding)


async def uploads_large_files(client: httpx.AsyncClient, standby: Service) -> None:
    """They pass through the replica that does not write, and those that are too large end there."""
    line = b'{"id": "%d", "text": "A ledger."}' + b" " * 1_000_000 + b"\n"
    files = {"files": ("l.jsonl", b"".join(line % number for number in range(5)))}
    job = await client.post("/documents", params={"wait": "false"}, data={"collection": "ledgers"}, files=files)
    assert job.status_code == httpx.codes.ACCEPTED
    assert (await job_after(client, job.json()["id"], 5))["documents"] == 5
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="l.txt"\r\n\r\n'

    async def pieces() -> AsyncIterator[bytes]:
        yield head
        for _ in range(7):
            yield b" " * 1_000_000
        yield b"\r\n--b--\r\n"

    whole = b"".join([piece async for piece in pieces()])
    for content in (whole, pieces()):  # a length that is told, and chunks
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        refused = await client.post("/documents", content=content, headers=headers)
        assert refused.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
        assert "max_upload_bytes" in refused.json()["detail"]
    assert not [path for path in (standby.home / "jobs").glob("*")]


async def counts_a_rate_once(client: httpx.AsyncClient) -> None:
    """Of a key's requests by both replicas, of which one hands on to the other."""
    key = (await client.post("/keys", json={"name": "rated", "scopes": ["write"], "requests_per_minute": 3})).json()
    await asyncio.sleep(0.5)  # until both know it
    asked = [await client.get("/jobs", headers={"X-API-Key": key["key"]}) for _ in range(5)]
    assert [one.status_code for one in asked] == [200, 200, 200, 429, 429]
    assert [len(one.headers.get_list("ratelimit")) for one in asked] == [1] * 5


def client_of(proxy: Balancer) -> httpx.AsyncClient:
    """Each of its requests goes to the next replica."""
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=proxy.url, timeout=60, limits=limits, headers=KEY, trust_env=False)
