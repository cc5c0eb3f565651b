"""JSON lines: how rows are read and written, options in the URL, and a client that hangs up or does not read."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import httpx
import msgspec
import pytest
from litestar import Litestar, Response, post

from app.access.access import Access
from app.api.json_lines import MAX_LINE_BYTES, LinesResponse, entries_of, options_in_query
from app.api.middleware import RequestMiddleware
from app.api.problem_details import on_error
from app.api.request import BodyRequest
from app.config.settings import AccessSettings, ServiceSettings
from app.errors import Refused
from app.observability.metrics import Metrics
from app.services.batches import Batch
from tests.fakes.judge import Length, MeasuringJudge, fake_call

pytestmark = pytest.mark.anyio


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of a request."""

    labels: list[str] = []
    backend: str | None = None
    kind: Literal["short", "long"] = "short"
    concurrency: int = 4


def application(judge: MeasuringJudge) -> Litestar:
    @post("/measure", status_code=200)
    async def measure(request: BodyRequest) -> Response[Any]:
        options = options_in_query(request, Options)
        return LinesResponse(request, Batch[Length](judge, fake_call, options.concurrency))

    return Litestar([measure], request_class=BodyRequest, exception_handlers={Exception: on_error})


class Door:
    """What the middleware needs of the services."""

    def __init__(self, *, stopping: bool) -> None:
        self.access = Access(Path("/nowhere"), AccessSettings())
        self.presence = None
        self.replicas = None
        self.metrics = Metrics()
        self.tracer = None
        self.stopping = asyncio.Event()
        if stopping:
            self.stopping.set()


def guarded(judge: MeasuringJudge, *, stopping: bool = False) -> Any:
    """The application behind the middleware, which says who is calling."""
    return RequestMiddleware(application(judge), ServiceSettings(), Door(stopping=stopping))  # type: ignore[arg-type]


async def measured(body: bytes, judge: MeasuringJudge | None = None, query: str = "") -> list[dict[str, Any]]:
    transport = httpx.ASGITransport(guarded(judge or MeasuringJudge()))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response = await client.post(f"/measure?{query}", content=body)
        assert (response.status_code, response.headers["content-type"]) == (200, "application/x-ndjson")
        return [msgspec.json.decode(line) for line in response.content.splitlines()]


async def rows_of(*pieces: bytes) -> list[tuple[int | str, str, str]]:
    async def given() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return [(entry.id, entry.text, str(entry.problem or "")) async for entry in entries_of(given())]


async def test_a_byte_order_mark_is_no_part_of_a_row() -> None:
    """Whatever the first row is."""
    for row in (b'"one"', b'{"text":"one"}'):
        assert await rows_of(b"\xef\xbb\xbf" + row + b"\n") == [(1, "one", "")]


async def test_rows_are_objects_or_strings() -> None:
    """Other fields are ignored; without an id the number of the line is it, where blank lines count."""
    body = b'{"text":"one","id":"a","more":[1]}\r\n"two"\n\n  \n{"text":"five","id":null}\n{"text":"","id":7}'
    assert await rows_of(body) == [("a", "one", ""), (2, "two", ""), (5, "five", ""), (7, "", "")]


async def test_it_does_not_matter_how_the_body_is_cut() -> None:
    """Not even in the middle of a character."""
    body = '{"text":"schön"}\n"日本"\n"end"'.encode()
    whole = await rows_of(body)
    assert [text for _, text, _ in whole] == ["schön", "日本", "end"]
    for at in range(len(body)):
        assert await rows_of(body[:at], body[at:]) == whole
    assert await rows_of(*(bytes([byte]) for byte in body)) == whole


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"one", "not JSON"),
        (b'{"text":', "not JSON"),
        (b"[1]", "expected object"),
        (b'{"id":1}', "/text: this field is required"),
        (b'{"text":1}', "/text: expected str, got int"),
        (b'{"text":"a","id":1.5}', "/id: "),
        (b'{"text":"a","id":"%s"}' % (b"x" * 513), "/id: "),
        (b'"\xff"', "not UTF-8"),
        (b'"\\ud800"', "lone surrogate"),
        (b'"a","text":"b"', "length 1"),
        (b'"a","b"', "length 1"),
        (b'"a"],["b"', "not JSON"),
    ],
)
async def test_a_row_that_cannot_be_read_is_an_error_of_its_own(line: bytes, problem: str) -> None:
    """It names its line, and those around it are read."""
    rows = await rows_of(b'"one"\n' + line + b'\n"three"\n')
    assert [text for _, text, _ in rows] == ["one", "", "three"]
    assert rows[1][0] == 2
    assert rows[1][2].startswith("line 2: ")
    assert problem in rows[1][2]


async def test_a_line_that_is_too_long_is_an_error_of_its_own() -> None:
    """In one piece or in many; the longest one allowed is read."""
    longest = b'"' + b"x" * (MAX_LINE_BYTES - 2) + b'"'
    for pieces in ([longest + b"\n" + longest + b" \n1"], [longest, b"\n", *[b"x" * 1000] * 10_000, b"\n1"]):
        rows = await rows_of(*pieces)
        assert [len(text) for _, text, _ in rows] == [MAX_LINE_BYTES - 2, 0, 0]
        assert rows[1][2] == f"line 2 has more than {MAX_LINE_BYTES} bytes"


async def test_each_row_has_its_result_or_error_and_the_ending_counts_them() -> None:
    """In order, with the backend and the cost; without the ending a response is not whole."""
    judge = MeasuringJudge({"bad": [Refused("fake", "it declined")], "odd": [ValueError("secret")]})
    *rows, ending = await measured(b'"four"\n{"id":"x","text":"bad"}\nnonsense\n"odd"\n"four"\n', judge)
    assert rows[0] == {"id": 1, "length": 4, "backend": "fake", "cost_usd": 1.0}
    assert rows[1].keys() == {"id", "error", "cost_usd"}
    assert [row["id"] for row in rows] == [1, "x", 3, 4, 5]
    assert [row["error"]["status"] for row in rows[1:4]] == [502, 400, 500]
    assert "secret" not in str(rows)
    assert rows[4] == {"id": 5, "length": 4, "backend": "fake", "cost_usd": 0.0}
    assert (ending["done"], ending["items"], ending["failed"]) == (True, 5, 3)
    assert ending["usage"]["cost_usd"] == 3.0
    assert ending.keys() == {"done", "items", "failed", "usage", "timings_ms", "items_per_second"}


async def test_an_empty_body_has_only_the_ending() -> None:
    """There is nothing to judge, and that is no error."""
    (ending,) = await measured(b"")
    assert (ending["done"], ending["items"]) == (True, 0)


async def test_options_stand_in_the_url() -> None:
    """Texts as they are, everything else as JSON."""
    judge = MeasuringJudge()
    query = "labels=%5B%22A%22,%22B%22%5D&kind=long&backend=true&concurrency=1"
    await measured(b'"one"\n"two two"\n"three"\n', judge, query)
    assert judge.most_at_once == 1


@pytest.mark.parametrize(
    ("query", "pointer"),
    [("labels=A", "/labels"), ("kind=odd", "/kind"), ("concurrency=%22", "/concurrency"), ("label=1", "/label")],
)
async def test_a_wrong_option_is_an_error_before_anything_is_read(query: str, pointer: str) -> None:
    """It points at the parameter."""
    transport = httpx.ASGITransport(application(MeasuringJudge()))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response = await client.post(f"/measure?{query}", content=b'"one"')
    assert response.status_code == 400
    assert response.json()["errors"][0]["pointer"] == pointer


class Client:
    """The server's side of a connection, by hand. Its body never ends: it has sent `taken` rows of it."""

    def __init__(self) -> None:
        self.taken = 0
        self.gone, self.reads = asyncio.Event(), asyncio.Event()
        self.sent: list[bytes] = []

    async def receive(self) -> dict[str, Any]:
        if self.gone.is_set():
            return {"type": "http.disconnect"}
        self.taken += 1
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b'"text %d"\n' % self.taken, "more_body": True}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message.get("body", b""))
        if message["type"] == "http.response.body" and not self.gone.is_set():
            await self.reads.wait()


def served(client: Client, judge: MeasuringJudge, *, stopping: bool = False) -> "asyncio.Task[None]":
    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": "/measure",
        "query_string": b"",
        "headers": [(b"content-type", b"application/x-ndjson")],
        "state": {},
    }
    return asyncio.create_task(guarded(judge, stopping=stopping)(scope, client.receive, client.send))


async def test_a_client_that_does_not_read_is_not_read() -> None:
    """Nor does it cost anything."""
    client, judge = Client(), MeasuringJudge()
    serving = served(client, judge)
    for _ in range(2000):
        await asyncio.sleep(0)
    assert judge.asked.total() < 40
    assert client.taken < 40
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def test_a_client_that_hangs_up_ends_the_calls() -> None:
    """In the middle of its body, too."""
    client, judge = Client(), MeasuringJudge()
    client.reads.set()
    serving = served(client, judge)
    await judge.until_asked(10)
    client.gone.set()
    await serving
    assert judge.at_once == 0


async def test_a_client_that_hangs_up_after_its_body_ends_calls_that_hang() -> None:
    """Nothing is sent that could fail: the service listens."""

    class Done(Client):
        async def receive(self) -> dict[str, Any]:
            if self.taken:
                await self.gone.wait()
                return {"type": "http.disconnect"}
            self.taken = 1
            return {"type": "http.request", "body": b'"one"\n"two"', "more_body": False}

    client, judge = Done(), MeasuringJudge()
    judge.open.clear()
    serving = served(client, judge)
    await judge.until_asked(2)
    client.gone.set()
    await serving
    assert judge.cancelled == 2


async def test_a_service_that_stops_says_so_in_the_ending() -> None:
    """With what was done until then; the calls are ended."""
    client, judge = Client(), MeasuringJudge()
    client.reads.set()
    serving = served(client, judge, stopping=True)
    await judge.until_asked(10)
    serving.cancel()
    await serving
    ending = msgspec.json.decode(client.sent[-1])
    assert (ending["done"], ending["error"]["status"]) == (False, 503)
    assert ending["items"] == sum(b'"length"' in sent for sent in client.sent)
    assert judge.at_once == 0
