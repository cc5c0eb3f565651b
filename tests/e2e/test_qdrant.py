"""The service over a Qdrant server: a fake one with the real engine, in a process that is killed and started again."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.running import ROOT, RunningServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

KEY = "the-key-of-the-server"
PLENTY_S = 60.0
SAMPLES = str(ROOT / "app" / "samples")


class Qdrant:
    """The fake in a process of its own, always at the same ports and on the same data."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.port, self.grpc_port = 0, 0

    def start(self) -> None:
        arguments = [str(self._directory), str(self.port), str(self.grpc_port), KEY]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.qdrant_server", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port, self.grpc_port = map(int, self._process.stdout.readline().split())

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(timeout=PLENTY_S)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def environ(self) -> dict[str, str]:
        return {
            "QDRANT_URL": f"http://127.0.0.1:{self.port}",
            "QDRANT_API_KEY": KEY,
            "WINNOW_STORE_GRPC_PORT": str(self.grpc_port),
            "WINNOW_STORE_TIMEOUT_S": "5",
            "WINNOW_STORE_QUANTIZATION": "scalar",
        }


@pytest.fixture
def qdrant(tmp_path: Path) -> Iterator[Qdrant]:
    server = Qdrant(tmp_path / "qdrant")
    server.start()
    yield server
    server.kill()


class Service(RunningServer):
    """The service over it, with an embedder that needs no model and takes its time; and a client of it."""

    def __init__(self, home: Path, qdrant: Qdrant) -> None:
        environ = {**qdrant.environ(), "WINNOW_TEST_PASSAGE_MS": "20"}
        super().__init__(home, "tests.fakes.quick_winnow", "serve", "--port", "0", "--samples", environ=environ)
        self.client = httpx.Client(base_url=self.url, timeout=PLENTY_S)

    def close(self) -> None:
        self.client.close()
        super().close()

    def status(self, path: str, body: Any = None) -> int:
        return (self.client.get(path) if body is None else self.client.post(path, json=body)).status_code

    def documents(self) -> dict[str, int]:
        """Every document with its passages."""
        listed: list[dict[str, Any]] = self.client.get("/documents", params={"limit": 1000}).json()["documents"]
        return {one["id"]: one["passages"] for one in listed}

    def index(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """`winnow index`, which hands its work to the running service."""
        command = [sys.executable, "-m", "app.cli.main", "index", *arguments]
        environ = {**os.environ, "WINNOW_HOME": str(self.home)}
        return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=PLENTY_S)


@pytest.fixture
def service(tmp_path: Path, qdrant: Qdrant) -> Iterator[Service]:
    running = Service(tmp_path / "home", qdrant)
    try:
        until(lambda: running.status("/health/ready") == 200)
        yield running
    finally:
        running.close()


def until(done: Callable[[], bool]) -> None:
    for _ in range(int(PLENTY_S / 0.1)):
        if done():
            return
        time.sleep(0.1)
    raise AssertionError("it never came to that")


SEARCH = {"query": "dental cover", "limit": 3}
QUESTION = {"query": "When does dental cover start?"}


def test_the_server_is_killed_and_started_again(service: Service, qdrant: Qdrant) -> None:
    """While it is away all that needs it is 503 with the time to wait; then all is there, after a rebuild too."""
    before, results = service.documents(), service.client.post("/search", json=SEARCH).json()["results"]
    assert "first day" in service.client.post("/answer", json=QUESTION).json()["answer"]
    assert service.index("--rebuild", SAMPLES).returncode == 0
    assert service.documents() == before
    qdrant.kill()
    new = {"documents": [{"id": "new", "text": "A new text about herons."}]}
    for response in (
        service.client.post("/search", json=SEARCH),
        service.client.post("/answer", json=QUESTION),
        service.client.post("/documents", json=new),
        service.client.get("/collections"),
    ):
        assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
        assert "the vector store does not answer" in response.json()["detail"]
    store, *_ = service.client.get("/health/ready").json()["dependencies"]
    assert "the vector store does not answer" in store["detail"]
    failed = service.index(SAMPLES)
    assert failed.returncode != 0
    assert "the vector store does not answer" in failed.stderr
    qdrant.start()
    until(lambda: service.status("/search", SEARCH) == 200)
    assert service.client.post("/search", json=SEARCH).json()["results"] == results
    assert service.client.post("/documents", json=new).status_code == 200
    assert service.index(SAMPLES).returncode == 0
    assert service.documents() == before | {"new": 1}


COUNT = 200


def test_a_job_outlives_the_server(service: Service, qdrant: Qdrant) -> None:
    """What was accepted before the server was killed is indexed once it is back, every document once."""
    before = service.documents()
    accepted = {f"note-{n}": f"Note {n} is about the heron of the {n}th pond." for n in range(COUNT)}
    body = {"documents": [{"id": key, "text": text} for key, text in accepted.items()]}
    response = service.client.post("/documents", params={"wait": "false"}, json=body)
    assert response.status_code == 202
    job = response.headers["Location"]
    until(lambda: service.client.get(job).json()["state"] == "running")
    qdrant.kill()
    assert service.client.get(job).json()["created"] < COUNT
    until(lambda: service.status("/search", SEARCH) == 503)
    qdrant.start()
    until(lambda: service.client.get(job).json()["state"] not in ("queued", "running"))
    assert service.documents() == before | dict.fromkeys(accepted, 1)
    found = service.client.post("/search", json={"query": "heron of the 41th pond", "limit": 1}).json()["results"]
    assert found[0]["document_id"] == "note-41"


def test_a_second_service_on_a_home_is_refused(service: Service, qdrant: Qdrant) -> None:
    """Before it serves, and it names the other one: both would write, and only one of them be found by commands."""
    second = subprocess.run(
        [sys.executable, "-m", "tests.fakes.quick_winnow", "serve", "--port", "0"],
        cwd=ROOT,
        env={**os.environ, "WINNOW_HOME": str(service.home), **qdrant.environ()},
        capture_output=True,
        text=True,
        timeout=PLENTY_S,
    )
    assert second.returncode == 3
    assert f"process {service.process.pid} holds the index in {service.home}" in second.stderr
    assert "running on" not in second.stderr + second.stdout
