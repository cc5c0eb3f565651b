"""What the replica that writes gets of a request that another one hands on."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from app.api.hand_on import HOP, STANDING, hand_on
from app.errors import WinnowError
from app.observability.tracing import Span, active
from app.wiring import Services
from indexing.writer import Writer

pytestmark = pytest.mark.anyio

Headers = list[tuple[bytes, bytes]]


class Heads:
    """A server that answers 204, and keeps what requests begin with."""

    def __init__(self) -> None:
        self.url = ""
        self.got: list[list[str]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.got.append(head.decode().strip().split("\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\nX-Request-Id: other\r\nX-More: told\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


@asynccontextmanager
async def heads() -> AsyncIterator[Heads]:
    kept = Heads()
    server = await asyncio.start_server(kept, "127.0.0.1", 0)
    async with server:
        kept.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield kept


class Traced:
    """A span that says where it is."""

    def headers(self) -> Mapping[str, str]:
        return {"traceparent": "ours"}


async def handed_on(url: str, raw_path: bytes, query: bytes = b"", headers: Headers | None = None) -> list[Any]:
    """The messages of the response that one gets who asks a replica which does not write."""

    async def writer() -> Writer:
        return Writer(url, "secret")

    scope: dict[str, Any] = {
        "method": "GET",
        "path": "/",
        "raw_path": raw_path,
        "query_string": query,
        "headers": headers or [],
        "state": {STANDING: "remote", "request_id": "r1"},
    }
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    async with httpx.AsyncClient(trust_env=False) as client:
        replicas = SimpleNamespace(writes=False, writer=writer, client=client)
        request = SimpleNamespace(scope=scope, headers={}, route_handler=SimpleNamespace(opt={}))
        app = await hand_on(cast("Services", SimpleNamespace(replicas=replicas)), cast("Any", request))
        assert app is not None
        await app(cast("Any", scope), receive, send)
    return sent


@pytest.mark.parametrize(
    ("path", "query", "target"),
    [
        (b"/documents/a/../b", b"", "/documents/a/../b"),
        (b"/documents/./a%2F..%2Fb", b"", "/documents/./a%2F..%2Fb"),
        (b"//example.org/documents", b"", "//example.org/documents"),
        (b"/documents/a%20b", b"q=[1]+%7C&r='x'|", "/documents/a%20b?q=[1]+%7C&r='x'|"),
        (b"/documents", "q=\u00e9".encode(), "/documents?q=%C3%A9"),
    ],
)
async def test_the_target_stays_as_it_came(path: bytes, query: bytes, target: str) -> None:
    """A path with dots names one document, and another one without them; what is not ASCII is escaped."""
    async with heads() as writer:
        await handed_on(writer.url, path, query)
    assert writer.got[0][0] == f"GET {target} HTTP/1.1"


async def test_a_client_cannot_say_who_it_is_or_where_it_is_traced() -> None:
    """The writer's secret, the id and the trace are those of the replica that was asked; the key is the caller's."""
    mine = [(b"x-api-key", b"k"), (b"x-request-id", b"mine"), (b"traceparent", b"mine"), (b"x-winnow-token", b"mine")]
    async with heads() as writer:
        with active(cast("Span", Traced())):
            sent = await handed_on(writer.url, b"/documents", headers=mine)
        await handed_on(writer.url, b"/documents", headers=mine)
        with pytest.raises(WinnowError, match="another one is taking over"):
            await handed_on(writer.url, b"/documents", headers=[(HOP, b"guess operator")])
    traced, untraced = writer.got
    assert {"x-api-key: k", "x-request-id: r1", "traceparent: ours", "x-winnow-hop: secret remote"} <= {*traced}
    assert "traceparent: mine" in untraced
    assert not any(line.endswith(": mine") for line in traced)
    assert [header for header in sent[0]["headers"] if header[0].startswith(b"x-")] == [(b"x-more", b"told")]
