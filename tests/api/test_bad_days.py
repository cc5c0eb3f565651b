"""What /chat does on each of a model server's bad days: through the real SDKs, over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from app.backends.settings import BackendSettings
from app.wiring import Services
from tests.api.test_answer import read_events
from tests.fakes.faults import ERRORS, Fault
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.models import BRISK, client_of, gemini, openai_style, services_for
from tests.fakes.openai_server import SECRET, OpenAIServer

pytestmark = pytest.mark.anyio

STATUS = {"rejected": 502, "bad_reply": 502, "refused": 502, "timeout": 504, "unavailable": 503, "rate_limited": 503}
SERVED = (200, "ok")
SLOW = {Fault.SLOW_FIRST_BYTE, Fault.SLOW_TRICKLE}

BAD_DAYS = {fault: (STATUS[error.code], error.code) for fault, error in ERRORS.items() if fault not in SLOW}
BAD_DAYS |= {fault: SERVED for fault in Fault if fault not in BAD_DAYS}
"""The status and the ledger's word for each; what is only slow is served."""

LATE = {Fault.MALFORMED_JSON, Fault.TRUNCATED_STREAM, Fault.ERROR_IN_STREAM, Fault.DROPPED_MIDWAY, Fault.BLOCKED_ANSWER}
"""These may come after the first words of a stream: the status is sent, and the stream ends in an error event."""

NOT_MOVED_ON = {Fault.BLOCKED_PROMPT, Fault.BLOCKED_ANSWER}
"""A refusal is an answer; nobody else is asked."""

SERVERS = ("gemini", "vllm")


class Day:
    """A server that will have one bad call, and a client of our service that stands before it."""

    def __init__(self, client: httpx.AsyncClient, services: Services, server: GeminiServer | OpenAIServer) -> None:
        self.client = client
        self.services = services
        self.server = server

    async def begin(self, fault: Fault) -> None:
        """The next call meets it. The probe is over by then."""
        await self.known("model")
        self.next(fault)

    def next(self, *faults: Fault) -> None:
        if isinstance(self.server, GeminiServer):
            self.server.script.extend(faults)
        else:
            self.server.expect(*faults)

    async def known(self, name: str) -> None:
        """Until the supervisor has found out about it."""
        line = (await self.services.pool.get()).router.clients[name]
        while line.probed is None:  # noqa: ASYNC110 - a test's time limit ends a vain wait
            await asyncio.sleep(0.005)

    async def ledger(self) -> list[dict[str, Any]]:
        """The rows of chats, oldest first; on a busy machine the reply may be faster than its row."""
        while self.services.accounts.ledger.health().pending:  # noqa: ASYNC110 - a test's time limit ends a vain wait
            await asyncio.sleep(0.005)
        lines = b"".join(self.services.accounts.export()).splitlines()
        return [row for row in map(json.loads, lines) if row["stage"] == "chat"]

    async def idle(self) -> None:
        """Nothing is in flight any more, on either side."""
        for line in (await self.services.pool.get()).router.clients.values():
            assert (line.status().in_flight, line.status().waiting) == (0, 0)


@asynccontextmanager
async def a_day(
    kind: str, home: Path, told: BackendSettings = BRISK, *, stand_in: GeminiServer | None = None
) -> AsyncIterator[Day]:
    if kind == "gemini":
        server = GeminiServer()
        async with server, _serving(home, lambda: gemini(server, told), stand_in) as (client, services):
            yield Day(client, services, server)
    else:
        vllm = OpenAIServer(dialect=kind, api_key="k")  # type: ignore[arg-type]
        async with vllm, _serving(home, lambda: openai_style(vllm, told), stand_in) as (client, services):
            yield Day(client, services, vllm)


@asynccontextmanager
async def _serving(
    home: Path, model: Callable[[], BackendSettings], stand_in: GeminiServer | None
) -> AsyncIterator[tuple[httpx.AsyncClient, Services]]:
    backends = {"model": model()}
    if stand_in is not None:
        backends["second"] = gemini(stand_in)
    services = services_for(home, backends)
    async with client_of(services) as client:
        yield client, services


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("fault", list(Fault))
async def test_every_bad_day_has_its_status_and_its_row(kind: str, fault: Fault, tmp_path: Path) -> None:
    """A named backend's failure keeps its status, is in the ledger once, and tells nothing of the provider."""
    status, outcome = BAD_DAYS[fault]
    async with a_day(kind, tmp_path) as day:
        await day.begin(fault)
        response = await day.client.post("/chat", json={"message": "hello there", "backend": "model"})
        assert (response.status_code, [row["outcome"] for row in await day.ledger()]) == (status, [outcome]), (
            response.text
        )
        assert SECRET not in response.text
        assert "Traceback" not in response.text
        if fault is Fault.RATE_LIMITED_WITH_DELAY:
            assert response.headers["retry-after"] == "7"
        if fault is Fault.OUT_OF_TOKENS:
            assert (response.json()["text"], response.json()["finish_reason"]) == ("", "length")
        await day.idle()


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("fault", list(Fault))
async def test_a_stream_ends_in_done_or_error_on_every_bad_day(kind: str, fault: Fault, tmp_path: Path) -> None:
    """What fails before the first word keeps its status; what fails later is the stream's last event."""
    status, outcome = BAD_DAYS[fault]
    async with a_day(kind, tmp_path) as day:
        await day.begin(fault)
        body = {"message": "hello there", "backend": "model", "stream": True}
        response = await day.client.post("/chat", json=body)
        if response.status_code == 200:
            name, data = read_events(response.text)[-1][1:]
            assert (name, data.get("status", 200)) == (("done", 200) if status == 200 else ("error", status))
            assert status == 200 or fault in LATE
        else:
            assert response.status_code == status
        assert [row["outcome"] for row in await day.ledger()] == [outcome]
        assert SECRET not in response.text
        await day.idle()


@pytest.mark.parametrize("fault", [fault for fault in Fault if BAD_DAYS[fault] != SERVED])
async def test_auto_moves_on_from_every_bad_day(fault: Fault, tmp_path: Path) -> None:
    """The next backend takes over and the response names the first and its reason; but a refusal stands."""
    async with GeminiServer() as stand_in, a_day("vllm", tmp_path, stand_in=stand_in) as day:
        await day.begin(fault)
        response = await day.client.post("/chat", json={"message": "hello there"})
        if fault in NOT_MOVED_ON:
            assert (response.status_code, stand_in.bodies) == (502, [])
        else:
            assert response.json()["backend"] == {
                "requested": "auto",
                "used": "second",
                "model": stand_in.models[0],
                "fallbacks": [{"backend": "model", "reason": BAD_DAYS[fault][1]}],
            }
            assert [row["outcome"] for row in await day.ledger()] == [BAD_DAYS[fault][1], "ok"]
            assert response.json()["usage"]["requests"] == 2
        await day.idle()


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("fault", sorted(SLOW))
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_too_slow_is_a_timeout(kind: str, fault: Fault, stream: bool, tmp_path: Path) -> None:
    """504 as soon as the time is over, however the bytes are dealt out; the connection is given up."""
    hasty = msgspec.structs.replace(BRISK, timeout_s=0.15, first_token_s=0.1)
    async with a_day(kind, tmp_path, hasty) as day:
        await day.begin(fault)
        body = {"message": "hello there", "backend": "model", "stream": stream}
        response = await day.client.post("/chat", json=body)
        problem = response.json() if response.status_code != 200 else read_events(response.text)[-1][2]
        assert (problem["status"], [row["outcome"] for row in await day.ledger()]) == (504, ["timeout"])
        await day.idle()


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_transient_fault_is_tried_again(kind: str, tmp_path: Path) -> None:
    """With retries a 500 and a 503 are not the caller's business; each attempt is in the ledger."""
    async with a_day(kind, tmp_path, msgspec.structs.replace(BRISK, retries=2)) as day:
        await day.begin(Fault.SERVER_ERROR)
        response = await day.client.post("/chat", json={"message": "hello there", "backend": "model"})
        assert (response.status_code, response.json()["usage"]["requests"]) == (200, 2)
        assert [row["outcome"] for row in await day.ledger()] == ["unavailable", "ok"]


@pytest.mark.parametrize(
    ("url", "says"), [("http://127.0.0.1:9/v1", "unavailable"), ("http://no-such-host.invalid/v1", "unavailable")]
)
async def test_nobody_at_the_address(url: str, says: str, tmp_path: Path) -> None:
    """A refused connection and a name that nobody knows are 503, with the backend's name and not the address."""
    told = msgspec.structs.replace(BRISK, url=url, model="m")
    services = services_for(tmp_path, {"gone": told})
    async with client_of(services) as client:
        response = await client.post("/chat", json={"message": "hello", "backend": "gone"})
        assert (response.status_code, "gone" in response.json()["detail"]) == (503, True)
        assert "no-such-host" not in response.text
        [status] = [b for b in (await client.get("/backends")).json()["backends"] if b["name"] == "gone"]
        assert (status["health"], status["last_error"]) == ("down", says)


async def test_a_wrong_key_names_the_setting(tmp_path: Path) -> None:
    """502, saying which key to correct, and not the key."""
    async with GeminiServer() as server:
        told = msgspec.structs.replace(gemini(server), api_key="wr0ng")
        async with client_of(services_for(tmp_path, {"flash": told})) as client:
            response = await client.post("/chat", json={"message": "hello", "backend": "flash"})
            assert response.status_code == 502
            assert "key" in response.json()["detail"]
            assert "wr0ng" not in response.text


async def test_a_server_that_restarts_serves_again(tmp_path: Path) -> None:
    """Between its end and its return calls fail with 503; afterwards they are served, without a restart of ours."""
    async with GeminiServer() as server, client_of(services_for(tmp_path, {"flash": gemini(server)})) as client:
        ask = {"message": "hello", "backend": "flash"}
        assert (await client.post("/chat", json=ask)).status_code == 200
        await server.stop()
        assert (await client.post("/chat", json=ask)).status_code == 503
        await server.start()
        assert (await client.post("/chat", json=ask)).status_code == 200
