"""POST /complete over the real SDKs; the models behind it are fake servers."""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.test_answer import read_events
from tests.fakes.faults import Fault
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.models import client_of, gemini, openai_style, services_for
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import OpenAIServer

pytestmark = pytest.mark.anyio


def writes_code(turns: Sequence[tuple[str, str]], schema: Mapping[str, Any] | None) -> str:
    """As chat models do, in a fence."""
    return "```python\n    return a + b\n```"


@pytest.fixture
async def server() -> AsyncIterator[GeminiServer]:
    async with GeminiServer() as server:
        server.mind = writes_code
        yield server


@pytest.fixture
async def client(server: GeminiServer, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(services_for(tmp_path, {"flash": gemini(server)})) as client:
        yield client


BODY = {"prefix": "def add(a, b):\n    ", "suffix": "\n\nprint(add(1, 2))\n", "language": "python", "stop": ["\n\n\n"]}


async def test_what_belongs_at_the_cursor_is_returned(client: httpx.AsyncClient, server: GeminiServer) -> None:
    """To be inserted as it is; with who served it and what it cost."""
    reply = (await client.post("/complete", json=BODY)).json()
    assert (reply["text"], reply["finish_reason"]) == ("return a + b", "stop")
    assert reply["backend"]["used"] == "flash"
    assert reply["usage"]["by_stage"].keys() == {"complete"}
    assert reply["usage"]["input_tokens"] == server.told.input
    assert reply["timings_ms"].keys() == {"complete", "total"}
    assert server.bodies[-1]["generationConfig"]["stopSequences"] == ["\n\n\n", "\nprint(add(1, 2))"]


async def test_the_stream_is_the_completion(client: httpx.AsyncClient) -> None:
    """Concatenated deltas equal `text`."""
    whole = (await client.post("/complete", json=BODY)).json()
    events = read_events((await client.post("/complete", json={**BODY, "stream": True})).text)
    assert "".join(data["text"] for _, name, data in events if name == "delta") == whole["text"]
    done = events[-1][2]
    assert done.keys() == whole.keys() - {"text"}
    assert done["timings_ms"].keys() == {"first_token", "complete", "total"}


@pytest.mark.parametrize("dialect", ["vllm", "ollama"])
async def test_servers_of_openais_protocol_complete(dialect: Any, tmp_path: Path) -> None:
    """vLLM and Ollama."""
    async with (
        OpenAIServer(api_key="k", dialect=dialect, model=FakeModel(mind=writes_code)) as local,
        client_of(services_for(tmp_path, {"gemma": openai_style(local)})) as client,
    ):
        reply = (await client.post("/complete", json=BODY)).json()
    assert reply["text"] == "return a + b"


async def test_a_failing_model_is_its_error(client: httpx.AsyncClient, server: GeminiServer) -> None:
    """With its status, streamed or not."""
    for stream in (False, True):
        server.script.append(Fault.SERVER_ERROR)
        assert (await client.post("/complete", json={**BODY, "stream": stream})).status_code == 503


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/prefix"),
        ({"prefix": ""}, "/prefix"),
        ({"prefix": "a", "stop": ["a", "b", "c", "d"]}, "/stop"),
        ({"prefix": "a", "max_output_tokens": 0}, "/max_output_tokens"),
    ],
)
async def test_a_bad_body_is_pointed_at(client: httpx.AsyncClient, body: dict[str, object], pointer: str) -> None:
    """400 with the field."""
    response = await client.post("/complete", json=body)
    assert response.status_code == 400
    assert [problem["pointer"] for problem in response.json()["errors"]] == [pointer]
