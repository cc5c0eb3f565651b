"""The SDK's own client, over sockets and over the pipes of `winnow mcp`, in both eras of the protocol."""

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from app.access.key_file import KEY_FILE, KeyFile
from app.access.keys import KeyRequest
from tests.fakes.agents import call, messages, send
from tests.fakes.running import ROOT, RunningServer

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
ERAS = pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path_factory.mktemp("home"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path_factory.mktemp("keyed"))
    yield running
    running.close()


@asynccontextmanager
async def connected(running: RunningServer, mode: str, key: str = "") -> AsyncIterator[Client]:
    """A client of the SDK, which sends this key."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
        transport = streamable_http_client(f"{running.url}/mcp", http_client=http)
        async with Client(transport, mode=mode) as client:
            yield client


def key_of(running: RunningServer, name: str, **bounds: Any) -> str:
    """A new key, which the service notices within a second."""
    file = KeyFile(running.home / KEY_FILE, time.time)
    token = file.create(KeyRequest(**{"name": name, "scopes": ("search", "answer"), **bounds}))[1]
    time.sleep(0.5)
    return token


@ERAS
async def test_the_sdks_client_uses_every_tool(running: RunningServer, mode: str) -> None:
    """With results that its validation accepts, progress, and the documents as resources."""
    told: list[str | None] = []

    async def tell(_progress: float, _total: float | None, message: str | None) -> None:
        told.append(message)

    async with connected(running, mode) as client:
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == ["search", "fetch", "answer", "list_collections", "add_document"]
        added = await client.call_tool("add_document", {"text": "Ferns grow in the shade.", "collection": mode})
        arguments = {"query": "ferns", "collection": mode}
        found = await client.call_tool("search", arguments, progress_callback=tell)
        fetched = await client.call_tool("fetch", {"id": added.structured_content["id"]})
        answered = await client.call_tool("answer", {"query": "x"})
        listed = await client.call_tool("list_collections")
        [resource] = [one for one in (await client.list_resources()).resources if f"//{mode}/" in one.uri]
        read = await client.read_resource(resource.uri)
    assert found.structured_content["results"][0]["id"] == added.structured_content["id"]
    assert fetched.structured_content["text"] == read.contents[0].text == "Ferns grow in the shade."
    assert answered.structured_content["answer"] == "Yes."
    assert mode in [one["name"] for one in listed.structured_content["collections"]]
    assert told == ["reading the question", "searching", "ranking"]


@ERAS
async def test_a_client_that_gives_up_ends_the_work(running: RunningServer, mode: str) -> None:
    """The answer is cut short, long before it would be there; the client's next call is served."""
    running.skip_log()
    async with connected(running, mode) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "answer", {"query": "1000"})
            await anyio.to_thread.run_sync(running.wait_for, "^(asked)$")
            group.cancel_scope.cancel()
        await anyio.to_thread.run_sync(running.wait_for, "^(cut short)$")
        assert not (await client.call_tool("search", {"query": "dental"})).is_error


@ERAS
async def test_keys_hold(keyed: RunningServer, mode: str) -> None:
    """The wrong scope, an unknown, a revoked and an expired key, the wrong tenant, and too many requests."""
    file = KeyFile(keyed.home / KEY_FILE, time.time)
    good = key_of(keyed, f"good-{mode}")
    async with connected(keyed, mode, good) as client:
        assert "add_document" not in [tool.name for tool in (await client.list_tools()).tools]
        refused = await client.call_tool("add_document", {"text": "x"})
        assert refused.is_error
        assert "needs write" in refused.content[0].text
        assert (await client.call_tool("search", {"query": "dental"})).structured_content["results"]
        file.revoke(f"good-{mode}")
        await anyio.sleep(0.5)
        with pytest.raises(MCPError, match="revoked"):
            await client.call_tool("search", {"query": "dental"})
    async with connected(keyed, mode, key_of(keyed, f"other-{mode}", tenant="other")) as client:
        assert (await client.call_tool("search", {"query": "dental"})).structured_content == {"results": []}
        assert (await client.call_tool("fetch", {"id": "winnow://default/dental"})).is_error
        assert (await client.list_resources()).resources == []
    for wrong in ("", "wnw_0123456789ab_" + "A" * 43):
        with pytest.raises((MCPError, ExceptionGroup)):
            async with connected(keyed, mode, wrong) as client:
                await client.list_tools()
    async with connected(keyed, mode, key_of(keyed, f"few-{mode}", requests_per_minute=6)) as client:
        with pytest.raises(MCPError, match="requests"):
            await searches(client, 7)


async def searches(client: Client, count: int) -> None:
    """One after the other."""
    for _ in range(count):
        await client.call_tool("search", {"query": "dental"})


async def test_twenty_agents_at_once(running: RunningServer) -> None:
    """Of both eras, each with several calls: all are answered, and each gets its own."""
    answered: list[str] = []

    async def ask(number: int) -> None:
        async with connected(running, "legacy" if number % 2 else "2026-07-28") as client:
            for query in ("dental", "nine", "free"):
                found = await client.call_tool("search", {"query": query, "limit": 1})
                answered.append(found.structured_content["results"][0]["title"] + query)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(ask, number)
    assert sorted(set(answered)) == ["Dentaldental", "Officenine", "Parkingfree"]
    assert len(answered) == 60


async def test_a_service_that_stops_finishes_the_calls(tmp_path: Path) -> None:
    """In both eras; one that takes longer than its grace ends with an error that says so."""
    running = RunningServer(tmp_path, "tests.fakes.server", '{"shutdown_grace_s": 5}')
    latest = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "answer"}
    said: list[str] = []

    async def ask(seconds: str, headers: dict[str, str]) -> None:
        asked = call("answer", query=seconds)
        asked["params"]["_meta"] = ENVELOPE if headers else {}
        async with httpx.AsyncClient(base_url=running.url, timeout=60) as client:
            [last] = messages(await send(client, asked, **headers))
            failed = last.get("error")
            said.append(failed["message"] if failed else last["result"]["structuredContent"]["answer"])

    try:
        async with anyio.create_task_group() as group:
            for headers in (latest, {}):
                for seconds in ("1.5", "1000"):
                    running.skip_log()
                    group.start_soon(ask, seconds, headers)
                    await anyio.to_thread.run_sync(running.wait_for, "^(asked)$")
            running.process.terminate()
        assert await anyio.to_thread.run_sync(running.process.wait, 20) == 0
    finally:
        running.close()
    assert said == ["Yes."] * 2 + ["the service is stopping; ask again when it is back"] * 2


def command(home: Path) -> StdioServerParameters:
    """`winnow mcp` over an embedder that needs no model."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WINNOW_")}
    arguments = ["-m", "tests.fakes.quick_winnow", "mcp"]
    env = {**environ, "WINNOW_HOME": str(home), "PYTHONPATH": str(ROOT)}
    return StdioServerParameters(command=sys.executable, args=arguments, env=env, cwd=ROOT)


async def test_agents_share_an_index_without_a_service(tmp_path: Path) -> None:
    """The first command becomes the service, which the second finds: what one adds the other searches. When the first
    ends, the second takes its place.
    """
    added, enough = anyio.Event(), anyio.Event()

    async def first() -> None:
        async with Client(command(tmp_path), mode="legacy", read_timeout_seconds=60) as client:
            result = await client.call_tool("add_document", {"text": "Ferns grow in the shade."})
            assert result.structured_content["status"] == "created"
            added.set()
            await enough.wait()

    async with Client(command(tmp_path), mode="2026-07-28", read_timeout_seconds=60) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(first)
            await added.wait()
            assert (await client.call_tool("search", {"query": "ferns"})).structured_content["results"]
            enough.set()
        answered = await client.call_tool("answer", {"query": "Where do ferns grow?"})
        assert answered.structured_content["citations"][0]["quote"] == "Ferns grow in the shade."


@ERAS
async def test_the_command_speaks_for_a_key_to_another_machine(keyed: RunningServer, mode: str) -> None:
    """With --url it needs no home; a refusal reaches the agent as an error with its reason."""
    token = key_of(keyed, f"remote-{mode}", scopes=("search",))
    async with speaking(keyed, mode, token) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["search", "fetch", "list_collections"]
    with pytest.raises(ExceptionGroup) if mode == "legacy" else nullcontext():
        async with speaking(keyed, mode, "") as client:
            with pytest.raises(MCPError, match="a key is needed"):
                await client.list_tools()


@ERAS
async def test_the_command_passes_on_that_an_agent_gives_up(running: RunningServer, mode: str) -> None:
    """Over pipes, where that is a notification; the agent's next call is served."""
    async with speaking(running, mode, "") as client:
        running.skip_log()
        async with anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "answer", {"query": "1000"})
            await anyio.to_thread.run_sync(running.wait_for, "^(asked)$")
            group.cancel_scope.cancel()
        await anyio.to_thread.run_sync(running.wait_for, "^(cut short)$")
        assert not (await client.call_tool("search", {"query": "dental"})).is_error


@asynccontextmanager
async def speaking(running: RunningServer, mode: str, key: str) -> AsyncIterator[Client]:
    """A client of `winnow mcp --url`."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "WINNOW_API_KEY": key}
    arguments = ["-m", "app.cli.main", "mcp", "--url", running.url]
    remote = StdioServerParameters(command=sys.executable, args=arguments, env=env, cwd=ROOT)
    async with Client(remote, mode=mode, read_timeout_seconds=60) as client:
        yield client


def test_nothing_but_the_protocol_is_on_standard_output(tmp_path: Path) -> None:
    """All that was asked is answered before the end of the input ends the process; what is no message gets an error."""
    asked = b"""{"jsonrpc":"2.0","id":"a","method":"ping"}
nonsense
{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"search","arguments":{"query":"ferns"}}}
{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":99}}
{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":{}}}
{"jsonrpc":"2.0","id":3}
"""
    given = command(tmp_path)
    finished = subprocess.run(
        [given.command, *given.args], input=asked, env=given.env, cwd=given.cwd, capture_output=True, timeout=90
    )
    answers = {answer.get("id"): answer for answer in map(json.loads, finished.stdout.splitlines())}
    assert finished.returncode == 0
    assert set(answers) == {"a", None, 2, 3}
    assert answers["a"]["result"] == {}
    assert answers[None]["error"]["code"] == -32700
    assert "collection 'default' not found" in answers[2]["result"]["content"][0]["text"]
    assert "/method: this field is required" in answers[3]["error"]["message"]
    assert b"running on" in finished.stderr
