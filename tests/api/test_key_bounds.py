"""What a key is bound to: backends, requests and tokens a minute, budgets, and its own usage."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.access.keys import KeyRequest
from app.backends.settings import RoutingSettings
from app.domain import Scope
from app.wiring import Services
from tests.fakes.agents import called, text_of
from tests.fakes.corpus import fill
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.labelling_mind import labels_of
from tests.fakes.models import client_of, gemini, services_for

pytestmark = pytest.mark.anyio

TASKS: tuple[Scope, ...] = ("search", "answer", "tasks")


@pytest.fixture
async def server() -> AsyncIterator[GeminiServer]:
    async with GeminiServer() as server:
        yield server


@pytest.fixture
def services(server: GeminiServer, tmp_path: Path) -> Services:
    return services_for(tmp_path, {"first": gemini(server), "second": gemini(server)})


@pytest.fixture
async def client(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(services) as client:
        yield client


def sending(services: Services, client: httpx.AsyncClient, **bounds: Any) -> None:
    """Have the client send a new key that is bound like this."""
    bounds = {"name": "ci", "scopes": TASKS, **bounds}
    client.headers["X-API-Key"] = services.access.file.create(KeyRequest(**bounds))[1]
    services.access.load()


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/chat", {"message": "x", "backend": "first"}, "/backend"),
        ("/search", {"query": "x", "backend": "first"}, "/backend"),
        ("/answer", {"query": "x", "answer_backend": "first"}, "/answer_backend"),
        ("/classify", {"texts": ["x"], "backend": "first"}, "/backend"),
        ("/vision", {"prompt": "x", "image_url": "http://127.0.0.1/a.png", "backend": "first"}, "/backend"),
    ],
)
async def test_another_backend_is_refused(
    services: Services, client: httpx.AsyncClient, server: GeminiServer, path: str, body: Any, pointer: str
) -> None:
    """With the field, before any work."""
    sending(services, client, backends=("second",))
    reply = await client.post(path, json=body)
    assert reply.status_code == 403
    assert reply.json()["errors"][0]["pointer"] == pointer
    assert server.bodies == []


async def test_rows_may_not_name_another_backend_either(services: Services, client: httpx.AsyncClient) -> None:
    """The options of JSON lines are in the URL."""
    sending(services, client, backends=("second",))
    lines = {"Content-Type": "application/x-ndjson"}
    assert (await client.post("/classify?backend=first", content=b'"x"', headers=lines)).status_code == 403


@pytest.mark.parametrize("named", [{}, {"backend": "auto"}, {"backend": "second"}])
async def test_auto_is_among_the_keys_backends(services: Services, client: httpx.AsyncClient, named: Any) -> None:
    """Although another would come first."""
    sending(services, client, backends=("second",))
    reply = await client.post("/chat", json={"message": "x", **named})
    assert (reply.status_code, reply.json()["backend"]["used"]) == (200, "second")
    assert reply.json()["backend"]["fallbacks"] == []


@pytest.mark.parametrize("keys", ["second", "third"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chat", {"message": "x"}),
        ("/classify", {"texts": ["a good day"], "labels": ["POSITIVE", "NEGATIVE"]}),
        ("/translate", {"texts": ["One house."], "target_language": "de"}),
        ("/answer", {"query": "refund", "min_relevance": 0}),
        ("/search", {"query": "refund"}),
    ],
)
async def test_the_default_is_one_of_the_keys(
    server: GeminiServer, tmp_path: Path, path: str, body: Any, keys: str
) -> None:
    """Where the settings' is not, "auto" takes its place: in the order of [routing], else any that the key is for."""
    if path == "/classify":
        server.mind = labels_of()
    backends = {name: gemini(server) for name in ("first", "second", "third")}
    services = services_for(tmp_path, backends, RoutingSettings(auto=("first", "second")), default="first")
    async with client_of(services) as client:
        await fill(await services.store.get())
        sending(services, client, backends=(keys,))
        reply = await client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    used = reply.json()["answer_backend" if path == "/answer" else "backend"]
    assert (used["requested"], used["used"], used["fallbacks"]) == ("auto", keys, [])


@pytest.mark.parametrize("default", ["auto", "first"])
async def test_a_key_without_a_model_is_told(server: GeminiServer, tmp_path: Path, default: str) -> None:
    """By what needs one, with what it may use and no other; what can do without does."""
    services = services_for(tmp_path, {"first": gemini(server)}, default=default)
    async with client_of(services) as client:
        await fill(await services.store.get())
        sending(services, client, backends=("none",))
        reply = await client.post("/chat", json={"message": "x"})
        assert (reply.status_code, reply.json()["detail"]) == (
            403,
            "this needs a language model that can do it, and the key 'ci' has none; it may use none, extractive",
        )
        found = (await client.post("/search", json={"query": "refund"})).json()
        assert found["results"]
        assert "first" not in str(found["backend"])
        answer = (await client.post("/answer", json={"query": "refund", "min_relevance": 0})).json()
        assert answer["answer_backend"] == {"requested": "auto", "used": "extractive", "model": None, "fallbacks": []}
    assert server.bodies == []


async def test_lists_show_the_keys_backends_alone(
    services: Services, client: httpx.AsyncClient, server: GeminiServer
) -> None:
    """And what is not found tells of no other either; a model of two backends means the key's."""
    sending(services, client, backends=("second",))
    offered = {model["id"]: model["owned_by"] for model in (await client.get("/v1/models")).json()["data"]}
    assert "winnow-rerank@second" in offered
    assert "first" not in str(offered)
    assert offered[server.models[0]] == "second"
    assert (await client.get("/v1/models/winnow-rerank@first")).status_code == 404
    body = {"model": server.models[0], "messages": [{"role": "user", "content": "x"}]}
    assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
    shown = (await client.get("/backends")).json()
    assert [backend["name"] for backend in shown["backends"]] == ["none", "extractive", "second"]
    assert (shown["default"], shown["auto"], shown["routing"]) == ("auto", "second", ["second"])


async def test_other_formats_keep_to_them_too(
    services: Services, client: httpx.AsyncClient, server: GeminiServer
) -> None:
    """A backend that is a model's name there is refused in the client's own shape."""
    sending(services, client, backends=("second",))
    body = {"model": "first", "messages": [{"role": "user", "content": "x"}]}
    reply = await client.post("/v1/chat/completions", json=body)
    assert (reply.status_code, reply.json()["error"]["type"]) == (403, "permission_error")
    assert "may not use first" in reply.json()["error"]["message"]
    assert server.bodies == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"model": "winnow@zz", "messages": [{"role": "user", "content": "x"}]}),
        ("/v1/chat/completions", {"model": "winnow@first", "messages": [{"role": "user", "content": "x"}]}),
        ("/v1/rerank", {"model": "winnow-rerank@zz", "query": "x", "documents": ["x"]}),
        ("/v1/rerank", {"model": "winnow-rerank@extractive", "query": "x", "documents": ["x"]}),
        ("/api/v1/retrieval", {"question": "x", "dataset_ids": ["default@zz"]}),
        ("/retrieval", {"knowledge_id": "default@zz", "query": "x"}),
        ("/openwebui/search?backend=zz", {"query": "x"}),
        ("/chat", {"message": "x", "backend": "none"}),
        ("/answer", {"query": "x", "answer_backend": "none"}),
    ],
)
async def test_no_refusal_names_backends_that_the_key_is_not_for(
    server: GeminiServer, tmp_path: Path, path: str, body: Any
) -> None:
    """In no format, also where nobody has such a backend, or it cannot do what is asked."""
    services = services_for(tmp_path, {"first": gemini(server), "second": gemini(server), "third": gemini(server)})
    async with client_of(services) as client:
        await fill(await services.store.get())
        sending(services, client, backends=("second",))
        reply = await client.post(path, json=body)
        told = reply.text.replace("winnow@first", "").replace("may not use first", "")
        assert "second" in told, told
        assert "first" not in told
        assert "third" not in told
        sending(services, client, name="all")
        if "first" not in str(body):
            assert "third" in (await client.post(path, json=body)).text
    assert server.bodies == []


async def test_requests_beyond_the_rate_are_429(services: Services, client: httpx.AsyncClient) -> None:
    """With Retry-After, and what the key may use, in each client's shape; another key is served."""
    sending(services, client, requests_per_minute=2)
    replies = [await client.get("/version") for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    assert replies[0].headers["ratelimit-policy"] == '"requests";q=2;w=60'
    assert replies[0].headers["ratelimit"].startswith('"requests";r=1;')
    assert 1 <= int(replies[2].headers["retry-after"]) <= 30
    assert replies[2].json()["type"] == "urn:winnow:problem:rate-limited"
    reply = await client.post("/v1/embeddings", json={"input": "x"})
    assert (reply.status_code, reply.json()["error"]["type"]) == (429, "rate_limit_error")
    assert "retry-after" in reply.headers
    assert (await client.get("/health/live")).status_code == 200
    sending(services, client, name="other")
    assert (await client.get("/version")).status_code == 200


async def test_tokens_beyond_the_rate_are_429(services: Services, client: httpx.AsyncClient) -> None:
    """The request that uses more than there is is served, the next one waits."""
    sending(services, client, tokens_per_minute=1)
    statuses = [(await client.post("/chat", json={"message": "x"})).status_code for _ in range(2)]
    assert statuses == [200, 429]


async def test_a_keys_budget_is_402(services: Services, client: httpx.AsyncClient, server: GeminiServer) -> None:
    """That of the key alone, with the reason; another key goes on."""
    sending(services, client, daily_usd=0.0000001)
    assert (await client.post("/chat", json={"message": "x", "backend": "first"})).status_code == 200
    reply = await client.post("/chat", json={"message": "x", "backend": "first"})
    assert reply.status_code == 402
    assert "by key 'ci' is spent" in reply.json()["detail"]
    assert "daily_usd in the key ci sets it" in reply.json()["detail"]
    sending(services, client, name="other")
    assert (await client.post("/chat", json={"message": "x", "backend": "first"})).status_code == 200


async def test_an_agents_budget_is_told_to_its_model(services: Services, client: httpx.AsyncClient) -> None:
    """As the text of the tool's error, which says who sets it; searching without a model goes on."""
    await fill(await services.store.get())
    sending(services, client, daily_usd=0.0000001)
    question = "When does dental cover start?"
    assert (await client.post("/chat", json={"message": "x", "backend": "first"})).status_code == 200
    refused = await called(client, "answer", query=question, backend="first")
    assert refused["isError"] is True
    assert "daily_usd in the key ci sets it" in text_of(refused)
    assert refused["_meta"]["winnow"]["problem"]["status"] == 402
    assert refused["_meta"]["winnow"]["retry_after"] > 0
    assert (await called(client, "search", query=question, backend="none"))["structuredContent"]["results"]


async def test_a_key_sees_its_own_usage(services: Services, client: httpx.AsyncClient) -> None:
    """Calls, exports and budgets; an admin sees those of all."""
    seen = {}
    for name, scopes in (("one", TASKS), ("two", TASKS), ("root", ("admin",))):
        sending(services, client, name=name, scopes=scopes, monthly_usd=5.0)
        assert (await client.post("/chat", json={"message": "x"})).status_code == 200
        report = (await client.get("/usage?group_by=key")).json()
        exported = (await client.get("/usage/export")).text.splitlines()
        budgets = sorted(budget["name"] for budget in report["budgets"])
        seen[name] = (sorted(row["name"] for row in report["rows"]), report["total"]["calls"], len(exported), budgets)
    assert seen == {
        "one": (["one"], 1, 1, ["one"]),
        "two": (["two"], 1, 1, ["two"]),
        "root": (["one", "root", "two"], 3, 3, ["one", "root", "two"]),
    }
