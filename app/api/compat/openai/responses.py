"""Answers and chats as OpenAI's chat completions, whole and in chunks."""

import time
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from app.api.compat.citations import Links
from app.api.compat.errors import openai_error
from app.api.compat.openai.requests import call_pieces, whole_calls
from app.api.problem_details import Problem
from app.api.schemas import Event
from app.backends.base import FinishReason
from app.domain import (
    Answer,
    AnswerDone,
    CallsDelta,
    ChatDone,
    ChatResult,
    CitationMade,
    SourcesFound,
    TextDelta,
    ToolCall,
    Usage,
)

DONE = b"data: [DONE]\n\n"

_ELSEWHERE = ("answer", "text", "results", "finish_reason")
"""What a completion has in fields of its own, and the passages, which are long."""

Ending = FinishReason | Literal["tool_calls"]
"""Why a reply ended; "tool_calls": it is the client's turn."""


def envelope_of(reply_id: str, model: str) -> dict[str, Any]:
    """What a completion and each of its chunks begin with. `created` is Unix time in seconds."""
    return {"id": f"chatcmpl-{reply_id}", "created": int(time.time()), "model": model}


def completion(envelope: Mapping[str, Any], done: AnswerDone | ChatDone, links: Links) -> dict[str, Any]:
    """The whole reply at once. `winnow` has what OpenAI's format has no words for: see `about`."""
    result, calls = result_of(done), _calls(done)
    message = {
        "content": text_of(result) or (None if calls else ""),
        "annotations": _annotations(result, links),
        "winnow": about(result),
        "role": "assistant",
        **({"tool_calls": whole_calls(calls)} if calls else {}),
    }
    return whole_reply(envelope, message, _ending(done), openai_usage(result.usage))


def whole_reply(
    envelope: Mapping[str, Any], message: dict[str, Any], finish_reason: str, usage: dict[str, Any]
) -> dict[str, Any]:
    """A chat.completion with its only choice."""
    choice = {"message": message, "finish_reason": finish_reason, "index": 0, "logprobs": None}
    return {**envelope, "choices": [choice], "usage": usage, "object": "chat.completion"}


def chunk(
    envelope: Mapping[str, Any], delta: dict[str, Any] | None, finish_reason: str | None = None, **more: Any
) -> dict[str, Any]:
    """A chat.completion.chunk with its only choice; without a delta it has none."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    choices = [] if delta is None else [choice]
    return {**envelope, "object": "chat.completion.chunk", "choices": choices, **more}


def text_of(result: Answer | ChatResult) -> str:
    """The text of a reply."""
    return result.answer if isinstance(result, Answer) else result.text


def result_of(done: AnswerDone | ChatDone) -> Answer | ChatResult:
    """The answer, or the reply."""
    return done.answer if isinstance(done, AnswerDone) else done.result


def finish_of(done: AnswerDone | ChatDone) -> FinishReason:
    """Why the text ended."""
    match done:
        case AnswerDone(cut=cut):
            return "length" if cut else "stop"
        case ChatDone(result=result):
            return result.finish_reason


def about(result: Answer | ChatResult) -> dict[str, Any]:
    """What /answer and /chat return: whether it could be answered and why not, citations with their quotes and offsets,
    the backends, usage with its cost, timings.
    """
    return {name: getattr(result, name) for name in result.__struct_fields__ if name not in _ELSEWHERE}


def openai_usage(usage: Usage) -> dict[str, Any]:
    """All model calls together (of an answer, the ranking too), in OpenAI's words."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens or 0},
    }


class Chunks:
    """`app.api.sse.EventFormat`: chat.completion.chunk events. `counts`: the last one, and no other, has the usage."""

    def __init__(self, envelope: Mapping[str, Any], links: Links, *, counts: bool) -> None:
        self._envelope, self._links, self._counts = envelope, links, counts
        self._begun = False

    def write(self, event: Event) -> bytes:
        """The sources are sent with their citations."""
        match event:
            case SourcesFound(results=hits):
                self._links.learn(hits)
                return b""
            case TextDelta(text=text):
                return self._delta({"content": text})
            case CallsDelta(calls=calls):
                return self._delta({"tool_calls": call_pieces(calls)})
            case CitationMade(citation=citation):
                return self._delta({"annotations": [self._links.annotation(citation)]})
            case AnswerDone() | ChatDone():
                return self._end(event)

    def fail(self, problem: Problem, exc: Exception) -> bytes:
        """The error in place of a chunk: OpenAI's clients raise it."""
        return as_data(openai_error(problem, exc)[1]) + DONE

    def _end(self, done: AnswerDone | ChatDone) -> bytes:
        result = result_of(done)
        last = self._delta({"winnow": about(result)}, _ending(done))
        usage = as_data(chunk(self._envelope, None, usage=openai_usage(result.usage))) if self._counts else b""
        return last + usage + DONE

    def _delta(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        role = {} if self._begun else {"role": "assistant"}
        self._begun = True
        return as_data(chunk(self._envelope, role | delta, finish_reason))


def as_data(content: Any) -> bytes:
    """An event without a name."""
    return b"data: %s\n\n" % msgspec.json.encode(content)


def _calls(done: AnswerDone | ChatDone) -> tuple[ToolCall, ...]:
    return done.calls if isinstance(done, ChatDone) else ()


def _ending(done: AnswerDone | ChatDone) -> Ending:
    reason = finish_of(done)
    return "tool_calls" if _calls(done) and reason == "stop" else reason


def _annotations(result: Answer | ChatResult, links: Links) -> list[dict[str, Any]]:
    if isinstance(result, ChatResult):
        return []
    links.learn(result.results)
    return [links.annotation(citation) for citation in result.citations]
