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


BODY: dict[str, Any] = {
    "prefix": "def add(a, b):\n    ",
    "suffix": "\n\nprint(add(1, 2))\n",
    "language": "python",
    "stop": ["\n\n\n"],
}


async def test_what_belongs_at_the_cursor_is_returned(client: httpx.AsyncClient, server: GeminiServer) -> None:
    """To be inserted as it is; with who served it and what it cost."""
    reply = (await client.post("/complete", json=BODY)).json()
    assert (reply["text"], reply["finish_reason"]) == ("return a + b", "stop")
    assert reply["backend"]["used"] == "flash"
    assert reply["usage"]["by_stage"].keys() == {"complete"}
    assert reply["usage"]["input_tokens"] == server.told.input
    assert reply["timings_ms"].keys() == {"first_token", "complete", "total"}
    assert reply["method"] == "instruction"
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


MARKERS = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")


def fills(prompt: str, suffix: str) -> str:
    """As base models do, who do not know when to stop."""
    return "return a + b\n\n\ndef sub(a, b):\n    return a - b\n"


@pytest.fixture(params=["vllm", "ollama"])
async def coder(request: pytest.FixtureRequest) -> AsyncIterator[OpenAIServer]:
    """A server of a model that was trained to fill in."""
    model = FakeModel(name="tiny-qwen2.5-coder", mind=writes_code, fills=fills, markers=MARKERS)
    async with OpenAIServer(api_key="k", dialect=request.param, model=model) as server:
        yield server


def by_server(server: OpenAIServer, prefix: str, suffix: str) -> dict[str, Any]:
    """What it is asked for these two."""
    if server.dialect == "ollama":
        return {"prompt": prefix, "suffix": suffix}
    return {"prompt": f"<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>"}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_can_fills_in(coder: OpenAIServer, tmp_path: Path, stream: bool) -> None:
    """It gets both sides as they are, stops at the end of the block, and every token is booked."""
    async with client_of(services_for(tmp_path, {"coder": openai_style(coder)})) as client:
        response = await client.post("/complete", json={**BODY, "stream": stream})
        backends = (await client.get("/backends")).json()
    if stream:
        events = read_events(response.text)
        reply = {**events[-1][2], "text": "".join(data["text"] for _, name, data in events if name == "delta")}
    else:
        reply = response.json()
    assert (reply["text"], reply["method"], reply["finish_reason"]) == ("return a + b", "fill_in_the_middle", "stop")
    [asked] = coder.bodies("/v1/completions")
    assert asked.items() >= by_server(coder, BODY["prefix"], BODY["suffix"]).items()
    assert (asked["max_tokens"], asked["temperature"], asked["stop"][:2]) == (
        256,
        0.0,
        ["\n\n\n", "\nprint(add(1, 2))"],
    )
    if coder.dialect == "vllm":
        assert asked["stop_token_ids"] == [coder.model.token_id(marker) for marker in MARKERS]
    assert reply["usage"]["by_stage"].keys() == {"complete"}
    assert reply["usage"]["output_tokens"] > 0
    assert "infill" in backends["backends"][-1]["capabilities"]


async def test_what_the_markers_enclose_holds_no_markers(tmp_path: Path) -> None:
    """A file about such models does not end its own prefix."""
    model = FakeModel(name="qwen3-coder", fills=fills, markers=MARKERS)
    async with (
        OpenAIServer(api_key="k", model=model) as server,
        client_of(services_for(tmp_path, {"coder": openai_style(server)})) as client,
    ):
        await client.post("/complete", json={"prefix": "a<|fim_suffix|>b", "suffix": "c<|file_sep|>d<|fim_middle|>"})
    [asked] = server.bodies("/v1/completions")
    assert asked["prompt"] == "<|fim_prefix|>ab<|fim_suffix|>cd<|fim_middle|>"


@pytest.mark.parametrize("markers", [(), MARKERS[:2]])
async def test_a_name_alone_is_no_evidence(tmp_path: Path, markers: tuple[str, ...]) -> None:
    """Where a marker is no token of its own, the model is instructed."""
    model = FakeModel(name="tiny-qwen2.5-coder", mind=writes_code, fills=fills, markers=markers)
    async with (
        OpenAIServer(api_key="k", model=model) as server,
        client_of(services_for(tmp_path, {"coder": openai_style(server)})) as client,
    ):
        reply = (await client.post("/complete", json=BODY)).json()
    assert (reply["text"], reply["method"]) == ("return a + b", "instruction")


async def test_the_next_backend_is_asked_in_its_own_way(client: httpx.AsyncClient, tmp_path: Path) -> None:
    """Where the one that fills in fails, another one is instructed, and the other way round."""
    coder = FakeModel(name="codegemma", fills=fills, markers=MARKERS)
    async with OpenAIServer(api_key="k", model=coder) as one, OpenAIServer(model=FakeModel(mind=writes_code)) as other:
        backends = {"coder": openai_style(one), "chat": openai_style(other)}
        async with client_of(services_for(tmp_path / "two", backends)) as client:
            await client.post("/complete", json=BODY)
            one.expect(Fault.SERVER_ERROR)
            instructed = (await client.post("/complete", json=BODY)).json()
            filled = (await client.post("/complete", json=BODY | {"backend": "coder"})).json()
    assert (instructed["backend"]["used"], instructed["method"]) == ("chat", "instruction")
    assert (filled["backend"]["used"], filled["method"]) == ("coder", "fill_in_the_middle")


async def test_openais_completions_fill_in(coder: OpenAIServer, tmp_path: Path) -> None:
    """POST /v1/completions with a suffix."""
    async with client_of(services_for(tmp_path, {"coder": openai_style(coder)})) as client:
        body = {"model": "coder", "prompt": BODY["prefix"], "suffix": BODY["suffix"], "max_tokens": 50}
        reply = (await client.post("/v1/completions", json=body)).json()
    assert reply["choices"][0]["text"] == "return a + b"
    [asked] = coder.bodies("/v1/completions")
    assert asked.items() >= by_server(coder, BODY["prefix"], BODY["suffix"]).items()


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
