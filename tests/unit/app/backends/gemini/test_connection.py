"""Gemini's connections: which server and key they use, and that none is left behind."""

import asyncio
import gzip
import json
import logging
import socket
from collections.abc import Iterator

import pytest
from google.oauth2.credentials import Credentials

from app.backends.bounds import MAX_REPLY_BYTES
from app.backends.gemini.adapter import GeminiAdapter
from app.backends.settings import BackendSettings
from app.errors import ConfigError, UpstreamBadReply, UpstreamRejected, UpstreamUnavailable
from tests.fakes.faults import Fault, seeded_faults
from tests.fakes.gemini_refusals import KEY
from tests.fakes.gemini_server import MODEL, GeminiServer
from tests.fakes.http_server import answering
from tests.unit.app.backends.gemini.bench import NAME, PLENTY_S, asking, bench, failure, settings_for, streamed

pytestmark = pytest.mark.anyio

BOTH_WAYS = pytest.mark.parametrize("how", ["complete", "stream"])


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("GOOGLE_API_KEY", "GEMINI_API_KEY", "GOOGLE_GEMINI_BASE_URL", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(variable, raising=False)


async def test_a_call_speaks_the_stable_version_with_the_key_in_a_header() -> None:
    """The key is in no address, so in no log; no time limit is announced, since Google refuses short ones."""
    async with bench() as b:
        await b.gemini.complete(asking(), PLENTY_S)
        await streamed(b.gemini, asking())
        await b.gemini.ping(PLENTY_S)
    asked = [call.asked for call in b.server.calls]
    assert [(a.method, a.path) for a in asked] == [
        ("POST", f"/v1/models/{MODEL}:generateContent"),
        ("POST", f"/v1/models/{MODEL}:streamGenerateContent?alt=sse"),
        ("GET", f"/v1/models/{MODEL}"),
    ]
    assert all(a.headers["x-goog-api-key"] == KEY and "x-server-timeout" not in a.headers for a in asked)


async def test_a_path_before_googles_is_kept() -> None:
    """A gateway may stand under any address."""
    async with bench() as b:
        gemini = GeminiAdapter(NAME, settings_for(b.server, url=f"{b.server.url}/gateway/"))
        await gemini.complete(asking(), PLENTY_S)
        await gemini.aclose()
        assert b.server.calls[0].asked.path == f"/gateway/v1/models/{MODEL}:generateContent"


async def test_without_a_url_the_sdks_own_variable_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """GOOGLE_GEMINI_BASE_URL leads elsewhere, as for every program on Google's SDK; the setting goes before it."""
    async with GeminiServer() as variables, bench() as b:
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", variables.url)
        theirs, ours = GeminiAdapter("a", settings_for(b.server, url=None)), GeminiAdapter("b", settings_for(b.server))
        for gemini in (theirs, ours):
            await gemini.complete(asking(), PLENTY_S)
            await gemini.aclose()
        assert (len(variables.calls), len(b.server.calls)) == (1, 1)


async def test_keys_and_switches_in_the_environment_do_not_win(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither another key, nor the switch to Google Cloud; nor does the SDK claim to have used them."""
    for variable in ("GOOGLE_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(variable, "of-someone-else")
    monkeypatch.setenv("GOOGLE_GENAI_USE_ENTERPRISE", "true")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "of-someone-else")
    with caplog.at_level(logging.WARNING):  # whatever an earlier test has left
        async with bench() as b:
            assert await failure(b.gemini, "complete") is None
            assert b.server.calls[0].asked.headers["x-goog-api-key"] == KEY
    assert caplog.records == []


@pytest.mark.parametrize("key", [None, ""])
def test_a_key_in_the_environment_is_no_key_of_this_backend(key: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads the settings hands it over, or nobody."""
    monkeypatch.setenv("GOOGLE_API_KEY", KEY)
    with pytest.raises(ConfigError, match="api_key"):
        GeminiAdapter(NAME, BackendSettings(kind="gemini", api_key=key))


def test_a_proxy_that_cannot_be_used_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """SOCKS needs a package that we do not bring."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(ConfigError, match="ALL_PROXY"):
        GeminiAdapter(NAME, BackendSettings(kind="gemini", api_key=KEY))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_proxy_of_the_environment_is_not_for_this_machine(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server on loopback is reached directly."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with bench() as b:
        gemini = GeminiAdapter(NAME, settings_for(b.server, url=f"http://{host}:{b.server.port}"))
        assert await failure(gemini, "complete") is None
        await gemini.aclose()


async def test_a_proxy_of_the_environment_is_for_the_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything else goes through it."""
    async with GeminiServer() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        async with bench(url="http://gemini.invalid") as b:
            assert await failure(b.gemini, "complete") is None
        assert proxy.calls[0].asked.path.startswith("http://gemini.invalid/v1/")
        await proxy.settled()


async def test_a_project_without_a_key_goes_through_google_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a token instead of a key, under the project's path, even where the environment holds a key."""
    monkeypatch.setenv("GOOGLE_API_KEY", "of-someone-else")
    async with GeminiServer() as server:
        settings = BackendSettings(kind="gemini", project="p1", url=server.url, service_tier="priority")
        gemini = GeminiAdapter(NAME, settings, Credentials(token="a-token"))  # type: ignore[no-untyped-call]
        reply = await gemini.complete(asking("Hi"), PLENTY_S)
        await gemini.ping(PLENTY_S)
        await gemini.aclose()
        await server.settled()
    posted, described = (call.asked for call in server.calls)
    assert reply.text == "You said: Hi"
    assert posted.path == f"/v1beta1/projects/p1/locations/global/publishers/google/models/{MODEL}:generateContent"
    assert described.path == f"/v1beta1/publishers/google/models/{MODEL}"
    assert posted.headers["authorization"] == "Bearer a-token"
    assert "x-goog-api-key" not in posted.headers


async def test_google_cloud_without_credentials_says_how_to_get_some(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """The sign-in is named, and nothing is sent."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    async with bench(api_key=None, project="p1") as b:
        error = await failure(b.gemini, "complete")
        assert b.server.calls == []
    assert isinstance(error, UpstreamRejected)
    assert "gcloud" in str(error)


@pytest.fixture
def unresponsive() -> Iterator[str]:
    """An address where connecting takes forever: its queue is full and nobody serves it."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@BOTH_WAYS
async def test_connecting_has_its_own_time_limit(how: str, unresponsive: str) -> None:
    """The SDK's "no limit" for each request does not undo it; nothing was sent, so nothing is billed."""
    async with bench(url=unresponsive, connect_timeout_s=0.1) as b:
        async with asyncio.timeout(60):
            assert isinstance(await failure(b.gemini, how, timeout_s=60), UpstreamUnavailable)


@BOTH_WAYS
async def test_a_cancelled_call_ends_on_the_server(how: str) -> None:
    """Whoever goes away takes the upstream call along, and its connection."""
    slow = Fault.SLOW_FIRST_BYTE if how == "complete" else Fault.SLOW_TRICKLE
    async with bench(GeminiServer([slow], slow_s=60)) as b:
        call = asyncio.create_task(failure(b.gemini, how))
        await b.server.asked()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await b.server.settled()
        assert b.server.cancelled == 1
        assert await failure(b.gemini, how) is None


async def test_a_closed_stream_ends_on_the_server() -> None:
    """Closing the generator closes the connection before it returns, not when the garbage is collected."""
    async with bench(GeminiServer([Fault.SLOW_TRICKLE], slow_s=60), concurrency=1) as b:
        stream = b.gemini.stream(asking(), PLENTY_S)
        await anext(stream)
        await stream.aclose()
        assert await failure(b.gemini, "complete") is None
        assert b.server.cancelled == 1


async def test_connections_are_used_again() -> None:
    """Calls after one another need one connection, streams included."""
    async with bench() as b:
        for how in ("complete", "stream") * 5:
            assert await failure(b.gemini, how) is None
        assert b.server.connections == 1


@pytest.mark.parametrize("calls", [50, 200])
async def test_many_calls_at_once_use_as_many_connections_as_allowed(calls: int) -> None:
    """The pool is as large as the backend's concurrency; the others wait their turn."""
    async with bench(concurrency=64, connect_timeout_s=60) as b:
        hows = ("complete", "stream") * (calls // 2)
        assert await asyncio.gather(*(failure(b.gemini, how, timeout_s=60) for how in hows)) == [None] * calls
        assert b.server.connections <= 64
        assert b.server.told.input == 5 * calls


async def test_a_storm_of_cancellations_leaves_nothing_behind() -> None:
    """Whenever the callers leave, in whatever weather, no connection stays in use and the next call goes well."""
    storm = GeminiServer(choose=seeded_faults(7, 0.5), slow_s=0.02)
    async with bench(storm, concurrency=16) as b:
        calls = [asyncio.create_task(failure(b.gemini, how)) for how in ("complete", "stream") * 50]
        for number, call in enumerate(calls):
            if number % 3:
                await asyncio.sleep(0.002)
                call.cancel()
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert [e for e in ended if isinstance(e, Exception) and getattr(e, "code", "failed") == "failed"] == []
        storm.script.extend([Fault.OK] * 16)
        assert await asyncio.gather(*(failure(b.gemini, "complete") for _ in range(16))) == [None] * 16
        assert b.server.open_connections <= 16


async def test_nothing_is_logged_about_a_call(caplog: pytest.LogCaptureFixture) -> None:
    """At the level of warnings, where the service listens to its libraries."""
    with caplog.at_level(logging.WARNING):
        async with bench(GeminiServer(list(Fault), slow_s=0.01)) as b:
            for _ in Fault:
                await failure(b.gemini, "stream")
    assert caplog.records == []


@BOTH_WAYS
async def test_a_reply_without_end_is_read_no_further(how: str) -> None:
    """What a few bytes unpack to does not fill the memory: it counts as a reply that cannot be read."""
    content = {"parts": [{"text": "a" * MAX_REPLY_BYTES}], "role": "model"}
    body = json.dumps({"candidates": [{"content": content, "finishReason": "STOP"}]}).encode()
    headers = {"Content-Encoding": "gzip"}
    if how == "stream":
        body, headers["Content-Type"] = b"data: %s\r\n\r\n" % body, "text/event-stream"
    with answering(200, gzip.compress(body), headers=headers) as url:
        gemini = GeminiAdapter(NAME, BackendSettings(kind="gemini", url=url, api_key=KEY))
        assert isinstance(await failure(gemini, how), UpstreamBadReply)
        await gemini.aclose()
