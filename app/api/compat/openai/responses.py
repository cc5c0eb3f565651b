"""Answers and chats as OpenAI's chat completions, whole and in chunks."""

from typing import Any, Literal

import msgspec

from app.api.compat.citations import Links
from app.api.compat.errors import openai_error
from app.api.compat.openai.requests import CallBody, call_pieces, whole_calls
from app.api.problem_details import Problem
from app.api.sse import Event
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
"""What a completion says in its own words, and the passages, which are long."""

Ending = FinishReason | Literal["tool_calls"]
"""Why a reply ended; "tool_calls": it is the client's turn."""


class Heading(msgspec.Struct, frozen=True, kw_only=True):
    """What a completion and each of its chunks begin with. `created` is Unix time in seconds."""

    id: str
    created: int
    model: str


class CachedTokens(msgspec.Struct, frozen=True):
    """A part of the prompt's."""

    cached_tokens: int


class CompletionUsage(msgspec.Struct, frozen=True, kw_only=True):
    """All model calls together: of an answer, the ranking too."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class CompletionMessage(msgspec.Struct, frozen=True, kw_only=True):
    """`annotations` are url_citations. `winnow` has what OpenAI's format has no words for: see `about`.

    `content` None: nothing was said, there are only calls.
    """

    content: str | None
    annotations: list[dict[str, Any]]
    winnow: dict[str, Any]
    role: str = "assistant"
    tool_calls: list[CallBody] | msgspec.UnsetType = msgspec.UNSET


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The only one."""

    message: CompletionMessage
    finish_reason: Ending
    index: int = 0
    logprobs: None = None


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """A whole reply."""

    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage
    object: str = "chat.completion"


def completion(heading: Heading, done: AnswerDone | ChatDone, links: Links) -> ChatCompletion:
    """The whole reply at once."""
    result, calls = result_of(done), _calls(done)
    message = CompletionMessage(
        content=text_of(result) or (None if calls else ""),
        annotations=_annotations(result, links),
        winnow=about(result),
        tool_calls=whole_calls(calls) or msgspec.UNSET,
    )
    return ChatCompletion(
        id=heading.id,
        created=heading.created,
        model=heading.model,
        choices=[Choice(message=message, finish_reason=_ending(done))],
        usage=usage_of(result.usage),
    )


def text_of(result: Answer | ChatResult) -> str:
    """What is said."""
    return result.answer if isinstance(result, Answer) else result.text


def result_of(done: AnswerDone | ChatDone) -> Answer | ChatResult:
    """What was made."""
    return done.answer if isinstance(done, AnswerDone) else done.result


def finish_of(done: AnswerDone | ChatDone) -> FinishReason:
    """Why it ended."""
    match done:
        case AnswerDone(cut=cut):
            return "length" if cut else "stop"
        case ChatDone(result=result):
            return result.finish_reason


def about(result: Answer | ChatResult) -> dict[str, Any]:
    """As /answer and /chat tell it: whether it could be answered and why not, citations with their quotes and offsets,
    who served it, usage with its cost, timings.
    """
    return {name: getattr(result, name) for name in result.__struct_fields__ if name not in _ELSEWHERE}


def usage_of(usage: Usage) -> CompletionUsage:
    """In OpenAI's words."""
    return CompletionUsage(
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        prompt_tokens_details=CachedTokens(usage.cached_tokens),
    )


class Chunks:
    """`app.api.sse.Wire`: chat.completion.chunk events. `counts`: the last one tells the usage, and no other."""

    def __init__(self, heading: Heading, links: Links, *, counts: bool) -> None:
        self._heading, self._links, self._counts = heading, links, counts
        self._begun = False

    def say(self, event: Event) -> bytes:
        """The sources are known by their citations."""
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
        """The error in place of a chunk, which OpenAI's clients raise."""
        return as_data(openai_error(problem, exc)[1]) + DONE

    def _end(self, done: AnswerDone | ChatDone) -> bytes:
        result = result_of(done)
        last = self._delta({"winnow": about(result)}, _ending(done))
        usage = self._chunk([], usage=usage_of(result.usage)) if self._counts else b""
        return last + usage + DONE

    def _delta(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        role = {} if self._begun else {"role": "assistant"}
        self._begun = True
        return self._chunk([{"index": 0, "delta": role | delta, "logprobs": None, "finish_reason": finish_reason}])

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        heading = msgspec.structs.asdict(self._heading)
        return as_data({**heading, "object": "chat.completion.chunk", "choices": choices, **more})


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
