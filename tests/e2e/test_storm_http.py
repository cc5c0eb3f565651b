"""The same storm upon the real service in a process of its own: its clients hang up, its backends fail."""

import asyncio
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from app.accounting.ledger import LEDGER_FILE
from app.backends.settings import BackendSettings
from tests.e2e.books import MOST_OUTPUT, check_books, check_dollars, read_rows, text_for
from tests.fakes.faults import Fault
from tests.fakes.openai_server import SECRET
from tests.fakes.running import RunningServer
from tests.fakes.storm import Crowd, Servers

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(300)]

CALLS, CLIENTS, LEAVING = 2_000, 64, 16
LONG_S = 60.0
"""More than a caller's patience."""

HANGING_UP, TYPICALLY_AFTER_S = 0.2, 0.05

WHOM = {"auto": 0.4, "gemini": 0.2, "vllm": 0.2, "ollama": 0.2}
TOLD = BackendSettings(kind="vllm", timeout_s=20, first_token_s=20, retries=1, concurrency=32)

DOCUMENTED = {200, 502, 503, 504}
"""What /chat may answer when the request itself is good and there is money."""


class Storm:
    """The servers, the service before them, and what its clients got."""

    def __init__(self, home: Path) -> None:
        self.ledger = home / LEDGER_FILE
        self.servers = Servers(seed=11)
        self.ends: Counter[int | str] = Counter()
        self._home = home
        self._crowd = Crowd(14)
        self._numbers = iter(range(10**9))

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """The service runs and knows its backends; afterwards it has ended in good order."""
        async with self.servers.opened(TOLD) as backends:
            told = msgspec.json.encode(backends).decode()
            running = await asyncio.to_thread(RunningServer, self._home, "tests.fakes.model_service", told)
            try:
                self.address = running.url.removeprefix("http://")
                async with httpx.AsyncClient(base_url=running.url) as self.client:
                    await self.until(health="up")
                    yield
                running.process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(running.process.wait, 30) == 0
            finally:
                await asyncio.to_thread(running.close)
            self.said = "".join(running.lines)

    async def until(self, **told: object) -> None:
        """GET /backends says so of each model; the test's time limit ends a vain wait."""
        while True:
            backends = (await self.client.get("/backends")).json()["backends"]
            models = [backend for backend in backends if backend["kind"] in ("gemini", "vllm", "ollama")]
            assert len(models) == 3
            if all(backend[name] == value for backend in models for name, value in told.items()):
                return
            await asyncio.sleep(0.05)

    async def blow(self, calls: int) -> None:
        """So many calls, CLIENTS at once."""
        todo = iter(range(calls))

        async def client() -> None:
            for _ in todo:
                self.ends[await self.chat(self._crowd.leaves_after(HANGING_UP, TYPICALLY_AFTER_S))] += 1

        await asyncio.gather(*(client() for _ in range(CLIENTS)))

    async def hang_up(self, calls: int) -> None:
        """So many clients leave while their calls are being worked at; returns when no server works for them."""
        server = self.servers.vllm
        server.load_s = LONG_S
        server.expect(*[Fault.OK] * calls)
        asking = [asyncio.create_task(self.chat(backend="vllm")) for _ in range(calls)]
        await server.until_busy(calls)
        for client in asking:
            client.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await server.until_busy(0)
        server.load_s = 0

    async def chat(self, patience_s: float | None = None, backend: str | None = None) -> int | str:
        """The status, of a stream that of its last event; or "hung up" after so many seconds."""
        request_id, stream = f"storm-{next(self._numbers):06}", self._crowd.picks({"": 0.5, "stream": 0.5}) != ""
        told = {"message": text_for(request_id), "backend": backend or self._crowd.picks(WHOM), "stream": stream}
        request = _post(self.address, {**told, "max_output_tokens": MOST_OUTPUT}, request_id)
        try:
            answer = await _answer(self.address, request, patience_s)
        except TimeoutError:
            return "hung up"
        assert SECRET not in answer
        status = int(answer.split(" ", 2)[1])
        return _last_status(answer) if stream and status == 200 else status


def _post(address: str, body: object, request_id: str) -> bytes:
    content = msgspec.json.encode(body)
    headers = {"Host": address, "Content-Type": "application/json", "Content-Length": len(content)}
    lines = [
        f"{name}: {value}" for name, value in {**headers, "X-Request-Id": request_id, "Connection": "close"}.items()
    ]
    return "\r\n".join(["POST /chat HTTP/1.1", *lines, "", ""]).encode() + content


async def _answer(address: str, request: bytes, patience_s: float | None) -> str:
    """All that comes back. Raises TimeoutError after closing the connection."""
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        async with asyncio.timeout(patience_s):
            return (await reader.read()).decode()
    finally:
        writer.close()
        await writer.wait_closed()


def _last_status(stream: str) -> int:
    """Exactly one event ends a stream."""
    [(name, data)] = re.findall(r"^event: (done|error)\ndata: (.*)$", stream, re.MULTILINE)
    status: int = msgspec.json.decode(data).get("status", 200)
    assert (name == "done") == (status == 200)
    return status


async def test_two_thousand_chats(tmp_path: Path) -> None:
    """Clients get documented statuses; who hangs up ends the call upstream; the books agree; the service lives on."""
    storm = Storm(tmp_path)
    async with storm.opened(), asyncio.timeout(250):
        await storm.hang_up(LEAVING)
        assert storm.servers.cancelled == LEAVING
        await storm.blow(CALLS)
        await storm.until(in_flight=0, waiting=0)
        await storm.servers.settled(TOLD.concurrency)
        assert (await storm.client.get("/health/live")).status_code == 200
        assert await storm.chat() in DOCUMENTED
    assert storm.servers.open_connections == 0
    assert storm.ends.total() == CALLS
    assert set(storm.ends) <= DOCUMENTED | {"hung up"}, storm.ends
    assert storm.ends[200] > 0.7 * CALLS, storm.ends
    assert storm.ends["hung up"] > 0.05 * CALLS, storm.ends
    rows = read_rows(storm.ledger)
    assert sum(row.outcome == "cancelled" for row in rows) >= LEAVING
    assert check_books(rows, storm.servers.books).exact > 0.7 * CALLS
    check_dollars(rows)
    assert "unexpected error" not in storm.said
    assert "Traceback" not in storm.said
