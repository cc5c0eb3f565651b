"""The way to an OpenAI-style server: connections, headers, proxies, and calls that are given up."""

import asyncio
import gc

import pytest

from app.backends.openai_compatible.adapter import OpenAICompatible
from app.backends.openai_compatible.wire import is_near
from app.backends.settings import BackendSettings
from app.domain import TokenCount
from app.errors import UpstreamError, UpstreamRejected, UpstreamTimeout
from tests.fakes.faults import Fault, seeded_faults
from tests.fakes.http_server import answering
from tests.fakes.openai_server import Dialect, OpenAIServer
from tests.unit.app.backends.openai_compatible.opening import TIMEOUT_S, asking, collected, conversation, opened

pytestmark = pytest.mark.anyio

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


async def test_two_hundred_calls_at_once_are_all_served() -> None:
    """200 concurrent calls, whole and streamed, get their replies, and every connection is given back."""
    server = OpenAIServer("vllm")
    async with server:
        async with opened(server) as adapter:
            before = server.billed
            replies = await asyncio.gather(*(adapter.complete(asking(), TIMEOUT_S) for _ in range(100)))
            streams = await asyncio.gather(*(collected(adapter, asking()) for _ in range(100)))
            again = await adapter.complete(asking(), TIMEOUT_S)
        assert {reply.text for reply in [*replies, again]} == {server.model.answer}
        assert {"".join(delta.text for delta in stream) for stream in streams} == {server.model.answer}
        told = sum(
            ((deltas[-1].tokens or again.tokens) for deltas in streams),
            sum((reply.tokens for reply in replies), again.tokens),
        )
        assert before + told == server.billed
        await server.settled()


async def test_connections_are_used_again() -> None:
    """One call after the other needs one connection, streamed ones too."""
    server = OpenAIServer("vllm")
    async with server, opened(server, probe=False, model="tiny") as adapter:
        for _ in range(5):
            await adapter.complete(asking(), TIMEOUT_S)
            await collected(adapter, asking())
        assert server.connections == 1


@pytest.mark.parametrize("dialect", ["vllm", "ollama", "openai"])
async def test_in_a_storm_of_faults_no_token_is_lost(dialect: Dialect) -> None:
    """Of 300 calls with 30 % faults, replies and errors carry exactly the tokens that the server told."""
    server = OpenAIServer(dialect, choose=seeded_faults(7, 0.3), slow_s=0.01)
    among = asyncio.Semaphore(64)

    async def call(adapter: OpenAICompatible, number: int) -> TokenCount:
        async with among:
            try:
                if number % 2:
                    return (await adapter.complete(asking(max_output_tokens=5 + number % 5), TIMEOUT_S)).tokens
                return (await collected(adapter, asking(f"Question {number}")))[-1].tokens or TokenCount()
            except UpstreamError as exc:
                return exc.tokens or TokenCount()

    async with server:
        async with opened(server, probe=False, model="tiny") as adapter:
            server.lacks = frozenset({"modern"})
            counted = await asyncio.gather(*(call(adapter, number) for number in range(300)))
        await server.settled()
    assert sum(counted, TokenCount()) == server.told
    assert server.told.output > 1000


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_storm_of_cancelled_calls_leaves_nothing(streamed: bool) -> None:
    """100 calls cancelled in the middle end at the server too, no connection stays, and the next call is served."""
    server = OpenAIServer("vllm", token_s=0.02)
    async with server:
        async with opened(server, probe=False, model="tiny") as adapter:
            tasks = [
                asyncio.ensure_future(
                    collected(adapter, asking()) if streamed else adapter.complete(asking(), TIMEOUT_S)
                )
                for _ in range(100)
            ]
            await server.until_busy(100)
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
            await server.settled()
            server.token_s = 0.0
            assert (await adapter.complete(asking(), TIMEOUT_S)).text == server.model.answer
        await server.settled()


async def test_a_stream_that_is_closed_ends_upstream() -> None:
    """Closing the generator after the first piece stops the server's work and returns the connection."""
    server = OpenAIServer("vllm", token_s=0.01)
    async with server, opened(server, probe=False, model="tiny") as adapter:
        stream = adapter.stream(asking(), TIMEOUT_S)
        await anext(stream)
        await stream.aclose()
        await server.settled()
    assert 0 < server.billed.output < 8


async def test_a_stream_that_is_forgotten_ends_upstream() -> None:
    """A generator that nobody closes is closed with the loop's own hooks."""
    server = OpenAIServer("vllm", token_s=0.01)
    async with server, opened(server, probe=False, model="tiny") as adapter:
        stream = adapter.stream(asking(), TIMEOUT_S)
        await anext(stream)
        del stream
        gc.collect()
        await server.settled()
    assert 0 < server.billed.output < 8


async def test_cancelled_scoring_ends_upstream() -> None:
    """Scoring that is cancelled stops the batch, or all of its single requests."""
    for dialect in ("vllm", "ollama"):
        server = OpenAIServer(dialect)
        async with server, opened(server) as adapter:
            assert adapter.scorer is not None
            await adapter.scorer.score([conversation()], ("0", "1"), TIMEOUT_S)
            server.load_s = 1.0
            task = asyncio.ensure_future(adapter.scorer.score([conversation()] * 20, ("0", "1"), TIMEOUT_S))
            await server.until_busy(1 if dialect == "vllm" else 20)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await server.until_busy(0)


async def test_a_timeout_ends_the_call_upstream() -> None:
    """A call whose time is over is given up at the server as well."""
    server = OpenAIServer("vllm", script=(Fault.SLOW_FIRST_BYTE,), slow_s=60.0)
    async with server, opened(server, probe=False, model="tiny") as adapter:
        with pytest.raises(UpstreamTimeout):
            await adapter.complete(asking(), 0.5)
        await server.settled()
        assert server.cancelled == 1


async def test_a_key_does_not_follow_a_redirect() -> None:
    """A redirect is an error of ours: neither the key nor the prompt is sent to where it points."""
    elsewhere = OpenAIServer("vllm")
    async with elsewhere:
        with answering(307, b"", headers={"Location": f"{elsewhere.url}/chat/completions"}) as url:
            settings = BackendSettings(kind="vllm", url=f"{url}/v1", model="tiny", api_key="secret")
            adapter = OpenAICompatible("gemma", settings)
            with pytest.raises(UpstreamRejected, match="redirects elsewhere"):
                await adapter.complete(asking(), TIMEOUT_S)
            await adapter.aclose()
    assert elsewhere.requests == []


async def test_proxies_of_the_environment_are_not_for_near_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server on this machine is reached directly, whatever proxy the environment names."""
    for name in PROXIES:
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    server = OpenAIServer("vllm")
    async with server, opened(server) as adapter:
        assert (await adapter.complete(asking(), TIMEOUT_S)).text == server.model.answer


async def test_proxies_of_the_environment_are_for_far_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server out there is reached through the proxy that the environment names."""
    server = OpenAIServer("openai")
    async with server:
        for name in PROXIES:
            monkeypatch.setenv(name, server.root)
        settings = BackendSettings(kind="openai", url="http://api.example.com/v1", model="tiny")
        adapter = OpenAICompatible("far", settings)
        with pytest.raises(UpstreamRejected):
            await adapter.complete(asking(), TIMEOUT_S)
        await adapter.aclose()
    assert [request.path for request in server.requests] == ["http://api.example.com/v1/chat/completions"]


@pytest.mark.parametrize(
    ("host", "near"),
    [
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("localhost", True),
        ("vllm:8000", True),
        ("10.0.0.7", True),
        ("192.168.1.5:11434", True),
        ("169.254.1.1", True),
        ("host.docker.internal", True),
        ("nas.local", True),
        ("8.8.8.8", False),
        ("api.openai.com", False),
    ],
)
def test_near_is_this_machine_and_its_private_network(host: str, near: bool) -> None:
    """Loopback, private and link-local addresses and names without a public domain are near."""
    assert is_near(f"http://{host}/v1") is near


async def test_the_sdks_environment_does_not_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment tells OpenAI's SDK (key, organisation, headers, address) never reaches this server."""
    for name, value in {
        "OPENAI_API_KEY": "sk-of-someone",
        "OPENAI_ADMIN_KEY": "sk-of-an-admin",
        "OPENAI_ORG_ID": "org-x",
        "OPENAI_PROJECT_ID": "proj-x",
        "OPENAI_BASE_URL": "http://nobody.invalid",
        "OPENAI_CUSTOM_HEADERS": "X-Secret: y\nAuthorization: Bearer sk-of-a-header",
    }.items():
        monkeypatch.setenv(name, value)
    server = OpenAIServer("vllm")
    async with server, opened(server) as adapter:
        await adapter.complete(asking(), TIMEOUT_S)
    headers = dict(server.requests[0].headers)
    assert not {"authorization", "openai-organization", "openai-project", "x-secret"} & headers.keys()
    assert "sk-of" not in str(headers)


async def test_an_idle_stream_does_not_hold_up_others() -> None:
    """A reader that pauses in the middle of its stream keeps nobody else waiting."""
    server = OpenAIServer("vllm")
    async with server, opened(server, probe=False, model="tiny", concurrency=1) as adapter:
        stream = adapter.stream(asking(), TIMEOUT_S)
        await anext(stream)
        assert (await adapter.complete(asking(), TIMEOUT_S)).text == server.model.answer
        await stream.aclose()
