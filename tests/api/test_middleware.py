"""Request ids, the log line, and who may come in."""

import re
from typing import Any

import httpx
import msgspec
import pytest
from litestar import Litestar
from structlog.testing import capture_logs

from app.api.middleware import check_caller
from app.config.settings import ServiceSettings
from app.errors import NotAllowed
from app.instance import is_loopback
from app.main import create_app
from app.wiring import Services
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


FOLLOWED = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
"""A link on a page of another site was clicked."""


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
        scope(host="127.0.0.1:8000", origin="http://127.0.0.1:8000"),
        scope(host="localhost:8000", origin="http://localhost:8000"),
        scope(host="localhost", origin="http://localhost"),
        scope(host="rag.example:443", origin="https://rag.example"),
        scope(host="localhost:8000", origin="http://chat.example:3000"),
        scope(host="Rag.Example:8000", origin="https://rag.example"),
        scope(host="localhost:8000", origin="https://front.example", **{"sec-fetch-site": "same-origin"}),
        scope(host="localhost", **{"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}),
        scope(host="localhost", **FOLLOWED),
    ],
)
def test_this_machine_is_served(admitted: dict[str, Any]) -> None:
    """Loopback in all its forms, unix sockets, and configured names pass."""
    check_caller(admitted, ServiceSettings(hosts=("rag.example",), cors_origins=("http://chat.example:3000",)))


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
        scope(host="", origin="null"),
        scope(host="localhost:8000", origin="http://localhost:3000"),
        scope(host="localhost:8000", origin="http://127.0.0.1:8000"),
        scope(host="localhost:8000", origin="http://localhost"),
        scope(host="localhost", origin="http://[::1"),
        scope(host="localhost", **{"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}),
        scope(host="localhost:8000", **{"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"}),
        scope(host="localhost", **{**FOLLOWED, "sec-fetch-dest": "iframe"}),
        scope(host="localhost", origin="null", **FOLLOWED),
    ],
)
def test_others_are_not(refused: dict[str, Any]) -> None:
    """Other machines, rebound names (DNS rebinding) and foreign web pages are refused."""
    with pytest.raises(NotAllowed):
        check_caller(refused, ServiceSettings())


def test_all_may_come_in_when_told_so() -> None:
    """WINNOW_ALLOW_ANONYMOUS lets other machines in, under any name, but no foreign web page."""
    settings = ServiceSettings(allow_anonymous=True)
    check_caller(scope("203.0.113.7", host="rag.example"), settings)
    check_caller(scope("203.0.113.7", host="rag.example:8000", origin="http://rag.example:8000"), settings)
    for origin in ("https://evil.example", "http://rag.example", "null"):
        with pytest.raises(NotAllowed):
            check_caller(scope("203.0.113.7", host="rag.example:8000", origin=origin), settings)
    check_caller(scope(host="x", origin="https://any.example"), msgspec.structs.replace(settings, cors_origins=("*",)))


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
        ({"host": "localhost:8000", "origin": "http://localhost:8000"}, True),
        ({"host": "localhost:8000", "origin": "http://winnow"}, True),
        ({"host": "localhost:8000", "origin": "http://localhost:3000"}, False),
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


@pytest.mark.parametrize("path", ["/health/live", "/version", "/schema", "/v1/models", "/documents", "/collections"])
async def test_head_is_get_without_the_body(client: httpx.AsyncClient, services: Services, path: str) -> None:
    """The same status and headers wherever GET is."""
    assert services.warm_up._task is not None
    await services.warm_up._task  # what it recovers changes the lists
    get, head = await client.get(path), await client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    own = ("x-request-id",)
    assert [h for h in head.headers.items() if h[0] not in own] == [h for h in get.headers.items() if h[0] not in own]


async def test_methods_are_told(client: httpx.AsyncClient) -> None:
    """OPTIONS and 405 name HEAD beside GET; where there is no GET there is no HEAD."""
    options = await client.options("/version")
    assert (options.status_code, "HEAD" in options.headers["allow"]) == (204, True)
    wrong = await client.post("/version")
    assert (wrong.status_code, "HEAD" in wrong.headers["allow"]) == (405, True)
    missing = await client.head("/search")
    assert (missing.status_code, "HEAD" in missing.headers["allow"]) == (405, False)


async def test_pages_run_nothing_of_others_and_are_framed_by_nobody(client: httpx.AsyncClient) -> None:
    """Every page has its policy, and no response is taken for something else."""
    page = await client.get("/schema", headers={"Accept": "text/html"})
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert "script-src 'self';" in page.headers["content-security-policy"]
    assert re.findall("<script[^>]*>", page.text) == ['<script type="module" src="/web/-/try.js">']
    assert (await client.get("/web/-/try.js")).headers["content-type"].startswith("text/javascript")
    for response in (page, await client.get("/version"), await client.get("/nowhere")):
        assert response.headers.get_list("x-content-type-options") == ["nosniff"]


async def test_polls_are_not_info_lines(client: httpx.AsyncClient) -> None:
    """What supervisors ask every few seconds would bury the rest."""
    with capture_logs() as lines:
        for path in ("/health/live", "/health/ready", "/version"):
            await client.get(path)
    levels = [(line["route"], line["log_level"]) for line in lines if line["event"] == "request"]
    assert levels == [("/health/live", "debug"), ("/health/ready", "debug"), ("/version", "info")]


PAGE = "http://chat.example:3000"
ASKING = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
    "Access-Control-Request-Private-Network": "true",
}


def opened_to(services: Services, *origins: str) -> Litestar:
    """The application with these origins allowed."""
    service = msgspec.structs.replace(services.settings.service, cors_origins=origins)
    return create_app(msgspec.structs.replace(services.settings, service=service), services)


async def test_a_listed_page_may_ask_and_read(services: Services) -> None:
    """Preflight, the response itself, and errors, as browsers need them; another page is refused."""
    app = opened_to(services, PAGE)
    async with app.lifespan(), local_client(app) as client:
        asked = await client.options("/v1/chat/completions", headers=ASKING)
        assert asked.status_code == 204
        assert asked.headers["access-control-allow-origin"] == PAGE
        assert "POST" in asked.headers["access-control-allow-methods"]
        assert asked.headers["access-control-allow-headers"] == ASKING["Access-Control-Request-Headers"]
        assert asked.headers["access-control-allow-private-network"] == "true"
        for response in (
            await client.get("/v1/models", headers={"Origin": PAGE}),
            await client.post("/search", content=b"{", headers={"Origin": PAGE}),
        ):
            assert response.headers["access-control-allow-origin"] == PAGE
            assert "Retry-After" in response.headers["access-control-expose-headers"]
            assert "Origin" in response.headers["vary"]
        for method in ("OPTIONS", "GET"):
            other = await client.request(method, "/v1/models", headers={**ASKING, "Origin": "http://other.example"})
            assert other.status_code == 403
            assert "access-control-allow-origin" not in other.headers
        program = await client.get("/v1/models")
        assert program.status_code == 200
        assert "access-control-allow-origin" not in program.headers


async def test_no_page_may_by_default(client: httpx.AsyncClient) -> None:
    """Without the setting nothing is said to browsers."""
    response = await client.options("/v1/chat/completions", headers={**ASKING, "Origin": "http://localhost"})
    assert not [name for name in response.headers if name.startswith("access-control")]


async def test_all_pages_may_if_told_so(services: Services) -> None:
    """ "*" is every origin."""
    app = opened_to(services, "*")
    async with app.lifespan(), local_client(app) as client:
        response = await client.get("/v1/models", headers={"Origin": "https://any.example"})
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, "*")
