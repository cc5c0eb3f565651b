"""POST /chat: bodies, replies, streams, budgets; the models behind it are fake servers on real sockets."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest

from app.backends.settings import BudgetSettings, PriceSettings, RoutingSettings
from tests.api.test_answer import read_events
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.models import client_of, gemini, openai_style, services_for
from tests.fakes.openai_server import OpenAIServer

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server() -> AsyncIterator[GeminiServer]:
    async with GeminiServer() as server:
        yield server


@pytest.fixture
async def chat(server: GeminiServer, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(services_for(tmp_path, {"flash": gemini(server)})) as client:
        yield client


async def test_a_message_gets_a_reply(chat: httpx.AsyncClient, server: GeminiServer) -> None:
    """The reply says who served it, what it cost by its own tokens, and where the time went."""
    reply = (await chat.post("/chat", json={"message": "hello", "system": "Be brief."})).json()
    assert (reply["text"], reply["finish_reason"]) == ("You said: hello", "stop")
    assert reply["backend"] == {"requested": "auto", "used": "flash", "model": server.models[0], "fallbacks": []}
    told = server.told
    assert (reply["usage"]["input_tokens"], reply["usage"]["output_tokens"]) == (told.input, told.output)
    assert reply["usage"]["cost_usd"] == pytest.approx(told.input * 0.25e-6 + told.output * 1.5e-6)
    assert reply["usage"]["by_stage"].keys() == {"chat"}
    assert reply["timings_ms"].keys() == {"chat", "total"}
    assert server.bodies[-1]["systemInstruction"]["parts"] == [{"text": "Be brief."}]


async def test_earlier_turns_are_told(chat: httpx.AsyncClient, server: GeminiServer) -> None:
    """`messages` go along in their order and with their roles."""
    turns = [("user", "one"), ("assistant", "two"), ("user", "three")]
    body = {"messages": [{"role": role, "content": content} for role, content in turns], "temperature": 0.5}
    assert (await chat.post("/chat", json=body)).status_code == 200
    asked = server.bodies[-1]
    assert [(turn["role"], turn["parts"][0]["text"]) for turn in asked["contents"]] == [
        ("user", "one"),
        ("model", "two"),
        ("user", "three"),
    ]
    assert asked["generationConfig"]["temperature"] == 0.5


async def test_system_may_be_called_system_prompt(chat: httpx.AsyncClient, server: GeminiServer) -> None:
    """Some clients do; the model gets the same."""
    assert (await chat.post("/chat", json={"message": "hello", "system_prompt": "Be brief."})).status_code == 200
    assert server.bodies[-1]["systemInstruction"]["parts"] == [{"text": "Be brief."}]


async def test_the_stream_is_the_reply(chat: httpx.AsyncClient) -> None:
    """Concatenated deltas equal `text`; `done` has everything but it, and the first token's time."""
    whole = (await chat.post("/chat", json={"message": "how are you today"})).json()
    response = await chat.post("/chat", json={"message": "how are you today"}, headers={"Accept": "text/event-stream"})
    events = read_events(response.text)
    assert "".join(data["text"] for _, name, data in events if name == "delta") == whole["text"]
    done = events[-1][2]
    assert done.keys() == whole.keys() - {"text"}
    assert done["usage"] == whole["usage"]
    assert done["timings_ms"].keys() == {"first_token", "chat", "total"}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/message"),
        ({"message": "a", "messages": [{"role": "user", "content": "b"}]}, "/message"),
        ({"messages": [{"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}]}, "/messages/1/role"),
        ({"messages": []}, "/messages"),
        ({"message": ""}, "/message"),
        ({"message": "a", "system": "b", "system_prompt": "c"}, "/system_prompt"),
        ({"message": "a", "max_output_tokens": 0}, "/max_output_tokens"),
        ({"message": "a", "temperature": 3}, "/temperature"),
    ],
)
async def test_a_bad_body_is_pointed_at(chat: httpx.AsyncClient, body: dict[str, object], pointer: str) -> None:
    """400 with the field."""
    response = await chat.post("/chat", json=body)
    assert response.status_code == 400
    assert [problem["pointer"] for problem in response.json()["errors"]] == [pointer]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("name", "kind"), [("gpt", "unknown-backend"), ("none", "missing-capability")])
async def test_who_cannot_talk_is_refused(chat: httpx.AsyncClient, name: str, kind: str, stream: bool) -> None:
    """422 that names those who can, streamed or not."""
    response = await chat.post("/chat", json={"message": "a", "backend": name, "stream": stream})
    assert (response.status_code, response.json()["type"]) == (422, f"urn:winnow:problem:{kind}")
    assert "flash" in response.json()["detail"]


async def test_without_models_it_says_how_to_get_one(tmp_path: Path) -> None:
    """422 that names the variables, not a failure."""
    async with client_of(services_for(tmp_path, {})) as client:
        response = await client.post("/chat", json={"message": "a"})
    assert response.status_code == 422
    assert "GEMINI_API_KEY" in response.json()["detail"]


async def test_a_spent_budget_is_402_with_the_figures(server: GeminiServer, tmp_path: Path) -> None:
    """The first call spends it; the next one is refused, says how much of what is gone and when it begins anew."""
    services = services_for(tmp_path, {"flash": gemini(server)}, budgets=BudgetSettings(daily_usd=1e-6))
    async with client_of(services) as client:
        assert (await client.post("/chat", json={"message": "hello"})).status_code == 200
        response = await client.post("/chat", json={"message": "hello"})
    assert response.status_code == 402
    assert "$1e-06 a day in total is spent" in response.json()["detail"]
    assert int(response.headers["retry-after"]) > 0
    assert len(server.bodies) == 1


async def test_auto_moves_on_from_a_spent_budget(server: GeminiServer, tmp_path: Path) -> None:
    """A backend over its own budget is passed over for one that costs nothing."""
    local = OpenAIServer(api_key="k")
    told = msgspec.structs.replace(gemini(server), daily_usd=1e-6, price=PriceSettings(input=1, output=1))
    async with local:
        backends = {"flash": told, "gemma": openai_style(local)}
        async with client_of(services_for(tmp_path, backends)) as client:
            used = [(await client.post("/chat", json={"message": "hello"})).json()["backend"] for _ in range(2)]
    assert [use["used"] for use in used] == ["flash", "gemma"]
    assert used[1]["fallbacks"] == [{"backend": "flash", "reason": "over_budget"}]


async def test_spending_outlives_the_service(server: GeminiServer, tmp_path: Path) -> None:
    """A service that starts anew on the same home knows what was spent."""
    for expected in (200, 402):
        services = services_for(tmp_path, {"flash": gemini(server)}, budgets=BudgetSettings(monthly_usd=1e-6))
        async with client_of(services) as client:
            assert (await client.post("/chat", json={"message": "hello"})).status_code == expected


async def test_two_models_of_one_kind_stand_side_by_side(tmp_path: Path) -> None:
    """Each name leads to its own server, and the routing's order decides for "auto"."""
    small, large = OpenAIServer(api_key="k"), OpenAIServer(api_key="k")
    small.model.name, large.model.name = "gemma-4b", "gemma-12b"
    async with small, large:
        backends = {"small": openai_style(small), "large": openai_style(large)}
        services = services_for(tmp_path, backends, RoutingSettings(auto=("large", "small")))
        async with client_of(services) as client:
            for asked, used in (("small", "gemma-4b"), ("large", "gemma-12b"), ("auto", "gemma-12b")):
                reply = (await client.post("/chat", json={"message": "hi", "backend": asked})).json()
                assert reply["backend"]["model"] == used
            assert (await client.get("/backends")).json()["routing"] == ["large", "small"]


async def test_a_queue_that_is_full_is_503_with_a_time(tmp_path: Path) -> None:
    """Beyond concurrency and queue calls are refused at once and told when to come back; the others are served."""
    server = OpenAIServer(api_key="k", token_s=0.02)
    async with server:
        told = msgspec.structs.replace(openai_style(server), concurrency=2, queue=2)
        async with client_of(services_for(tmp_path, {"gemma": told})) as client:
            await client.post("/chat", json={"message": "hello"})
            replies = await asyncio.gather(*(client.post("/chat", json={"message": "hello"}) for _ in range(8)))
    codes = sorted(reply.status_code for reply in replies)
    assert codes == [200] * 4 + [503] * 4
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in replies if reply.status_code == 503)
    assert server.most_busy == 2


LINES = {"content-type": "application/x-ndjson"}


async def test_many_messages_come_as_json_lines(chat: httpx.AsyncClient, server: GeminiServer) -> None:
    """Each row gets a row, in order; the options are in the URL, and each row's cost is that of its own tokens."""
    body = b'"one"\n{"id":"b","text":"two"}\nnonsense\n"one"\n'
    reply = await chat.post("/chat?system=Be%20brief.&max_output_tokens=9&concurrency=2", content=body, headers=LINES)
    *rows, ending = [msgspec.json.decode(line) for line in reply.content.splitlines()]
    assert [row["id"] for row in rows] == [1, "b", 3, 4]
    assert [row.get("text") for row in rows] == ["You said: one", "You said: two", None, "You said: one"]
    assert rows[2]["error"]["status"] == 400
    assert (ending["done"], ending["items"], ending["failed"], len(server.bodies)) == (True, 4, 1, 2)
    assert server.bodies[-1]["systemInstruction"]["parts"] == [{"text": "Be brief."}]
    assert server.bodies[-1]["generationConfig"]["maxOutputTokens"] == 9
    told = server.told
    assert sum(row["cost_usd"] for row in rows) == pytest.approx(told.input * 0.25e-6 + told.output * 1.5e-6)
    assert ending["usage"]["cost_usd"] == pytest.approx(sum(row["cost_usd"] for row in rows))


@pytest.mark.parametrize(
    ("query", "status"),
    [("backend=nobody", 422), ("backend=none", 422), ("message=hello", 400), ("temperature=9", 400), ("odd=1", 400)],
)
async def test_wrong_options_of_json_lines_are_refused(chat: httpx.AsyncClient, query: str, status: int) -> None:
    """Before any row is read, with the status."""
    reply = await chat.post(f"/chat?{query}", content=b'"one"', headers=LINES)
    assert (reply.status_code, reply.headers["content-type"]) == (status, "application/problem+json")
