"""Gemini on bad days: every fault is one of our errors, over the real SDK and a real socket."""

import asyncio
import json
from typing import Any

import pytest
from google.genai import errors as sdk

from app.backends.status import NoSuchRoute
from app.errors import (
    UpstreamBadReply,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from tests.fakes.faults import Fault
from tests.fakes.gemini_refusals import error_body
from tests.fakes.gemini_server import Canned, GeminiServer
from tests.unit.app.backends.gemini.bench import NAME, PLENTY_S, asking, bench, failure, streamed

pytestmark = pytest.mark.anyio

BRIEF_S = 0.5
"""Enough for a first piece on any machine, and soon over."""

BOTH_WAYS = pytest.mark.parametrize("how", ["complete", "stream"])


async def test_a_stream_that_fails_tells_what_it_cost_so_far() -> None:
    """The tokens of the pieces that came are on the error, however it ended."""
    faults = [Fault.TRUNCATED_STREAM, Fault.ERROR_IN_STREAM, Fault.DROPPED_MIDWAY, Fault.SLOW_TRICKLE]
    async with bench(GeminiServer(faults, slow_s=60)) as b:
        for fault in faults:
            error = await failure(b.gemini, "stream", timeout_s=1.0 if fault is Fault.SLOW_TRICKLE else PLENTY_S)
            assert isinstance(error, UpstreamError)
            assert error.tokens == b.server.calls[-1].told
            assert error.tokens.output > 0


async def test_the_time_limit_is_for_the_whole_call() -> None:
    """A server that keeps trickling does not keep us: no gap between its bytes is long, but all together are."""
    async with bench(GeminiServer([Fault.SLOW_TRICKLE] * 2, slow_s=0.1)) as b:
        for how in ("complete", "stream"):
            assert isinstance(await failure(b.gemini, how, timeout_s=0.15), UpstreamTimeout)


async def test_the_time_limit_never_strikes_whoever_reads_the_stream() -> None:
    """A reader that takes long between two pieces is not interrupted; the next piece is late instead."""
    async with bench(GeminiServer([Fault.SLOW_TRICKLE], slow_s=60)) as b:
        stream = b.gemini.stream(asking(), BRIEF_S)
        await anext(stream)
        with pytest.raises(UpstreamTimeout):
            await read_late(stream)


async def read_late(stream: Any) -> None:
    """Raises what the stream raises; a cancellation of this very function would not be that."""
    await asyncio.sleep(1.2 * BRIEF_S)
    async for _ in stream:
        await asyncio.sleep(0)


@BOTH_WAYS
async def test_a_wrong_key_is_told_from_a_bad_request(how: str) -> None:
    """Google answers both with 400; the text names the setting to mend."""
    async with bench(api_key="another") as b:
        error = await failure(b.gemini, how)
    assert isinstance(error, UpstreamRejected)
    assert "key" in str(error)
    assert f"[backends.{NAME}]" in str(error)


@BOTH_WAYS
async def test_an_unknown_model_is_named_with_its_setting(how: str) -> None:
    """A retired model is one setting away from its successor, and the text says which."""
    async with bench(model="gemini-1.0-gone") as b:
        error = await failure(b.gemini, how)
    assert isinstance(error, UpstreamRejected)
    assert "'gemini-1.0-gone'" in str(error)
    assert f"`model` in [backends.{NAME}]" in str(error)


@BOTH_WAYS
async def test_quotas_of_the_minute_and_of_the_day_are_told_apart(how: str) -> None:
    """The delay beside a spent day is that of the minute, and not worth repeating."""
    faults = [Fault.RATE_LIMITED_WITH_DELAY, Fault.RATE_LIMITED, Fault.QUOTA_OF_THE_DAY]
    async with bench(GeminiServer(faults, retry_after_s=3.5)) as b:
        got = [await failure(b.gemini, how) for _ in faults]
    assert [(e.quota, e.retry_after) for e in got if isinstance(e, UpstreamRateLimited)] == [
        ("minute", 3.5),
        ("minute", None),
        ("day", None),
    ]


@BOTH_WAYS
@pytest.mark.parametrize(
    ("delay", "seconds"),
    [
        ("7s", 7.0),
        ("0.25s", 0.25),
        ({"seconds": 3, "nanos": 500_000_000}, 3.5),
        ("soon", None),
        (None, None),
        ("-4s", None),
    ],
)
async def test_the_delay_is_read_in_each_of_its_forms(how: str, delay: Any, seconds: float | None) -> None:
    """Google's RetryInfo is a text or an object; nonsense is no delay."""
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}]
    async with bench() as b:
        b.server.canned.append(Canned(status=429, body=error_body(429, details)))
        error = await failure(b.gemini, how)
    assert isinstance(error, UpstreamRateLimited)
    assert (error.retry_after, error.quota) == (seconds, "unknown")


HOSTILE = [
    b"[]",
    b"7",
    b'"text"',
    b"null",
    b"\xff\xfe\xfa",
    b'{"candidates": 5}',
    b'{"candidates": [5]}',
    b'{"candidates": [{"content": "text", "finishReason": "STOP"}]}',
    b'{"candidates": [{"finishReason": {}}]}',
    b'{"candidates": [], "usageMetadata": "many"}',
    b'{"candidates": [{"finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": "many"}}',
    b'{"error": {"message": "no code"}}',
    b'{"error": "text"}',
    b'{"error": {"code": "500"}}',
    b"[" * 100_000,
    b"<html>",
]


@BOTH_WAYS
@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
async def test_whatever_comes_with_200_is_a_bad_reply_at_worst(how: str, body: bytes) -> None:
    """The SDK trips over odd replies with TypeErrors and the like, which are no mistakes of ours."""
    async with bench() as b:
        b.server.canned.append(Canned(body=body if how == "complete" else b"data: " + body + b"\r\n\r\n"))
        assert isinstance(await failure(b.gemini, how), UpstreamBadReply)


@BOTH_WAYS
@pytest.mark.parametrize("body", [b"\xff\xfe\xfa", b"[1, 2]", b'{"error": "text"}', b'{"error": {"details": 5}}', b""])
async def test_an_error_with_an_odd_body_goes_by_its_status(how: str, body: bytes) -> None:
    """Gateways answer with what they like."""
    async with bench() as b:
        b.server.canned.append(Canned(status=503, body=body, headers={"retry-after": "4"}))
        error = await failure(b.gemini, how)
    assert isinstance(error, UpstreamUnavailable)
    assert error.retry_after == 4


@BOTH_WAYS
async def test_an_error_wrapped_in_a_list_is_read(how: str) -> None:
    """Streams of the older kind wrap even their errors."""
    body = json.dumps([json.loads(error_body(429))]).encode()
    async with bench() as b:
        b.server.canned.append(Canned(status=429, body=body))
        assert isinstance(await failure(b.gemini, how), UpstreamRateLimited)


@BOTH_WAYS
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (204, UpstreamBadReply),
        (302, UpstreamRejected),
        (405, NoSuchRoute),
        (413, UpstreamRejected),
        (502, UpstreamUnavailable),
        (504, UpstreamTimeout),
        (529, UpstreamUnavailable),
    ],
)
async def test_every_other_status_has_its_error(how: str, status: int, expected: type[UpstreamError]) -> None:
    """Also those that Google does not send, but what stands between us may."""
    async with bench() as b:
        b.server.canned.append(Canned(status=status, body=b"", headers={"location": "/elsewhere"}))
        assert type(await failure(b.gemini, how)) is expected


async def test_a_call_after_the_end_of_a_server_is_unavailable_and_goes_well_after_its_restart() -> None:
    """A refused connection is one of our errors, kept connections of the old server do no harm."""
    async with bench() as b:
        assert await failure(b.gemini, "complete") is None
        await b.server.stop()
        assert isinstance(await failure(b.gemini, "complete"), UpstreamUnavailable)
        assert isinstance(await failure(b.gemini, "stream"), UpstreamUnavailable)
        await b.server.start()
        assert await failure(b.gemini, "stream") is None


@BOTH_WAYS
async def test_a_host_without_an_address_is_unavailable(how: str) -> None:
    """DNS failures are named by what they mean."""
    async with bench(url="http://gemini.invalid") as b:
        assert isinstance(await failure(b.gemini, how), UpstreamUnavailable)


async def test_the_foreign_error_stays_attached() -> None:
    """The log can show what the SDK said, though no text of ours does."""
    async with bench(GeminiServer([Fault.SERVER_ERROR])) as b:
        with pytest.raises(UpstreamUnavailable) as caught:
            await streamed(b.gemini, asking())
    assert isinstance(caught.value.__cause__, sdk.ServerError)
