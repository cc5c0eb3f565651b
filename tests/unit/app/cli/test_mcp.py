"""What `winnow mcp` makes of a service that answers in other ways than ours does."""

import json
from collections.abc import AsyncIterator, Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from app.cli.mcp import Relay, Service
from tests.fakes.agents import message

pytestmark = pytest.mark.anyio

LATEST = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}


async def relayed(answer: Callable[[dict[str, str]], tuple[int, str, bytes]], *given: Any) -> list[dict[str, Any]]:
    """What is written for these messages, where `answer` makes status, type and body of a request's headers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, media_type, body = answer(dict(self.headers.items()))
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    async def lines() -> AsyncIterator[bytes]:
        for one in given:
            yield json.dumps(one).encode() + b"\n"

    written: list[bytes] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        service = Service(f"http://127.0.0.1:{server.server_port}/mcp?collection=x", {"X-Key": "k"})
        await Relay(lambda: service, written.append).run(lines())
        server.shutdown()
        thread.join()
    return [json.loads(line) for line in written]


async def test_a_proxys_page_becomes_an_error_of_the_request() -> None:
    """With the status; a notification has no answer."""
    page = (502, "text/html", b"<html>Bad Gateway</html>")
    written = await relayed(lambda _: page, message("ping"), message("notifications/initialized", None, None))
    [only] = written
    assert only["id"] == 1
    assert only["error"]["message"].endswith("/mcp answered with HTTP status 502")


async def test_a_refusal_gets_the_id_of_its_request() -> None:
    """The service refuses before it knows one."""
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": "a key is needed"}}
    refusal = (401, "application/json", json.dumps(error).encode())
    assert await relayed(lambda _: refusal, message("ping", None, "seven")) == [{**error, "id": "seven"}]


async def test_events_are_lines_in_their_order() -> None:
    """Progress first; comments and empty events are nothing. Without an answer the request gets an error."""
    told, answer = message("notifications/progress", {}, None), {"jsonrpc": "2.0", "id": 1, "result": {}}
    begun = b": ping\r\n\r\nid: 1\r\ndata:\r\n\r\nevent: message\r\ndata: %s\r\n\r\n" % json.dumps(told).encode()
    whole = begun + b"data: %s\r\n\r\n" % json.dumps(answer).encode()
    assert await relayed(lambda _: (200, "text/event-stream", whole), message("ping")) == [told, answer]
    written = await relayed(lambda _: (200, "text/event-stream", begun), message("ping"))
    assert (written[0], written[1]["id"]) == (told, 1)
    assert "before its answer" in written[1]["error"]["message"]


async def test_what_the_protocol_has_in_headers_is_there() -> None:
    """Of the latest version with each request, encoded where it is not plain text; of others after a handshake."""
    seen: list[dict[str, str]] = []

    def answer(headers: dict[str, str]) -> tuple[int, str, bytes]:
        seen.append({name.lower(): value for name, value in headers.items()})
        result = {"jsonrpc": "2.0", "id": 1, "result": {"protocolVersion": "2025-06-18"}}
        return 200, "application/json", json.dumps(result).encode()

    await relayed(
        answer,
        message("resources/read", {**LATEST, "uri": "winnow://x/ä"}),
        message("initialize", {}),
        message("tools/list"),
    )
    latest = next(one for one in seen if one.get("mcp-method") == "resources/read")
    assert (latest["mcp-protocol-version"], latest["mcp-name"]) == ("2026-07-28", "=?base64?d2lubm93Oi8veC/DpA==?=")
    assert {one["x-key"] for one in seen} == {"k"}
    assert sorted(one.get("mcp-protocol-version", "") for one in seen) == ["", "2025-06-18", "2026-07-28"]


async def test_a_service_that_is_away_is_an_error() -> None:
    """After it has been looked for again."""
    written: list[bytes] = []

    async def lines() -> AsyncIterator[bytes]:
        yield json.dumps(message("ping")).encode()

    await Relay(lambda: Service("http://127.0.0.1:9/mcp", {}), written.append).run(lines())
    assert "cannot be reached" in json.loads(written[0])["error"]["message"]
