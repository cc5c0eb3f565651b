"""POST /answer, whole and as events."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from litestar import Litestar

from app.config.settings import Settings
from app.domain import Citation, CitationMade, SourcesFound, TextDelta
from app.errors import Refused, UpstreamRateLimited, UpstreamTimeout
from app.main import create_app
from app.wiring import Services
from indexing.store.base import VectorStore
from tests.api.conftest import SharedStore, local_client
from tests.fakes.answerer import DONE, ScriptedAnswerer
from tests.fakes.embedder import HashEmbedder
from tests.fakes.source import GivenEmbedder
from tests.unit.indexing.readers.making import pdf

pytestmark = pytest.mark.anyio

CITATION = Citation(
    marker=1,
    result_id="r",
    document_id="d",
    source="d.txt",
    page=None,
    start=0,
    end=3,
    quote="Yes",
    answer_start=0,
    answer_end=4,
)
_CHAT = {"model": "winnow", "messages": [{"role": "user", "content": "x"}]}
SCRIPT = (SourcesFound(()), TextDelta("Ye"), TextDelta("s."), CitationMade(CITATION), DONE)


def read_events(text: str) -> list[tuple[int, str, Any]]:
    """(id, event, data) of each event; comments are left out."""
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    lines = [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]
    return [(int(line["id"]), line["event"], json.loads(line["data"])) for line in lines]


async def test_an_answer_comes_as_json(client: httpx.AsyncClient) -> None:
    """Without a word about events, the whole answer comes at once."""
    response = await client.post("/answer", json={"query": "x"}, headers={"Accept": "*/*"})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json()["answer"] == "Yes."


@pytest.mark.parametrize(
    ("body", "accept"), [({"stream": True}, "application/json"), ({}, "application/json;q=0.5, text/event-stream")]
)
async def test_events_come_when_asked_for(
    client: httpx.AsyncClient, answerer: ScriptedAnswerer, body: dict[str, Any], accept: str
) -> None:
    """`stream`, or the header Accept, gives sources, deltas, citations and done, with increasing ids."""
    answerer.script = SCRIPT
    response = await client.post("/answer", json={"query": "x", **body}, headers={"Accept": accept})
    events = read_events(response.text)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert [number for number, _, _ in events] == [1, 2, 3, 4, 5]
    assert [name for _, name, _ in events] == ["sources", "delta", "delta", "citation", "done"]
    assert "".join(data["text"] for _, name, data in events if name == "delta") == "Yes."
    assert events[3][2]["quote"] == "Yes"


async def test_done_carries_everything_but_the_text(client: httpx.AsyncClient) -> None:
    """The last event is the JSON answer without `answer`."""
    whole = (await client.post("/answer", json={"query": "x"})).json()
    events = read_events((await client.post("/answer", json={"query": "x", "stream": True})).text)
    del whole["answer"]
    assert events[-1][2] == whole


async def test_silence_is_bridged_by_pings(client: httpx.AsyncClient, answerer: ScriptedAnswerer) -> None:
    """While nothing is said, comments keep the connection alive; no event is lost over it."""
    answerer.script = (SourcesFound(()), 0.25, DONE)
    text = (await client.post("/answer", json={"query": "x", "stream": True})).text
    assert text.count(": ping\n\n") >= 2
    assert [name for _, name, _ in read_events(text)] == ["sources", "done"]


async def test_an_early_failure_keeps_its_status(client: httpx.AsyncClient, answerer: ScriptedAnswerer) -> None:
    """What fails before the first event is a problem with its own status, not a stream."""
    answerer.script = (UpstreamRateLimited("gemini", "slow down", retry_after=6.2),)
    response = await client.post("/answer", json={"query": "x", "stream": True})
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == "7"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unknown_answerer_is_refused(client: httpx.AsyncClient, stream: bool) -> None:
    """A capability that is missing is told before any work, streamed or not."""
    response = await client.post("/answer", json={"query": "x", "answer_backend": "nobody", "stream": stream})
    assert response.status_code == 422
    assert response.json()["type"] == "urn:winnow:problem:unknown-backend"


async def test_a_late_failure_becomes_an_event(client: httpx.AsyncClient, answerer: ScriptedAnswerer) -> None:
    """What fails after the first event ends the stream with a problem."""
    answerer.script = (SourcesFound(()), TextDelta("Ye"), UpstreamTimeout("gemini", "gemini did not answer in 30 s"))
    response = await client.post("/answer", json={"query": "x", "stream": True})
    events = read_events(response.text)
    assert response.status_code == 200
    assert [name for _, name, _ in events] == ["sources", "delta", "error"]
    problem = events[-1][2]
    assert (problem["status"], problem["detail"]) == (504, "gemini did not answer in 30 s")
    assert problem["instance"] == response.headers["x-request-id"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_programmers_error_tells_nothing(
    client: httpx.AsyncClient, answerer: ScriptedAnswerer, stream: bool
) -> None:
    """The text of an unexpected exception never reaches the client."""
    answerer.script = (SourcesFound(()), ValueError("the secret is swordfish"))
    response = await client.post("/answer", json={"query": "x", "stream": stream})
    assert "swordfish" not in response.text
    assert response.headers["x-request-id"] in response.text
    assert response.status_code == (200 if stream else 500)


async def test_a_refusal_is_the_upstreams(client: httpx.AsyncClient, answerer: ScriptedAnswerer) -> None:
    """A safety block is 502 with its text."""
    answerer.script = (Refused("gemini", "gemini declined for safety"),)
    response = await client.post("/answer", json={"query": "x"})
    assert (response.status_code, response.json()["detail"]) == (502, "gemini declined for safety")


async def test_the_real_answerer_says_the_same_streamed_or_not(settings: Settings, store: SharedStore) -> None:
    """The concatenated deltas are the answer, and quotes are verbatim, over the whole way from query to events."""

    async def open_store() -> VectorStore:
        return store

    app = create_app(settings, Services(settings, open_store, GivenEmbedder(HashEmbedder())))
    question = {"query": "When does dental cover start?", "backend": "extractive", "min_relevance": 0}
    async with app.lifespan(), local_client(app) as client:
        whole = (await client.post("/answer", json=question)).json()
        events = read_events((await client.post("/answer", json={**question, "stream": True})).text)
    assert whole["answerable"]
    assert "first day" in whole["answer"]
    assert "".join(data["text"] for _, name, data in events if name == "delta") == whole["answer"]
    assert [data for _, name, data in events if name == "citation"] == whole["citations"]
    for citation in whole["citations"]:
        text = next(hit["text"] for hit in whole["results"] if hit["id"] == citation["result_id"])
        assert text[citation["start"] : citation["end"]] == citation["quote"]


async def test_a_citation_names_the_page_on_which_its_quote_begins(settings: Settings, store: SharedStore) -> None:
    """Not that on which its passage begins: whole, streamed, in the titles of a chat's sources; hits keep theirs."""

    async def open_store() -> VectorStore:
        return store

    lines = "Dental cover starts on day one.", "Parental leave lasts sixteen weeks.", "Parking is free on Sundays."
    data = pdf(*([(72, 72, line)] for line in lines))
    question = {"query": "How long does parental leave last?", "collection": "leaflet", "backend": "extractive"}
    chat = {"model": "winnow:leaflet", "messages": [{"role": "user", "content": question["query"]}]}
    app = create_app(settings, Services(settings, open_store, GivenEmbedder(HashEmbedder())))
    async with app.lifespan(), local_client(app) as client:
        await client.post("/documents", files={"files": ("leaflet.pdf", data)}, data={"collection": "leaflet"})
        whole = (await client.post("/answer", json={**question, "min_relevance": 0})).json()
        events = read_events((await client.post("/answer", json={**question, "min_relevance": 0, "stream": True})).text)
        reply = (await client.post("/v1/chat/completions", json=chat)).json()
    [hit], [citation] = whole["results"], whole["citations"]
    assert (hit["page"], hit["page_end"]) == (1, 3)
    assert (citation["page"], citation["page_end"], citation["quote"]) == (2, 2, lines[1])
    assert "later_pages" not in hit
    assert [told for _, name, told in events if name == "citation"] == whole["citations"]
    [annotation] = reply["choices"][0]["message"]["annotations"]
    assert annotation["url_citation"]["title"] == "leaflet, p. 2"


@pytest.mark.parametrize(("path", "body"), [("/answer", {"query": "x"}), ("/v1/chat/completions", _CHAT)])
async def test_a_client_that_leaves_at_the_first_event_stops_the_work(
    app: Litestar, answerer: ScriptedAnswerer, path: str, body: dict[str, Any]
) -> None:
    """Also when it never took that event, so that nobody has asked for the next one."""
    answerer.script = (TextDelta("Ye"), 60.0, DONE)
    taken = asyncio.Event()
    sent = iter([{"type": "http.request", "body": json.dumps({**body, "stream": True}).encode(), "more_body": False}])

    async def receive() -> Any:
        if (request := next(sent, None)) is not None:
            return request
        await taken.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            taken.set()
            await asyncio.Event().wait()

    scope: Any = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 50000),
        "server": ("localhost", 80),
        "state": {},
    }
    async with app.lifespan():
        await app(scope, receive, send)
        async with asyncio.timeout(60):
            await answerer.cancelled.wait()
