"""Two replicas of the service on one real PostgreSQL: processes of their own, which take turns at the requests."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.replicas import kill_replicas, spend_a_budget
from benchmarks.service import ROOT, Service, documents, found, put, rare_word
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


@contextmanager
def qdrant(folder: Path) -> Iterator[dict[str, str]]:
    """A server of the tests' own in a process, and the settings that lead to it."""
    command = [sys.executable, "-m", "tests.fakes.qdrant_server", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            port, grpc_port = server.stdout.readline().split()
            yield {"QDRANT_URL": f"http://127.0.0.1:{port}", "WINNOW_STORE_GRPC_PORT": grpc_port}
        finally:
            server.kill()


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


async def test_a_job_survives_its_replica(tmp_path: Path, postgres: Postgres) -> None:
    """The one that runs it is killed in its midst; the other takes over, and indexes each document once."""
    many = 300
    with qdrant(tmp_path / "qdrant") as store:
        settings = {**store, "WINNOW_DATABASE_URL": postgres.database(), "WINNOW_TEST_PASSAGE_MS": "10"}
        first, second = (
            Service(tmp_path / f"home{n}", tmp_path / f"service{n}.log", settings=settings) for n in range(2)
        )
        try:
            await first.start()
            async with first.client() as client:
                await answered(client, "/jobs")  # it writes
                await second.start()
                words = {f"d{n}": rare_word(n) for n in range(many)}
                body = {"collection": "letters", "documents": documents(words, 3)}
                job = (await client.post("/documents", json=body, params={"wait": "false"})).json()
                async with second.client() as other:
                    refused = await put(other, "letters", documents({"x": "later"}, 1))
                    assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
                    assert "another replica writes to the index" in refused.json()["detail"]
                before = await job_after(client, job["id"], 1)
            first.kill()
            assert before["created"] < many
            async with second.client() as client:
                done = await job_after(client, job["id"], many)
                assert {name: done[name] for name in ("created", "updated", "unchanged", "failed")} == {
                    "created": many,
                    "updated": 0,
                    "unchanged": 0,
                    "failed": 0,
                }
                (collection,) = (await answered(client, "/collections"))["collections"]
                assert (collection["documents"], collection["passages"]) == (many, many)
                for word in list(words.values())[:: many // 20]:
                    assert len(await found(client, "letters", word)) == 1
            assert second.unexpected == ""
        finally:
            first.kill()
            second.kill()
