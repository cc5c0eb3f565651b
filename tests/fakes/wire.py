"""HTTP/1.1 on a real loopback socket, small enough to misbehave on purpose.

It knows at any moment how many connections are open, and notices a client that goes away before its answer is whole.
"""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Self, TypeVar

import msgspec

S = TypeVar("S", bound="WireServer")

_BACKLOG = 2048  # 200 clients may knock at once
_REASONS = {200: "OK", 302: "Found", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request; the names of `headers` are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class HungUp(Exception):
    """Raised by an answer that wants the connection closed as it is, whatever was announced."""


class Answering:
    """The way back to one client, for one answer."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def whole(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Status, headers and body at once."""
        self._head(status, {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})})
        self._writer.write(body)
        await self._writer.drain()

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """A body in chunks follows, or whatever the headers announce."""
        self._head(status, headers)
        await self._writer.drain()

    async def send(self, data: bytes) -> None:
        """Bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    async def chunk(self, data: bytes) -> None:
        """A piece of a chunked body; b"" ends it."""
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}", *(f"{k}: {v}" for k, v in headers.items())]
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())


class WireServer:
    """Override `answer`. `async with` runs it on this event loop, `in_thread` on another one.

    Started again after a stop it listens on the same port. `cancelled` counts the clients that left in mid-answer.
    """

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.cancelled = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        """Connections that neither side has closed."""
        return len(self._open)

    async def answer(self, asked: Asked, answering: Answering) -> None:
        """Raises HungUp to close the connection."""
        raise NotImplementedError

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=_BACKLOG)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and cut every connection, as a kill would."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await self._server.wait_closed()
        while self._open:  # noqa: ASYNC110 - the writers end by themselves
            await asyncio.sleep(0)

    async def settled(self, connections: int = 0) -> None:
        """Wait until no more than so many connections are open; a test's time limit ends a vain wait."""
        while self.open_connections > connections:  # noqa: ASYNC110 - it may run in another thread
            await asyncio.sleep(0.001)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    def _is_serving(self) -> bool:
        return self._server is not None and self._server.is_serving()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            await self._converse(reader, writer)
        except (HungUp, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self._open.discard(writer)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(1)
        while first:
            asked = await _read(first, reader)
            # The next byte is the next request's, or the end: then the client has gone away.
            after = asyncio.create_task(reader.read(1))
            answer = asyncio.create_task(self.answer(asked, Answering(writer)))
            try:
                await asyncio.wait((after, answer), return_when=asyncio.FIRST_COMPLETED)
                if not answer.done():
                    self.cancelled += self._is_serving()
                    return
                await answer
                first = await after
            finally:
                await _end(after, answer)


async def _end(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _read(first: bytes, reader: asyncio.StreamReader) -> Asked:
    head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *rest = head.rstrip().split("\r\n")
    method, path, _ = line.split(" ")
    headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in rest)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(method=method, path=path, headers=headers, body=body)


@contextmanager
def in_thread(server: S) -> Iterator[S]:
    """Run it on an event loop of its own, for tests without one and for clients in other processes."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
        yield server
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
