"""POST /answer with earlier turns."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import SharedStore
from tests.fakes.answering_model import AnsweringModel
from tests.fakes.answering_service import AnsweringService, answering_service, server_of
from tests.fakes.corpus import passage
from tests.fakes.faults import Fault
from tests.fakes.openai_server import OpenAIServer

pytestmark = pytest.mark.anyio

Answering = Callable[..., AbstractAsyncContextManager[AnsweringService]]

FOLLOW_UP = "and when does it start?"
STARTS = "Dental cover starts on the first day of work [1]."


@pytest.fixture
def answering(tmp_path: Path, store: SharedStore) -> Answering:
    """`answering_service` over HANDBOOK."""
    return partial(answering_service, tmp_path, store=store)


def turns(*texts: str) -> list[dict[str, str]]:
    """The user's and the assistant's, by turns."""
    return [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]


@pytest.mark.parametrize("kind", ["gemini", "vllm"])
async def test_a_follow_up_is_reworded_searched_and_answered(answering: Answering, kind: str) -> None:
    """One cheap call puts it on its feet; its cost and time are stages of their own, and the model sees the turns."""
    mind = AnsweringModel()
    async with answering({"tiny": server_of(kind, mind)}) as service:
        answer = await service.ask(FOLLOW_UP, messages=turns("Is there dental cover?", "Yes [1]."))
        assert answer["answer"] == STARTS
        assert answer["usage"]["by_stage"].keys() == {"condense", "answer"}
        assert next(iter(answer["timings_ms"])) == "condense"
        condensed, answered = (turns[-1][1] for turns in mind.asked)
        assert "user: Is there dental cover?\nassistant: Yes (1)." in condensed
        assert "user: Is there dental cover?\nassistant: Yes (1)." in answered
        assert "Question: and when does it start?\nThat is: and when does it start? Is there dental cover?" in answered
        events = await service.stream(FOLLOW_UP, messages=turns("Is there dental cover?", "Yes [1]."))
        assert events[-1][1]["usage"] == answer["usage"]


async def test_the_reworded_question_is_ranked_by(answering: Answering) -> None:
    """Whoever ranks reads it too."""
    server = server_of("vllm", AnsweringModel())
    assert isinstance(server, OpenAIServer)
    async with answering({"tiny": server}) as service:
        await service.ask(FOLLOW_UP, backend="tiny", messages=turns("Is there dental cover?"))
        asked = str(server.bodies("/v1/chat/completions/batch"))
        assert "Query: and when does it start? Is there dental cover?" in asked


async def test_a_question_that_stands_alone_costs_no_call(answering: Answering) -> None:
    """Though there are turns."""
    async with answering({"tiny": server_of("vllm", AnsweringModel())}) as service:
        told = turns("Where is the office?", "Here.")
        answer = await service.ask("When does dental cover start at work?", messages=told)
        assert answer["answer"] == STARTS
        assert answer["usage"]["by_stage"].keys() == {"answer"}


async def test_a_rewording_that_fails_does_not_fail_the_request(answering: Answering) -> None:
    """The rules do what they can, and a warning says so."""
    server = server_of("vllm", AnsweringModel())
    assert isinstance(server, OpenAIServer)
    async with answering({"tiny": server}) as service:
        await (await service.services.pool.get()).router.clients["tiny"].known()
        server.expect(Fault.BAD_REQUEST)
        answer = await service.ask(FOLLOW_UP, messages=turns("Is there dental cover?"))
        assert answer["answer"] == STARTS
        assert "(rejected)" in answer["warnings"][0]
        assert "previous" in answer["warnings"][1]


@pytest.mark.parametrize(
    ("body", "status"), [({"backend": "gpt"}, 422), ({"collection": "nowhere"}, 404), ({"mode": "wrong"}, 400)]
)
async def test_a_search_that_cannot_work_costs_nothing(answering: Answering, body: dict[str, Any], status: int) -> None:
    """What is wrong with it is told before a model is asked to reword the question."""
    mind = AnsweringModel()
    async with answering({"tiny": server_of("vllm", mind)}) as service:
        await service.ask(FOLLOW_UP, status, messages=turns("Is there dental cover?"), **body)
        assert mind.asked == []


async def test_no_turn_leaks_into_another_request(tmp_path: Path) -> None:
    """Interleaved conversations, each about a thing of its own: every call and every reply knows only its own."""
    names = [f"Zorblax{chr(65 + number)}" for number in range(20)]
    passages = [passage(name, f"The {name} costs {number + 3} coins.") for number, name in enumerate(names)]
    mind = AnsweringModel(least=0.3)
    server = server_of("vllm", mind, load_s=0.01)
    async with answering_service(tmp_path, {"tiny": server}, passages) as service:

        async def converse(name: str, streamed: bool) -> str:
            told = turns(f"Tell me about {name}", f"The {name} is a thing.")
            if not streamed:
                return str(await service.ask("How much is it?", messages=told, min_relevance=0))
            return str(await service.stream("How much is it?", messages=told, min_relevance=0))

        replies = await asyncio.gather(*(converse(name, number % 2 == 0) for number, name in enumerate(names)))
    assert len(mind.asked) == 2 * len(names)
    for name, reply in zip(names, replies, strict=True):
        assert f"The {name} costs" in reply
    for prompt in (asked[-1][1] for asked in mind.asked):
        after = prompt.rpartition("end of the passages")[2]
        assert sum(name in after for name in names) == 1
