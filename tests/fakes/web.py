"""A small web on one local server: names with addresses of their own, and a record of every connection."""

import asyncio
import ipaddress
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import httpcore2 as httpcore

from indexing.concurrency import BackgroundTasks

Page = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


def page(body: bytes, media_type: str = "image/png", status: str = "200 OK", **headers: str) -> bytes:
    """A whole response."""
    head = {"Content-Type": media_type, "Content-Length": str(len(body))}
    head |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in head.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def redirect(target: str, status: str = "302 Found") -> bytes:
    """A response that sends elsewhere."""
    return page(b"", status=status, Location=target)


class Web(httpcore.AsyncNetworkBackend):
    """Resolves by `names` and connects everything to its own server, noting the address in `connected`.

    A name's addresses may be several lists: one for each time that it is resolved, the last one for ever.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.names: dict[str, list[list[str]]] = {}
        self.pages: dict[str, Page] = {}
        self.resolved: list[str] = []
        self.connected: list[tuple[str, int]] = []
        self.asked: list[str] = []
        self._answers = BackgroundTasks()
        self._tls = tls
        self._real = httpcore.AnyIOBackend()

    async def __aenter__(self) -> "Web":
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._answers.cancel()  # one that sleeps would be waited for
        await self._server.wait_closed()

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.resolved.append(host)
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            if host not in self.names:
                raise OSError("unknown name") from None
        turns = self.names[host]
        return turns.pop(0) if len(turns) > 1 else turns[0]

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.connected.append((host, port))
        return await self._real.connect_tcp("127.0.0.1", self._server.sockets[0].getsockname()[1])

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._answers.start(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked.append(head)
            answer = self.pages.get(head.split()[1], page(b"", status="404 Not Found"))
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # clients that hang up are a part of the tests
        finally:
            writer.close()
