"""A real Prometheus reads the service: `make test-prometheus` brings one.

The service, Prometheus and a model's fake server run; every query of the dashboard must return data, and every alert
rule must load.
"""

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from benchmarks.service import Service
from tests.fakes.faults import Fault
from tests.fakes.monitoring_files import FOLDER, alerts, queries, scrape_config
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import OpenAIServer

pytestmark = [pytest.mark.prometheus, pytest.mark.anyio, pytest.mark.timeout(300)]

UNPACKED = Path(__file__).parents[2] / ".prometheus" / "usr" / "bin"
WITHIN_S = 120.0

ADMIN_KEY = "an-admins-key-for-a-real-prometheus"

CONFIGURATION = """
[access]
admin_key = "{admin_key}"

[budgets]
daily_usd = 100.0

[routing]
auto = ["gemma"]

[ranking]
controls = false

[backends.gemma]
kind = "vllm"
url = "{url}, {other_url}"
retries = 0
price = {{input = 1000.0, output = 1000.0}}
"""


def tool(name: str) -> str:
    """Prometheus of the system, or the one that make test-prometheus has unpacked."""
    found = shutil.which(name) or shutil.which(name, path=str(UNPACKED))
    assert found is not None, f"{name} is not here: make test-prometheus"
    return found


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.fixture
async def model() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer(model=FakeModel(name="gemma-3")) as server:
        yield server


@pytest.fixture
async def service(tmp_path: Path, model: OpenAIServer) -> AsyncIterator[Service]:
    # One server by two names, so that there are figures of several.
    other = model.url.replace("127.0.0.1", "localhost")
    written = CONFIGURATION.format(url=model.url, other_url=other, admin_key=ADMIN_KEY)
    (tmp_path / "winnow.toml").write_text(written, encoding="utf-8")
    service = Service(tmp_path / "home", tmp_path / "service.log")
    try:
        await service.start()
        await service.until_ready()
        yield service
    finally:
        service.kill()


@pytest.fixture
async def client(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    """Of the service, with an admin's key."""
    async with service.client() as client:
        client.headers["X-API-Key"] = ADMIN_KEY
        yield client


@pytest.fixture
async def key(client: httpx.AsyncClient) -> str:
    """Opens GET /metrics and nothing else."""
    response = await client.post("/keys", json={"name": "prometheus", "scopes": ["metrics"]})
    made: str = response.json()["key"]
    return made


def write_files(folder: Path, config: dict[str, Any], key: str) -> Path:
    """The configuration in `folder`, with the rules, and the file of the key that the container writes."""
    folder.mkdir()
    shutil.copy(FOLDER / "alerts.yml", folder)
    (folder / "key").write_text(key, encoding="utf-8")
    [job] = config["scrape_configs"]
    job["authorization"]["credentials_file"] = str(folder / "key")
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder / "prometheus.yml"


@pytest.fixture
def prometheus(tmp_path: Path, service: Service, key: str) -> Iterator[str]:
    """Its address. It reads twice a second what it reads every 15 s elsewhere; all else is as in deploy/monitoring."""
    config = scrape_config()
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    [job] = config["scrape_configs"]
    job["static_configs"] = [{"targets": [service.url.removeprefix("http://")]}]
    folder = tmp_path / "prometheus"
    written = write_files(folder, config, key)
    address = f"127.0.0.1:{free_port()}"
    command = [
        tool("prometheus"),
        f"--config.file={written}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]})
    try:
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()


async def use(client: httpx.AsyncClient, model: OpenAIServer, number: int) -> None:
    """A bit of everything, failures too."""
    text = f"Dental cover number {number} starts on the first day."
    await client.post("/documents", json={"documents": [{"id": f"d{number}", "text": text}]})
    for query in ("dental cover", f"dental {number}"):
        await client.post("/search", json={"query": query, "backend": "gemma"})
    await client.post("/answer", json={"query": "When does dental cover start?"})
    await client.post("/chat", json={"message": "hello", "stream": True})
    await client.get(f"/nowhere/{number}")
    await client.get("/collections", headers={"X-API-Key": "unknown"})
    model.expect(Fault.BAD_REQUEST)
    await client.post("/chat", json={"message": "hello"})
    model.expect(Fault.BAD_REQUEST)
    await client.post("/search", json={"query": f"parking {number}", "backend": "gemma"})


async def ask(client: httpx.AsyncClient, expression: str) -> list[Any]:
    """What Prometheus finds for a query of the dashboard."""
    query = expression.replace("$__rate_interval", "1m")
    reply = (await client.get("/api/v1/query", params={"query": query})).json()
    assert reply["status"] == "success", reply
    found: list[Any] = reply["data"]["result"]
    return found


async def test_every_query_of_the_dashboard_returns_data(
    client: httpx.AsyncClient, prometheus: str, model: OpenAIServer
) -> None:
    """Once the service has been used; and all alert rules are loaded and evaluated without an error."""
    missing = list(queries())
    async with (
        httpx.AsyncClient(base_url=prometheus, trust_env=False) as reader,
        asyncio.timeout(WITHIN_S),
    ):
        number = 0
        while missing:
            await use(client, model, number := number + 1)
            try:
                missing = [name for name in missing if not await ask(reader, queries()[name])]
            except httpx.TransportError:
                await asyncio.sleep(0.2)  # Prometheus is starting
        [group] = (await reader.get("/api/v1/rules")).json()["data"]["groups"]
    assert {rule["name"]: rule["health"] for rule in group["rules"]} == dict.fromkeys(alerts(), "ok")


def test_promtool_accepts_the_files(tmp_path: Path) -> None:
    """Prometheus' own check of configuration and rules."""
    command = [tool("promtool"), "check", "config", str(write_files(tmp_path / "prometheus", scrape_config(), "a key"))]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    """Each rule stays silent over a quiet hour, and fires in the trouble that it is for."""
    trouble = {
        "WinnowDown": ['up{job="winnow"} 0x60'],
        "WinnowNotReady": ['winnow_ready{dependency="store"} 0x60'],
        "WinnowFails": [
            'winnow_requests_total{status="200"} 0+10x60',
            'winnow_requests_total{status="503"} 0+2x60',
        ],
        "WinnowSearchIsSlow": [
            'winnow_stage_duration_seconds_bucket{stage="retrieve",le="0.5"} 0x60',
            'winnow_stage_duration_seconds_bucket{stage="retrieve",le="1"} 0+9x60',
            'winnow_stage_duration_seconds_bucket{stage="retrieve",le="+Inf"} 0+9x60',
        ],
        "WinnowRefuses": ['winnow_gate_refused_total{gate="searches"} 0+3x60'],
        "WinnowDegrades": ['winnow_degraded_total{stage="rank"} 0+30x60'],
        "WinnowBackendDown": ['winnow_backend_up{backend="gemma"} 0x60'],
        "WinnowReplicaDown": ['winnow_replica_up{backend="gemma",replica="2"} 0x60'],
        "WinnowBudgetNearlySpent": ["winnow_budget_spent_usd 9x60", "winnow_budget_limit_usd 10x60"],
        "WinnowLedgerFails": ["winnow_ledger_failing 1x60"],
        "WinnowDiskNearlyFull": ["winnow_disk_free_bytes 600x60", "winnow_disk_reserve_bytes 500x60"],
        "WinnowCollectionDamaged": ['winnow_collections{status="damaged"} 1x60'],
        "WinnowJobsFail": ['winnow_jobs_ended_total{state="failed"} 0+1x60'],
    }
    assert set(trouble) == set(alerts())
    quiet = [
        'up{job="winnow"} 1x60',
        'winnow_ready{dependency="store"} 1x60',
        'winnow_requests_total{status="200"} 0+100x60',
        'winnow_requests_total{status="503"} 0x60',
        'winnow_gate_refused_total{gate="searches"} 7x60',
        'winnow_backend_up{backend="gemma"} 1x60',
        'winnow_replica_up{backend="gemma",replica="2"} 1x60',
        "winnow_budget_spent_usd 1x60",
        "winnow_budget_limit_usd 10x60",
        "winnow_ledger_failing 0x60",
        "winnow_ledger_lag_seconds 0x60",
        "winnow_ledger_lost_total 3x60",
        "winnow_disk_free_bytes 9000x60",
        "winnow_disk_reserve_bytes 500x60",
        'winnow_collections{status="damaged"} 0x60',
        'winnow_jobs_ended_total{state="failed"} 2x60',
    ]
    tests = [_scenario([name], series) for name, series in trouble.items()]
    (tmp_path / "tests.yml").write_text(
        yaml.safe_dump({"rule_files": [str(FOLDER / "alerts.yml")], "tests": [*tests, _scenario([], quiet)]})
    )
    checked = subprocess.run(
        [tool("promtool"), "test", "rules", str(tmp_path / "tests.yml")], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def _scenario(firing: list[str], series: list[str]) -> dict[str, Any]:
    """An hour of these series; at its end just the alerts `firing` fire."""
    split = [one.rpartition(" ") for one in series]
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, _, values in split],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": "1h",
                "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in firing],
            }
        ],
    }
