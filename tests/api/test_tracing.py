"""Traces of requests, as a collector gets them by OTLP over HTTP."""

import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import structlog

from app.backends.settings import BackendSettings
from app.config.settings import TracingSettings
from app.observability.tracing import SPAN
from app.wiring import Services, open_tracer
from tests.fakes.corpus import fill
from tests.fakes.faults import Fault
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.models import client_of, gemini, openai_style, services_for
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.otlp_collector import Collector, attributes_of, collecting

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=opaque"}
SECRET_WORDS = "zebra quartz"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@asynccontextmanager
async def traced(
    home: Path, endpoint: str, backends: Mapping[str, BackendSettings], **tracing: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application whose traces go to `endpoint`."""
    services = services_for(home, backends)
    services.settings = msgspec.structs.replace(
        services.settings, tracing=TracingSettings(endpoint=endpoint, **tracing)
    )
    async with client_of(services) as client:
        await fill(await services.store.get())
        yield client


async def test_a_search_is_a_trace_of_its_stages(collector: Collector, tmp_path: Path) -> None:
    """Under the caller's span; each stage and each call of a model is a part, the call a part of its stage."""
    async with (
        OpenAIServer(model=FakeModel(name="gemma")) as server,
        traced(tmp_path, collector.url, {"gemma": openai_style(server)}) as client,
    ):
        response = await client.post("/search", json={"query": "dental", "backend": "gemma"}, headers=CALLER)
        assert response.status_code == 200
        spans = await collector.wait_for("POST /search", "embed", "retrieve", "rank", "score gemma")
    root = spans["POST /search"]
    assert (root.trace_id.hex(), root.parent_span_id.hex(), root.kind) == (TRACE, PARENT, root.SPAN_KIND_SERVER)
    assert attributes_of(root) == {
        "http.request.method": "POST",
        "http.route": "/search",
        "http.response.status_code": 200,
    }
    assert {span.trace_id.hex() for span in collector.spans if span.name in ("embed", "retrieve", "rank")} == {TRACE}
    assert {spans[name].parent_span_id for name in ("embed", "retrieve", "rank")} == {root.span_id}
    assert attributes_of(spans["retrieve"])["gen_ai.operation.name"] == "retrieval"
    assert attributes_of(spans["retrieve"])["gen_ai.data_source.id"] == "default"
    assert attributes_of(spans["embed"])["gen_ai.operation.name"] == "embeddings"
    assert spans["score gemma"].parent_span_id == spans["rank"].span_id
    assert collector.resource["service.name"] == "winnow"


async def test_a_call_is_described_by_the_conventions(collector: Collector, tmp_path: Path) -> None:
    """Provider, model, tokens, server and how it ended; streamed or not."""
    async with (
        OpenAIServer(model=FakeModel(name="gemma")) as server,
        traced(tmp_path, collector.url, {"gemma": openai_style(server)}) as client,
    ):
        await client.post("/chat", json={"message": "hello", "max_output_tokens": 50, "stream": True})
        spans = await collector.wait_for("chat gemma", "POST /chat")
    call = spans["chat gemma"]
    about = attributes_of(call)
    assert call.kind == call.SPAN_KIND_CLIENT
    assert (about["gen_ai.provider.name"], about["gen_ai.request.model"]) == ("vllm", "gemma")
    assert (about["gen_ai.operation.name"], about["gen_ai.request.max_tokens"]) == ("chat", 50)
    assert (about["server.address"], about["winnow.backend"], about["winnow.stage"]) == ("127.0.0.1", "gemma", "chat")
    assert about["gen_ai.response.finish_reasons"] == ["stop"]
    assert about["gen_ai.usage.input_tokens"] > 0 < about["gen_ai.usage.output_tokens"]
    assert about["gen_ai.response.time_to_first_chunk"] > 0
    assert "error.type" not in about


async def test_a_call_that_fails_says_how(collector: Collector, tmp_path: Path) -> None:
    """The code of the error, on the call and, as a status, on the request."""
    async with OpenAIServer(model=FakeModel(name="gemma")) as server:
        async with traced(tmp_path, collector.url, {"gemma": openai_style(server)}) as client:
            await client.post("/chat", json={"message": "hello"})
            server.expect(Fault.BAD_REQUEST)
            response = await client.post("/chat", json={"message": "again"})
            await collector.wait_for("POST /chat", "POST /chat")
        failed = [span for span in collector.spans if span.status.code == span.status.STATUS_CODE_ERROR]
    assert response.status_code == 502
    assert {span.name: attributes_of(span)["error.type"] for span in failed} == {
        "chat gemma": "rejected",
        "chat": "rejected",
        "POST /chat": "502",
    }


async def test_the_context_travels_to_models(collector: Collector, tmp_path: Path) -> None:
    """To vLLM and to Gemini: the trace of the caller, the span of the call, and the caller's own state."""
    async with OpenAIServer(model=FakeModel(name="gemma")) as server, GeminiServer() as google:
        backends = {"gemma": openai_style(server), "flash": gemini(google)}
        async with traced(tmp_path, collector.url, backends) as client:
            for name in backends:
                body = {"message": "hello", "backend": name}
                assert (await client.post("/chat", json=body, headers=CALLER)).status_code == 200
            await collector.wait_for("POST /chat", "POST /chat")
        sent = [server.requests[-1].headers, google.calls[-1].asked.headers]
    calls = [span.span_id.hex() for span in collector.spans if span.name.startswith("chat ")]
    assert [headers["traceparent"] for headers in sent] == [f"00-{TRACE}-{call}-01" for call in calls[-2:]]
    assert {headers["tracestate"] for headers in sent} == {"vendor=opaque"}


@pytest.mark.parametrize("texts", [False, True])
async def test_texts_are_in_traces_only_if_the_settings_say_so(
    collector: Collector, tmp_path: Path, texts: bool
) -> None:
    """Queries, prompts and replies; names of collections and models are no texts."""
    async with (
        OpenAIServer(model=FakeModel(name="gemma", answer=SECRET_WORDS)) as server,
        traced(tmp_path, collector.url, {"gemma": openai_style(server)}, texts=texts) as client,
    ):
        await client.post("/chat", json={"message": f"say {SECRET_WORDS}"})
        await client.post("/chat", json={"message": f"say {SECRET_WORDS}", "stream": True})
        await client.post("/search", json={"query": SECRET_WORDS, "backend": "none"})
        await client.post("/answer", json={"query": SECRET_WORDS})
        await collector.wait_for("POST /answer")
    assert (SECRET_WORDS.encode() in b"".join(collector.bodies)) is texts
    if texts:
        calls = [attributes_of(span) for span in collector.spans if span.name == "chat gemma"]
        assert {"gen_ai.input.messages", "gen_ai.output.messages"} <= set(calls[0])
        assert SECRET_WORDS in calls[0]["gen_ai.output.messages"]


async def test_the_log_names_the_trace(collector: Collector, tmp_path: Path) -> None:
    """So that a line of it leads to the trace."""
    async with traced(tmp_path, collector.url, {}) as client:
        with structlog.testing.capture_logs() as lines:
            await client.get("/version", headers=CALLER)
    assert [line["trace"] for line in lines if line["event"] == "request"] == [TRACE]


async def test_without_an_endpoint_nothing_is_traced(tmp_path: Path) -> None:
    """The caller's context goes nowhere."""
    async with OpenAIServer(model=FakeModel(name="gemma")) as server:
        async with client_of(services_for(tmp_path, {"gemma": openai_style(server)})) as client:
            await client.post("/chat", json={"message": "hello"}, headers=CALLER)
        assert "traceparent" not in server.requests[-1].headers
    assert SPAN.get() is None


def test_opentelemetry_is_not_imported_unasked() -> None:
    """Neither by the service nor by its command line."""
    program = (
        "import sys, app.main, app.cli.main; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


async def test_a_share_of_none_records_nothing(collector: Collector, tmp_path: Path) -> None:
    """But for callers who record themselves."""
    async with traced(tmp_path, collector.url, {}, share=0.0) as client:
        await client.get("/version")
        await client.get("/backends", headers=CALLER)
        await collector.wait_for("GET /backends")
    assert {span.name for span in collector.spans} == {"GET /backends"}


async def test_a_collector_that_is_away_is_said_once_and_holds_up_nobody(tmp_path: Path) -> None:
    """It takes connections and never answers: requests go on, and the end comes within its limit."""
    with socket.socket() as deaf, structlog.testing.capture_logs() as lines:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        tracer = open_tracer(TracingSettings(endpoint=f"http://127.0.0.1:{deaf.getsockname()[1]}"))
        assert tracer is not None
        for _ in range(5000):
            tracer.request("GET", {}).end()
        begun = time.monotonic()
        await tracer.aclose()
        assert time.monotonic() - begun < 60
    assert [line["event"] for line in lines if "trace" in line["event"]][1:] == []


def test_without_the_extra_the_service_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without traces; the log says how to get them."""
    monkeypatch.setitem(sys.modules, "app.observability.otlp", None)
    with structlog.testing.capture_logs() as lines:
        assert open_tracer(TracingSettings(endpoint="http://127.0.0.1:9")) is None
    assert [line["fix"] for line in lines] == ["pip install 'winnow[otel]'"]


async def test_services_close_within_their_limit_though_nobody_collects(tmp_path: Path) -> None:
    """Nobody listens at all."""
    services: Services = services_for(tmp_path, {})
    tracing = TracingSettings(endpoint="http://127.0.0.1:9")
    services.settings = msgspec.structs.replace(services.settings, tracing=tracing)
    async with client_of(services) as client:
        assert (await client.get("/version")).status_code == 200
