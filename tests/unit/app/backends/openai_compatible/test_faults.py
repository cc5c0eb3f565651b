"""Bad days of an OpenAI-style server, through the real SDK over a real socket."""

import asyncio
import socket
from collections.abc import Sequence

import pytest

from app.backends.openai_compatible.adapter import OpenAICompatible
from app.backends.settings import BackendSettings
from app.errors import (
    PromptTooLong,
    Refused,
    UpstreamBadReply,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from tests.fakes.faults import Fault
from tests.fakes.http_server import answering
from tests.fakes.openai_server import OpenAIServer
from tests.unit.app.backends.openai_compatible.opening import TIMEOUT_S, asking, collected, opened

pytestmark = pytest.mark.anyio

SLOW = {Fault.SLOW_FIRST_BYTE, Fault.SLOW_TRICKLE}


async def ask(adapter: OpenAICompatible, *, streamed: bool, timeout_s: float = TIMEOUT_S) -> str:
    if streamed:
        return "".join(delta.text for delta in await collected(adapter, asking(), timeout_s))
    return (await adapter.complete(asking(), timeout_s)).text


@pytest.mark.parametrize("slow", sorted(SLOW))
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_slow_reply_in_time_is_a_reply(slow: Fault, streamed: bool) -> None:
    """A slow first byte and a trickle are no faults as long as the time allows."""
    server = OpenAIServer("vllm", slow_s=0.05)
    async with server, opened(server) as adapter:
        server.expect(slow)
        assert await ask(adapter, streamed=streamed) == server.model.answer


@pytest.mark.parametrize(
    ("fault", "after", "quota"),
    [
        (Fault.RATE_LIMITED_WITH_DELAY, 7.0, "minute"),
        (Fault.RATE_LIMITED, None, "minute"),
        (Fault.QUOTA_OF_THE_DAY, None, "day"),
    ],
)
async def test_a_limit_says_how_long_and_which(fault: Fault, after: float | None, quota: str) -> None:
    """A rate limit carries the delay that the server named, and tells the minute's quota from the day's."""
    server = OpenAIServer("openai")
    async with server, opened(server) as adapter:
        server.expect(fault)
        with pytest.raises(UpstreamRateLimited) as caught:
            await ask(adapter, streamed=False)
    assert (caught.value.retry_after, caught.value.quota) == (after, quota)


async def test_a_server_that_is_down_may_say_for_how_long() -> None:
    """503 with Retry-After carries the delay."""
    server = OpenAIServer("vllm")
    async with server, opened(server) as adapter:
        server.expect(Fault.UNAVAILABLE)
        with pytest.raises(UpstreamUnavailable) as caught:
            await ask(adapter, streamed=False)
    assert caught.value.retry_after == 2.0


@pytest.mark.parametrize("fault", [Fault.DROPPED_MIDWAY, Fault.ERROR_IN_STREAM, Fault.TRUNCATED_STREAM])
async def test_a_stream_that_breaks_tells_what_it_cost(fault: Fault) -> None:
    """The tokens that vLLM counted before its stream broke come with the error, after the text so far."""
    server = OpenAIServer("vllm")
    async with server, opened(server) as adapter:
        before = server.billed
        server.expect(fault)
        texts: list[str] = []

        async def listen() -> None:
            async for delta in adapter.stream(asking(), TIMEOUT_S):
                texts.append(delta.text)

        with pytest.raises(UpstreamError) as caught:
            await listen()
    assert server.model.answer.startswith("".join(texts))
    assert len(texts) >= 2
    assert caught.value.tokens is not None
    assert before + caught.value.tokens == server.billed


async def test_a_wrong_key_names_the_setting() -> None:
    """A refused key says which setting to change, in a call, a ping and a probe."""
    server = OpenAIServer("vllm", api_key="right")
    async with server, opened(server, probe=False, api_key="wrong", model="tiny") as adapter:
        for attempt in (adapter.complete(asking(), TIMEOUT_S), adapter.ping(TIMEOUT_S), adapter.probe(TIMEOUT_S)):
            with pytest.raises(UpstreamRejected, match=r"`api_key` in \[backends.gemma\]"):
                await attempt


async def test_the_right_key_is_sent_and_no_key_is_no_header() -> None:
    """The key goes along as a bearer's; without one there is no Authorization header at all."""
    for key in ("right", None):
        server = OpenAIServer("vllm", api_key=key)
        async with server, opened(server) as adapter:
            await adapter.complete(asking(), TIMEOUT_S)
        assert server.requests[0].headers.get("authorization") == (f"Bearer {key}" if key else None)


async def test_a_model_that_vanished_is_named_beside_those_there_are() -> None:
    """When the server no longer has the model, the error names it and what there is."""
    server = OpenAIServer("vllm", others=("big",))
    async with server, opened(server) as adapter:
        server.expect(Fault.UNKNOWN_MODEL)
        with pytest.raises(UpstreamRejected, match="does not have the model 'tiny'; it has tiny, big"):
            await adapter.complete(asking(), TIMEOUT_S)


async def test_a_prompt_that_is_too_long_is_told_the_limit() -> None:
    """A prompt beyond the context is refused with the number of tokens that fit."""
    server = OpenAIServer("vllm")
    async with server, opened(server) as adapter:
        with pytest.raises(PromptTooLong, match="too long for the context of 4096 tokens"):
            await adapter.complete(asking("word " * 5000), TIMEOUT_S)


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("host", [f"http://127.0.0.1:{unused_port()}", "http://nobody.invalid"], ids=["port", "name"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_server_that_is_not_there_is_unavailable(host: str, streamed: bool) -> None:
    """A refused connection and a name that does not resolve are one thing: the server cannot be reached."""
    adapter = OpenAICompatible("gemma", BackendSettings(kind="vllm", url=f"{host}/v1", model="tiny"))
    with pytest.raises(UpstreamUnavailable, match="cannot be reached"):
        await ask(adapter, streamed=streamed)
    await adapter.aclose()


async def test_a_server_that_restarts_is_found_again() -> None:
    """While a server is gone its calls fail at once; back on its port, it is used over new connections."""
    first, second = OpenAIServer("vllm"), OpenAIServer("vllm")
    async with first:
        adapter = OpenAICompatible("gemma", BackendSettings(kind="vllm", url=first.url, model="tiny"))
        assert await ask(adapter, streamed=True)
    with pytest.raises(UpstreamUnavailable):
        await ask(adapter, streamed=True)
    second.port = first.port
    async with second:
        assert await ask(adapter, streamed=True)
        await adapter.aclose()


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"<html>welcome to the hotel's wifi</html>", UpstreamBadReply),
        (b"[]", UpstreamBadReply),
        (b"null", UpstreamBadReply),
        (b"[" * 100_000, UpstreamBadReply),
        (b'{"choices": []}', UpstreamBadReply),
        (b'{"choices": [{"message": {"content": 7}, "finish_reason": "stop"}]}', UpstreamBadReply),
        (b'{"choices": [{"message": {"content": "\xff"}, "finish_reason": "stop"}]}', UpstreamBadReply),
        (b'{"error": {"message": "EVIL", "code": 429}}', UpstreamRateLimited),
        (b'{"error": {"message": "EVIL", "type": "overloaded_error"}}', UpstreamUnavailable),
        (b'{"choices": [{"message": {"content": null, "refusal": "EVIL"}, "finish_reason": "stop"}]}', Refused),
    ],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_strange_reply_with_a_status_of_success(
    body: bytes, error: type[UpstreamError], streamed: bool
) -> None:
    """Whatever comes with a status of 200 is a reply or an error of ours, never an exception of a parser."""
    wrapped = b"data: " + body.replace(b'"message": {"content"', b'"delta": {"content"') + b"\n\ndata: [DONE]\n\n"
    with answering(200, wrapped if streamed else body) as url:
        adapter = OpenAICompatible("gemma", BackendSettings(kind="openai", url=f"{url}/v1", model="tiny"))
        with pytest.raises(error) as caught:
            await ask(adapter, streamed=streamed)
        await adapter.aclose()
    assert "EVIL" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (302, b"", "redirects elsewhere"),
        (402, b"{}", "the daily quota is spent"),
        (405, b"{}", "no such endpoint"),
        (413, b"{}", "rejects the request"),
        (422, b'{"detail": []}', "rejects the request"),
        (501, b'{"error": null}', "rejects the request"),
        (504, b"EVIL", "timed out"),
        (529, b'"EVIL"', "is unavailable"),
        (
            400,
            b'{"error": {"code": "context_length_exceeded", "message": "EVIL"}}',
            "too long for the context of gemma",
        ),
        (400, b'{"error": {"message": "EVIL maximum context length is 4"}}', "too long for the context of gemma"),
        (400, b'{"error": "EVIL"}', "rejects the request"),
    ],
)
async def test_other_statuses(status: int, body: bytes, error: str) -> None:
    """Every status outside the usual ones has a clear text of ours."""
    with answering(status, body, headers={"Location": "http://elsewhere.invalid/"} if status == 302 else None) as url:
        adapter = OpenAICompatible("gemma", BackendSettings(kind="openai", url=f"{url}/v1", model="tiny"))
        with pytest.raises(UpstreamError, match=error) as caught:
            await ask(adapter, streamed=False)
        await adapter.aclose()
    assert "EVIL" not in str(caught.value)


async def test_a_drop_after_the_last_word_loses_nothing() -> None:
    """A stream that says why it ended is whole, even if its usage and its end mark never come."""
    chunks = [
        b'{"choices": [{"delta": {"content": "Yes."}}]}',
        b'{"choices": [{"delta": {}, "finish_reason": "stop"}]}',
    ]
    body = b"".join(b"data: %s\n\n" % chunk for chunk in chunks)
    for tail in (b"", b"data: {\n\n"):
        with answering(200, body + tail) as url:
            adapter = OpenAICompatible("gemma", BackendSettings(kind="openai", url=f"{url}/v1", model="tiny"))
            deltas = await collected(adapter, asking())
            await adapter.aclose()
        assert "".join(delta.text for delta in deltas) == "Yes."
        assert deltas[-1].finish_reason == "stop"


async def test_the_time_is_for_all_of_a_stream() -> None:
    """A stream that keeps sending still ends when its time is over."""
    server = OpenAIServer("vllm", token_s=0.03)
    async with server, opened(server) as adapter:
        texts: Sequence[str] = []
        with pytest.raises(UpstreamTimeout):
            async with asyncio.timeout(TIMEOUT_S):
                texts = [delta.text async for delta in adapter.stream(asking(), 0.1)]
    assert texts == []
    assert server.busy == 0
