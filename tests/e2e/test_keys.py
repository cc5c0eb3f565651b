"""`winnow keys` with a running service and without one, in processes of their own."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
import pytest

from app.access.key_file import KEY_FILE, KeyFile
from app.access.keys import KeyRequest
from tests.fakes.running import ROOT, RunningServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path_factory.mktemp("home"))
    yield running
    running.close()


def winnow(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command over this home."""
    environ = {**os.environ, "WINNOW_HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "app.cli.main", *arguments]
    return subprocess.run(command, env=environ, cwd=home.parent, capture_output=True, text=True, check=False)


def status(url: str, token: str = "") -> int:
    """Of GET /collections with this key."""
    return httpx.get(f"{url}/collections", headers={"X-API-Key": token} if token else {}, timeout=60).status_code


def test_a_key_of_the_command_line_lets_its_bearer_in(running: RunningServer) -> None:
    """And nobody else from then on, but the command line itself; until it is rotated and revoked."""
    assert status(running.url) == 200
    made = winnow(running.home, "keys", "create", "ci", "--scope", "search", "--expires", "90d")
    token = made.stdout.strip()
    assert (made.returncode, token[:4]) == (0, "wnw_")
    assert [status(running.url), status(running.url, token)] == [401, 200]
    rotated = winnow(running.home, "keys", "rotate", "ci").stdout.strip()
    assert [status(running.url, token), status(running.url, rotated)] == [401, 200]
    assert winnow(running.home, "collections").returncode == 0
    assert "ci" in winnow(running.home, "keys").stdout
    assert winnow(running.home, "keys", "revoke", "ci", "--yes").returncode == 0
    assert status(running.url, rotated) == 401
    assert token not in "".join(running.lines)


def test_keys_are_made_without_a_service(tmp_path: Path) -> None:
    """In the file of the home, which a service then finds."""
    home = tmp_path / "home"
    token = winnow(home, "keys", "create", "early", "--scope", "search", "--json").stdout
    again = winnow(home, "keys", "create", "early", "--scope", "search")
    assert (again.returncode, "choose another name" in again.stderr) == (2, True)
    key = msgspec.json.decode(token)["key"]
    running = RunningServer(home)
    try:
        assert [status(running.url), status(running.url, key)] == [401, 200]
    finally:
        running.close()


def test_a_key_that_expires_ends_its_stream(tmp_path: Path) -> None:
    """With an error in the stream, at the next sign of life; and the work behind it is stopped."""
    admin = KeyFile(tmp_path / KEY_FILE, time.time).create(KeyRequest(name="root", scopes=("admin",)))[1]
    running = RunningServer(tmp_path, "tests.fakes.server", '{"ping_s": 0.05}')
    try:
        for seconds in (2, 10, 50):  # a busy machine may take longer to begin the stream
            until = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
            body = {"name": f"for-{seconds}-s", "scopes": ["answer"], "expires_at": until}
            made = httpx.post(f"{running.url}/keys", json=body, headers={"X-API-Key": admin}, timeout=60)
            question = {"query": "100", "stream": True}  # the answerer is silent for so many seconds
            headers = {"X-API-Key": made.json()["key"]}
            reply = httpx.post(f"{running.url}/answer", json=question, headers=headers, timeout=200)
            if reply.status_code == 200:
                break
        assert reply.status_code == 200
        assert "event: sources" in reply.text
        assert f"the key 'for-{seconds}-s' is expired" in reply.text.partition("event: error")[2]
        assert "event: done" not in reply.text
        assert "cut short" in running.wait_for("(cut short)")
        again = httpx.post(f"{running.url}/answer", json=question, headers=headers, timeout=60)
        assert (again.status_code, "is expired" in again.json()["detail"]) == (401, True)
    finally:
        running.close()
