"""POST /answer with `check_citations: "model"`."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.config.settings import AnswerSettings
from tests.api.conftest import SharedStore
from tests.fakes.answering_model import AnsweringModel
from tests.fakes.answering_service import AnsweringService, answering_service, server_of, text_of
from tests.fakes.faults import Fault
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.openai_server import OpenAIServer

pytestmark = pytest.mark.anyio

Answering = Callable[..., AbstractAsyncContextManager[AnsweringService]]

DENTAL = "When does dental cover start?"
STARTS = "Dental cover starts on the first day of work [1]."
TWO = "Dental cover starts on the first day of work [1.1]. The office opens at nine [2.1]."

BELIEVES = {"support the statement": {"2": -0.01, "0": -6.0}}
DOUBTS = {"The office opens": {"0": -0.01, "2": -6.0}, **BELIEVES}
"""Log-probabilities of a checker that tells them."""


@pytest.fixture
def answering(tmp_path: Path, store: SharedStore) -> Answering:
    """`answering_service` over HANDBOOK."""
    return partial(answering_service, tmp_path, store=store)


def saying(text: str, *doubts: str) -> AnsweringModel:
    """Says this, and as a judge doubts what holds these words."""
    return AnsweringModel(dress=lambda _: text, doubts=doubts)


def scorer(mind: AnsweringModel, likely: dict[str, Any]) -> OpenAIServer:
    server = server_of("vllm", mind)
    assert isinstance(server, OpenAIServer)
    server.model.likely = likely
    return server


async def ask(service: AnsweringService, **body: Any) -> dict[str, Any]:
    """The answer, which is that of the stream."""
    events = await service.stream(DENTAL, check_citations="model", **body)
    whole = await service.ask(DENTAL, check_citations="model", **body)
    assert text_of(events) == whole["answer"]
    assert [data for name, data in events if name == "citation"] == whole["citations"]
    assert events[-1][1]["unsupported"] == whole["unsupported"]
    return whole


@pytest.mark.parametrize("kind", ["gemini", "vllm"])
async def test_a_model_confirms_the_citations(answering: Answering, kind: str) -> None:
    """One call, a stage of its own; the citations say that a model checked them."""
    mind = AnsweringModel()
    server = scorer(mind, BELIEVES) if kind == "vllm" else server_of(kind, mind)
    async with answering({"tiny": server}) as service:
        answer = await ask(service)
        assert answer["answer"] == STARTS
        assert [(one["support"], one["verified"]) for one in answer["citations"]] == [("model", True)]
        assert answer["usage"]["by_stage"].keys() == {"answer", "check"}
        assert answer["usage"]["by_stage"]["check"]["requests"] == 1
        assert list(answer["timings_ms"])[-3:] == ["answer", "check", "total"]
        assert answer["degraded"] == []


@pytest.mark.parametrize("kind", ["gemini", "vllm"])
async def test_what_a_model_doubts_is_marked(answering: Answering, kind: str) -> None:
    """The doubtful statement stays, its citation is not verified, and it is listed without support."""
    mind = saying(TWO, "office")
    server = scorer(mind, DOUBTS) if kind == "vllm" else server_of(kind, mind)
    async with answering({"tiny": server}) as service:
        answer = await ask(service, context_tokens=6000)
        assert [one["verified"] for one in answer["citations"]] == [True, False]
        [span] = answer["unsupported"]
        assert answer["answer"][span["start"] : span["end"]].startswith("The office opens")


async def test_an_answer_that_a_model_disbelieves_is_none(answering: Answering) -> None:
    """Nothing verified: it abstains, in one piece."""
    async with answering({"tiny": server_of("gemini", saying(TWO, "Dental", "office"))}) as service:
        answer = await ask(service)
        assert (answer["answerable"], answer["abstain_reason"]) == (False, "unsupported")
        assert (answer["citations"], answer["unsupported"]) == ([], [])
        assert "nine" not in answer["answer"]


async def test_an_abstention_needs_no_check(answering: Answering) -> None:
    """There is nothing to check."""
    async with answering({"tiny": server_of("gemini", saying("NO_ANSWER"))}) as service:
        answer = await ask(service)
        assert answer["abstain_reason"] == "model_declined"
        assert answer["usage"]["by_stage"].keys() == {"answer"}


async def test_a_check_that_fails_is_said(answering: Answering) -> None:
    """The structural verdicts stay, and `degraded` tells; with `on_failure` "fail" it is the error."""
    server = server_of("gemini", AnsweringModel())
    assert isinstance(server, GeminiServer)
    async with answering({"tiny": server}) as service:
        server.script.extend((Fault.OK, Fault.BAD_REQUEST))
        answer = await service.ask(DENTAL, check_citations="model")
        assert [(one["support"], one["verified"]) for one in answer["citations"]] == [("structural", True)]
        assert answer["degraded"] == ["not all citations were checked by a model (rejected)"]
        server.script.extend((Fault.OK, Fault.BAD_REQUEST))
        problem = await service.ask(DENTAL, 502, check_citations="model", ranking={"on_failure": "fail"})
        assert problem["fallbacks"] == [{"backend": "tiny", "reason": "rejected"}]


async def test_quotations_can_be_checked_too(answering: Answering) -> None:
    """The extractive answerer borrows a model for it; without one that is refused."""
    async with answering(
        {"tiny": server_of("gemini", AnsweringModel())}, answer=AnswerSettings(min_relevance=0)
    ) as one:
        answer = await ask(one, answer_backend="extractive")
        assert answer["answer_backend"]["used"] == "extractive"
        assert {citation["support"] for citation in answer["citations"]} == {"model"}
        assert answer["usage"]["by_stage"].keys() == {"check"}
    async with answering({}) as service:
        problem = await service.ask(DENTAL, 422, check_citations="model")
        assert problem["errors"][0]["pointer"] == "/check_citations"


async def test_who_wrote_checks(answering: Answering) -> None:
    """Of several backends it is the one that served, also after another one failed."""
    servers = {"first": server_of("gemini", AnsweringModel()), "second": scorer(AnsweringModel(), BELIEVES)}
    first = servers["first"]
    assert isinstance(first, GeminiServer)
    async with answering(servers) as service:
        first.script.append(Fault.SERVER_ERROR)
        answer = await service.ask(DENTAL, check_citations="model")
        assert answer["answer_backend"]["used"] == "second"
        assert answer["citations"][0]["support"] == "model"
        assert len(first.bodies) == 1
