"""Two hundred answers at once over real sockets, and clients that leave in the middle."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import uvicorn

from app.main import create_app
from app.wiring import Services
from tests.api.conftest import SharedStore
from tests.fakes.answering_model import AnsweringModel
from tests.fakes.answering_service import PATIENT, backend_of, events_of, server_of, text_of
from tests.fakes.models import services_for
from tests.fakes.openai_server import OpenAIServer

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

STREAMS, LEAVING = 200, 60
STARTS = "Dental cover starts on the first day of work [1]."
MOST = 20_000
"""Tokens that the model says to who leaves, unless it is stopped: far more than sockets hold."""


@asynccontextmanager
async def listening(services: Services) -> AsyncIterator[int]:
    """The service on a free port, in this event loop."""
    app = create_app(services.settings, services)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, ws="none"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn tells it in no other way
        await asyncio.sleep(0.001)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving


async def ask(port: int, query: str, *, until: bytes = b"") -> str:
    """The events of a streamed answer; or all up to `until`, and then the client is gone."""
    body = msgspec.json.encode({"query": query, "backend": "none", "answer_backend": "auto", "stream": True})
    head = f"POST /answer HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        return (await (reader.readuntil(until) if until else reader.read())).decode()
    finally:
        writer.close()
        await writer.wait_closed()


def events_in(response: str) -> str:
    """The chunks of the body, put together."""
    parts = response.partition("\r\n\r\n")[2].split("\r\n")
    return "".join(parts[1::2])


async def test_clients_that_leave_leave_nothing_behind(tmp_path: Path, store: SharedStore) -> None:
    """Their calls upstream end; the others get their whole answer; no task, slot or connection stays."""

    def at_length(sentences: object) -> str:
        return f"{AnsweringModel().dress({'1.1': 'Dental cover starts on the first day of work'})}{' It is so.' * MOST}"

    brief, endless = AnsweringModel(least=0.2), AnsweringModel(least=0.2, dress=at_length)
    server = server_of("vllm", lambda turns, schema: (endless if "endless" in str(turns) else brief)(turns, schema))
    assert isinstance(server, OpenAIServer)
    told = msgspec.structs.replace(PATIENT, concurrency=STREAMS)
    async with server:
        services = services_for(tmp_path, {"tiny": backend_of(server, told)}, store=store)
        async with listening(services) as port:
            await ask(port, "When does dental cover start?")
            line = (await services.pool.get()).router.clients["tiny"]
            before = asyncio.all_tasks()
            leavers = [ask(port, "endless: dental cover?", until=b"event: delta") for _ in range(LEAVING)]
            stayers = [ask(port, "When does dental cover start?") for _ in range(STREAMS - LEAVING)]
            replies = (await asyncio.gather(*leavers, *stayers))[LEAVING:]
            await server.until_busy(0)
            while line.status().in_flight:  # noqa: ASYNC110 - the test's time limit ends a vain wait
                await asyncio.sleep(0.001)
            while left := {task for task in asyncio.all_tasks() - before if not _is_a_connection(task)}:
                await asyncio.wait(left)
            assert server.billed.output < LEAVING * MOST / 2
        for reply in replies:
            events = events_of(events_in(reply))
            assert (text_of(events), events[-1][0]) == (STARTS, "done")


def _is_a_connection(task: "asyncio.Task[object]") -> bool:
    """Of the fake server, which keeps them open for the next call."""
    return "_serve" in str(task.get_coro()) or "StreamReader.read" in str(task.get_coro())
