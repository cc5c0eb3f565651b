"""What a connection may take: raw sockets against the real server, with short deadlines."""

import json
import socket
import time
from collections.abc import Iterator

import httpx
import msgspec
import pytest

from tests.fakes.running import RunningServer

pytestmark = pytest.mark.slow

SETTINGS = {
    "header_timeout_s": 1.0,
    "body_timeout_s": 1.0,
    "min_body_rate": 1000,
    "write_timeout_s": 1.0,
    "max_connections": 64,
}
PATIENCE_S = 60.0
"""For a machine that has much else to do: whoever waits so long has not been answered."""

UPLOAD = b"POST /documents HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n"


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with short deadlines."""
    running = RunningServer(
        tmp_path_factory.mktemp("home"), "tests.fakes.server", msgspec.json.encode(SETTINGS).decode()
    )
    yield running
    assert not [line for line in running.lines if "Traceback" in line or "unexpected error" in line]
    running.close()


def connect(server: RunningServer) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE_S)


def read_all(connection: socket.socket) -> bytes:
    """Until the server closes."""
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def problem(response: bytes) -> dict[str, object]:
    """The body of a refusal, which says that the connection closes and carries an id."""
    head, _, body = response.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert b"application/problem+json" in head
    decoded: dict[str, object] = json.loads(body)
    assert f"x-request-id: {decoded['instance']}".encode() in head
    return decoded


def test_headers_that_do_not_come_are_408(impatient: RunningServer) -> None:
    """A head that trickles in is given up, however steadily it trickles."""
    with connect(impatient) as connection:
        connection.sendall(b"GET /version HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        began = time.monotonic()
        connection.settimeout(0.1)
        while True:
            try:
                if connection.recv(1, socket.MSG_PEEK):
                    break
            except TimeoutError:
                connection.sendall(b"a")
            assert time.monotonic() - began < PATIENCE_S
        connection.settimeout(PATIENCE_S)
        assert problem(read_all(connection))["status"] == 408


def test_a_connection_without_a_request_is_closed(impatient: RunningServer) -> None:
    """Without a word, because nothing was asked."""
    with connect(impatient) as connection:
        assert read_all(connection) == b""


@pytest.mark.parametrize("size", [65_536, 65_537])
def test_headers_have_a_limit_in_all(impatient: RunningServer, size: int) -> None:
    """64 KiB are served, one byte more is 431."""
    head = b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Long: "
    filling = b"a" * (size - len(head) - 4)
    with connect(impatient) as connection:
        connection.sendall(head + filling + b"\r\n\r\n")
        response = read_all(connection)
    if size == 65_536:
        assert response.startswith(b"HTTP/1.1 200")
    else:
        assert problem(response)["status"] == 431


def test_an_endless_header_is_refused_at_once(impatient: RunningServer) -> None:
    """And nobody else waits meanwhile."""
    with connect(impatient) as connection:
        connection.sendall(b"GET /version HTTP/1.1\r\nX-Long: ")
        try:
            for _ in range(1000):
                connection.sendall(b"a" * 65_536)
                assert httpx.get(f"{impatient.url}/health/live", timeout=PATIENCE_S).status_code == 200
        except (BrokenPipeError, ConnectionResetError):
            return
        raise AssertionError("64 MB of headers were read")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET /version HTTP/1.1\r\n" + b"a: b\r\n" * 300 + b"\r\n", 431),
        (b"GET /version HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01" * 10, 400),
        (b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET http://localhost HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    ],
)
@pytest.mark.parametrize("earlier", [b"", b"HEAD /version HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_heads_beyond_the_limits_are_refused(
    impatient: RunningServer, earlier: bytes, sent: bytes, status: int
) -> None:
    """A long URL, many headers, what is not HTTP or names no path; also after a request that was served."""
    with connect(impatient) as connection:
        if earlier:
            connection.sendall(earlier)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        connection.sendall(sent)
        assert problem(read_all(connection))["status"] == status
    assert not any("Fatal error" in line for line in impatient.lines)


@pytest.mark.parametrize("pieces", [[], [b" "] * 400])
def test_a_body_that_does_not_come_is_408(impatient: RunningServer, pieces: list[bytes]) -> None:
    """Neither a stalled body nor a drip holds a connection."""
    with connect(impatient) as connection:
        connection.sendall(UPLOAD)
        connection.settimeout(0.1)
        for piece in pieces:
            try:
                if connection.recv(1, socket.MSG_PEEK):
                    break
            except TimeoutError:
                connection.sendall(piece)
        connection.settimeout(PATIENCE_S)
        assert problem(read_all(connection))["status"] == 408


def test_a_steady_body_may_take_its_time(impatient: RunningServer) -> None:
    """A slow link is served as long as it keeps to the rate."""
    body = b'{"query": "dental"' + b" " * 20_000 + b"}"
    head = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    with connect(impatient) as connection:
        connection.sendall(head % len(body) + b"Connection: close\r\n\r\n")
        for start in range(0, len(body), 500):
            connection.sendall(body[start : start + 500])
            time.sleep(0.04)
        assert read_all(connection).startswith(b"HTTP/1.1 200")


def test_who_does_not_read_is_cut_off(impatient: RunningServer) -> None:
    """A response that nobody takes is not held for ever."""
    impatient.skip_log()
    with connect(impatient) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET /schema HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200)
        impatient.wait_for("does not read")


def test_idle_connections_give_way(impatient: RunningServer) -> None:
    """Many more connections than are allowed, and a new client is served all the same."""
    idle = [connect(impatient) for _ in range(300)]
    try:
        assert httpx.get(f"{impatient.url}/health/live", timeout=PATIENCE_S).status_code == 200
    finally:
        for connection in idle:
            connection.close()


def test_beyond_the_limit_of_connections_is_503(impatient: RunningServer) -> None:
    """Where all have a request under way, the next one is told to come back."""
    busy = [connect(impatient) for _ in range(64)]
    try:
        for connection in busy:
            connection.sendall(UPLOAD)
        time.sleep(0.3)
        with connect(impatient) as connection:
            response = read_all(connection)
        assert problem(response)["status"] == 503
        assert b"retry-after: 1" in response
    finally:
        for connection in busy:
            connection.close()


def test_an_offer_of_http_2_is_passed_over(impatient: RunningServer) -> None:
    """Java's client makes it with its first request; this and the next ones are served."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
    with connect(impatient) as connection:
        for more in (offer, b"Connection: close\r\n"):
            connection.sendall(b"GET /version HTTP/1.1\r\nHost: localhost\r\n" + more + b"\r\n")
            time.sleep(0.1)
        assert read_all(connection).count(b"HTTP/1.1 200") == 2


def test_a_body_that_nobody_wants_ends(impatient: RunningServer) -> None:
    """The answer comes before the body, and what follows is not parsed as a request."""
    with connect(impatient) as connection:
        connection.sendall(b"GET /version HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
