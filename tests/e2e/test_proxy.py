"""Three services behind a real Caddy with the Caddyfile of deploy/scale-out, where one is installed."""

import asyncio
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks.service import ROOT, Service
from tests.e2e.test_prometheus import free_port
from tests.fakes.faults import Fault
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import OpenAIServer

CADDY = shutil.which("caddy")
ADMIN = {"X-API-Key": "an-admins-key-for-a-real-caddy-in-front"}

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(CADDY is None, reason="caddy is not installed"),
]


@pytest.fixture
async def model() -> AsyncIterator[OpenAIServer]:
    """It writes a word in a tenth of a second."""
    async with OpenAIServer(model=FakeModel(name="gemma"), token_s=0.1) as server:
        yield server


@pytest.fixture
async def services(tmp_path: Path, model: OpenAIServer) -> AsyncIterator[list[Service]]:
    settings = {"WINNOW_ADMIN_KEY": ADMIN["X-API-Key"], "VLLM_URL": model.url}
    started = [Service(tmp_path / f"home{n}", tmp_path / f"service{n}.log", settings=settings) for n in range(3)]
    try:
        await asyncio.gather(*(service.start() for service in started))
        await asyncio.gather(*(service.until_ready() for service in started))
        yield started
    finally:
        for service in started:
            service.kill()


@pytest.fixture
def proxy(tmp_path: Path, services: list[Service]) -> Iterator[str]:
    """Its address."""
    url = f"http://127.0.0.1:{free_port()}"
    addresses = " ".join(service.url.removeprefix("http://") for service in services)
    homes = dict.fromkeys(("XDG_DATA_HOME", "XDG_CONFIG_HOME", "HOME"), str(tmp_path / "caddy"))
    environ = os.environ | homes | {"WINNOW_DOMAIN": url, "WINNOW_REPLICAS": addresses}
    command = [str(CADDY), "run", "--config", str(ROOT / "deploy/scale-out/Caddyfile"), "--adapter", "caddyfile"]
    with (
        (tmp_path / "caddy.log").open("wb") as log,
        subprocess.Popen(command, env=environ, stdout=log, stderr=log) as process,
    ):
        yield url
        process.kill()


async def until_open(client: httpx.AsyncClient) -> None:
    """Returns when Caddy listens."""
    async with asyncio.timeout(30):
        while True:
            try:
                await client.get("/version")
            except httpx.TransportError:
                await asyncio.sleep(0.05)
            else:
                return


async def test_three_services_behind_caddy(services: list[Service], proxy: str, model: OpenAIServer) -> None:
    """All get requests, streams come as they are written, nobody notices a kill, and figures stay inside."""
    async with httpx.AsyncClient(base_url=proxy, headers=ADMIN, timeout=60) as client:
        await until_open(client)
        assert [(await client.get(path)).status_code for path in ("/metrics", "/internal/presence")] == [404, 404]
        answers = await asyncio.gather(*(client.get("/version") for _ in range(60)))
        assert {answer.status_code for answer in answers} == {200}
        assert all("server" not in answer.headers for answer in answers)
        served = Counter(number for number, service in enumerate(services) if "/version" in service.said)
        assert set(served) == {0, 1, 2}

        model.expect(Fault.OK)
        arrived = []
        body = {"message": "Count to ten.", "stream": True}
        async with client.stream("POST", "/chat", json=body) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            async for _ in response.aiter_bytes():
                arrived.append(asyncio.get_running_loop().time())
        assert len(arrived) > 3, "the events came in one piece"

        services[0].kill()
        answers = await asyncio.gather(*(client.get("/version") for _ in range(60)))
        assert {answer.status_code for answer in answers} == {200}
        large = await client.post("/documents", json={"documents": [{"text": "x" * 11_000_000}]})
        assert large.status_code == 413, "the service's own limit"
