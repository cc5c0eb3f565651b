"""Typed questions to a real vLLM, by POST /v1/systemone."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.backends.base import Account, Call, Deadline, Decider, DecisionQuestion
from app.backends.client import BackendClient
from app.backends.openai_compatible.adapter import OpenAICompatible
from app.backends.openai_compatible.decisions import VllmDecider
from app.backends.settings import BackendSettings, RoutingSettings
from app.domain import Label
from app.ranking.cache import ScoreCache
from app.ranking.models import TOP_GRADE, candidate_of
from app.ranking.prompts import decide_context, decide_questions
from app.ranking.reranker import RankingTask, Reranker
from app.services.ranking import ClientGrader
from tests.fakes.corpus import fill
from tests.fakes.meter import RecordingMeter
from tests.fakes.models import client_of, services_for
from tests.vllm.running import KEY, MODEL, RunningVllm, VllmFailed, real_vllm

pytestmark = [pytest.mark.anyio, pytest.mark.vllm, pytest.mark.timeout(400)]

PLENTY_S = 60.0
EXACT = ("--dtype", "float32")  # what it says does not hang on how a processor rounds
CHOICE = DecisionQuestion(
    instructions="Which fits?", options=(Label(name="good", description="praise"), Label(name="bad"))
)
YES_OR_NO = DecisionQuestion(instructions="Whether the input is praise.")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningVllm]:
    from tests.vllm.tiny_qwen import make_tiny_decider

    try:
        with real_vllm(tmp_path_factory.mktemp("qwen"), os.environ, make_tiny_decider, EXACT) as server:
            yield server
    except VllmFailed as exc:
        pytest.fail(str(exc), pytrace=False)


def _settings(server: RunningVllm) -> BackendSettings:
    return BackendSettings(kind="vllm", url=server.url, api_key=KEY, timeout_s=PLENTY_S, retries=0)


def _adapter(server: RunningVllm) -> OpenAICompatible:
    return OpenAICompatible("own", _settings(server))


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


QUERY = "how was the bed?"
FENCE = "qzvkxwjp"
WORDS = (
    "bed",
    "breakfast",
    "dog",
    "parking",
    "train",
    "court",
    "tax",
    "moon",
    "river",
    "window",
    "salt",
    "engine",
    "paper",
    "rain",
    "night",
    "invoice",
)
# Long ones: of a few words the tiny model makes the same, since the prompt around them is all that it sees.
TEXTS = tuple(" ".join(random.Random(words).choices(WORDS, k=words)) for words in range(10, 130, 5))


def told_grade(server: RunningVllm, text: str) -> float | None:
    """The grade in [0,1] that vLLM expects of a passage, asked directly with the ranking's own words.

    None where the random model means no grade.
    """
    [question] = decide_questions([1])
    criteria = {option.name: option.description for option in question.options}
    asked = {"type": "choice", "instructions": question.instructions, "criteria": criteria}
    state = decide_context(QUERY, [(1, text)], FENCE)
    body = {"model": MODEL, "state": state, "questions": {"0": asked}}
    told = server.http.post("/v1/systemone", json=body).raise_for_status().json()
    if told["diagnostics"]["0"]["label_mass"] < 0.9:
        return None
    return sum(int(grade) * chance for grade, chance in told["answers"]["0"]["probabilities"].items()) / TOP_GRADE


async def test_its_grades_are_the_ranking(qwen: RunningVllm) -> None:
    """A call for each passage; retrieval had all alike, and now they stand by what the server says of each."""
    expected = {text: grade for text in TEXTS if (grade := told_grade(qwen, text)) is not None}
    assert len({round(grade, 1) for grade in expected.values()}) > 1
    adapter = _adapter(qwen)
    try:
        client = BackendClient("own", _settings(qwen), [adapter], RecordingMeter(keep=False), RoutingSettings())
        await client.known(PLENTY_S)
        account = Account()
        grader = ClientGrader(client, "decider", Call(stage="rank", deadline=Deadline(PLENTY_S), account=account))
        task = RankingTask(
            query=QUERY,
            candidates=[candidate_of(id=text, text=text, prior=0.5) for text in expected],
            strategy="decide",
        )
        ranking = await Reranker(ScoreCache(100), fence=lambda _: FENCE).rank(task, grader, Deadline(PLENTY_S))
    finally:
        await adapter.aclose()
    assert ranking.degraded == ()
    assert account.usage().requests == len(expected)
    grades = [round(place.grade or 0, 6) for place in ranking.order]
    assert grades == pytest.approx([expected[place.id] for place in ranking.order], abs=0.02)
    assert grades == sorted(grades, reverse=True)


async def test_a_search_is_ranked_by_it(qwen: RunningVllm, tmp_path: Path) -> None:
    """Through the whole service: every passage is graded, by a call of its own, and nothing is degraded."""
    services = services_for(tmp_path, {"own": _settings(qwen)})
    async with client_of(services) as client:
        await fill(await services.store.get())
        body = {"query": "dental cover office", "backend": "own", "ranking": {"strategy": "decide"}}
        response = await client.post("/search", json=body)
    assert response.status_code == 200, response.text
    found = response.json()
    assert {hit["ranked_by"] for hit in found["results"]} == {"own"}
    assert found["degraded"] == []
    assert found["usage"]["by_stage"]["rank"]["requests"] == len(found["results"])
    scores = [hit["score"] for hit in found["results"]]
    assert scores == sorted(scores, reverse=True)


async def test_a_gemma_does_not_decide(vllm: RunningVllm) -> None:
    """vLLM answers 501 for it, and the backend is used in other ways."""
    adapter = _adapter(vllm)
    try:
        assert "decide" not in (await adapter.probe(PLENTY_S)).capabilities
        assert adapter.decider is None
    finally:
        await adapter.aclose()
