"""Typed questions to a real vLLM, by POST /v1/systemone."""

import os
from collections.abc import Iterator

import pytest

from app.backends.base import Decider, DecisionQuestion
from app.backends.openai_compatible.adapter import OpenAICompatible
from app.backends.openai_compatible.decisions import VllmDecider
from app.backends.settings import BackendSettings
from app.domain import Label
from app.ranking.prompts import decide_context, decide_questions
from tests.vllm.running import KEY, MODEL, RunningVllm, VllmFailed, real_vllm

pytestmark = [pytest.mark.anyio, pytest.mark.vllm, pytest.mark.timeout(400)]

PLENTY_S = 60.0
CHOICE = DecisionQuestion(
    instructions="Which fits?", options=(Label(name="good", description="praise"), Label(name="bad"))
)
YES_OR_NO = DecisionQuestion(instructions="Whether the input is praise.")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningVllm]:
    from tests.vllm.tiny_qwen import make_tiny_qwen

    try:
        with real_vllm(tmp_path_factory.mktemp("qwen"), os.environ, make_tiny_qwen) as server:
            yield server
    except VllmFailed as exc:
        pytest.fail(str(exc), pytrace=False)


def _adapter(server: RunningVllm) -> OpenAICompatible:
    return OpenAICompatible("own", BackendSettings(kind="vllm", url=server.url, api_key=KEY))


async def test_a_model_that_decides_is_found_out(qwen: RunningVllm) -> None:
    """The probe finds /v1/systemone, and the adapter sends what vLLM reads and reads what it sends."""
    adapter = _adapter(qwen)
    try:
        probed = await adapter.probe(PLENTY_S)
        decider: Decider | None = adapter.decider
        assert "decide" in probed.capabilities
        assert isinstance(decider, VllmDecider)
        decision = await decider.decide("The bed was fine.", (CHOICE, YES_OR_NO), PLENTY_S)
    finally:
        await adapter.aclose()
    assert len(decision.answers) == 2
    assert decision.tokens.input > 0


async def test_its_probabilities_are_the_servers(qwen: RunningVllm) -> None:
    """What vLLM says when it is asked directly; where its random model means no label, there is no answer."""
    questions = {
        "0": {"type": "choice", "instructions": "Which fits?", "criteria": {"good": "praise", "bad": None}},
        "1": {"type": "noul", "instructions": "Whether the input is praise."},
    }
    body = {"model": MODEL, "state": "The bed was fine.", "questions": questions}
    told = qwen.http.post("/v1/systemone", json=body).raise_for_status().json()
    adapter = _adapter(qwen)
    try:
        await adapter.probe(PLENTY_S)
        assert adapter.decider is not None
        decision = await adapter.decider.decide("The bed was fine.", (CHOICE, YES_OR_NO), PLENTY_S)
    finally:
        await adapter.aclose()
    chances = told["answers"]["0"]["probabilities"]
    expected = [(chances["good"], chances["bad"]), (told["answers"]["1"]["noul"],)]
    for number, answer in enumerate(decision.answers):
        mass = told["diagnostics"][str(number)]["label_mass"]
        assert (answer is None) == (mass < 0.3)
        if answer is not None:
            assert answer == pytest.approx(expected[number], abs=1e-3)
    assert decision.tokens.input == told["usage"]["input_tokens"]


async def test_it_grades_passages(qwen: RunningVllm) -> None:
    """By the ranking's own rubric, one passage in a call; what it grades is a probability for each of four labels."""
    adapter = _adapter(qwen)
    try:
        await adapter.probe(PLENTY_S)
        assert adapter.decider is not None
        context = decide_context("how was the bed?", [(1, "The bed was fine.")], "qzvkxwjp")
        decision = await adapter.decider.decide(context, decide_questions([1]), PLENTY_S)
    finally:
        await adapter.aclose()
    [answer] = decision.answers
    assert answer is None or (len(answer) == 4 and sum(answer) == pytest.approx(1.0))
    assert decision.tokens.input > 0


async def test_a_gemma_does_not_decide(vllm: RunningVllm) -> None:
    """vLLM answers 501 for it, and the backend is used in other ways."""
    adapter = _adapter(vllm)
    try:
        assert "decide" not in (await adapter.probe(PLENTY_S)).capabilities
        assert adapter.decider is None
    finally:
        await adapter.aclose()
