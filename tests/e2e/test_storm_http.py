"""The same storm upon the real service in a process of its own: its clients hang up, its backends fail."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from app.accounting.ledger_file import LEDGER_FILE
from app.backend_settings import BackendSettings
from tests.e2e.books import MOST_OUTPUT, check_books, check_dollars, read_rows, text_for
from tests.fakes.openai_server import SECRET
from tests.fakes.running import RunningServer
from tests.fakes.storm import Crowd, Servers

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(300)]

CALLS, CLIENTS = 2_000, 64
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
                limits = httpx.Limits(max_connections=CLIENTS)
                async with httpx.AsyncClient(base_url=running.url, limits=limits, timeout=30) as self.client:
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
                call = asyncio.ensure_future(self.chat())
                if (after_s := self._crowd.leaves_after(HANGING_UP, TYPICALLY_AFTER_S)) is not None:
                    asyncio.get_running_loop().call_later(after_s, call.cancel)
                await asyncio.wait((call,))
                self.ends["hung up" if call.cancelled() else call.result()] += 1

        await asyncio.gather(*(client() for _ in range(CLIENTS)))

    async def chat(self) -> int:
        """The status; of a stream, that of its last event."""
        request_id, stream = f"storm-{next(self._numbers):06}", self._crowd.picks({"": 0.5, "stream": 0.5}) != ""
        body = {"message": text_for(request_id), "backend": self._crowd.picks(WHOM), "stream": stream}
        told = {"max_output_tokens": MOST_OUTPUT, **body}
        response = await self.client.post("/chat", json=told, headers={"X-Request-Id": request_id})
        assert SECRET not in response.text
        if response.status_code != 200 or not stream:
            return response.status_code
        last = response.text.strip().split("\n")
        status: int = msgspec.json.decode(last[-1].removeprefix("data: ")).get("status", 200)
        assert last[-2] == ("event: done" if status == 200 else "event: error")
        return status


async def test_two_thousand_chats(tmp_path: Path) -> None:
    """Clients get documented statuses; who hangs up ends the call upstream; the books agree; the service lives on."""
    storm = Storm(tmp_path)
    async with storm.opened(), asyncio.timeout(250):
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
    assert storm.servers.cancelled > 0
    assert sum(row.outcome == "cancelled" for row in rows) > 0.2 * storm.ends["hung up"]
    assert check_books(rows, storm.servers.books).exact > 0.7 * CALLS
    check_dollars(rows)
    assert "unexpected error" not in storm.said
    assert "Traceback" not in storm.said
