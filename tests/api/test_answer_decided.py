"""POST /answer where a model that only decides ranks, gates and checks: Gemini's by the real SDK, and vLLM's."""

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.config.settings import AnswerSettings, RankingSettings
from tests.api.conftest import SharedStore
from tests.fakes.answering_model import AnsweringModel
from tests.fakes.answering_service import AnsweringService, ModelServer, answering_service, server_of
from tests.fakes.faults import Fault
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import OpenAIServer

pytestmark = pytest.mark.anyio

Answering = Callable[..., AbstractAsyncContextManager[AnsweringService]]
Likely = Callable[[str, str], Mapping[str, float]]

MODEL = "gemini-decision-1"
DENTAL = "When does dental cover start?"


def supporting(doubted: str = "") -> Likely:
    """Verdicts on statements: full support, none for what holds the doubted word."""

    def verdict(context: str, instructions: str) -> Mapping[str, float]:
        number = next(iter(re.findall(r"the statement \[(\d+)\]", instructions)), None)
        if number is None:
            return {}
        [text] = re.findall(rf"^\w+ \[{number}\]\nstatement: (.*)$", context, re.MULTILINE)
        return {"0": 0.96, "2": 0.02} if doubted and doubted in text else {"2": 0.96, "0": 0.02}

    return verdict


def grading(grade: str) -> Likely:
    """One grade for every passage."""
    return lambda _, instructions: {grade: 0.94} if "the passage [" in instructions else {"2": 0.94}


def decision(likely: Likely) -> GeminiServer:
    server = GeminiServer(models=(MODEL,))
    server.likely, server.methods = likely, ("countTokens",)
    return server


@pytest.fixture
def answering(tmp_path: Path, store: SharedStore) -> Answering:
    """`answering_service` over HANDBOOK, that quotes whatever it finds."""
    return partial(answering_service, tmp_path, store=store, answer=AnswerSettings(min_relevance=0))


def supports(answer: dict[str, Any]) -> list[tuple[str, bool]]:
    return [(one["support"], one["verified"]) for one in answer["citations"]]


async def test_a_decider_checks_what_was_quoted(answering: Answering) -> None:
    """All statements in one call of the real SDK; it is a stage with tokens of its own."""
    async with answering({"decision": decision(supporting())}) as service:
        answer = await service.ask(DENTAL, check_citations="model", answer_backend="extractive")
        assert answer["answerable"]
        assert set(supports(answer)) == {("model", True)}
        assert answer["degraded"] == []
        assert answer["usage"]["by_stage"].keys() == {"check"}
        [body] = [call.body for call in service.server.calls if call.method == "decide"]  # type: ignore[union-attr]
        assert len(body["questions"]) == len({one["answer_start"] for one in answer["citations"]})
        assert body["questions"]["0"]["criteria"].keys() == {"0", "1", "2"}


async def test_what_a_decider_doubts_is_an_abstention(answering: Answering) -> None:
    """Where it supports nothing."""
    async with answering({"decision": decision(supporting("ental"))}) as service:
        answer = await service.ask(DENTAL, check_citations="model", answer_backend="extractive")
        assert (answer["answerable"], answer["abstain_reason"], answer["citations"]) == (False, "unsupported", [])


async def test_a_check_that_a_decider_fails_is_said(answering: Answering) -> None:
    """The structural verdicts stay; with `on_failure` "fail" it is the error."""
    server = decision(supporting())
    async with answering({"decision": server}) as service:
        server.script.append(Fault.BAD_REQUEST)
        answer = await service.ask(DENTAL, check_citations="model", answer_backend="extractive")
        assert {support for support, _ in supports(answer)} == {"structural"}
        assert answer["degraded"] == ["not all citations were checked by a model (rejected)"]
        server.script.append(Fault.BAD_REQUEST)
        strict = {"check_citations": "model", "answer_backend": "extractive", "ranking": {"on_failure": "fail"}}
        problem = await service.ask(DENTAL, 502, **strict)
        assert problem["fallbacks"] == [{"backend": "decision", "reason": "rejected"}]


async def test_auto_quotes_where_models_only_decide(answering: Answering) -> None:
    """A decider writes nothing: the answer is extractive, and the decider checks it."""
    async with answering({"decision": decision(supporting())}) as service:
        await (await service.services.clients())["decision"].known()
        answer = await service.ask(DENTAL, check_citations="model")
        assert answer["answer_backend"]["used"] == "extractive"
        assert set(supports(answer)) == {("model", True)}


async def test_a_decider_that_is_to_write_says_who_can(answering: Answering) -> None:
    """422, at the field, with what to do."""
    async with answering({"decision": decision(supporting())}) as service:
        await (await service.services.clients())["decision"].known()
        problem = await service.ask(DENTAL, 422, answer_backend="decision")
        [error] = problem["errors"]
        assert error["pointer"] == "/answer_backend"
        assert "decide" in error["detail"]
        assert "extractive" in error["detail"]


async def test_openais_decides_too(answering: Answering) -> None:
    """A server that chats as well is asked to decide, since probabilities tell more."""
    own = OpenAIServer(
        "openai", FakeModel(name="own"), decides=frozenset(("/v1/decisions",)), decisions=supporting("ental")
    )
    async with answering({"own": own}) as service:
        answer = await service.ask(DENTAL, check_citations="model", answer_backend="extractive")
        assert answer["abstain_reason"] == "unsupported"
        assert answer["usage"]["by_stage"]["check"]["requests"] == 1


async def test_the_grades_of_a_decider_are_the_gate(answering: Answering) -> None:
    """A model that writes is not asked where the decider grades all passages 0, and is where it grades them 3."""
    for grade, reason in (("0", "below_min_relevance"), ("3", None)):
        servers: dict[str, ModelServer] = {
            "decision": decision(grading(grade)),
            "tiny": server_of("vllm", AnsweringModel()),
        }
        ranking = RankingSettings(deadline_ms=60_000, controls=False)
        async with answering(servers, answer=AnswerSettings(), ranking=ranking) as service:
            answer = await service.ask(DENTAL, backend="decision", answer_backend="tiny")
            assert {hit["ranked_by"] for hit in answer["results"]} == {"decision"}
            assert answer["abstain_reason"] == reason
            assert ("answer" in answer["usage"]["by_stage"]) == (reason is None)
