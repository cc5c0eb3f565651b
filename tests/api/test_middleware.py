"""Request ids, the log line, and who may come in."""

from typing import Any

import httpx
import pytest
from litestar import Litestar
from structlog.testing import capture_logs

from app.api.middleware import check_caller, is_loopback
from app.config.settings import ServiceSettings
from app.errors import NotAllowed
from tests.api.conftest import local_client

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("method", "path"), [("GET", "/version"), ("GET", "/nowhere"), ("PUT", "/search")])
async def test_every_response_carries_an_id(client: httpx.AsyncClient, method: str, path: str) -> None:
    """Also those that no route serves; two requests differ."""
    ids = {(await client.request(method, path)).headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2


async def test_a_sane_id_is_kept(client: httpx.AsyncClient) -> None:
    """The caller's own id comes back, once."""
    response = await client.get("/version", headers={"X-Request-Id": "trace-1.a_B"})
    assert response.headers.get_list("x-request-id") == ["trace-1.a_B"]


@pytest.mark.parametrize("sent", ["", "a b", "x" * 129, "a;b", "ä".encode()])
async def test_an_insane_id_is_replaced(client: httpx.AsyncClient, sent: str | bytes) -> None:
    """What could break a log line or a header is not echoed."""
    response = await client.get("/version", headers={"X-Request-Id": sent})
    assert len(response.headers["x-request-id"]) == 32


async def test_the_log_has_one_line_without_the_query(client: httpx.AsyncClient) -> None:
    """A request is one line with id, route, status and timings, and without what was asked."""
    with capture_logs() as lines:
        response = await client.post("/search?secret=1", json={"query": "my illness"})
    (line,) = [line for line in lines if line["event"] == "request"]
    assert line["id"] == response.headers["x-request-id"]
    assert (line["method"], line["route"], line["status"]) == ("POST", "/search", 200)
    assert {"embed", "retrieve", "total", "ms"} <= set(line)
    assert "illness" not in str(lines)
    assert "secret" not in str(lines)


async def test_a_strangers_request_is_refused(app: Litestar) -> None:
    """A client of another machine gets 403 with the fix, also for paths that do not exist."""
    async with local_client(app, host="203.0.113.7") as client:
        for path in ("/version", "/nowhere"):
            response = await client.get(path)
            assert response.status_code == 403
            assert "WINNOW_ALLOW_ANONYMOUS=1" in response.json()["detail"]
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["instance"] == response.headers["x-request-id"]


async def test_a_forwarded_address_is_not_believed(app: Litestar) -> None:
    """X-Forwarded-For does not make a stranger local."""
    async with local_client(app, host="203.0.113.7") as client:
        response = await client.get("/version", headers={"X-Forwarded-For": "127.0.0.1"})
    assert response.status_code == 403


def scope(client: str | None = "127.0.0.1", **headers: str) -> dict[str, Any]:
    """What `check_caller` looks at."""
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return {"client": (client, 1) if client else None, "headers": raw}


@pytest.mark.parametrize(
    "admitted",
    [
        scope(),
        scope("::1", host="[::1]:8000"),
        scope("::ffff:127.0.0.1", host="localhost:8000"),
        scope(None, host="localhost"),
        scope(host="127.0.0.1:8000", origin="http://localhost:3000"),
        scope(host="Rag.Example:8000", origin="https://rag.example"),
    ],
)
def test_this_machine_is_served(admitted: dict[str, Any]) -> None:
    """Loopback in all its forms, unix sockets, and configured names pass."""
    check_caller(admitted, ServiceSettings(hosts=("rag.example",)))


@pytest.mark.parametrize(
    "refused",
    [
        scope("10.0.0.5", host="localhost"),
        scope("fe80::1%eth0", host="localhost"),
        scope("not an address", host="localhost"),
        scope(host="evil.example"),
        scope(host="127.0.0.1.evil.example"),
        scope(host="[::1"),
        scope(host="localhost", origin="https://evil.example"),
        scope(host="localhost", origin="null"),
        scope(host="localhost", origin="http://[::1"),
    ],
)
def test_others_are_not(refused: dict[str, Any]) -> None:
    """Other machines, rebound names (DNS rebinding) and foreign web pages are refused."""
    with pytest.raises(NotAllowed):
        check_caller(refused, ServiceSettings())


def test_all_may_come_in_when_told_so() -> None:
    """WINNOW_ALLOW_ANONYMOUS lets other machines in."""
    check_caller(scope("203.0.113.7", host="evil.example"), ServiceSettings(allow_anonymous=True))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("a.localhost", True),
        ("127.255.0.1", True),
        ("localhost.evil", False),
        ("0.0.0.0", False),  # noqa: S104 - the point of the test
        ("", False),
    ],
)
def test_loopback_is_known_by_name_and_number(host: str, loopback: bool) -> None:
    """RFC 6761 names and the loopback ranges, nothing that merely looks like them."""
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("headers", "welcome"),
    [
        ({"host": "winnow:8000"}, True),
        ({"host": "127.0.0.1:8000"}, True),
        ({"host": "localhost:8000", "origin": "http://localhost:3000"}, True),
        ({"host": "rebound.example:8000"}, False),
        ({"host": "localhost:8000", "origin": "https://evil.example"}, False),
    ],
)
def test_in_a_container_names_are_the_guard(headers: dict[str, str], welcome: bool) -> None:
    """With names configured, an open door lets other machines in, but no web page under a name of its own."""
    settings = ServiceSettings(allow_anonymous=True, hosts=("winnow",))
    caller = scope("172.18.0.1", **headers)
    if welcome:
        check_caller(caller, settings)
    else:
        with pytest.raises(NotAllowed):
            check_caller(caller, settings)
