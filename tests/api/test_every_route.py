"""Every route with no key and with a key of the wrong scope, by the table of routes: a new one is among them."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from time import time
from typing import Any, NamedTuple, get_args

import httpx
import pytest
from litestar import Litestar, get
from litestar.routes import HTTPRoute

from app.access.access import Access
from app.access.audit import AuditLog
from app.access.keys import OPERATOR, KeyRequest
from app.api.authentication import ANY, PUBLIC, check_scopes
from app.config.settings import AccessSettings, IndexSection, ServiceSettings, Settings
from app.domain import Scope
from app.main import create_app
from app.observability.metrics import Metrics
from tests.api.conftest import local_client

pytestmark = pytest.mark.anyio


class Door:
    """Services of which only what lets callers in may be touched: whoever is refused reaches nothing else."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(index=IndexSection(home=home))
        self.access = Access(home, AccessSettings())
        self.presence = None
        self.replicas = None
        self.metrics = Metrics()
        self.tracer = None
        self.audit = AuditLog(home / "audit.jsonl", time)

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a refused request has reached {name}")


class Operation(NamedTuple):
    """A method of a route, and the scopes of which one is needed."""

    method: str
    path: str
    scopes: tuple[str, ...]


def operations(app: Litestar) -> Iterator[Operation]:
    """All that the application serves, in its own format and in others'."""
    for route in app.routes:
        assert isinstance(route, HTTPRoute)
        for handler in route.route_handlers:
            scope = handler.opt.get("scope", ())
            path = "/" + "/".join(part if isinstance(part, str) else "x" for part in route.path_components)
            for method in handler.http_methods - {"OPTIONS"}:
                yield Operation(method, path, (scope,) if isinstance(scope, str) else tuple(scope))


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    door = Door(tmp_path_factory.mktemp("home"))
    yield door
    door.audit.close()


@pytest.fixture(scope="module")
def app(door: Door) -> Litestar:
    return create_app(door.settings, door)  # type: ignore[arg-type]


@pytest.fixture
async def client(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    """From another machine."""
    async with local_client(app, host="203.0.113.7") as client:
        yield client


@pytest.fixture(scope="module")
def tokens(door: Door) -> dict[str, str]:
    """A key of each scope alone."""
    scopes: tuple[Scope, ...] = get_args(Scope)
    return {scope: door.access.file.create(KeyRequest(name=scope, scopes=(scope,)))[1] for scope in scopes}


JSON = {"Content-Type": "application/json"}


async def test_without_a_key_nothing_is_served(
    app: Litestar, client: httpx.AsyncClient, tokens: dict[str, str], subtests: pytest.Subtests
) -> None:
    """401 with a challenge wherever a key is needed, before the body is looked at; HEAD as GET."""
    for operation in operations(app):
        with subtests.test(operation=operation):
            for method in (operation.method, *(["HEAD"] if operation.method == "GET" else [])):
                reply = await client.request(method, operation.path, content=b"{", headers=JSON)
                if PUBLIC in operation.scopes:
                    assert reply.status_code != 401
                else:
                    assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer wnw_0123456789ab_" + "A" * 43},
        {"X-API-Key": "x"},
        {"Authorization": b"Bearer \xff\xfe"},
    ],
)
async def test_with_a_wrong_key_nothing_is_served(
    app: Litestar, client: httpx.AsyncClient, tokens: dict[str, str], headers: Any, subtests: pytest.Subtests
) -> None:
    """As without one."""
    for operation in operations(app):
        if PUBLIC not in operation.scopes:
            with subtests.test(operation=operation):
                reply = await client.request(operation.method, operation.path, headers=headers)
                assert reply.status_code == 401


async def test_a_key_without_the_scope_is_refused(
    app: Litestar, client: httpx.AsyncClient, tokens: dict[str, str], subtests: pytest.Subtests
) -> None:
    """403 for each scope but those of the route, and admin; Dify would take 403 for a wrong address."""
    refused = 0
    for operation in operations(app):
        others = set(tokens) - {*operation.scopes, *([] if OPERATOR in operation.scopes else ["admin"])}
        for scope in () if {PUBLIC, ANY} & {*operation.scopes} else others:
            with subtests.test(operation=operation, key=scope):
                headers = {**JSON, "Authorization": f"Bearer {tokens[scope]}"}
                reply = await client.request(operation.method, operation.path, content=b"{", headers=headers)
                assert reply.status_code == (401 if operation.path == "/retrieval" else 403)
                refused += 1
    assert refused > 100


def test_every_route_says_its_scope() -> None:
    """An application with one that does not is not made."""

    @get("/new")
    async def forgotten() -> None: ...

    @get("/other", opt={"scope": "seach"})
    async def misspelt() -> None: ...

    for handler in (forgotten, misspelt):
        with pytest.raises(RuntimeError, match="needs opt="):
            check_scopes(Litestar([handler], openapi_config=None))


@pytest.mark.parametrize(
    ("path", "pick"),
    [
        ("/search", lambda body: body["type"] == "urn:winnow:problem:not-authenticated"),
        ("/v1/embeddings", lambda body: body["error"]["type"] == "authentication_error"),
        ("/v1/chat/completions", lambda body: body["error"]["code"] == "not_authenticated"),
        ("/v2/rerank", lambda body: "a key is needed" in body["message"] and body["detail"] == body["message"]),
        ("/retrieval", lambda body: body["error_code"] == 1002),
        ("/api/v1/retrieval", lambda body: body["code"] == 401),
        ("/mcp", lambda body: "a key is needed" in body["error"]["message"] and body["jsonrpc"] == "2.0"),
    ],
)
async def test_each_client_understands_the_refusal(
    client: httpx.AsyncClient, tokens: dict[str, str], path: str, pick: Any
) -> None:
    """In the shape of its own errors."""
    reply = await client.post(path, json={})
    assert reply.status_code == 401
    assert pick(reply.json())


@pytest.mark.parametrize(
    "headers",
    [
        lambda key: {"Authorization": f"Bearer {key}"},
        lambda key: {"Authorization": f"bearer   {key} "},
        lambda key: {"X-API-Key": key},
        lambda key: {"api-key": key},
        lambda key: {"Authorization": "Basic dTpw", "X-API-Key": key},
        lambda key: {"Authorization": f"Bearer {key}", "X-API-Key": key},
    ],
)
async def test_a_key_may_come_in_each_clients_own_way(
    client: httpx.AsyncClient, tokens: dict[str, str], headers: Any
) -> None:
    """Beside another scheme that is a proxy's, too."""
    assert (await client.get("/version", headers=headers(tokens["search"]))).status_code == 200


async def test_a_key_in_the_url_is_not_taken(client: httpx.AsyncClient, tokens: dict[str, str]) -> None:
    """URLs end up in logs."""
    for name in ("key", "api_key", "X-API-Key", "access_token"):
        assert (await client.get("/version", params={name: tokens["admin"]})).status_code == 401


async def test_two_headers_that_disagree_are_refused(client: httpx.AsyncClient, tokens: dict[str, str]) -> None:
    """Also two of the same name."""
    one, other = tokens["search"], tokens["admin"]
    for headers in (
        [("Authorization", f"Bearer {one}"), ("X-API-Key", other)],
        [("X-API-Key", one), ("X-API-Key", other)],
    ):
        assert (await client.get("/version", headers=headers)).status_code == 401


async def test_foreign_pages_stay_outside(client: httpx.AsyncClient, tokens: dict[str, str]) -> None:
    """Whoever has a key is still not served to a page of another origin."""
    headers = {"Authorization": f"Bearer {tokens['admin']}", "Origin": "https://evil.example"}
    assert (await client.get("/version", headers=headers)).status_code == 403


def test_the_door_is_closed(door: Door) -> None:
    """The services of these tests break where a refused request reaches them."""
    assert door.settings.service == ServiceSettings()
    with pytest.raises(AssertionError, match="has reached searcher"):
        _ = door.searcher
