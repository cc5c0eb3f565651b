"""Frameworks' own rerankers and an agent, from their environment, against the running service."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.access.key_file import KEY_FILE, KeyFile
from app.access.keys import KeyRequest
from tests.clients.frameworks import CLIENTS, KEY
from tests.fakes.running import RunningServer
from tools.clients import VENV

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

SCRIPT = Path(__file__).with_name("frameworks.py")
AGENT = Path(__file__).with_name("agent.py")
QUIET = {"HAYSTACK_TELEMETRY_ENABLED": "False", "NO_PROXY": "127.0.0.1", "JINA_API_KEY": KEY}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    assert VENV.python.exists(), "the frameworks are not installed: `make test-clients` does it"
    running = RunningServer(tmp_path_factory.mktemp("home"))
    yield running.url
    running.close()


@pytest.mark.parametrize("name", CLIENTS)
def test_it_ranks_by_our_scores(url: str, name: str) -> None:
    """The best document comes first, with a score in [0,1], and `top_n` is kept."""
    command = [str(VENV.python), "-W", "ignore", str(SCRIPT), name, url]
    done = subprocess.run(command, env=QUIET, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    places = json.loads(done.stdout.splitlines()[-1])
    assert places[0][0] == 1
    assert len(places) == 2
    assert 1 >= places[0][1] > places[1][1] >= 0


def test_an_agent_searches_and_reads(tmp_path: Path) -> None:
    """By the tools that its key may call, which LangChain lists, describes to a model, and calls for it."""
    assert VENV.python.exists(), "the frameworks are not installed: `make test-clients` does it"
    running = RunningServer(tmp_path)
    try:
        text = "Dental cover starts on the first day of work."
        body = {"collection": "shelf", "documents": [{"id": "dental", "text": text}]}
        assert httpx.post(f"{running.url}/documents", json=body, timeout=60).status_code == 200
        request = KeyRequest(name="agent", scopes=("search", "answer"))
        key = KeyFile(tmp_path / KEY_FILE, time.time).create(request)[1]
        command = [str(VENV.python), "-W", "ignore", str(AGENT), running.url, key]
        done = subprocess.run(command, env=QUIET, capture_output=True, text=True, timeout=240)
    finally:
        running.close()
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said == {"tools": ["search", "fetch", "answer", "list_collections"], "answer": text}
