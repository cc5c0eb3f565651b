"""POST, GET and DELETE /keys, and what a key that they made is good for."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, unquote

import httpx
import pytest
from litestar import Litestar

from app.access.access import Access
from app.access.keys import KeyRequest
from app.config.settings import AccessSettings, IndexSection, ServiceSettings, Settings
from app.domain import TextDelta
from app.wiring import Services
from tests.api.conftest import local_client
from tests.fakes.answerer import DONE, ScriptedAnswerer

pytestmark = pytest.mark.anyio

ADMIN = "an-admins-key-of-forty-characters-or-so"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        service=ServiceSettings(ping_s=0.1),
        access=AccessSettings(admin_key=ADMIN),
        index=IndexSection(home=tmp_path),
    )


@pytest.fixture
async def admin(client: httpx.AsyncClient) -> httpx.AsyncClient:
    client.headers["Authorization"] = f"Bearer {ADMIN}"
    return client


def as_key(app: Litestar, token: str) -> httpx.AsyncClient:
    """A client on another machine, with this key."""
    client = local_client(app, host="203.0.113.7")
    client.headers["X-API-Key"] = token
    return client


async def test_a_key_is_shown_once_and_works_at_once(app: Litestar, admin: httpx.AsyncClient) -> None:
    """Its secret is in no later reply."""
    reply = await admin.post("/keys", json={"name": "ci", "scopes": ["search"], "requests_per_minute": 5000})
    assert reply.status_code == 201
    made = reply.json()
    assert made["key"].startswith(made["prefix"])
    async with as_key(app, made["key"]) as client:
        assert (await client.get("/collections")).status_code == 200
        assert (await client.post("/answer", json={"query": "x"})).status_code == 403
        assert (await client.get("/keys")).status_code == 403
    listed = await admin.get("/keys")
    assert made["key"] not in listed.text
    assert listed.json()["keys"] == [{name: value for name, value in made.items() if name != "key"}]


async def test_a_revoked_key_is_refused_at_once(app: Litestar, admin: httpx.AsyncClient) -> None:
    """With the next request; it stays in the list."""
    made = (await admin.post("/keys", json={"name": "ci", "scopes": ["search"]})).json()
    async with as_key(app, made["key"]) as client:
        assert (await client.get("/collections")).status_code == 200
        assert (await admin.delete("/keys/ci")).status_code == 204
        reply = await client.get("/collections")
    assert (reply.status_code, reply.json()["detail"]) == (401, "the key 'ci' is revoked")
    assert [key["state"] for key in (await admin.get("/keys")).json()["keys"]] == ["revoked"]
    assert (await admin.delete("/keys/nope")).status_code == 404


async def test_a_rotated_key_has_another_secret(app: Litestar, admin: httpx.AsyncClient) -> None:
    """And the one before only if asked for."""
    first = (await admin.post("/keys", json={"name": "ci", "scopes": ["search"]})).json()
    second = (await admin.post(f"/keys/{first['id']}/rotate", json={"overlap_s": 60})).json()
    async with as_key(app, first["key"]) as old, as_key(app, second["key"]) as new:
        assert [(await client.get("/version")).status_code for client in (old, new)] == [200, 200]
        third = (await admin.post("/keys/ci/rotate")).json()
        assert [(await client.get("/version")).status_code for client in (old, new)] == [401, 401]
    async with as_key(app, third["key"]) as client:
        assert (await client.get("/version")).status_code == 200


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": "a b", "scopes": ["search"]}, "/name"),
        ({"name": "a", "scopes": ["root"]}, "/scopes"),
        ({"name": "a", "scopes": ["admin"], "tenant": "t"}, "/scopes"),
        ({"name": "a", "scopes": ["search"], "backends": ["nope"]}, "/backends"),
        ({"name": "a", "scopes": ["search"], "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
    ],
)
async def test_a_wrong_request_names_the_field(admin: httpx.AsyncClient, body: dict[str, object], pointer: str) -> None:
    """And makes no key."""
    reply = await admin.post("/keys", json=body)
    assert reply.status_code == 400
    assert reply.json()["errors"][0]["pointer"].startswith(pointer)
    assert (await admin.get("/keys")).json() == {"keys": []}


async def test_a_key_that_is_revoked_ends_its_streams(
    app: Litestar, client: httpx.AsyncClient, services: Services, answerer: ScriptedAnswerer
) -> None:
    """With an error in the stream; and the work behind it is stopped."""
    _, token = services.access.file.create(KeyRequest(name="ci", scopes=("answer",)))
    services.access.load()

    def revoke() -> TextDelta:
        services.access.file.revoke("ci")
        services.access.load()
        return TextDelta("of this nothing may be seen")

    class Revoking(list[object]):
        def __iter__(self) -> Iterator[object]:
            yield TextDelta("begun")
            yield revoke()
            yield DONE

    answerer.script = Revoking()  # type: ignore[assignment]
    reply = await client.post("/answer", json={"query": "x", "stream": True}, headers={"X-API-Key": token})
    assert "begun" in reply.text
    assert "nothing may be seen" not in reply.text
    assert "event: error" in reply.text
    assert "the key 'ci' is revoked" in reply.text
    assert answerer.cancelled.is_set()
    assert services.stopping.is_set() is False


async def test_a_key_that_expires_ends_its_streams(
    app: Litestar, client: httpx.AsyncClient, services: Services, settings: Settings, answerer: ScriptedAnswerer
) -> None:
    """As if it had been revoked, at the very second; nothing of the answer follows."""
    expires_at = datetime(2100, 1, 1, tzinfo=UTC)
    now = expires_at.timestamp() - 1
    services.access = Access(settings.index.home, settings.access, now=lambda: now)
    _, token = services.access.file.create(KeyRequest(name="ci", scopes=("answer",), expires_at=expires_at))

    class Late(list[object]):
        def __iter__(self) -> Iterator[object]:
            nonlocal now
            yield TextDelta("begun")
            now += 1
            yield TextDelta("of this nothing may be seen")
            yield DONE

    answerer.script = Late()  # type: ignore[assignment]
    question, headers = {"query": "x", "stream": True}, {"X-API-Key": token}
    text = (await client.post("/answer", json=question, headers=headers)).text
    assert "begun" in text
    assert "nothing may be seen" not in text
    assert "the key 'ci' is expired" in text.partition("event: error")[2]
    assert answerer.cancelled.is_set()
    assert (await client.post("/answer", json=question, headers=headers)).status_code == 401


async def test_changes_and_refusals_are_in_the_audit_log(
    client: httpx.AsyncClient, services: Services, settings: Settings
) -> None:
    """By whom and how they ended, and nothing of what was sent; searches are not."""
    admin = {"Authorization": f"Bearer {ADMIN}"}
    await client.post("/keys", json={"name": "ci", "scopes": ["search"]}, headers=admin)
    await client.post("/keys", json={"name": "secret text"})
    await client.get("/nowhere/secret", headers={"Host": "evil.example"})
    await client.get("/keys", headers=admin)
    services.audit.close()
    written = (settings.index.home / "audit.jsonl").read_text()
    lines = [json.loads(line) for line in written.splitlines()]
    assert [(line["key"], line["method"], line["route"], line["status"]) for line in lines] == [
        ("environment", "POST", "/keys", 201),
        (None, "POST", "/keys", 401),
        (None, "GET", "other", 403),
    ]
    assert "secret" not in written


async def test_a_browser_at_a_citation_is_asked_for_a_key(app: Litestar, admin: httpx.AsyncClient) -> None:
    """It is sent to the page, below whatever path a proxy has; a program, or one with a wrong key, gets 401."""
    browser = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
    anyone = local_client(app, host="203.0.113.7")
    for path, up in (("a%2Fb%20c", "../"), ("https://x/", "../../../../")):
        link = f"/documents/{path}?collection=k&quote=3,9&tenant=t"
        sent = await anyone.get(link, headers=browser)
        assert (sent.status_code, sent.headers["vary"]) == (303, "Accept")
        there, _, place = sent.headers["location"].partition("#/documents?")
        assert there == up
        assert parse_qs(place)["document"] == [unquote(path)]
        assert (parse_qs(place)["collection"], parse_qs(place)["quote"], parse_qs(place)["tenant"]) == (
            ["k"],
            ["3,9"],
            ["t"],
        )
        assert (await anyone.get(link)).status_code == 401
        assert (await anyone.get(link, headers=browser | {"X-API-Key": "wnw_wrong"})).status_code == 401


async def test_the_secret_is_in_no_log(admin: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor is the admin's."""
    made = (await admin.post("/keys", json={"name": "ci", "scopes": ["search"]})).json()
    await admin.get("/version", headers={"X-API-Key": made["key"] + "x"})
    printed = capsys.readouterr()
    assert made["key"] not in printed.out + printed.err
    assert ADMIN not in printed.out + printed.err


class TestWithoutKeys:
    """A service that needs none."""

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        return Settings(index=IndexSection(home=tmp_path))

    async def test_the_first_key_is_the_operators(self, client: httpx.AsyncClient, services: Services) -> None:
        """Whoever came first could make one, and shut the others out."""
        for method, path in (("POST", "/keys"), ("DELETE", "/keys/a"), ("POST", "/keys/a/rotate")):
            body = {"name": "a", "scopes": ["admin"]} if path == "/keys" else {}
            assert (await client.request(method, path, json=body)).status_code == 403
            assert services.access.file.all() == []
