"""POST /mcp: the protocol's messages, whatever their client is, and what becomes of keys, errors and cancellation."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from jsonschema import validate

from app.access.keys import KeyRequest
from app.domain import SCOPES
from app.errors import (
    BudgetExceeded,
    Overloaded,
    RateLimited,
    UnknownBackend,
    UpstreamTimeout,
    WinnowError,
)
from app.mcp.tools import TOOLS, schema_of
from app.wiring import Services
from indexing.errors import CollectionNotFound
from tests.fakes.agents import HEADERS, call, called, message, messages, send, text_of
from tests.fakes.answerer import DONE, ScriptedAnswerer

pytestmark = pytest.mark.anyio

LATEST = "2026-07-28"
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": LATEST,
    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def sending(services: Services, client: httpx.AsyncClient, **bounds: Any) -> str:
    """Have the client send a new key that is bound like this."""
    token = services.access.file.create(KeyRequest(**{"name": "ci", "scopes": ("search",), **bounds}))[1]
    client.headers["X-API-Key"] = token
    services.access.load()
    return token


DENTAL = "Dental cover starts on the first day of work."


@pytest.fixture
async def shelf(client: httpx.AsyncClient) -> AsyncIterator[None]:
    """A collection of that name with a document."""
    document = {"id": "dental", "text": DENTAL, "title": "Dental", "source": "dental.txt", "metadata": {"lang": "en"}}
    reply = await client.post("/documents", json={"collection": "shelf", "documents": [document]})
    assert reply.status_code == 200
    yield
    await client.delete("/collections/shelf")


async def names(client: httpx.AsyncClient) -> list[str]:
    """Of the tools that the client is shown."""
    [reply] = messages(await send(client, message("tools/list")))
    return [tool["name"] for tool in reply["result"]["tools"]]


async def test_search_and_fetch_are_what_connectors_ask_for(client: httpx.AsyncClient, shelf: None) -> None:
    """One text that is JSON, and the same as structured content; with the fields that ChatGPT names."""
    found = await called(client, "search", query="dental cover", collection="shelf")
    assert json.loads(text_of(found)) == found["structuredContent"]
    [first] = found["structuredContent"]["results"]
    assert {"id", "title", "url"} <= set(first)
    assert (first["id"], first["title"], first["text"]) == ("winnow://shelf/dental", "Dental", DENTAL)
    assert first["url"] == "http://localhost/documents/dental?collection=shelf&quote=0,45#char=0,45"
    fetched = await called(client, "fetch", id=first["id"])
    assert json.loads(text_of(fetched)) == fetched["structuredContent"]
    assert fetched["structuredContent"] == {
        "id": first["id"],
        "title": "Dental",
        "text": DENTAL,
        "url": first["url"],
        "metadata": {
            "collection": "shelf",
            "document_id": "dental",
            "source": "dental.txt",
            "start": 0,
            "end": 45,
            "characters": 45,
            "document": {"lang": "en"},
        },
    }


async def test_what_a_search_cost_is_beside_its_result(client: httpx.AsyncClient) -> None:
    """Backend, usage, timings: for the program, which pays; the model need not read them."""
    meta = (await called(client, "search", query="dental cover"))["_meta"]["winnow"]
    assert {"backend", "degraded", "warnings", "usage", "timings_ms"} <= set(meta)
    assert meta["usage"]["cost_usd"] == 0


async def test_a_search_may_be_narrowed(client: httpx.AsyncClient) -> None:
    """By number, metadata and score; null is as if it had not been said."""
    narrowed = {"limit": 1, "filter": {"year": {"lt": 2023}}, "min_score": None, "collection": None}
    results = (await called(client, "search", query="office", **narrowed))["structuredContent"]["results"]
    assert len(results) == 1
    assert results[0]["title"] in ("Office", "Parking")


async def test_every_result_fits_its_schema(client: httpx.AsyncClient, shelf: None) -> None:
    """The schemas have no references, and each tool's result is as its schema says."""
    results = {
        "search": await called(client, "search", query="dental"),
        "fetch": await called(client, "fetch", id="winnow://shelf/dental"),
        "answer": await called(client, "answer", query="dental"),
        "list_collections": await called(client, "list_collections"),
        "add_document": await called(client, "add_document", text="Ferns.", collection="ferns"),
    }
    await client.delete("/collections/ferns")
    assert set(results) == set(TOOLS)
    for name, result in results.items():
        schema = schema_of(TOOLS[name].result)
        assert "$ref" not in json.dumps([schema, schema_of(TOOLS[name].arguments)])
        validate(result["structuredContent"], schema)
        assert not result.get("isError")


async def test_a_long_document_comes_in_parts(client: httpx.AsyncClient) -> None:
    """From a little before the passage on; each part names the next one, and all are the whole text."""
    text = "".join(f"Sentence {n} tells of ferns.\n\n" for n in range(2000)) + "The kraken sleeps below."
    document = {"id": "sea/kraken?#%", "text": text}
    await client.post("/documents?wait=true", json={"collection": "long", "documents": [document]})
    hit = (await called(client, "search", query="kraken sleeps", collection="long", limit=1))["structuredContent"]
    last = (await called(client, "fetch", id=hit["results"][0]["id"]))["structuredContent"]
    assert "The kraken sleeps below." in last["text"]
    assert "next" not in last["metadata"]
    assert last["metadata"]["start"] > 40_000
    parts, following = [], "winnow://long/sea/kraken%3F%23%25"
    while following:
        part = (await called(client, "fetch", id=following))["structuredContent"]
        parts.append(part["text"])
        following = part["metadata"].get("next")
    assert (len(parts), "".join(parts)) == (4, text)
    await client.delete("/collections/long")


async def test_documents_are_resources(client: httpx.AsyncClient, shelf: None) -> None:
    """Listed page by page over all collections, and read by their URIs."""
    await called(client, "add_document", text="Ferne wachsen.", collection="z-ferne", id="ä b")
    listed, cursor = [], None
    while True:
        [reply] = messages(await send(client, message("resources/list", {"cursor": cursor} if cursor else {})))
        listed += [resource["uri"] for resource in reply["result"]["resources"]]
        if not (cursor := reply["result"].get("nextCursor")):
            break
    assert "winnow://shelf/dental" in listed
    assert listed[-1] == "winnow://z-ferne/%C3%A4%20b"
    [reply] = messages(await send(client, message("resources/read", {"uri": listed[-1]})))
    assert reply["result"]["contents"][0]["text"] == "Ferne wachsen."
    [reply] = messages(await send(client, message("resources/templates/list")))
    assert reply["result"]["resourceTemplates"][0]["uriTemplate"] == "winnow://{collection}/{+document}"
    for wrong in ("file:///etc/passwd", "winnow://default/nobody", "winnow://../default", "winnow://x/y"):
        [reply] = messages(await send(client, message("resources/read", {"uri": wrong})))
        assert reply["error"]["data"]["status"] == 404
    await client.delete("/collections/z-ferne")


async def test_the_address_may_name_the_collection(client: httpx.AsyncClient) -> None:
    """For agents that name none, such as ChatGPT's connectors."""
    await called(client, "add_document", text="Ferns grow.", collection="ferns")
    reply = await send(client, call("search", query="ferns"), "/mcp?collection=ferns")
    assert messages(reply)[-1]["result"]["structuredContent"]["results"][0]["text"] == "Ferns grow."
    await client.delete("/collections/ferns")


@pytest.mark.parametrize("scope", sorted(SCOPES - {"admin", "metrics", "tasks"}))
async def test_a_key_sees_the_tools_that_it_may_call(services: Services, client: httpx.AsyncClient, scope: Any) -> None:
    """And no others; to call one all the same is refused in the words of the API, and audited."""
    sending(services, client, scopes=(scope,))
    allowed = [tool.name for tool in TOOLS.values() if tool.scope == scope]
    assert await names(client) == allowed
    for tool in TOOLS.values():
        if tool.name not in allowed:
            result = await called(client, tool.name, query="x")
            assert result["isError"] is True
            assert text_of(result) == f"the key 'ci' has the scope {scope}; this needs {tool.scope}"
    if scope != "search":
        for method, params in (("resources/list", {}), ("resources/read", {"uri": "winnow://default/dental"})):
            [reply] = messages(await send(client, message(method, params)))
            assert reply["error"]["data"]["status"] == 403
    refusals = [
        line for line in services.metrics.text([]).decode().splitlines() if "refus" in line and '"scope"' in line
    ]
    assert int(refusals[0].rpartition(" ")[2][:-2]) >= len(TOOLS) - len(allowed)
    services.audit.close()
    lines = list(map(json.loads, (services.settings.index.home / "audit.jsonl").read_text().splitlines()))
    refused = [line["route"] for line in lines if line["status"] == 403]
    assert {f"/mcp {name}" for name in set(TOOLS) - set(allowed)} <= set(refused)


@pytest.mark.parametrize(
    "error",
    [
        BudgetExceeded("the key's daily budget of $1.00 is spent", 60),
        Overloaded("too many searches are under way; try again later", 2),
        UpstreamTimeout("gemma", "the backend 'gemma' did not answer within 30 s"),
        RateLimited("60 requests a minute are allowed", 3),
        UnknownBackend("unknown backend 'x'; known are extractive"),
        CollectionNotFound("nowhere"),
        ZeroDivisionError("secret detail"),
    ],
)
async def test_errors_say_what_the_api_says(
    client: httpx.AsyncClient, answerer: ScriptedAnswerer, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """The same text, type, status and time to come back; of a programming error nothing."""
    answerer.script = (error,)
    ours = (await client.post("/answer", json={"query": "x"})).json()
    result = await called(client, "answer", query="x")
    problem = result["_meta"]["winnow"]["problem"]
    assert result["isError"] is True
    assert (problem["type"], problem["status"]) == (ours["type"], ours["status"])
    if isinstance(error, WinnowError):
        assert text_of(result) == problem["detail"] == ours["detail"]
        assert result["_meta"]["winnow"]["retry_after"] == getattr(error, "retry_after", None)
    assert "secret" not in json.dumps(result)


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("search", {}, "/query: this field is required"),
        ("search", {"query": " "}, "/query: expected more than white space"),
        ("search", {"queri": "x"}, "/queri: unknown field; did you mean query?"),
        ("search", {"query": "x", "limit": 51}, "/limit"),
        ("search", {"query": "x", "filter": {"year": {"near": 1}}}, "/filter/year"),
        ("search", {"query": "x", "collection": "nowhere"}, "collection 'nowhere' not found"),
        ("fetch", {"id": "dental"}, "is no id of a document"),
        ("fetch", {"id": "winnow://default/nobody"}, "document 'nobody' not found"),
        ("fetch", {"id": "winnow://nowhere/dental"}, "collection 'nowhere' not found"),
        ("add_document", {"text": "x", "id": ".."}, "invalid_id"),
        ("add_document", {"text": "x", "collection": "../x"}, "a collection name is"),
        ("list_collections", {"x": 1}, "/x: unknown field"),
    ],
)
async def test_bad_arguments_are_told_with_their_field(
    client: httpx.AsyncClient, name: str, arguments: Any, says: str
) -> None:
    """So that a model can mend its call."""
    result = await called(client, name, **arguments)
    assert result["isError"] is True
    assert says in text_of(result)


async def test_a_keys_backends_hold_here(services: Services, client: httpx.AsyncClient) -> None:
    """Before any work, for searches and answers."""
    sending(services, client, scopes=("search", "answer"), backends=("other",))
    for name in ("search", "answer"):
        result = await called(client, name, query="x", backend="gemma")
        assert text_of(result) == "the key 'ci' may not use this backend; it may use other, none, extractive"
        assert result["_meta"]["winnow"]["problem"]["errors"][0]["pointer"] == "/backend"


async def test_requests_of_a_minute_count_here(services: Services, client: httpx.AsyncClient) -> None:
    """429 with Retry-After, in a form that the SDK shows its user."""
    sending(services, client, requests_per_minute=2)
    replies = [await send(client, call("search", query="x")) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    assert int(replies[2].headers["retry-after"]) > 0
    assert "requests" in replies[2].json()["error"]["message"]


async def test_a_key_that_is_revoked_or_unknown_is_not_served(services: Services, client: httpx.AsyncClient) -> None:
    """401 with a challenge, as JSON-RPC's error."""
    sending(services, client)
    services.access.file.revoke("ci")
    services.access.load()
    reply = await send(client, message("tools/list"))
    assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
    assert "revoked" in reply.json()["error"]["message"]
    sending(services, client, name="old", expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    assert "expired" in (await send(client, message("tools/list"))).json()["error"]["message"]


async def test_a_key_that_is_revoked_meanwhile_gets_no_result(
    services: Services, client: httpx.AsyncClient, answerer: ScriptedAnswerer
) -> None:
    """But the reason, as the request's error."""
    sending(services, client, scopes=("answer",))

    class Revoking(list[object]):
        def __iter__(self) -> Iterator[object]:
            services.access.file.revoke("ci")
            services.access.load()
            yield DONE

    answerer.script = Revoking()  # type: ignore[assignment]
    [only] = messages(await send(client, call("answer", 5, query="x")))
    assert (only["id"], only["error"]["message"]) == (5, "the key 'ci' is revoked")


async def test_a_page_of_another_origin_is_not_served(client: httpx.AsyncClient) -> None:
    """Nor one that has rebound its name; as JSON-RPC's error."""
    for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"}):
        reply = await send(client, call("search", query="x"), **headers)
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, -32000)


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"", {}, 400),
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', {}, 400),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', {}, 400),
        (b'{"jsonrpc":"2.0","id":1}', {}, 400),
        (b'{"jsonrpc":"2.0","id":1,"result":{}}', {}, 400),
        (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', {}, 400),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', {}, 400),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":"\\ud83d"}}', {}, 400),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + b"[" * 100_000, {}, 400),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"{}", {"Content-Encoding": "gzip"}, 415),
        (b" " * 10_000_001, {}, 413),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', {"Accept": "text/html"}, 406),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', {"MCP-Protocol-Version": "1999-01-01"}, 400),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_what_is_no_message_is_refused(
    client: httpx.AsyncClient, content: bytes, headers: dict[str, str], status: int
) -> None:
    """Once, in JSON-RPC's form, without a word of the parser's own."""
    reply = await client.post("/mcp", content=content, headers={**HEADERS, **headers})
    assert reply.status_code == status
    assert reply.json()["error"]["message"]
    assert "pydantic" not in reply.text


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (message("no/such"), -32601),
        (message("tools/call", {}), -32602),
        (message("tools/call", {"name": "search", "arguments": []}), -32602),
        (message("tools/call", {"name": "drop"}), -32602),
        (message("resources/read", {}), -32602),
        (message("tools/list", {"cursor": 5}), -32602),
    ],
)
async def test_wrong_requests_have_the_protocols_errors(
    client: httpx.AsyncClient, content: dict[str, Any], code: int
) -> None:
    """With the id of the request."""
    [reply] = messages(await send(client, content))
    assert (reply["id"], reply["error"]["code"]) == (1, code)


async def test_the_latest_version_needs_no_handshake(client: httpx.AsyncClient) -> None:
    """A request with its envelope is answered by JSON."""
    headers = {"MCP-Protocol-Version": LATEST, "Mcp-Method": "tools/call", "Mcp-Name": "search"}
    params = {"name": "search", "arguments": {"query": "dental"}, "_meta": ENVELOPE}
    reply = await send(client, message("tools/call", params), **headers)
    assert reply.headers["content-type"] == "application/json"
    assert reply.json()["result"]["structuredContent"]["results"][0]["title"] == "Dental"


async def test_progress_is_told_to_who_asks_for_it(client: httpx.AsyncClient) -> None:
    """Growing, from the reading of the question to the ranking; and to nobody else."""
    asked = call("search", query="dental")
    assert len(messages(await send(client, asked))) == 1
    asked["params"]["_meta"] = {"progressToken": "t"}
    *told, _ = messages(await send(client, asked))
    assert [one["params"]["message"] for one in told] == ["reading the question", "searching", "ranking"]
    assert [one["params"]["progress"] for one in told] == [0, 1, 2]
    assert {one["params"]["progressToken"] for one in told} == {"t"}


async def test_a_client_can_cancel_its_request(client: httpx.AsyncClient, answerer: ScriptedAnswerer) -> None:
    """In another request of its session; what runs for it ends, and its response."""
    answerer.script = (1000.0, DONE)
    greeted = await send(client, message("initialize", INITIALIZE))
    session = {"Mcp-Session-Id": greeted.headers["mcp-session-id"]}
    running = asyncio.create_task(send(client, call("answer", 7, query="x"), **session))
    await answerer.asked.wait()
    cancelled = message("notifications/cancelled", {"requestId": 7}, None)
    for stranger in ({"Mcp-Session-Id": "another"}, {}):
        assert (await send(client, cancelled, **stranger)).status_code == 202
    for number in ("7", 8, None, {}, [7]):
        wrong = message("notifications/cancelled", {"requestId": number}, None)
        assert (await send(client, wrong, **session)).status_code == 202
    assert not running.done()
    assert (await send(client, cancelled, **session)).status_code == 202
    assert messages(await running) == []
    assert answerer.cancelled.is_set()


async def test_nobody_cancels_for_another_key(
    services: Services, client: httpx.AsyncClient, answerer: ScriptedAnswerer
) -> None:
    """Though it knows the session and the id."""
    answerer.script = (1000.0, DONE)
    session = {"Mcp-Session-Id": "known"}
    owner = sending(services, client, name="owner", scopes=("answer",))
    running = asyncio.create_task(send(client, call("answer", query="x"), **session))
    await answerer.asked.wait()
    sending(services, client, name="other", scopes=("answer",))
    cancelled = message("notifications/cancelled", {"requestId": 1}, None)
    await send(client, cancelled, **session)
    assert not answerer.cancelled.is_set()
    client.headers["X-API-Key"] = owner
    await send(client, cancelled, **session)
    await running
    assert answerer.cancelled.is_set()


INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "t", "version": "1"},
}


async def test_requests_are_counted_by_tool(client: httpx.AsyncClient) -> None:
    """With the status that the endpoint would have had; an unknown tool makes no new time series."""
    await called(client, "search", query="dental")
    await called(client, "search", query="")
    await send(client, call("drop"))
    metrics = (await client.get("/metrics")).text
    assert 'route="/mcp search",status="200"} 1.0' in metrics
    assert 'route="/mcp search",status="400"} 1.0' in metrics
    assert "/mcp drop" not in metrics


async def test_only_post_is_served(client: httpx.AsyncClient) -> None:
    """There are no sessions to listen to, or to end."""
    for method in ("GET", "DELETE", "PUT"):
        reply = await client.request(method, "/mcp", headers=HEADERS)
        assert (reply.status_code, "POST" in reply.headers["allow"]) == (405, True)
        assert reply.json()["error"]["message"]
