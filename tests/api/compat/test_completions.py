"""POST /v1/completions by OpenAI's SDK, with a model server behind the service."""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.fakes.models import client_of, openai_style, services_for
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import OpenAIServer

pytestmark = pytest.mark.anyio


def writes_code(turns: Sequence[tuple[str, str]], schema: Mapping[str, Any] | None) -> str:
    return "```\nreturn a + b\n```"


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer(api_key="k", model=FakeModel(mind=writes_code)) as server:
        yield server


@pytest.fixture
async def sdk(server: OpenAIServer, tmp_path: Path) -> AsyncIterator[openai.AsyncOpenAI]:
    async with client_of(services_for(tmp_path, {"gemma": openai_style(server)})) as client:
        yield openai.AsyncOpenAI(base_url="http://localhost/v1", api_key="any", max_retries=0, http_client=client)


async def _create(sdk: openai.AsyncOpenAI, **more: Any) -> Any:
    body: dict[str, Any] = {"model": "gemma", "prompt": "def add(a, b):\n    ", "max_tokens": 64, **more}
    return await sdk.completions.create(**body)


async def test_a_prompt_is_completed(sdk: openai.AsyncOpenAI, server: OpenAIServer) -> None:
    """Before the suffix, and with its usage; `stop` goes along."""
    reply = await _create(sdk, suffix="\n\nprint(add(1, 2))\n", stop="END")
    assert (reply.object, reply.choices[0].text, reply.choices[0].finish_reason) == (
        "text_completion",
        "return a + b",
        "stop",
    )
    assert reply.usage.total_tokens > reply.usage.prompt_tokens > 0
    assert server.bodies()[-1]["stop"] == ["END", "\nprint(add(1, 2))"]


async def test_the_stream_is_the_completion(sdk: openai.AsyncOpenAI) -> None:
    """The last piece says why it ended; the usage comes where it is asked for."""
    stream = await _create(sdk, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "return a + b"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens > 0


@pytest.mark.parametrize(
    "more", [{"prompt": ["a", "b"]}, {"prompt": [1, 2]}, {"n": 2}, {"echo": True}, {"logprobs": 3}, {"model": "winnow"}]
)
async def test_what_cannot_be_done_is_refused(sdk: openai.AsyncOpenAI, more: dict[str, Any]) -> None:
    """400, which the SDK raises; nothing is ignored in silence."""
    with pytest.raises(openai.BadRequestError):
        await _create(sdk, **more)


async def test_an_unknown_model_is_not_found(sdk: openai.AsyncOpenAI) -> None:
    """404 that lists the models, once they are known."""
    await _create(sdk)
    with pytest.raises(openai.NotFoundError, match="tiny"):
        await _create(sdk, model="gpt")
