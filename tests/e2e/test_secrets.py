"""No secret appears anywhere: a service is used in every way, and all that it left and said is searched for its keys.

The keys are those of backends, of Qdrant, of a collector of traces, and the service's own. The servers behind it refuse
some calls, and repeat the key in their refusals, as some do.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.service import Service
from tests.fakes.faults import Fault
from tests.fakes.gemini_refusals import KEY as GEMINI_KEY
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.http_server import answering
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.otlp_collector import Collector, collecting

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="the arguments of processes are read in /proc"),
]

VLLM_KEY = "sk-vllm-5kq0c3m9u2x7w1z8"
ECHOED_KEY = "sk-echo-8h2v6b4n1j5t0r3y"
QDRANT_KEY = "qd-secret-7p4l9d2f6s8a1g3k"
COLLECTOR_KEY = "otlp-secret-3e8i5o1y7u2m6c"
ADMIN_KEY = "admin-secret-0w9x8v7u6t5s4r3q2p1n-abcdef"
FOREIGN_KEY = "wnw_0123456789ab_" + "Zz9" * 14 + "Q"
"""What a client sends that has no key, or another service's."""

CONFIGURATION = """
[routing]
auto = ["gemma", "flash"]

[ranking]
controls = false

[backends.gemma]
kind = "vllm"
url = "{vllm}"
api_key = "{vllm_key}"
retries = 0

[backends.flash]
kind = "gemini"
url = "{gemini}"
api_key = "{gemini_key}"
retries = 0

[backends.echo]
kind = "openai"
url = "{echo}/v1"
api_key = "{echo_key}"
model = "echo-1"
retries = 0
"""


@contextmanager
def echoing(key: str) -> Iterator[str]:
    """A server that refuses every call, with the key in what it says."""
    refusal = {"error": {"message": f"Incorrect API key provided: {key}.", "type": "invalid_request_error"}}
    with answering(401, json.dumps(refusal).encode(), headers={"X-Key": key}) as url:
        yield url


@asynccontextmanager
async def running(
    folder: Path, collector: Collector, log_format: str, more: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[Service, OpenAIServer, GeminiServer]]:
    """The service over three backends, with its traces collected."""
    model = FakeModel(name="gemma-3")
    with echoing(ECHOED_KEY) as echo:
        async with OpenAIServer(model=model, api_key=VLLM_KEY) as vllm, GeminiServer() as gemini:
            written = CONFIGURATION.format(
                vllm=vllm.url,
                vllm_key=VLLM_KEY,
                gemini=gemini.url,
                gemini_key=GEMINI_KEY,
                echo=echo,
                echo_key=ECHOED_KEY,
            )
            (folder / "winnow.toml").write_text(written, encoding="utf-8")
            settings = {
                "WINNOW_ADMIN_KEY": ADMIN_KEY,
                "WINNOW_SERVICE_LOG_FORMAT": log_format,
                "WINNOW_SERVICE_LOG_LEVEL": "debug",
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
                "OTEL_EXPORTER_OTLP_HEADERS": f"x-collector-key={COLLECTOR_KEY}",
                **(more or {}),
            }
            service = Service(folder / "home", folder / "service.log", settings=settings)
            try:
                await service.start()
                yield service, vllm, gemini
            finally:
                service.kill()


class Responses:
    """What the service answered: bodies and headers of everything that was asked."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.texts: list[str] = []

    async def ask(self, method: str, path: str, key: str = ADMIN_KEY, **request: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}", **request.pop("headers", {})}
        response = await self._client.request(method, path, headers=headers, **request)
        self.texts.append(f"{response.status_code} {dict(response.headers)} {response.text}")
        return response


async def use(responses: Responses, vllm: OpenAIServer, gemini: GeminiServer) -> str:
    """A bit of everything, with and without success. Returns a key of the service's that was made meanwhile."""
    ask = responses.ask
    documents = [{"id": "d", "text": "Dental cover starts on the first day of employment."}]
    await ask("POST", "/documents", json={"documents": documents})
    for name in ("gemma", "flash", "echo", "auto", "none", "nobody"):
        await ask("POST", "/search", json={"query": "dental", "backend": name})
        await ask("POST", "/answer", json={"query": "When does dental cover start?", "backend": name})
        await ask("POST", "/chat", json={"message": "hello", "backend": name})
        await ask("POST", "/chat", json={"message": "hello", "backend": name, "stream": True})
        await ask("POST", "/v1/chat/completions", json={"model": name, "messages": [{"role": "user", "content": "hi"}]})
    for fault in (Fault.UNAUTHORIZED, Fault.FORBIDDEN, Fault.SERVER_ERROR, Fault.BAD_REQUEST):
        vllm.expect(fault)
        gemini.script.append(fault)
        for name in ("gemma", "flash"):
            await ask("POST", "/chat", json={"message": "hello", "backend": name})
    for path in ("/search", "/v1/rerank", "/api/v1/retrieval", "/retrieval", "/documents"):
        await ask("POST", path, key=FOREIGN_KEY, json={"query": "dental"})
        await ask("POST", path, json={"nonsense": True})
    await ask("GET", "/usage", key=FOREIGN_KEY, headers={"X-API-Key": ADMIN_KEY})
    for path in (
        "/backends",
        "/usage",
        "/usage/export",
        "/health/ready",
        "/version",
        "/collections",
        "/jobs",
        "/v1/models",
    ):
        await ask("GET", path)
    await ask("GET", "/schema/openapi.json")
    await ask("POST", "/cost/estimate", json={"input_tokens": 1000})
    response = await ask("POST", "/keys", json={"name": "team", "scopes": ["search", "answer"]})
    made: str = response.json()["key"]
    responses.texts.pop()  # the one answer that shows it
    await ask("POST", "/search", key=made, json={"query": "dental"})
    await ask("GET", "/usage/export", key=made)
    await ask("GET", "/metrics", key=made)
    await ask("GET", "/keys")
    await ask("DELETE", "/keys/team")
    await ask("POST", "/search", key=made, json={"query": "dental"})
    await ask("GET", "/metrics")
    return made


def arguments_of(pid: int) -> str:
    """Of the process and of all that it has started, as everybody on the machine can read them."""
    found, waiting = [], [pid]
    while waiting:
        folder = Path(f"/proc/{waiting.pop()}")
        found.append((folder / "cmdline").read_bytes().decode(errors="replace"))
        for children in folder.glob("task/*/children"):
            waiting += map(int, children.read_text().split())
    return "\n".join(found)


def files_below(folder: Path) -> dict[str, str]:
    """Every byte that was written there."""
    return {
        str(path.relative_to(folder)): path.read_bytes().decode("latin-1")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def found_in(places: Mapping[str, str], secrets: Mapping[str, str]) -> list[str]:
    """Which secrets, or long parts of them, are where."""
    return [
        f"{name} in {place}: ...{text[max(0, at - 60) : at + 60]!r}"
        for place, text in places.items()
        for name, secret in secrets.items()
        for piece in {secret, secret[-16:], secret[:14] if not secret.startswith("wnw_") else secret}
        if (at := text.find(piece)) >= 0
    ]


@pytest.mark.parametrize("log_format", ["json", "text"])
async def test_no_secret_is_anywhere(tmp_path: Path, log_format: str) -> None:
    """Neither in logs, errors, responses, metrics, the ledger, other files, traces, arguments, nor what doctor says."""
    with collecting() as collector:
        async with running(tmp_path, collector, log_format) as (service, vllm, gemini):
            await service.until_ready()
            async with service.client() as client:
                responses = Responses(client)
                made = await use(responses, vllm, gemini)
            arguments = arguments_of(service.pid)
            doctor = await service.run("doctor")
            listed = await service.run("keys", "list")
            backends = await service.run("usage")
            await service.terminate()
            said = service.said
    places = {
        "the log": said,
        "the arguments": arguments,
        "winnow doctor": doctor[1],
        "winnow keys list": listed[1],
        "winnow usage": backends[1],
        "traces": b"".join(collector.bodies).decode("latin-1"),
        **{f"response {number}": text for number, text in enumerate(responses.texts)},
        **files_below(tmp_path / "home"),
    }
    assert re.search(r'"event": "request"|request  ', said)
    assert "ledger.sqlite3" in places
    assert "winnow_requests_total" in responses.texts[-1]
    assert "gen_ai" in places["traces"]
    secrets = {
        "vLLM's key": VLLM_KEY,
        "Gemini's key": GEMINI_KEY,
        "a key that a server repeats": ECHOED_KEY,
        "the collector's key": COLLECTOR_KEY,
        "the admin's key": ADMIN_KEY,
        "a foreign key": FOREIGN_KEY,
        "a key of the service": made,
    }
    assert found_in(places, secrets) == []


def test_a_secret_would_be_found() -> None:
    """Also if it is cut at either end."""
    for piece in (VLLM_KEY, VLLM_KEY[:14], VLLM_KEY[-16:]):
        assert found_in({"the log": f"header {piece}, and more"}, {"vLLM's key": VLLM_KEY}) != []


async def test_qdrants_key_is_nowhere(tmp_path: Path) -> None:
    """Of a server that refuses it, and repeats it in its refusal."""
    refusal = json.dumps({"status": {"error": f"Must provide an API key, not {QDRANT_KEY}"}}).encode()
    with answering(403, refusal) as qdrant, collecting() as collector:
        more = {"QDRANT_URL": qdrant, "QDRANT_API_KEY": QDRANT_KEY, "WINNOW_STORE_TIMEOUT_S": "2"}
        async with running(tmp_path, collector, "json", more) as (service, _, _):
            async with service.client() as client:
                responses = Responses(client)
                async with asyncio.timeout(60):
                    ready = await responses.ask("GET", "/health/ready")
                    searched = await responses.ask("POST", "/search", json={"query": "dental"})
                    for path in ("/collections", "/metrics", "/backends"):
                        await responses.ask("GET", path)
            arguments = arguments_of(service.pid)
            doctor = await service.run("doctor")
            await service.terminate()
            said = service.said
    assert (ready.status_code, searched.status_code) == (503, 503)
    places = {
        "the log": said,
        "the arguments": arguments,
        "winnow doctor": doctor[1],
        **{f"response {number}": text for number, text in enumerate(responses.texts)},
        **files_below(tmp_path / "home"),
    }
    assert found_in(places, {"Qdrant's key": QDRANT_KEY}) == []
