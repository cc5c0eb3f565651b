"""The command line through the running service: a real server, and the desk's calls as the commands make them."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.cli.http_client import ServiceRefused
from app.cli.session import index_files, index_stdin, list_documents, search, stream_answer
from app.config.settings import IndexSection, Settings
from app.errors import InvalidRequest
from app.instance import TOKEN_HEADER, find_service
from app.server import CannotListen, bind
from indexing.errors import CollectionNotFound
from indexing.pipeline.progress import Event, Planned, SyncRequest
from tests.fakes.running import ROOT, RunningServer

COLLECTION = "notes"


@pytest.fixture
def settings(server: RunningServer) -> Settings:
    """Settings under which commands reach the server that the tests share."""
    return Settings(index=IndexSection(home=server.home))


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RunningServer]:
    """A server that the test may stop."""
    running = RunningServer(tmp_path)
    yield running
    running.close()


def test_what_is_indexed_through_the_service_is_found_at_once(
    server: RunningServer, settings: Settings, tmp_path: Path
) -> None:
    """Files and standard input, with the run's events; no restart."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "zebra.txt").write_text("zebras have stripes")
    events: list[Event] = []
    request = SyncRequest(inputs=("docs",), cwd=str(tmp_path), collection=COLLECTION)
    assert index_files(settings, request, events.append).created == 1
    assert isinstance(events[0], Planned)
    assert index_stdin(settings, "貘 tapirs have snouts".encode(), "tapir.md", COLLECTION).created == 1
    theirs = index_stdin(settings, b"for a group", "okapi.md", COLLECTION, tenant="acme", allowed=("hr", "legal"))
    assert (theirs.created, theirs.failed) == (1, 0)
    [listed] = [one for one in list_documents(settings, {"collection": COLLECTION})["documents"] if one["tenant"]]
    assert (listed["tenant"], listed["allowed"]) == ("acme", ["hr", "legal"])
    found = search(settings, {"query": "zebras", "collection": COLLECTION, "mode": "sparse"})
    assert [hit["source"] for hit in found["results"]] == ["zebra.txt"]
    found = search(settings, {"query": "tapirs", "collection": COLLECTION, "mode": "sparse"})
    assert [hit["source"] for hit in found["results"]] == ["tapir.md"]


def test_errors_of_the_service_are_those_of_the_command(server: RunningServer, settings: Settings) -> None:
    """The caller's mistakes and what is missing, in the service's words."""
    with pytest.raises(InvalidRequest, match="unknown operator"):
        search(settings, {"query": "x", "filter": {"a": {"bad": 1}}})
    with pytest.raises(CollectionNotFound, match="collection 'nope' not found"):
        search(settings, {"query": "x", "collection": "nope"})


def test_an_answer_is_streamed_through_the_service(server: RunningServer, settings: Settings) -> None:
    """Every event of it, to the last."""
    events: list[tuple[str, object]] = []
    stream_answer(settings, {"query": "0.1"}, lambda name, data: events.append((name, data)))
    assert [name for name, _ in events] == ["sources", "delta", "done"]


@pytest.mark.parametrize("token", [None, "", "wrong", "ünicode"])
def test_without_the_token_nobody_writes(server: RunningServer, token: str | None) -> None:
    """Another user of this machine can reach the port, but not read the file."""
    headers = {} if token is None else {TOKEN_HEADER: token.encode()}
    body = {"inputs": ["/etc"], "cwd": "/"}
    for reply in (
        httpx.get(f"{server.url}/internal/presence", headers=headers),  # type: ignore[arg-type]
        httpx.post(f"{server.url}/internal/sync", headers=headers, json=body),  # type: ignore[arg-type]
        httpx.post(f"{server.url}/internal/document?name=a&collection=b", headers=headers),  # type: ignore[arg-type]
    ):
        assert reply.status_code == 403


def test_a_foreign_web_page_is_refused(server: RunningServer, settings: Settings) -> None:
    """Even if it had the token."""
    presence = find_service(settings.index.home)
    assert presence is not None
    headers = {TOKEN_HEADER: presence.token, "Origin": "https://evil.example"}
    assert httpx.get(f"{server.url}/internal/presence", headers=headers).status_code == 403


def test_stopping_the_service_stops_a_run_with_a_clear_word(own_server: RunningServer, tmp_path: Path) -> None:
    """It does not wait for a long run, and the next one does the rest."""
    settings = Settings(index=IndexSection(home=own_server.home))
    (tmp_path / "docs").mkdir()
    for number in range(300):
        (tmp_path / "docs" / f"{number}.txt").write_text(f"document {number}")

    def stop(event: Event) -> None:
        if isinstance(event, Planned):
            own_server.process.send_signal(signal.SIGTERM)

    request = SyncRequest(inputs=("docs",), cwd=str(tmp_path), collection=COLLECTION)
    with pytest.raises(ServiceRefused, match="run the command again"):
        index_files(settings, request, stop)
    assert own_server.process.wait(timeout=60) == 0
    assert find_service(settings.index.home) is None


def test_a_second_service_on_the_same_home_does_not_start(server: RunningServer) -> None:
    """One process owns the index; the first goes on."""
    command = [sys.executable, "-m", "tests.fakes.server", str(server.home)]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode != 0
    assert "IndexBusy" in second.stderr
    assert "running on" not in second.stderr
    assert find_service(server.home) is not None


def test_a_killed_service_is_not_asked(own_server: RunningServer) -> None:
    """Its file stays behind; the index is free."""
    own_server.process.kill()
    own_server.process.wait()
    assert find_service(own_server.home) is None


def test_a_taken_port_is_a_clear_error() -> None:
    """With the way out."""
    with bind("localhost", 0) as taken:
        assert taken.family == socket.AF_INET
        with pytest.raises(CannotListen, match=r"in use; choose with --host and --port"):
            bind("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(CannotListen):
        bind("203.0.113.1", 0)
