"""Replies and errors in the shapes that servers really use, which OpenAI's reference does not describe."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app.backends.base import Delta
from app.backends.openai_compatible.adapter import OpenAICompatible
from app.backends.settings import BackendSettings
from app.backends.status import logged_reason
from app.domain import TokenCount
from app.errors import UpstreamError, UpstreamRateLimited, UpstreamRejected, UpstreamUnavailable
from tests.fakes.http_server import answering
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import OpenAIServer
from tests.unit.app.backends.openai_compatible.opening import TIMEOUT_S, asking, collected, opened

pytestmark = pytest.mark.anyio

SSE = {"Content-Type": "text/event-stream"}
PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "Forty-two."}]


@contextmanager
def serving(body: Any, status: int = 200, **headers: str) -> Iterator[OpenAICompatible]:
    """An adapter of a server that answers with this to everything. Texts are sent as they are."""
    content = body if isinstance(body, str) else json.dumps(body)
    with answering(status, content.encode(), headers=headers) as url:
        yield OpenAICompatible("gemma", BackendSettings(kind="openai", url=f"{url}/v1", model="m"))


def reply(content: Any, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": content}, "finish_reason": "stop", **fields}]}


def events(*chunks: Any) -> str:
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)


def delta(content: Any, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": content}, **fields}]}


def text_of(deltas: list[Delta]) -> str:
    return "".join(piece.text for piece in deltas)


async def failure(adapter: OpenAICompatible, *, streamed: bool = False) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await (collected(adapter, asking()) if streamed else adapter.complete(asking(), TIMEOUT_S))
    await adapter.aclose()
    return caught.value


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (PARTS, "Forty-two."),
        (
            [{"type": "text", "text": "Forty-"}, {"type": "output_text", "text": "two."}, "?", {"type": "text"}],
            "Forty-two.",
        ),
        ("Let me see\n</think>\n\nForty-two.", "Forty-two."),
        ([], ""),
    ],
)
async def test_the_text_is_read_in_every_shape(content: Any, text: str) -> None:
    """A list of parts, thoughts among them, and a thought that began in the prompt."""
    with serving(reply(content)) as adapter:
        assert (await adapter.complete(asking(), TIMEOUT_S)).text == text
        await adapter.aclose()


async def test_a_list_of_parts_is_streamed() -> None:
    """Thoughts are pieces without text."""
    body = events(delta(PARTS[:1]), delta(PARTS[1:]), delta(None, finish_reason="stop"))
    with serving(body, **SSE) as adapter:
        deltas = await collected(adapter, asking())
        await adapter.aclose()
    assert [piece.text for piece in deltas] == ["", "Forty-two.", ""]


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": "7", "completion_tokens": None},
        [],
        "none",
        {"prompt_tokens": -1},
        {"prompt_tokens": 1e300},
        {"prompt_tokens": 7, "completion_tokens": -5},
    ],
)
async def test_no_text_is_lost_for_an_odd_usage(usage: Any) -> None:
    """What cannot be counted so is taken for not counted."""
    with serving({**reply("Yes."), "usage": usage}) as adapter:
        whole = await adapter.complete(asking(), TIMEOUT_S)
        await adapter.aclose()
    assert (whole.text, whole.tokens) == ("Yes.", TokenCount())


async def test_counts_are_read_as_numbers_of_any_kind() -> None:
    """Floats count, and missing details are none."""
    with serving({**reply("Yes."), "usage": {"prompt_tokens": 7.0, "prompt_tokens_details": []}}) as adapter:
        assert (await adapter.complete(asking(), TIMEOUT_S)).tokens == TokenCount(input=7)
        await adapter.aclose()


@pytest.mark.parametrize(
    ("ended", "finish_reason"),
    [
        (None, "stop"),
        ("eos", "stop"),
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ({"type": "stop"}, "stop"),
        (7, "stop"),
    ],
)
async def test_no_text_is_lost_for_an_odd_reason_to_end(ended: Any, finish_reason: str) -> None:
    """A whole reply is there, whatever its server calls the end of it."""
    with serving(reply("Yes.", finish_reason=ended)) as adapter:
        whole = await adapter.complete(asking(), TIMEOUT_S)
        await adapter.aclose()
    assert (whole.text, whole.finish_reason) == ("Yes.", finish_reason)


async def test_a_stream_whose_usage_came_is_complete_without_a_reason() -> None:
    """The count of the tokens comes last."""
    body = events(delta("Yes."), {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})
    with serving(body, **SSE) as adapter:
        deltas = await collected(adapter, asking())
        await adapter.aclose()
    assert (text_of(deltas), deltas[-1].finish_reason) == ("Yes.", "stop")


async def test_a_server_that_does_not_stream_is_read_all_the_same() -> None:
    """The whole reply is the only piece."""
    with serving({**reply("Yes."), "usage": {"prompt_tokens": 3, "completion_tokens": 1}}) as adapter:
        deltas = await collected(adapter, asking())
        await adapter.aclose()
    assert (text_of(deltas), deltas[-1].tokens) == ("Yes.", TokenCount(input=3, output=1))


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"error": {"message": "rate limit", "code": 429}}, UpstreamRateLimited),
        ({"choices": [{"delta": {}, "finish_reason": "error", "error": {"code": 429}}]}, UpstreamRateLimited),
        ({"error": "out of order"}, UpstreamUnavailable),
    ],
)
async def test_an_error_with_a_status_of_success(body: Any, error: type[UpstreamError], streamed: bool) -> None:
    """Is the same error with and without a stream, in whatever place it stands."""
    with serving(body) as adapter:
        assert type(await failure(adapter, streamed=streamed)) is error


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"error": "model 'm' not found, try pulling it first"}),
        (404, [{"error": {"code": 404, "message": "models/m is not found", "status": "NOT_FOUND"}}]),
        (404, {"error": {"message": "No endpoints found for m.", "code": 404}}),
        (400, {"error": {"message": "m is not a valid model ID", "code": 400}}),
        (404, {"object": "error", "message": "The model `m` does not exist.", "type": "NotFoundError", "code": 404}),
    ],
)
async def test_a_missing_model_is_one_in_every_dialect(status: int, body: Any) -> None:
    """Of Ollama, Gemini, OpenRouter and vLLM."""
    with serving(body, status) as adapter:
        error = await failure(adapter)
    assert isinstance(error, UpstreamRejected)
    assert "does not have the model 'm'" in str(error)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            {
                "detail": [
                    {"loc": ["body", "max_completion_tokens"], "msg": "extra fields not permitted", "input": "a text"}
                ]
            },
            "body.max_completion_tokens: extra fields not permitted",
        ),
        ({"error": {"message": "bad\nthing\x1b[31m"}}, "bad thing [31m"),
        ({"error": "Incorrect API key provided: sk-proj-1234567890abcdef"}, "Incorrect API key provided: ***"),
        ({"message": "of the gateway"}, "of the gateway"),
        ("<html>no JSON</html>", "<html>no JSON</html>"),
        ({"error": {"message": "x" * 1_000}}, "x" * 300 + "…"),
    ],
)
async def test_the_reason_goes_along_for_the_log_alone(body: Any, reason: str) -> None:
    """On one line, without keys and control characters, and never in the error's own text."""
    with serving(body, 422) as adapter:
        error = await failure(adapter)
    assert error.reason == reason
    assert reason not in str(error)


@pytest.mark.parametrize(
    "body", [None, [], [1, 2], {"error": []}, {"error": {"message": {"a": 1}}}, {"detail": [7]}, 7]
)
async def test_no_error_is_too_strange(body: Any) -> None:
    """Whatever its body is."""
    with serving(body, 418) as adapter:
        assert isinstance(await failure(adapter), UpstreamRejected)


async def test_a_stream_learns_where_thoughts_end() -> None:
    """The first reply shows that the prompt begins the thought; from then on nothing is sent before its end."""
    server = OpenAIServer("openai", model=FakeModel(answer="Let me see\n</think>\n\nForty-two."))
    async with server, opened(server) as adapter:
        assert "</think>" in text_of(await collected(adapter, asking(max_output_tokens=50)))
        assert text_of(await collected(adapter, asking(max_output_tokens=50))) == "Forty-two."
        assert text_of(await collected(adapter, asking(max_output_tokens=2))) == ""


def test_a_reason_is_cut_before_it_is_read() -> None:
    """A megabyte of it takes no time."""
    assert len(logged_reason("\n" * 10_000_000 + "late")) == 0


async def test_vllm_tells_that_the_prompt_begins_the_thought() -> None:
    """By its rendering of the template: not even the first stream shows a thought."""
    server = OpenAIServer("vllm", model=FakeModel(opens=True, answer="Let me see\n</think>\n\nForty-two."))
    async with server, opened(server) as adapter:
        assert text_of(await collected(adapter, asking(max_output_tokens=50))) == "Forty-two."
        assert (await adapter.complete(asking(max_output_tokens=50), TIMEOUT_S)).text == "Forty-two."
