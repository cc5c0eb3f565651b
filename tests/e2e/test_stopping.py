"""SIGTERM ends the real service in every state: within 10 s, with status 0, and without a traceback."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.fakes.running import RunningServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SENTENCES = "The harbour master counted {} boats before the storm of {} and wrote the number into the blue ledger. "
SECONDS = 10.0
ROOT = Path(__file__).parents[2]


def book(size: int) -> str:
    """So many characters, no two sentences alike."""
    text = "".join(SENTENCES.format(n, n + 1000) for n in range(size // 90))
    return text[:size]


def ready(server: RunningServer) -> None:
    while httpx.get(f"{server.url}/health/ready", timeout=60).status_code != 200:
        time.sleep(0.2)


def in_background(call: Callable[[], object], later: ExitStack) -> None:
    """A client that may be cut off."""

    def run() -> None:
        with suppress(httpx.HTTPError):
            call()

    thread = threading.Thread(target=run)
    thread.start()
    later.callback(thread.join)


def while_starting(_server: RunningServer, _folder: Path, _later: ExitStack) -> None:
    """The model is loading."""


def idle(server: RunningServer, _folder: Path, _later: ExitStack) -> None:
    """Nothing to do."""
    ready(server)


def embedding_uploads(server: RunningServer, _folder: Path, later: ExitStack) -> None:
    """Several that wait for their answers."""
    ready(server)
    for n in range(24):
        body = {"documents": [{"id": f"book-{n}", "text": book(60_000)}]}
        in_background(partial(httpx.post, f"{server.url}/documents", json=body, timeout=60), later)
    time.sleep(1)


def running_a_job(server: RunningServer, _folder: Path, _later: ExitStack) -> None:
    """Of a megabyte and a half."""
    ready(server)
    body = {"documents": [{"id": f"book-{n}", "text": book(400_000)} for n in range(4)]}
    assert httpx.post(f"{server.url}/documents?wait=false", json=body, timeout=60).status_code == 202
    time.sleep(2)


def syncing(server: RunningServer, folder: Path, later: ExitStack) -> None:
    """The command line has it index files."""
    ready(server)
    for n in range(8):
        (folder / f"{n}.txt").write_text(book(300_000))
    command = [sys.executable, "-m", "app.cli.main", "index", str(folder)]
    client = subprocess.Popen(command, env={**os.environ, "WINNOW_HOME": str(server.home)}, cwd=ROOT)
    later.callback(client.wait, 60)
    time.sleep(6)


def with_stalled_clients(server: RunningServer, _folder: Path, later: ExitStack) -> None:
    """Idle, within a head, and within a body."""
    ready(server)
    host, _, port = server.url.removeprefix("http://").partition(":")
    for sent in (b"", b"GET /ver", b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{"):
        connection = later.enter_context(socket.create_connection((host, int(port))))
        connection.sendall(sent)
    time.sleep(0.5)


@pytest.mark.parametrize(
    "state", [while_starting, idle, embedding_uploads, running_a_job, syncing, with_stalled_clients]
)
def test_it_ends_in_time(tmp_path: Path, state: Callable[[RunningServer, Path, ExitStack], None]) -> None:
    """Whatever it does at that moment."""
    (tmp_path / "files").mkdir()
    server = RunningServer(tmp_path / "home", "tests.fakes.real_server")
    with ExitStack() as later:
        later.callback(server.close)
        state(server, tmp_path / "files", later)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        status = server.process.wait(timeout=60)
        took = time.monotonic() - began
    said = "".join(server.lines)
    assert status == 0
    assert took < SECONDS
    assert "Traceback" not in said
    assert '"exception"' not in said
