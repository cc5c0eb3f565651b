"""`winnow mcp`: the tools of POST /mcp on standard input and output, for agents that start a command.

It hands each message on to the running service. Where none runs it becomes one, on a port of its own, which other
commands and other agents find: two agents on one machine share an index that only one process can open.
"""

import asyncio
import base64
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import msgspec
import rich_click as click

from app.cli.terminal import current_settings, err
from app.config.settings import Settings
from app.instance import TOKEN_HEADER, find_service
from indexing.concurrency import BackgroundTasks
from indexing.errors import IndexBusy

KEY_VARIABLE = "WINNOW_API_KEY"

OPENING_S = 60.0
"""How long a message waits for a service that starts, or for an index that another command holds."""

_LOOK_S, _RETRY_S = 0.1, 0.5
_KEEP_S = 2.0
_TIMEOUT = httpx.Timeout(10.0, read=None)
_VERSION = "io.modelcontextprotocol/protocolVersion"
_NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""Which parameter of a request of the version 2026-07-28 stands in a header, too."""

_SERVER_ERROR, _PARSE_ERROR = -32000, -32700


@click.command()
@click.option("--collection", default="default", help="Collection that is used where an agent names none.")
@click.option("--url", help="Winnow on another machine, such as https://winnow.example.com.")
def mcp(collection: str, url: str | None) -> None:
    """Serve agents by the Model Context Protocol on standard input and output.

    With --url, the environment's WINNOW_API_KEY is the key. Agents start this command: docs/integrations.md has the
    configuration of several.
    """
    if sys.stdin.isatty():
        err.print("agents start this command and talk to it; Ctrl-D ends it", style="dim")
    query = urlencode({"collection": collection})
    if url is not None:
        _check_url(url)
        key = os.environ.get(KEY_VARIABLE, "")
        service = Service(f"{url.rstrip('/')}/mcp?{query}", {"Authorization": f"Bearer {key}"} if key else {})
        asyncio.run(Relay(lambda: service, _claimed_output(), trust_env=True).run(_lines()))
        return
    _Host(current_settings(), query, _claimed_output()).run()


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise click.UsageError("--url is no address: give one such as https://winnow.example.com")


class Service(msgspec.Struct, frozen=True):
    """Where messages go, and what shows who sends them."""

    url: str
    headers: dict[str, str]


class _Host:
    """Relays in a thread; the main thread, which signals reach, is the service if there is none."""

    def __init__(self, settings: Settings, query: str, write: Callable[[bytes], None]) -> None:
        self._settings, self._query, self._write = settings, query, write
        self._wanted: queue.Queue[bool] = queue.Queue()
        self._serving = self._ended = False

    def run(self) -> None:
        """Until the agent has ended the input. Raises ConfigError, CannotListen."""
        threading.Thread(target=self._relay, daemon=True).start()
        while not self._ended and self._wanted.get():
            if find_service(self._settings.index.home) is None and not self._ended:
                self._serve()

    def _relay(self) -> None:
        try:
            asyncio.run(Relay(self._found, self._write).run(_lines()))
        finally:
            self._ended = True
            self._wanted.put(False)
            if self._serving:
                os.kill(os.getpid(), signal.SIGTERM)  # the service finishes what it does

    def _serve(self) -> None:
        self._serving = True
        from app.cli import local

        try:
            local.serve(self._settings)
        except IndexBusy:  # another command has it, or another agent's service has just begun
            time.sleep(_RETRY_S)
        else:
            self._ended = True
        finally:
            self._serving = False

    def _found(self) -> Service | None:
        presence = find_service(self._settings.index.home)
        if presence is None:
            if self._wanted.empty() and not self._serving:
                self._wanted.put(True)
            return None
        return Service(f"{presence.url}/mcp?{self._query}", {TOKEN_HEADER: presence.token})


class Relay:
    """Hands messages on to a service, and writes what it answers.

    `find` blocks, and gives None where there is no service yet. `write` takes a line.
    """

    def __init__(
        self, find: Callable[[], Service | None], write: Callable[[bytes], None], *, trust_env: bool = False
    ) -> None:
        self._find, self._write, self._trust_env = find, write, trust_env
        self._service: Service | None = None
        self._session: dict[str, str] = {}
        self._running: dict[int | str, asyncio.Task[None]] = {}
        self._tasks = BackgroundTasks()

    async def run(self, lines: AsyncIterator[bytes]) -> None:
        """Until the input has ended and all is answered."""
        # The service closes connections that wait for long.
        limits = httpx.Limits(keepalive_expiry=_KEEP_S)
        async with httpx.AsyncClient(timeout=_TIMEOUT, limits=limits, trust_env=self._trust_env) as client:
            async for line in lines:
                if line.strip():
                    await self._take(client, line)
            await self._tasks.ended()

    async def _take(self, client: httpx.AsyncClient, line: bytes) -> None:
        try:
            message = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._fail(None, "a line is not a JSON object", _PARSE_ERROR)
            return
        if message.get("method") == "notifications/cancelled":
            number = _parameters(message).get("requestId")
            if isinstance(number, int | str) and (running := self._running.get(number)) is not None:
                running.cancel()  # hangs up, and so the service stops
            return
        task = self._tasks.start(self._exchange(client, message, line))
        number = message.get("id")
        if isinstance(number, int | str):
            self._running[number] = task
            task.add_done_callback(lambda _: self._running.pop(number, None))
        if message.get("method") == "initialize":
            await asyncio.wait((task,))  # the messages after it need to know what it has agreed upon

    async def _exchange(self, client: httpx.AsyncClient, message: dict[str, Any], line: bytes) -> None:
        number = message.get("id")
        try:
            await self._post(client, message, line)
        except httpx.ConnectError:
            self._service = None  # it has ended; nothing has reached it
            try:
                await self._post(client, message, line)
            except httpx.HTTPError as exc:
                self._fail(number, f"the service cannot be reached ({type(exc).__name__})")
        except (httpx.HTTPError, msgspec.DecodeError) as exc:
            self._fail(number, f"lost the connection to the service ({type(exc).__name__}); ask again")

    async def _post(self, client: httpx.AsyncClient, message: dict[str, Any], line: bytes) -> None:
        service = await self._located()
        if service is None:
            self._fail(message.get("id"), "the service has not started; `winnow doctor` may say why")
            return
        headers = {**service.headers, **self._headers(message)}
        async with client.stream("POST", service.url, content=line, headers=headers) as reply:
            if reply.headers.get("content-type", "").startswith("text/event-stream"):
                await self._answer_by_events(message, reply)
            elif content := await reply.aread():
                self._answer_whole(message, reply, content)
            if message.get("method") == "initialize" and "mcp-session-id" in reply.headers:
                self._session["Mcp-Session-Id"] = reply.headers["mcp-session-id"]

    async def _located(self) -> Service | None:
        deadline = time.monotonic() + OPENING_S
        while self._service is None and time.monotonic() < deadline:
            self._service = await asyncio.to_thread(self._find)
            if self._service is None:
                await asyncio.sleep(_LOOK_S)
        return self._service

    def _headers(self, message: dict[str, Any]) -> dict[str, str]:
        """What the protocol wants in headers over HTTP."""
        common = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        parameters, method = _parameters(message), message.get("method")
        envelope = parameters.get("_meta")
        version = envelope.get(_VERSION) if isinstance(envelope, dict) else None
        if not isinstance(version, str) or not isinstance(method, str):
            return {**common, **self._session}
        name = parameters.get(_NAMED_BY.get(method, ""))
        named = {"Mcp-Name": _header(name)} if isinstance(name, str) else {}
        return {**common, "MCP-Protocol-Version": version, "Mcp-Method": _header(method), **named}

    async def _answer_by_events(self, message: dict[str, Any], reply: httpx.Response) -> None:
        """What is told meanwhile, and the answer. An agent would wait for one that does not come."""
        answered = False
        async for row in reply.aiter_lines():
            if row.startswith("data:") and (content := row[5:].strip().encode()):
                answered = answered or "method" not in msgspec.json.decode(content, type=dict[str, Any])
                self._answer(message, content)
        if not answered:
            self._fail(message.get("id"), "the service ended the response before its answer; ask again")

    def _answer(self, message: dict[str, Any], content: bytes) -> None:
        if message.get("method") == "initialize":
            result = msgspec.json.decode(content, type=dict[str, Any]).get("result") or {}
            if "protocolVersion" in result:
                self._session["MCP-Protocol-Version"] = str(result["protocolVersion"])
        self._write(content)

    def _answer_whole(self, message: dict[str, Any], reply: httpx.Response, content: bytes) -> None:
        """A message; or the refusal of one, which does not know its id."""
        number = message.get("id")
        try:
            answer = msgspec.json.decode(content, type=dict[str, Any])
        except msgspec.DecodeError:
            answer = {}
        if answer.get("jsonrpc") != "2.0":
            self._fail(number, f"{reply.url.copy_with(query=None)} answered with HTTP status {reply.status_code}")
        elif answer.get("id") is not None:
            self._answer(message, content)
        elif number is not None:
            self._write(msgspec.json.encode({**answer, "id": number}))

    def _fail(self, number: Any, detail: str, code: int = _SERVER_ERROR) -> None:
        """Answer a request by an error; a notification has no answer."""
        if number is not None or code == _PARSE_ERROR:
            error = {"code": code, "message": detail}
            self._write(msgspec.json.encode({"jsonrpc": "2.0", "id": number, "error": error}))


def _parameters(message: dict[str, Any]) -> dict[str, Any]:
    parameters = message.get("params")
    return parameters if isinstance(parameters, dict) else {}


def _header(value: str) -> str:
    """As the protocol encodes what is no plain text."""
    if value.isascii() and value.isprintable() and value == value.strip() and not value.startswith("=?base64?"):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


async def _lines() -> AsyncIterator[bytes]:
    """Of standard input. They are read in a thread that the end of the process does not wait for."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[bytes] = asyncio.Queue()

    def read() -> None:
        for line in sys.stdin.buffer:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, b"")

    threading.Thread(target=read, daemon=True).start()
    while line := await lines.get():
        yield line


def _claimed_output() -> Callable[[bytes], None]:
    """Writes a line of the protocol. What anything else prints goes to standard error from now on."""
    sys.stdout.flush()
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def write(line: bytes) -> None:
        with suppress(BrokenPipeError):  # the agent is gone, and so will be the input
            stream.write(line + b"\n")
            stream.flush()

    return write
