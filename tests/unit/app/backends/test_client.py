"""One backend with its limits, its breaker, its retries and its meter."""

import asyncio
from contextlib import suppress
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backends.attempt import FAILOVER_WAIT_S
from app.backends.base import Deadline, Message, Probed
from app.backends.client import needs_of
from app.backends.resilience.breaker import MAX_REST_S
from app.backends.settings import RoutingSettings
from app.domain import Image, TokenCount
from app.errors import (
    BudgetExceeded,
    MissingCapability,
    Overloaded,
    Refused,
    Resting,
    UpstreamBadReply,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
    WinnowError,
)
from tests.fakes.adapters import ASKED, EVERYTHING, TOKENS, Plan, ScriptedAdapter
from tests.fakes.clients import a_call, make_client
from tests.fakes.meter import RecordingMeter
from tests.fakes.virtual_time import VIRTUAL_TIME, run

pytestmark = pytest.mark.anyio

PROMPT = TokenCount(input=10)
"""What ASKED is estimated at."""

PICTURE = msgspec.structs.replace(
    ASKED,
    messages=(Message(role="user", content="", images=(Image(data=b"", media_type="image/png"),)),),
)


def down() -> UpstreamUnavailable:
    """It cannot be reached."""
    return UpstreamUnavailable("fake", "fake is down")


@pytest.fixture
def anyio_backend() -> tuple[str, object]:
    """Waiting takes no time."""
    return VIRTUAL_TIME


def now() -> float:
    """Virtual seconds since the test began."""
    return asyncio.get_running_loop().time()


async def cancelled_after(seconds: float, work: "asyncio.Future[object]") -> None:
    """Its caller goes away, and it ends as cancelled."""
    await asyncio.sleep(seconds)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work


async def test_a_reply_is_passed_on_and_booked() -> None:
    """A call that goes well is one attempt, one charge with the server's tokens, and shows in the status."""
    adapter, meter = ScriptedAdapter(), RecordingMeter()
    client, call = make_client(adapter, meter), a_call()
    assert client.status().health == "unknown"
    reply = await client.complete(ASKED, call)
    assert reply.text == "It is 42."
    assert [(b.outcome, b.tokens, b.backend) for b in meter.booked] == [("ok", TOKENS, "gemma")]
    assert call.account.usage().by_stage["chat"].input_tokens == TOKENS.input
    status = client.status()
    assert (status.health, status.breaker, status.latency_ms, status.last_error) == ("up", "closed", 100.0, None)
    assert (status.in_flight, status.waiting, status.retry_after) == (0, 0, None)


async def test_what_may_pass_is_tried_again() -> None:
    """Failures are retried after a pause, each attempt a charge of its own with its outcome."""
    plans = [Plan(failure=down), Plan(failure=UpstreamBadReply("fake", "", tokens=TOKENS))]
    adapter, meter = ScriptedAdapter(plans), RecordingMeter()
    await make_client(adapter, meter).complete(ASKED, a_call())
    assert [(b.outcome, b.tokens) for b in meter.booked] == [
        ("unavailable", None),
        ("bad_reply", TOKENS),
        ("ok", TOKENS),
    ]
    assert meter.booked[0].estimate is None


async def test_retries_end() -> None:
    """After `retries` more attempts the last error is raised."""
    adapter = ScriptedAdapter(rest=Plan(failure=down))
    with pytest.raises(UpstreamUnavailable):
        await make_client(adapter, retries=3).complete(ASKED, a_call())
    assert adapter.begun == 4


async def test_retry_after_is_honoured() -> None:
    """The next attempt comes when the server said, not earlier, and hardly later."""
    adapter = ScriptedAdapter([Plan(seconds=0, failure=UpstreamRateLimited("fake", "", 7.0))])
    await make_client(adapter).complete(ASKED, a_call())
    assert 7 <= adapter.times[1] <= 7.25


async def test_nothing_is_waited_for_in_vain() -> None:
    """If the server's time lies beyond the deadline, the call fails at once."""
    adapter = ScriptedAdapter([Plan(failure=UpstreamRateLimited("fake", "", 7.0))])
    with pytest.raises(UpstreamRateLimited):
        await make_client(adapter).complete(ASKED, a_call(5))
    assert now() == pytest.approx(0.1)


@pytest.mark.parametrize("failure", [UpstreamRejected("fake", ""), Refused("fake", "")])
async def test_what_will_not_pass_is_not_tried_again(failure: UpstreamError) -> None:
    """A rejection or a refusal is final, and no reason to leave the backend alone."""
    adapter, meter = ScriptedAdapter(rest=Plan(failure=failure)), RecordingMeter()
    client = make_client(adapter, meter, routing=RoutingSettings(failures=1))
    with pytest.raises(type(failure)):
        await client.complete(ASKED, a_call())
    assert meter.story() == [failure.code]
    assert (client.status().breaker, client.status().last_error) == ("closed", failure.code)


async def test_only_a_rejection_is_a_reason_to_look() -> None:
    """Whoever watches the client learns of a rejected call, as the key may be gone, but not of a refused one."""
    client = make_client(
        ScriptedAdapter([Plan(failure=Refused("fake", "")), Plan(failure=UpstreamRejected("fake", ""))])
    )
    with pytest.raises(Refused):
        await client.complete(ASKED, a_call())
    assert not client.replicas.first.health.news.is_set()
    with pytest.raises(UpstreamRejected):
        await client.complete(ASKED, a_call())
    assert client.replicas.first.health.news.is_set()


async def test_a_spent_day_is_not_waited_for() -> None:
    """The quota of the day ends the call at once, and the client rests a quarter of an hour before it asks again."""
    adapter = ScriptedAdapter([Plan(seconds=0, failure=UpstreamRateLimited("fake", "", quota="day"))])
    client = make_client(adapter)
    with pytest.raises(UpstreamRateLimited) as spent:
        await client.complete(ASKED, a_call())
    with pytest.raises(Resting) as resting:
        await client.complete(ASKED, a_call())
    assert (spent.value.retry_after, resting.value.retry_after) == (MAX_REST_S, MAX_REST_S)
    assert (adapter.begun, client.health, client.available) == (1, "resting", False)
    await asyncio.sleep(MAX_REST_S)
    await client.complete(ASKED, a_call())
    assert client.health == "up"


async def test_a_backend_that_begins_to_rest_says_why() -> None:
    """When the breaker opens during a call's retries, the call fails at once with its own error, not with Resting."""
    adapter = ScriptedAdapter(rest=Plan(failure=down))
    client = make_client(adapter, retries=10, routing=RoutingSettings(failures=3))
    with pytest.raises(UpstreamUnavailable) as failure:
        await client.complete(ASKED, a_call())
    assert type(failure.value) is UpstreamUnavailable
    assert adapter.begun == 3
    assert now() == pytest.approx(adapter.times[-1] + 0.1)


async def test_a_backend_that_others_sent_to_rest_says_why() -> None:
    """When the breaker opens while a call pauses before its retry, the call too fails with its own error."""
    adapter = ScriptedAdapter([Plan(seconds=0, failure=UpstreamRateLimited("fake", "", 2.0)), Plan(failure=down)])
    client = make_client(adapter, retries=1, routing=RoutingSettings(failures=2))
    pausing = asyncio.ensure_future(client.complete(ASKED, a_call()))
    await asyncio.sleep(1)
    with pytest.raises(UpstreamUnavailable):
        await client.complete(ASKED, a_call())
    with pytest.raises(UpstreamRateLimited):
        await pausing
    assert adapter.begun == 2


async def test_a_resting_backend_is_not_waited_for() -> None:
    """However full the queue is, a call finds out at once that the backend rests."""
    adapter = ScriptedAdapter([Plan(seconds=50), Plan(seconds=1, failure=down), Plan(seconds=50)])
    client = make_client(adapter, concurrency=2, retries=0, routing=RoutingSettings(failures=1))
    calls = [asyncio.ensure_future(client.complete(ASKED, a_call())) for _ in range(3)]
    await asyncio.sleep(2)
    with pytest.raises(Resting):
        await client.complete(ASKED, a_call())
    assert now() == 2
    await asyncio.gather(*calls, return_exceptions=True)


async def test_a_cancelled_trial_is_given_back() -> None:
    """When the caller of a half-open breaker's trial goes away, the next call is the trial."""
    adapter = ScriptedAdapter([Plan(failure=down), Plan(seconds=50)])
    client = make_client(adapter, retries=0, routing=RoutingSettings(failures=1, rest_s=5))
    with pytest.raises(UpstreamUnavailable):
        await client.complete(ASKED, a_call())
    await asyncio.sleep(5)
    await cancelled_after(1, asyncio.ensure_future(client.complete(ASKED, a_call())))
    await client.complete(ASKED, a_call())
    assert client.health == "up"


async def test_no_time_no_attempt() -> None:
    """A call whose deadline has passed is a timeout that costs nothing."""
    adapter, meter = ScriptedAdapter(), RecordingMeter()
    with pytest.raises(UpstreamTimeout):
        await make_client(adapter, meter).complete(ASKED, a_call(0))
    assert (adapter.begun, meter.begun) == (0, 0)


@pytest.mark.parametrize("deaf", [False, True])
@pytest.mark.parametrize(("timeout_s", "deadline_s", "ends_at"), [(5, 100, 5), (50, 8, 8)])
async def test_no_attempt_outlives_its_time(deaf: bool, timeout_s: float, deadline_s: float, ends_at: float) -> None:
    """An attempt ends after `timeout_s` or at the deadline, whatever the adapter does; its prompt is booked."""
    adapter, meter = ScriptedAdapter(rest=Plan(seconds=1000), deaf=deaf), RecordingMeter()
    with pytest.raises(UpstreamTimeout):
        await make_client(adapter, meter, timeout_s=timeout_s, retries=0).complete(ASKED, a_call(deadline_s))
    assert now() == pytest.approx(ends_at)
    assert adapter.under_way == 0
    assert [(b.outcome, b.tokens, b.estimate) for b in meter.booked] == [("timeout", None, PROMPT)]


async def test_a_stream_that_never_began_has_read_its_prompt() -> None:
    """Nobody told what it used, and a bill may come: the prompt is booked as an estimate."""
    meter = RecordingMeter()
    client = make_client(ScriptedAdapter(rest=Plan(seconds=1000)), meter, first_token_s=3, retries=0)
    with pytest.raises(UpstreamTimeout):
        await client.stream(ASKED, a_call())
    assert [(b.outcome, b.tokens, b.estimate) for b in meter.booked] == [("timeout", None, PROMPT)]


async def test_a_server_that_says_it_gave_up_has_used_nothing() -> None:
    """Its 504 is an answer, and no bill follows it."""
    meter = RecordingMeter()
    adapter = ScriptedAdapter([Plan(failure=UpstreamTimeout("fake", "fake timed out (HTTP 504)"))])
    with pytest.raises(UpstreamTimeout):
        await make_client(adapter, meter, retries=0).complete(ASKED, a_call())
    assert [(b.outcome, b.tokens, b.estimate) for b in meter.booked] == [("timeout", None, None)]


async def test_a_caller_that_goes_cancels_the_call() -> None:
    """The call upstream is stopped, its prompt is booked as cancelled, and the slot and the breaker are free."""
    adapter, meter = ScriptedAdapter(rest=Plan(seconds=50)), RecordingMeter(seconds=1)
    client = make_client(adapter, meter)
    await cancelled_after(2, asyncio.ensure_future(client.complete(ASKED, a_call())))
    assert [(b.outcome, b.tokens, b.estimate) for b in meter.booked] == [("cancelled", None, PROMPT)]
    assert (adapter.stopped, client.status().in_flight, client.status().last_error) == (1, 0, None)


async def test_a_booking_is_not_cancelled() -> None:
    """A caller that goes while its reply is being booked leaves a booked reply behind."""
    meter = RecordingMeter(seconds=10)
    client = make_client(ScriptedAdapter(), meter)
    await cancelled_after(5, asyncio.ensure_future(client.complete(ASKED, a_call())))
    assert meter.story() == ["ok"]


async def test_a_programmers_error_passes_through() -> None:
    """What no adapter may raise is raised as it is, booked, and gives everything back."""
    meter = RecordingMeter()
    client = make_client(ScriptedAdapter(rest=Plan(failure=KeyError("oops"))), meter)
    with pytest.raises(KeyError):
        await client.complete(ASKED, a_call())
    assert (meter.story(), client.status().in_flight) == (["failed"], 0)


async def test_a_spent_budget_costs_nothing() -> None:
    """Over the budget nothing is called, no slot is kept, and the backend is not blamed."""
    adapter, meter = ScriptedAdapter(), RecordingMeter(attempts=0)
    client = make_client(adapter, meter, requests_per_minute=1, routing=RoutingSettings(failures=1))
    for _ in range(2):
        with pytest.raises(BudgetExceeded):
            await client.complete(ASKED, a_call())
    assert (adapter.begun, client.status().in_flight, client.status().breaker) == (0, 0, "closed")


async def test_a_trial_over_budget_is_given_back() -> None:
    """When a half-open breaker's trial may not begin, the next call is the trial."""
    adapter, meter = ScriptedAdapter([Plan(failure=down)]), RecordingMeter()
    client = make_client(adapter, meter, routing=RoutingSettings(failures=1, rest_s=5))
    with pytest.raises(UpstreamUnavailable):
        await client.complete(ASKED, a_call())
    await asyncio.sleep(5)
    meter.spent.add("gemma")
    with pytest.raises(BudgetExceeded):
        await client.complete(ASKED, a_call())
    meter.spent.clear()
    await client.complete(ASKED, a_call())
    assert client.health == "up"


async def test_no_more_than_the_limit_at_once() -> None:
    """Calls beyond `concurrency` wait their turn."""
    adapter = ScriptedAdapter()
    client = make_client(adapter, concurrency=3)
    await asyncio.gather(*(client.complete(ASKED, a_call()) for _ in range(10)))
    assert adapter.most == 3
    assert now() == pytest.approx(0.4)


async def test_reserved_tokens_that_were_not_used_are_free_again() -> None:
    """Two calls whose worst together exceeds the minute's tokens, but whose true use does not, need not wait."""
    client = make_client(ScriptedAdapter(), tokens_per_minute=130)
    for _ in range(2):
        await client.complete(ASKED, a_call())
    assert now() == pytest.approx(0.2)


async def test_with_a_failover_nothing_is_waited_for_long() -> None:
    """While another backend could take over, neither a full queue nor a pause is waited for longer than a second."""
    client = make_client(ScriptedAdapter(rest=Plan(seconds=50)), concurrency=1, timeout_s=90)
    running = asyncio.ensure_future(client.complete(ASKED, a_call()))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await client.complete(ASKED, a_call(), Deadline(40))
    assert now() == pytest.approx(FAILOVER_WAIT_S)
    await running
    limited = make_client(ScriptedAdapter(rest=Plan(seconds=0, failure=UpstreamRateLimited("fake", "", 3.0))))
    with pytest.raises(UpstreamRateLimited):
        await limited.complete(ASKED, a_call(), Deadline(40))
    assert now() == pytest.approx(50)


async def test_a_stream_is_passed_on_and_booked() -> None:
    """The first delta is there at once, all of them come in order, and at the last one it is booked."""
    meter = RecordingMeter()
    client = make_client(ScriptedAdapter(rest=Plan(seconds=2)), meter)
    stream = await client.stream(ASKED, a_call())
    assert (now(), stream.first.text, client.status().in_flight) == (2, "It ", 1)
    deltas = [delta async for delta in stream]
    assert "".join(delta.text for delta in deltas) == "It is 42."
    assert deltas[-1].finish_reason == "stop"
    await stream.aclose()
    assert [(b.outcome, b.tokens, b.first_token_s) for b in meter.booked] == [("ok", TOKENS, 2)]
    assert (client.status().first_token_ms, client.status().in_flight) == (2000.0, 0)


async def test_a_stream_that_tells_no_tokens_is_estimated() -> None:
    """Without the server's word the prompt and the text that came are booked as an estimate."""
    meter = RecordingMeter()
    stream = await make_client(ScriptedAdapter(rest=Plan(reports_tokens=False)), meter).stream(ASKED, a_call())
    assert len([delta async for delta in stream]) == 4
    assert [(b.tokens, b.estimate) for b in meter.booked] == [(None, TokenCount(input=10, output=3))]


async def test_a_stream_closed_early_is_cancelled() -> None:
    """Closing stops the call upstream, frees the slot and books what has come as cancelled; closing twice is fine."""
    adapter, meter = ScriptedAdapter(), RecordingMeter()
    client = make_client(adapter, meter)
    stream = await client.stream(ASKED, a_call())
    await anext(stream)
    await anext(stream)
    await stream.aclose()
    await stream.aclose()
    assert [delta async for delta in stream] == []
    assert [(b.outcome, b.estimate) for b in meter.booked] == [("cancelled", TokenCount(input=10, output=2))]
    assert (adapter.stopped, client.status().in_flight) == (1, 0)


async def test_a_reader_that_is_cancelled_ends_the_stream() -> None:
    """A cancellation while the next delta is awaited stops the call upstream and books it."""
    adapter, meter = ScriptedAdapter(rest=Plan(apart=50)), RecordingMeter()
    client = make_client(adapter, meter)
    stream = await client.stream(ASKED, a_call())

    async def read() -> list[str]:
        return [delta.text async for delta in stream]

    await cancelled_after(2, asyncio.ensure_future(read()))
    assert (meter.story(), adapter.stopped, client.status().in_flight) == (["cancelled"], 1, 0)


async def test_nothing_is_repeated_after_the_first_token() -> None:
    """A failure in the middle is raised where it happens, and what had come is booked under its code."""
    adapter, meter = ScriptedAdapter(rest=Plan(failure=down, pieces=("It ",))), RecordingMeter()
    client = make_client(adapter, meter)
    stream = await client.stream(ASKED, a_call())
    await anext(stream)
    with pytest.raises(UpstreamUnavailable):
        await anext(stream)
    await stream.aclose()
    assert [(b.outcome, b.estimate) for b in meter.booked] == [("unavailable", TokenCount(input=10, output=1))]
    assert (adapter.begun, client.status().last_error) == (1, "unavailable")


async def test_before_the_first_token_a_stream_is_repeated() -> None:
    """Failures, silence, and a stream that is empty are tried again; the reader only sees the one that works."""
    plans = [Plan(failure=down, pieces=()), Plan(seconds=50), Plan(pieces=(), finishes=False)]
    adapter, meter = ScriptedAdapter(plans), RecordingMeter()
    stream = await make_client(adapter, meter, retries=3, first_token_s=3).stream(ASKED, a_call())
    assert "".join([delta.text async for delta in stream]) == "It is 42."
    assert meter.story() == ["unavailable", "timeout", "bad_reply", "ok"]


async def test_a_stream_that_breaks_off_is_an_error() -> None:
    """A stream that ends without saying why is not taken for a whole one."""
    stream = await make_client(ScriptedAdapter(rest=Plan(finishes=False))).stream(ASKED, a_call())
    with pytest.raises(UpstreamBadReply):
        assert [delta async for delta in stream] == []


async def test_a_slow_trickle_ends_at_the_deadline() -> None:
    """However alive a stream is, it is stopped when the call's time is over."""
    meter = RecordingMeter()
    client = make_client(ScriptedAdapter(rest=Plan(pieces=("x",) * 1000, apart=1)), meter)
    stream = await client.stream(ASKED, a_call(20))
    with pytest.raises(UpstreamTimeout):
        assert [delta async for delta in stream] == []
    assert now() == pytest.approx(20)
    assert meter.story() == ["timeout"]


async def test_a_slow_call_gets_company() -> None:
    """After `hedge_after_s` a second call is made; the quicker one is used, the other stopped and booked so."""
    adapter, meter = ScriptedAdapter([Plan(seconds=50), Plan(seconds=1)]), RecordingMeter()
    client = make_client(adapter, meter, hedge_after_s=2)
    await client.complete(ASKED, a_call())
    assert now() == pytest.approx(3)
    assert (sorted(meter.story()), adapter.stopped, client.status().in_flight) == (["cancelled", "ok"], 1, 0)


async def test_a_slow_stream_gets_company() -> None:
    """The stream whose first token comes first is used, the other stopped."""
    adapter, meter = ScriptedAdapter([Plan(seconds=50), Plan(seconds=1)]), RecordingMeter()
    client = make_client(adapter, meter, hedge_after_s=2)
    stream = await client.stream(ASKED, a_call())
    assert len([delta async for delta in stream]) == 4
    assert (sorted(meter.story()), adapter.stopped, client.status().in_flight) == (["cancelled", "ok"], 1, 0)


@pytest.mark.parametrize("settings", [{"concurrency": 1}, {"requests_per_minute": 1}])
async def test_no_company_without_a_free_slot(settings: dict[str, int]) -> None:
    """A second call is never waited for, nor does it take a slot that the limits do not give."""
    adapter, meter = ScriptedAdapter([Plan(seconds=10), Plan(seconds=1)]), RecordingMeter()
    await make_client(adapter, meter, hedge_after_s=2, **settings).complete(ASKED, a_call())
    assert (now(), meter.story()) == (10, ["ok"])


async def test_no_company_beyond_the_budget() -> None:
    """If the budget does not allow a second call, the first goes on alone."""
    meter = RecordingMeter(attempts=1)
    client = make_client(ScriptedAdapter([Plan(seconds=10)]), meter, hedge_after_s=2)
    await client.complete(ASKED, a_call())
    assert (now(), meter.story(), client.status().in_flight) == (10, ["ok"], 0)


async def test_a_trial_has_no_company() -> None:
    """A backend on trial gets one call, however slow."""
    adapter = ScriptedAdapter([Plan(failure=down), Plan(seconds=20)])
    client = make_client(adapter, hedge_after_s=2, routing=RoutingSettings(failures=1, rest_s=5))
    with pytest.raises(UpstreamUnavailable):
        await client.complete(ASKED, a_call())
    await asyncio.sleep(5)
    await client.complete(ASKED, a_call())
    assert adapter.begun == 2


async def test_a_backend_that_fails_gives_no_company() -> None:
    """A slow call from before the breaker opened is not hedged, even when a trial would be let through."""
    adapter = ScriptedAdapter([Plan(seconds=20), Plan(failure=down)])
    client = make_client(adapter, hedge_after_s=10, retries=0, routing=RoutingSettings(failures=1, rest_s=5))
    slow = asyncio.ensure_future(client.complete(ASKED, a_call()))
    await asyncio.sleep(1)
    with pytest.raises(UpstreamUnavailable):
        await client.complete(ASKED, a_call())
    await slow
    assert adapter.begun == 2


async def test_scores_are_passed_on_and_booked() -> None:
    """A scoring is one charge with as many requests as it took."""
    adapter, meter = ScriptedAdapter(), RecordingMeter()
    client = make_client(adapter, meter)
    scoring = await client.score([ASKED.messages] * 3, ("0", "1"), a_call())
    assert [scores.logprobs for scores in scoring.scores if scores] == [(-1.0, -1.0)] * 3
    assert [(b.outcome, b.requests) for b in meter.booked] == [("ok", 3)]


async def test_a_failed_scoring_is_tried_again() -> None:
    """Scorings are retried like completions."""
    meter = RecordingMeter()
    client = make_client(ScriptedAdapter([Plan(failure=down)]), meter)
    await client.score([ASKED.messages], ("0", "1"), a_call())
    assert meter.story() == ["unavailable", "ok"]


async def test_a_server_without_logprobs_is_missing_them() -> None:
    """What its kind may do but this server cannot is found out before anything is spent, and said."""
    found = Probed(model="fake-1", capabilities=frozenset(("chat",)))
    adapter, meter = ScriptedAdapter(scores=False, probe=found), RecordingMeter()
    client = make_client(adapter, meter)
    assert client.offers(frozenset(("logprobs",)))
    with pytest.raises(MissingCapability, match="logprobs"):
        await client.score([ASKED.messages], ("0",), a_call())
    assert not client.offers(frozenset(("logprobs",)))
    client.replicas.first.discovery.probed = Probed(model="fake-1", capabilities=EVERYTHING)
    with pytest.raises(MissingCapability, match="logprobs"):
        await client.score([ASKED.messages], ("0",), a_call())
    assert meter.begun == 0


async def test_what_finding_out_cost_is_booked() -> None:
    """The few calls of a probe are a charge of their own; a probe that called no model is none."""
    tokens = TokenCount(input=30, output=3)
    costly = Probed(model="fake-1", capabilities=EVERYTHING, requests=4, tokens=tokens)
    free, meter = Probed(model="fake-1", capabilities=EVERYTHING), RecordingMeter()
    for found in (costly, free):
        await make_client(ScriptedAdapter(probe=found), meter).replicas.first.discovery.probe()
    assert [(b.outcome, b.requests, b.tokens) for b in meter.booked] == [("ok", 4, tokens)]


async def test_pictures_are_asked_about_first() -> None:
    """Before the first call that needs more than chat, the server is asked what it can do."""
    adapter = ScriptedAdapter()
    client = make_client(adapter)
    await client.complete(ASKED, a_call())
    assert adapter.probes == 0
    await client.complete(PICTURE, a_call())
    await client.complete(PICTURE, a_call())
    assert adapter.probes == 1


async def test_a_kind_whose_plainest_call_depends_on_the_server_is_asked_first() -> None:
    """Once for all calls: OpenAI's newer models refuse what older ones need."""
    adapter = ScriptedAdapter()
    client = make_client(adapter, kind="openai")
    await asyncio.gather(*(client.complete(ASKED, a_call()) for _ in range(3)))
    assert (adapter.probes, adapter.begun) == (1, 3)


async def test_an_unknown_model_is_found_out_once() -> None:
    """Calls that come before the model is known ask the server, once for all of them."""
    adapter = ScriptedAdapter()
    client = make_client(adapter, model=None)
    assert client.model == ""
    await asyncio.gather(*(client.complete(ASKED, a_call()) for _ in range(5)))
    assert (adapter.probes, client.model) == (1, "fake-1")


async def test_a_server_that_cannot_be_asked_has_failed() -> None:
    """A probe that a call depends on is retried and counts like an attempt."""
    adapter = ScriptedAdapter(probe=down)
    client = make_client(adapter, model=None, retries=10, routing=RoutingSettings(failures=3))
    with pytest.raises(UpstreamUnavailable):
        await client.complete(ASKED, a_call())
    assert (adapter.probes, adapter.begun, client.status().breaker, client.health) == (3, 0, "open", "down")


async def test_a_ping_tells_the_health() -> None:
    """A failed ping takes the backend down, a successful one brings it up, a rate-limited one does neither."""
    adapter = ScriptedAdapter()
    client = make_client(adapter)

    def limited() -> UpstreamRateLimited:
        return UpstreamRateLimited("fake", "")

    for away, health in ((None, "up"), (limited, "up"), (down, "down"), (None, "up")):
        adapter.away = away
        with suppress(UpstreamError):
            await client.replicas.first.discovery.ping()
        assert client.health == health


async def test_a_call_that_succeeds_brings_the_backend_up() -> None:
    """Traffic knows better than the last check, and whoever watches hears of it."""
    adapter = ScriptedAdapter()
    adapter.away = down
    client = make_client(adapter)
    with pytest.raises(UpstreamUnavailable):
        await client.replicas.first.discovery.ping()
    await client.complete(ASKED, a_call())
    assert client.health == "up"
    assert client.replicas.first.health.news.is_set()


def test_needs_are_read_off_the_request() -> None:
    """A schema needs structured output, a picture needs images."""
    assert needs_of(ASKED) == {"chat"}
    assert needs_of(PICTURE) == {"chat", "images"}
    assert needs_of(msgspec.structs.replace(ASKED, schema={"type": "object"})) == {"chat", "structured"}


@given(seed=st.integers(0, 2**32))
def test_whatever_happens_everything_is_given_back(seed: int) -> None:
    """Random faults, hedges, limits, budgets, cancellations: each charge ends once, no slot, call or task is left."""
    run(_chaos(Random(seed)))


async def _chaos(random: Random) -> None:
    faults = [
        down(),
        UpstreamTimeout("f", ""),
        UpstreamRateLimited("f", "", 0.5),
        Refused("f", ""),
        UpstreamRejected("f", ""),
    ]

    def plan() -> Plan:
        failure = random.choice(faults) if random.random() < 0.4 else None
        return Plan(
            seconds=random.choice((0, 0.1, 1, 5)),
            failure=failure,
            pieces=("a", "b") if random.random() < 0.8 else (),
            finishes=random.random() < 0.9,
            reports_tokens=random.random() < 0.5,
        )

    adapter, meter = ScriptedAdapter(rest=plan), RecordingMeter(attempts=random.choice((None, 30)), seconds=0.05)
    client = make_client(
        adapter,
        meter,
        concurrency=random.choice((1, 3)),
        queue=random.choice((1, 100)),
        hedge_after_s=random.choice((None, 0.1, 0.5)),
        timeout_s=3.0,
        first_token_s=1.0,
        requests_per_minute=random.choice((None, 20)),
        routing=RoutingSettings(failures=random.choice((2, 50)), rest_s=1),
    )

    async def use() -> None:
        call = a_call(random.choice((0.05, 2, 50)))
        kind = random.randrange(3)
        if kind == 0:
            await client.complete(ASKED, call)
        elif kind == 1:
            await client.score([ASKED.messages], ("0",), call)
        else:
            stream = await client.stream(ASKED, call)
            try:
                async for _ in stream:
                    if random.random() < 0.2:
                        break
            finally:
                await stream.aclose()

    users = []
    for _ in range(25):
        users.append(asyncio.ensure_future(use()))
        if random.random() < 0.4:
            asyncio.get_running_loop().call_later(random.choice((0, 0.05, 0.1, 0.12, 1)), users[-1].cancel)
        await asyncio.sleep(random.choice((0, 0, 0.1)))
    ends = await asyncio.gather(*users, return_exceptions=True)
    assert all(end is None or isinstance(end, WinnowError | asyncio.CancelledError) for end in ends)
    meter.check()
    assert adapter.under_way == 0
    assert (client.status().in_flight, client.status().waiting) == (0, 0)
