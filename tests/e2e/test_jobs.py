"""Jobs of a service that is killed, stopped and started again."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.running import RunningServer

pytestmark = pytest.mark.slow

COUNT = 300
SERVER = "tests.fakes.slow_server"


def letters(number: int) -> str:
    """A word that no other number has."""
    return "qz" + "".join(chr(ord("a") + int(digit)) for digit in str(number))


def records(count: int, word: str) -> bytes:
    return b"".join(b'{"id": "d%d", "text": "%s %s"}\n' % (n, word.encode(), letters(n).encode()) for n in range(count))


class Service:
    """Processes on one home, one after the other."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._running = RunningServer(home, SERVER)

    def end(self, with_signal: signal.Signals) -> None:
        """End the process; the next call starts another one."""
        self._running.process.send_signal(with_signal)
        self._running.process.wait(timeout=30)
        self._running.close()

    def again(self) -> None:
        self._running = RunningServer(self._home, SERVER)

    def call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        return httpx.request(method, f"{self._running.url}{path}", timeout=30, **arguments)

    def wait(self, location: str, documents: int, state: str = "running") -> dict[str, Any]:
        """The job as soon as it is in this state and has counted so many documents."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            job: dict[str, Any] = self.call("GET", location).json()
            if job["state"] == state and job["created"] + job["updated"] + job["unchanged"] >= documents:
                return job
            time.sleep(0.02)
        raise AssertionError(f"the job never came so far: {job}")

    def close(self) -> None:
        self._running.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path)
    yield service
    service.close()


@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGTERM])
def test_a_job_goes_on_after_the_service_has_ended(service: Service, with_signal: signal.Signals) -> None:
    """Killed or stopped twice in its midst: it is done, each document is there, and counted once as what it became."""
    earlier = {"files": ("rows.jsonl", records(5, "earlier"))}
    assert service.call("POST", "/documents?wait=true", files=earlier).json()["created"] == 5
    upload = {"files": ("rows.jsonl", records(COUNT, "dental"))}
    response = service.call("POST", "/documents?wait=false", files=upload)
    assert response.status_code == 202
    location = response.headers["location"]
    for documents in (40, 150):
        moved = service.wait(location, documents)
        assert moved["seconds_left"] > 0
        service.end(with_signal)
        service.again()
    done = service.wait(location, COUNT, "done")
    assert (done["documents"], done["created"], done["updated"], done["unchanged"]) == (COUNT, COUNT - 5, 5, 0)
    assert (done["failed"], done["passages"], done["detail"]) == (0, COUNT, None)
    listed = service.call("GET", "/documents?limit=1000").json()["documents"]
    assert {document["id"] for document in listed} == {f"d{n}" for n in range(COUNT)}
    shown = service.call("GET", f"/documents/d{COUNT - 1}").json()
    assert shown["text"] == f"dental {letters(COUNT - 1)}"
    body = {"query": letters(299), "mode": "sparse"}
    hits = service.call("POST", "/search", json=body).json()["results"]
    assert [hit["document_id"] for hit in hits] == ["d299"]


def test_who_came_after_a_job_keeps_the_last_word_across_a_kill(service: Service) -> None:
    """What was put and deleted while the job ran, before and after it came to those documents, stays so."""
    upload = {"files": ("rows.jsonl", records(COUNT, "dental"))}
    location = service.call("POST", "/documents?wait=false", files=upload).headers["location"]
    service.wait(location, 40)
    later = [{"id": document_id, "text": "the last word"} for document_id in ("d1", f"d{COUNT - 1}")]
    put = service.call("POST", "/documents?wait=true", json={"documents": later})
    assert (put.json()["updated"], put.json()["created"]) == (1, 1)
    assert service.call("DELETE", "/documents/d2").status_code == 204
    service.end(signal.SIGKILL)
    service.again()
    done = service.wait(location, COUNT, "done")
    assert (done["documents"], done["failed"]) == (COUNT, 0)
    for document in later:
        assert service.call("GET", f"/documents/{document['id']}").json()["text"] == "the last word"
    assert service.call("GET", "/documents/d2").status_code == 404
    assert service.call("GET", "/documents/d3").status_code == 200
