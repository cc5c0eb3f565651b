"""First-token log-probabilities from OpenAI-style servers."""

import asyncio
import math
from typing import Any

import pytest

from app.backends.base import LabelScorer, Scoring
from app.backends.openai_compatible.adapter import OpenAICompatible
from app.backends.openai_compatible.scoring import MAX_BLOCK, LogprobScorer
from app.domain import TokenCount
from app.errors import (
    InvalidRequest,
    UpstreamBadReply,
    UpstreamError,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from tests.fakes.faults import Fault
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import Dialect, OpenAIServer
from tests.fakes.virtual_time import SKIPPING_TIME, SkippingLoop
from tests.unit.app.backends.openai_compatible.opening import TIMEOUT_S, conversation, opened

pytestmark = pytest.mark.anyio

MINUS_INFINITY = -9999.0
"""How vLLM writes it."""

AN_HOUR = 3600.0

LABELS = ("0", "1", "2", "3")
BATCH = "/v1/chat/completions/batch"
GOOD = {"3": -0.1, "2": -3.0, "1": -5.0, "0": -7.0}
POOR = {"0": -0.2, "1": -2.5, "2": -4.5, "3": -6.5}


def model(**more: Any) -> FakeModel:
    return FakeModel(likely={"dental": GOOD, "parking": POOR}, unlikely=MINUS_INFINITY, **more)


def scorer_of(adapter: OpenAICompatible) -> LabelScorer:
    assert adapter.scorer is not None
    return adapter.scorer


def logprobs(scoring: Scoring) -> list[dict[str, float | None] | None]:
    return [dict(zip(LABELS, item.logprobs, strict=True)) if item else None for item in scoring.scores]


@pytest.mark.parametrize(
    ("dialect", "lacks"),
    [
        ("vllm", frozenset()),
        ("vllm", frozenset({"batch"})),
        ("vllm", frozenset({"tokenize"})),
        ("vllm", frozenset({"logprob_token_ids"})),
        ("vllm", frozenset({"ignored_token_ids"})),
        ("ollama", frozenset()),
        ("ollama", frozenset({"ignored_token_ids"})),
        ("openai", frozenset()),
    ],
)
async def test_every_server_gives_the_same_scores(dialect: Dialect, lacks: frozenset[str]) -> None:
    """By token ids or by the 20 likeliest, together or one by one: the scores are the model's, in order."""
    server = OpenAIServer(dialect, model(), lacks=lacks)
    async with server, opened(server) as adapter:
        before = server.billed
        scoring = await scorer_of(adapter).score(
            [conversation("dental"), conversation("parking"), conversation("dental")], LABELS, TIMEOUT_S
        )
    assert logprobs(scoring) == [GOOD, POOR, GOOD]
    assert (scoring.tokens.input, scoring.tokens.output) == (
        server.billed.input - before.input,
        server.billed.output - before.output,
    )
    assert scoring.tokens.output == 3


async def test_what_a_batch_found_in_the_cache_is_not_known() -> None:
    """vLLM counts nothing of a batch as cached, whatever it found: None, and not 0; of single requests it tells."""
    for lacks, known in ((frozenset[str](), False), (frozenset(("batch",)), True)):
        server = OpenAIServer("vllm", model(), lacks=lacks)
        async with server, opened(server) as adapter:
            scoring = await scorer_of(adapter).score(
                [conversation("dental"), conversation("parking")], LABELS, TIMEOUT_S
            )
        assert (scoring.tokens.cached is not None) == known
        more = scoring.tokens + TokenCount(input=1, cached=1)
        assert more.cached == (None if scoring.tokens.cached is None else scoring.tokens.cached + 1)


async def test_vllm_scores_many_conversations_in_few_requests() -> None:
    """Blocks follow its pace, as measured in the last ones; the labels are looked up once and for all."""
    server = OpenAIServer("vllm", model())
    async with server, opened(server) as adapter:
        for _ in range(2):
            prompts = [conversation(f"dental {number}") for number in range(100)]
            scoring = await scorer_of(adapter).score(prompts, LABELS, AN_HOUR)
    assert (len(scoring.scores), scoring.requests, scoring.tokens.output) == (100, 4, 100)
    assert [len(body["messages"]) for body in server.bodies(BATCH)] == [MAX_BLOCK] * 8
    assert (
        len(server.bodies("/tokenize")) == 2 * 2
    )  # "2" and "3", each with and without a space; the probe had the rest


@pytest.mark.parametrize("anyio_backend", [SKIPPING_TIME])
async def test_a_slow_server_gets_small_blocks_and_loses_one_at_most() -> None:
    """What it has scored when time runs out counts, and what it was still at is paid for as an estimate."""
    server = OpenAIServer("vllm", model(), slow_s=10 * AN_HOUR)
    async with server, opened(server) as adapter:
        scorer = scorer_of(adapter)
        assert isinstance(scorer, LogprobScorer)
        scorer._pace_s = AN_HOUR / 8
        server.expect(Fault.OK, Fault.OK, Fault.SLOW_FIRST_BYTE)
        scoring = asyncio.create_task(scorer.score([conversation("dental")] * 6, LABELS, AN_HOUR))
        await server.until_asked(5)  # the labels' tokens come first
        while len(server.bodies(BATCH)) < 3 or server.busy > 1:  # noqa: ASYNC110 - until all but one are answered
            await asyncio.sleep(0.001)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SkippingLoop)
        loop.skip(AN_HOUR)
        reply = await scoring
    assert [len(body["messages"]) for body in server.bodies(BATCH)] == [2, 2, 2]
    assert sum(score is not None for score in reply.scores) == 4
    assert reply.requests == 3


async def test_a_batch_is_one_token_each_at_temperature_zero() -> None:
    """Scoring asks for a single token, tells the temperature, and for vLLM exactly the labels' tokens."""
    server = OpenAIServer("vllm", model())
    async with server, opened(server) as adapter:
        await scorer_of(adapter).score([conversation("dental")], LABELS, TIMEOUT_S)
        ids = {server.model.token_id(token) for label in LABELS for token in (label, f" {label}")}
    (body,) = server.bodies(BATCH)
    assert (body["max_tokens"], body["temperature"], body["logprobs"]) == (1, 0.0, True)
    assert set(body["logprob_token_ids"]) == ids
    assert body["messages"] == [[{"role": "user", "content": "dental"}]]


@pytest.mark.parametrize("dialect", ["vllm", "ollama"])
async def test_a_label_and_the_same_after_a_space_count_together(dialect: Dialect) -> None:
    """The probabilities of "1" and " 1" add up: they begin the same answer."""
    server = OpenAIServer(dialect, FakeModel(likely={"both": {"1": math.log(0.3), " 1": math.log(0.2), "0": -2.0}}))
    async with server, opened(server) as adapter:
        scoring = await scorer_of(adapter).score([conversation("both")], ("0", "1"), TIMEOUT_S)
    assert scoring.scores[0] is not None
    assert scoring.scores[0].logprobs == pytest.approx((-2.0, math.log(0.5)))


async def test_a_label_beyond_the_likeliest_is_none_above_a_floor() -> None:
    """A label outside the 20 that are told is None, and the floor is the lowest that was told."""
    crowd = {f"w{number}": -2.0 - number / 100 for number in range(30)}
    server = OpenAIServer("ollama", FakeModel(likely={"crowd": {"1": -0.5, **crowd, "0": -9.0}}))
    async with server, opened(server) as adapter:
        scoring = await scorer_of(adapter).score([conversation("crowd")], ("0", "1"), TIMEOUT_S)
    assert scoring.scores[0] is not None
    assert scoring.scores[0].logprobs == (None, -0.5)
    assert scoring.scores[0].floor == pytest.approx(-2.18)


async def test_vllms_minus_infinity_is_not_told() -> None:
    """A token that vLLM writes as -9999 is None, and no floor."""
    server = OpenAIServer("vllm", model())
    async with server, opened(server) as adapter:
        scoring = await scorer_of(adapter).score([conversation("dental")], ("3", "maybe"), TIMEOUT_S)
    assert scoring.scores[0] is not None
    assert (scoring.scores[0].logprobs, scoring.scores[0].floor) == ((-0.1, None), -0.1)


async def test_one_conversation_that_is_too_long_costs_only_itself() -> None:
    """vLLM refuses a whole batch for one that is too long; then each is asked for itself, and that one is None."""
    server = OpenAIServer("vllm", model())
    async with server, opened(server) as adapter:
        before = server.billed
        prompts = [conversation("dental"), conversation("dental " * 5000), conversation("parking")]
        scoring = await scorer_of(adapter).score(prompts, LABELS, TIMEOUT_S)
    assert logprobs(scoring) == [GOOD, None, POOR]
    assert scoring.requests == 4
    assert before.input + scoring.tokens.input == server.billed.input


@pytest.mark.parametrize(
    ("fault", "error"), [(Fault.SERVER_ERROR, UpstreamUnavailable), (Fault.BAD_REQUEST, UpstreamRejected)]
)
@pytest.mark.parametrize("dialect", ["ollama", "openai"])
async def test_single_failures_are_none_and_only_a_total_one_raises(
    dialect: Dialect, fault: Fault, error: type[Exception]
) -> None:
    """Conversations asked one by one fail one by one; when all did, the error is raised."""
    server = OpenAIServer(dialect, model())
    async with server, opened(server, concurrency=1) as adapter:
        server.expect(Fault.OK, fault, Fault.OK)
        scoring = await scorer_of(adapter).score([conversation("dental")] * 3, LABELS, TIMEOUT_S)
        server.expect(fault, fault)
        with pytest.raises(error):
            await scorer_of(adapter).score([conversation("dental")] * 2, LABELS, TIMEOUT_S)
    assert logprobs(scoring) == [GOOD, None, GOOD]


@pytest.mark.parametrize("fault", [Fault.SERVER_ERROR, Fault.RATE_LIMITED, Fault.MALFORMED_JSON, Fault.DROPPED_MIDWAY])
async def test_a_batch_that_fails_raises(fault: Fault) -> None:
    """A failed batch is an error to be retried by whoever retries, not a storm of single requests."""
    server = OpenAIServer("vllm", model())
    async with server, opened(server) as adapter:
        scorer = scorer_of(adapter)
        await scorer.score([conversation("dental")], LABELS, TIMEOUT_S)
        server.requests.clear()
        server.expect(fault)
        with pytest.raises(UpstreamError):
            await scorer.score([conversation("dental")] * 5, LABELS, TIMEOUT_S)
    assert len(server.requests) == 1


async def test_no_more_than_the_allowed_requests_run_at_once() -> None:
    """A server that scores one conversation at a time is asked by at most `concurrency` requests at once."""
    server = OpenAIServer("ollama", model(), load_s=0.02, slots=3)
    async with server, opened(server, concurrency=3) as adapter:
        scoring = await scorer_of(adapter).score([conversation("dental")] * 40, LABELS, TIMEOUT_S)
    assert None not in scoring.scores
    assert (server.most_busy, scoring.requests) == (3, 40)


@pytest.mark.parametrize("anyio_backend", [SKIPPING_TIME])
async def test_what_was_scored_in_time_counts() -> None:
    """At the deadline the conversations that were scored keep their scores, and the rest is None."""
    server = OpenAIServer("ollama", model(), slow_s=10 * AN_HOUR)

    async def at_the_deadline(*faults: Fault) -> Scoring:
        server.expect(*faults)
        server.requests.clear()
        scoring = asyncio.create_task(scorer_of(adapter).score([conversation("dental")] * 3, LABELS, AN_HOUR))
        await server.until_asked(len(faults))
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SkippingLoop)
        loop.skip(AN_HOUR)
        return await scoring

    async with server, opened(server, concurrency=1) as adapter:
        scoring = await at_the_deadline(Fault.OK, Fault.SLOW_FIRST_BYTE)
        with pytest.raises(UpstreamTimeout):
            await at_the_deadline(Fault.SLOW_FIRST_BYTE)
    assert [score is not None for score in scoring.scores] == [True, False, False]


async def test_labels_must_be_single_tokens_and_differ() -> None:
    """A label of two tokens, one given twice and an empty one are the caller's mistakes."""
    server = OpenAIServer("vllm", model())
    async with server, opened(server) as adapter:
        scorer = scorer_of(adapter)
        with pytest.raises(InvalidRequest, match="'10' is 2 tokens of tiny; it must be one"):
            await scorer.score([conversation()], ("1", "10"), TIMEOUT_S)
        for labels in (("1", " 1"), ("1", "1"), ("1", " ")):
            with pytest.raises(InvalidRequest, match="differ"):
                await scorer.score([conversation()], labels, TIMEOUT_S)


async def test_no_conversations_are_no_request() -> None:
    """Nothing to score asks nothing."""
    server = OpenAIServer("vllm", model())
    async with server, opened(server) as adapter:
        scoring = await scorer_of(adapter).score([], LABELS, TIMEOUT_S)
    assert (scoring, server.requests) == (Scoring(scores=(), tokens=TokenCount(), requests=0), [])


async def test_a_server_that_stopped_telling_is_a_bad_reply() -> None:
    """When no log-probabilities come at all, that is an error and not a row of zeros."""
    server = OpenAIServer("ollama", model())
    async with server, opened(server) as adapter:
        server.model.first_tokens = lambda turns: {"1": -9999.0}  # type: ignore[method-assign]
        with pytest.raises(UpstreamBadReply, match="no log-probabilities"):
            await scorer_of(adapter).score([conversation()], LABELS, TIMEOUT_S)


async def test_a_thinking_model_is_scored_without_its_thoughts() -> None:
    """The switch against thinking goes along: else the first token would be that of a thought."""
    server = OpenAIServer("vllm", model(thinks=True))
    async with server, opened(server) as adapter:
        await scorer_of(adapter).score([conversation("dental")], LABELS, TIMEOUT_S)
    assert server.bodies(BATCH)[0]["chat_template_kwargs"]["enable_thinking"] is False
