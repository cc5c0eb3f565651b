"""A small real HTTP/1.1 server on loopback, in the test's own event loop: the ground of the model servers' fakes."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

_BACKLOG = 1024


@dataclass(frozen=True)
class Request:
    """What a client sent; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body or b"null")


class Dropped(Exception):
    """Raised by a handler to close the connection as it is."""


class Exchange:
    """One answer being written."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def reply(
        self,
        status: int,
        body: bytes,
        *,
        media_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        cut: int | None = None,
    ) -> None:
        """The whole answer; `cut`: only so many bytes of it, then the connection drops."""
        fields = {"Content-Type": media_type, "Content-Length": str(len(body)), **(headers or {})}
        self._head(status, fields)
        self._writer.write(body[:cut])
        await self._writer.drain()
        if cut is not None:
            raise Dropped

    async def begin_stream(self, media_type: str = "text/event-stream") -> None:
        self._head(200, {"Content-Type": media_type, "Transfer-Encoding": "chunked"})
        await self._writer.drain()

    async def send(self, piece: bytes) -> None:
        self._writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        await self._writer.drain()

    async def end_stream(self) -> None:
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()

    def _head(self, status: int, fields: Mapping[str, str]) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._writer.write(f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode())


Handler = Callable[[Request, Exchange], Awaitable[None]]


@dataclass
class LoopbackServer:
    """Calls `handler` for each request; counts connections, and calls that the client gave up before their end."""

    handler: Handler
    port: int = 0
    open_connections: int = 0
    connections: int = 0
    abandoned: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def all_closed(self) -> None:
        """Returns when no connection is open any more."""
        await self._until(lambda: self.open_connections == 0)

    async def given_up(self, calls: int) -> None:
        """Returns when the client has given up so many calls."""
        await self._until(lambda: self.abandoned == calls)

    async def _until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not reached():
                self._changed.clear()
                await self._changed.wait()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=_BACKLOG)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open_connections += 1
        self.connections += 1
        try:
            await self._converse(reader, writer)
        except (Dropped, ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open_connections -= 1
            self._changed.set()
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ahead = b""
        while (request := await _read(reader, ahead)) is not None:
            ahead = await self._answer(request, reader, writer)

    async def _answer(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Answers unless the client leaves first. Returns what was read of the next request."""
        work = asyncio.ensure_future(self.handler(request, Exchange(writer)))
        listening = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({work, listening}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and listening.result() == b"":
                raise ConnectionResetError
            await work
            return listening.result() if listening.done() else b""
        except ConnectionError:
            self.abandoned += 1
            self._changed.set()
            raise
        finally:
            for task in (work, listening):
                task.cancel()
            await asyncio.gather(work, listening, return_exceptions=True)


async def _read(reader: asyncio.StreamReader, ahead: bytes) -> Request | None:
    try:
        head = ahead + await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    pairs = (line.split(":", 1) for line in lines if line)
    headers = {name.lower(): value.strip() for name, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, path, headers, body)
