"""What the replica that writes gets of a request that another one hands on."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from app.api.hand_on import CLIENT, HOP, STANDING, client_of, hand_on, standing_of
from app.errors import InvalidRequest, WinnowError
from app.observability.tracing import Span, active
from app.services.replicas import Replicas
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
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()
            return
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


async def handed_on(
    url: str, raw_path: bytes, query: bytes = b"", headers: Headers | None = None, body: Sequence[bytes] = ()
) -> list[Any]:
    """The messages of the response that one gets who asks a replica which does not write. After its `body`, if that is
    not empty, the client stalls in the midst of it.
    """
    pieces = iter(body)

    async def writer() -> Writer:
        return Writer(url, "secret")

    scope: dict[str, Any] = {
        "method": "GET",
        "path": "/",
        "raw_path": raw_path,
        "query_string": query,
        "headers": headers or [],
        "client": ("203.0.113.7", 5000),
        "state": {STANDING: "remote", "request_id": "r1"},
    }
    sent: list[Any] = []

    async def receive() -> Any:
        if (piece := next(pieces, None)) is not None:
            return {"type": "http.request", "body": piece, "more_body": True}
        return await asyncio.Event().wait()

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
    mine.append((CLIENT, b"guess mine"))
    async with heads() as writer:
        with active(cast("Span", Traced())):
            sent = await handed_on(writer.url, b"/documents", headers=mine)
        await handed_on(writer.url, b"/documents", headers=mine)
        with pytest.raises(WinnowError, match="another one is taking over"):
            await handed_on(writer.url, b"/documents", headers=[(HOP, b"guess operator")])
    traced, untraced = writer.got
    assert {"x-api-key: k", "x-request-id: r1", "traceparent: ours", "x-winnow-hop: secret remote"} <= {*traced}
    assert [line for line in traced if line.startswith("x-winnow-client")] == ["x-winnow-client: secret 203.0.113.7"]
    assert "traceparent: mine" in untraced
    assert not any(line.endswith(": mine") for line in traced)
    assert [header for header in sent[0]["headers"] if header[0].startswith(b"x-")] == [(b"x-more", b"told")]


@pytest.mark.parametrize("header", [HOP, CLIENT])
def test_only_the_writers_secret_is_believed(header: bytes) -> None:
    """Whoever guesses it, sends half of it or another replica's, or puts it elsewhere, is nobody's replica."""
    replicas = cast("Replicas", SimpleNamespace(secret="s3cret"))
    told = {HOP: standing_of, CLIENT: client_of}[header]
    assert told([(b"accept", b"*/*"), (header, b"s3cret operator")], replicas) == "operator"
    for forged in (b"", b"operator", b" operator", b"s3cre operator", b"s3cretoperator", b"\xff\x00 operator"):
        assert told([(header, forged)], replicas) == ""
    assert told([(header, b"guess operator"), (header, b"s3cret operator")], replicas) == ""
    assert told([(b"x-winnow-other", b"s3cret operator")], replicas) == ""
    assert told([(header, b"s3cret operator")], None) == ""


class Refuses:
    """A server that answers 413 when it has the head, and resets the connection as soon as more comes."""

    def __init__(self) -> None:
        self.url, self.closed = "", asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo much")
        await writer.drain()
        await reader.read(1)
        linger = struct.pack("ii", 1, 0)  # closing then sends a reset
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
        self.closed.set()


@pytest.mark.parametrize("size", [1, 200])
async def test_an_early_answer_is_the_answer(size: int) -> None:
    """Of a writer that refuses a body and resets the connection: whether much of it comes, or the client stalls."""
    refuses = Refuses()
    head = [(b"content-length", str(1000 * 65_536).encode())]
    async with await asyncio.start_server(refuses, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with asyncio.timeout(20):
            sent = await handed_on(url, b"/documents", headers=head, body=[bytes(65_536)] * size)
            await refuses.closed.wait()
    assert sent[0]["status"] == 413
    assert b"".join(message.get("body", b"") for message in sent[1:]) == b"too much"


async def test_odd_headers_are_no_failure_of_the_writer() -> None:
    """Spaces at the end of a value, which a client may send, are left out; what HTTP does not allow is refused."""
    async with heads() as writer:
        sent = await handed_on(writer.url, b"/documents", headers=[(b"x-odd", b"a b \t")])
        with pytest.raises(InvalidRequest, match="a header has a character"):
            await handed_on(writer.url, b"/documents", headers=[(b"x-odd", b"a\x0b")])
    assert (sent[0]["status"], "x-odd: a b" in writer.got[0]) == (204, True)
