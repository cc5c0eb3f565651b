"""POST /v1/moderations by OpenAI's SDK, over a socket."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.api.test_answer_storm import listening
from tests.fakes.faults import Fault
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.labelling_mind import labels_of
from tests.fakes.models import gemini, services_for

pytestmark = pytest.mark.anyio


def _flags(text: str) -> Mapping[str, int]:
    return {"violence": 90, "hate/threatening": 60} if "bad" in text else {"violence": 1}


@pytest.fixture
async def server() -> AsyncIterator[GeminiServer]:
    async with GeminiServer() as server:
        server.mind = labels_of(_flags)
        yield server


@pytest.fixture
async def client(server: GeminiServer, tmp_path: Path) -> AsyncIterator[openai.AsyncOpenAI]:
    async with (
        listening(services_for(tmp_path, {"flash": gemini(server)})) as port,
        openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0) as client,
    ):
        yield client


async def test_each_input_has_a_result(client: openai.AsyncOpenAI, server: GeminiServer) -> None:
    """The SDK reads all categories, flags and scores; a model of OpenAI's means the default backend."""
    reply = await client.moderations.create(model="omni-moderation-latest", input=["bad", "good"])
    first, second = reply.results
    assert (first.flagged, second.flagged) == (True, False)
    assert first.categories.violence
    assert first.categories.hate_threatening
    assert not first.categories.self_harm_intent
    assert first.category_scores.violence == 0.9
    assert second.category_scores.violence == 0.01
    assert first.category_applied_input_types.sexual_minors == ["text"]
    assert reply.id.startswith("modr-")
    assert reply.model == server.models[0]


@pytest.mark.parametrize("given", ["a bad text", [{"type": "text", "text": "a bad"}, {"type": "text", "text": "text"}]])
async def test_one_input_has_one_result(client: openai.AsyncOpenAI, given: Any) -> None:
    """A text, or the parts of one."""
    [result] = (await client.moderations.create(input=given)).results
    assert result.flagged


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ([], "input"),
        (7, "input"),
        ([{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}], "input.0"),
        (["a", {"type": "image_url"}], "input.0"),
    ],
)
async def test_what_is_no_text_is_refused(client: openai.AsyncOpenAI, given: Any, param: str) -> None:
    """400 with the field, as the SDK raises it."""
    with pytest.raises(openai.BadRequestError) as caught:
        await client.moderations.create(input=given)
    assert caught.value.param == param


async def test_a_failure_is_the_whole_answer(client: openai.AsyncOpenAI, server: GeminiServer) -> None:
    """The format has no error of a single input."""
    server.script.extend([Fault.UNAUTHORIZED])
    with pytest.raises(openai.APIStatusError) as caught:
        await client.moderations.create(input="bad")
    assert caught.value.status_code == 502
