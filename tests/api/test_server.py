"""The real server on a real socket: disconnects, events as they happen, and how it ends."""

import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from app.config.settings import ServiceSettings
from app.instance import announce, find_service, presence_at
from app.server import server_config, startup_message
from tests.fakes.running import RunningServer


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RunningServer]:
    """A server that the test may stop."""
    running = RunningServer(tmp_path)
    yield running
    running.close()


def test_it_serves_logs_and_ends_well(own_server: RunningServer) -> None:
    """Ready, a search, JSON lines in the log, and SIGTERM is exit status 0."""
    while httpx.get(f"{own_server.url}/health/ready", timeout=60).status_code != 200:
        time.sleep(0.05)
    found = httpx.post(
        f"{own_server.url}/search", json={"query": "dental"}, headers={"X-Request-Id": "mine"}, timeout=60
    )
    assert found.json()["results"][0]["document_id"] == "dental"
    assert "server" not in found.headers
    own_server.wait_for(r'"id": "mine".*"status": 200')
    own_server.process.send_signal(signal.SIGTERM)
    assert own_server.process.wait(timeout=60) == 0
    own_server.wait_for("shutdown complete")


def test_the_command_line_finds_it_again_when_its_file_was_lost(own_server: RunningServer) -> None:
    """As where the disk was full at the start."""
    before = find_service(own_server.home)
    assert before is not None
    (own_server.home / "service.json").unlink()
    while (after := find_service(own_server.home)) is None:
        time.sleep(0.05)
    assert after == before


def test_the_file_of_a_killed_service_is_replaced(tmp_path: Path) -> None:
    """The command line finds the one that runs."""
    announce(tmp_path, presence_at("http://127.0.0.1:1"))
    running = RunningServer(tmp_path)
    found = find_service(tmp_path)
    running.close()
    assert found is not None
    assert found.url == running.url


def test_what_was_loaded_is_spared_from_garbage_collection(server: RunningServer) -> None:
    """Once everything has been opened, the collector has nothing old to walk through."""
    assert int(server.wait_for(r'"objects": (\d+)', 60)) > 50_000


def test_events_arrive_as_they_happen(server: RunningServer) -> None:
    """The sources come at once, pings bridge the silence, and the rest follows."""
    with httpx.stream("POST", f"{server.url}/answer", json={"query": "1.0", "stream": True}, timeout=60) as response:
        seen = [line for line in response.iter_lines() if line.startswith(("event", ":"))]
    pings = len(seen) - 3
    assert seen == ["event: sources", *[": ping"] * pings, "event: delta", "event: done"]
    assert pings >= 1


def test_hanging_up_stops_an_answer(server: RunningServer) -> None:
    """A client that goes away ends what was being done for it."""
    server.skip_log()
    host, _, port = server.url.removeprefix("http://").partition(":")
    body = b'{"query": "300"}'
    head = b"POST /answer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head % len(body) + body)
        server.wait_for("asked")
    server.wait_for("cut short")


def test_hanging_up_stops_a_stream(server: RunningServer) -> None:
    """A client that stops listening ends the stream's work."""
    server.skip_log()
    with httpx.stream("POST", f"{server.url}/answer", json={"query": "300", "stream": True}, timeout=60) as response:
        assert next(response.iter_lines()) == "id: 1"
    server.wait_for("cut short")


def test_a_running_answer_is_finished_before_the_end(own_server: RunningServer) -> None:
    """SIGTERM lets a stream come to its `done`."""
    body = {"query": "1.5", "stream": True}
    with httpx.stream("POST", f"{own_server.url}/answer", json=body, timeout=60) as response:
        lines = response.iter_lines()
        assert next(lines) == "id: 1"
        own_server.process.send_signal(signal.SIGTERM)
        assert "event: done" in list(lines)
    assert own_server.process.wait(timeout=60) == 0


def test_what_cannot_be_finished_is_told_so(tmp_path: Path) -> None:
    """At the end of the grace a stream gets its `error`, and who waits for a whole answer 503, without a traceback."""
    running = RunningServer(tmp_path, "tests.fakes.server", '{"shutdown_grace_s": 1}')
    stream, whole = {"query": "300", "stream": True}, {"query": "300"}
    with ThreadPoolExecutor(1) as another, httpx.stream("POST", f"{running.url}/answer", json=stream) as response:
        lines = response.iter_lines()
        assert next(lines) == "id: 1"
        running.skip_log()
        waiting = another.submit(httpx.post, f"{running.url}/answer", json=whole, timeout=60)
        running.wait_for("asked")
        running.process.send_signal(signal.SIGTERM)
        assert "event: error" in list(lines)
        refusal = waiting.result()
    assert (refusal.status_code, refusal.headers["retry-after"]) == (503, "10")
    assert "stopping" in refusal.json()["detail"]
    assert running.process.wait(timeout=60) == 0
    running.close()
    assert not [line for line in running.lines if re.search('Traceback|unexpected error|ASGI|"exception"', line)]


def test_a_second_signal_does_not_wait(own_server: RunningServer) -> None:
    """Who asks twice means it."""
    body = {"query": "300", "stream": True}
    with httpx.stream("POST", f"{own_server.url}/answer", json=body, timeout=60) as response:
        lines = response.iter_lines()
        assert next(lines) == "id: 1"
        own_server.process.send_signal(signal.SIGTERM)
        own_server.wait_for("shutting down")
        own_server.process.send_signal(signal.SIGTERM)
        own_server.process.wait(timeout=60)


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{",
        b"GET /version HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01",
    ],
)
def test_broken_requests_do_no_harm(server: RunningServer, sent: bytes) -> None:
    """Half a body, half a head or no HTTP at all, then nothing: the service goes on, without an error in the log."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(sent)
        time.sleep(0.1)
    assert httpx.get(f"{server.url}/health/live", timeout=60).status_code == 200
    assert not any("unexpected error" in line for line in server.lines)


def test_an_idle_connection_outlasts_the_clients_patience() -> None:
    """Who closes first must be the client or its proxy, of which the most patient waits a minute by default."""
    assert server_config(None, ServiceSettings()).timeout_keep_alive > 60


@pytest.mark.parametrize(
    ("host", "anonymous", "keyed", "said"),
    [
        ("127.0.0.1", False, False, "Ctrl-C stops it."),
        ("192.0.2.1", False, False, "serves programs on this machine; `winnow keys create` makes a key for others."),
        ("192.0.2.1", True, False, "serves all who reach it."),
        ("192.0.2.1", True, True, "serves those who send a key; `winnow keys` lists them."),
    ],
)
def test_the_start_message_says_whom_the_service_serves(host: str, anonymous: bool, keyed: bool, said: str) -> None:
    """As it is: where there are keys, nobody is served without one."""
    service = ServiceSettings(host=host, allow_anonymous=anonymous)
    assert startup_message(service, "http://127.0.0.1:8000", keyed=keyed).endswith(said)
