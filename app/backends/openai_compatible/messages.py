"""What goes over the wire: request bodies and the replies that are read. Pure."""

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeGuard
from uuid import uuid4

import msgspec

from app.backends.base import ChatRequest, Conversation, Infill, Message
from app.backends.openai_compatible.infilling import Infilling
from app.domain import Image, TokenCount, ToolCall, Tools

Body = dict[str, Any]

RUNAWAYS = ("\n\n\n", "\t" * 16, " " * 64)
"""vLLM's JSON can run away in white space until its tokens are spent; none of these occurs in a sane document."""


MAX_STOPS = 4
"""vLLM and OpenAI refuse more."""

MAX_COUNT = 2**53
"""More tokens than this no server has counted; JSON's numbers are exact up to here."""

_THOUGHT_PARTS = ("thinking", "reasoning", "redacted_thinking")
"""Types of the parts of a message that are no answer."""

Limit = Literal["max_tokens", "max_completion_tokens"]


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """How to call a model. `quiet`: the fields that stop it from thinking; {} where it does not think.

    `exact`: it accepts any temperature; OpenAI's thinking models do not. `opened`: its template begins a thought in the
    prompt. `infill`: None where it cannot.
    """

    kind: str
    model: str
    limit: Limit = "max_tokens"
    exact: bool = True
    quiet: Mapping[str, Any] = {}
    opened: bool = False
    infill: Infilling | None = None


def base_body(traits: Traits, tokens: int, temperature: float = 0.0) -> Body:
    """What every request has. The temperature is always sent: a server's default is the model's own."""
    body: Body = {"model": traits.model, traits.limit: tokens, **traits.quiet}
    return body | {"temperature": temperature} if traits.exact else body


def asked(request: ChatRequest, traits: Traits) -> tuple[str, Body]:
    """The path and the body of a completion."""
    if request.infill is not None:
        return "completions", infill_body(request, request.infill, traits)
    return "chat/completions", chat_body(request, traits)


def infill_body(request: ChatRequest, infill: Infill, traits: Traits) -> Body:
    """A completion between two texts."""
    body: Body = {"model": traits.model, "max_tokens": request.max_output_tokens, "temperature": request.temperature}
    if traits.infill == "suffix" or traits.infill is None:
        # Without a suffix Ollama would take the prompt for a message.
        body |= {"prompt": infill.prefix, "suffix": infill.suffix or "\n"}
    else:
        body |= {"prompt": traits.infill.prompt(infill), "stop_token_ids": traits.infill.end_ids}
    return body | {"stop": request.stop} if request.stop else body


def chat_body(request: ChatRequest, traits: Traits) -> Body:
    """A chat completion."""
    body = base_body(traits, request.max_output_tokens, request.temperature)
    body["messages"] = messages(request.messages)
    stop = request.stop
    if request.schema is not None:
        body["response_format"] = response_format(request.schema, traits.kind)
        stop = (*stop, *RUNAWAYS[: max(0, MAX_STOPS - len(stop))]) if traits.kind == "vllm" else stop
    if stop:
        body["stop"] = stop
    if request.seed is not None:
        body["seed"] = request.seed
    return body | tool_fields(request.tools, traits.kind)


def asked_to_stream(request: ChatRequest, traits: Traits) -> tuple[str, Body]:
    """The same of a streamed one. vLLM counts along, so that the cost of a cancelled stream is known."""
    counting = {"continuous_usage_stats": True} if traits.kind == "vllm" else {}
    path, body = asked(request, traits)
    return path, body | {"stream_options": {"include_usage": True, **counting}}


def messages(conversation: Conversation) -> list[Body]:
    """The turns in OpenAI's format."""
    return [{"role": message.role, "content": _content(message), **_calling(message)} for message in conversation]


def tool_fields(tools: Tools | None, kind: str) -> Body:
    """The functions that may be called. Ollama ignores tool_choice: where none may be called, it must not see any."""
    if tools is None or (kind == "ollama" and tools.choice == "none"):
        return {}
    named = {"type": "function", "function": {"name": tools.only}}
    offered = [{"type": "function", "function": function} for function in tools.functions]
    parallel = {} if tools.parallel is None else {"parallel_tool_calls": tools.parallel}
    return {"tools": offered, "tool_choice": named if tools.only else tools.choice, **parallel}


def _calling(message: Message) -> Body:
    if message.call_id:
        return {"tool_call_id": message.call_id}
    if not message.calls:
        return {}
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.calls
    ]
    return {"tool_calls": calls}


def _content(message: Message) -> str | list[Body] | None:
    if not message.images:
        return message.content or (None if message.calls else "")
    pictures: list[Body] = [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in message.images]
    return [*pictures, {"type": "text", "text": message.content}]


def _data_url(image: Image) -> str:
    return f"data:{image.media_type};base64,{base64.b64encode(image.data).decode()}"


def response_format(schema: Mapping[str, Any], kind: str = "vllm") -> Body:
    """Structured output. OpenAI keeps to a schema only if it is `strict`, which allows only closed objects."""
    supported = _without_unique_items(schema)
    strict = {"strict": True} if kind == "openai" and _closed(supported) else {}
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": supported, **strict}}


def _without_unique_items(schema: Any) -> Any:
    """vLLM rejects `uniqueItems`, which no grammar can express; the caller checks the reply anyway."""
    if isinstance(schema, Mapping):
        return {
            key: _without_unique_items(value)
            for key, value in schema.items()
            if not (key == "uniqueItems" and isinstance(value, bool))
        }
    if isinstance(schema, Sequence) and not isinstance(schema, str):
        return [_without_unique_items(value) for value in schema]
    return schema


def _closed(schema: Any) -> bool:
    if isinstance(schema, Sequence) and not isinstance(schema, str):
        return all(map(_closed, schema))
    if not isinstance(schema, Mapping):
        return True
    properties = schema.get("properties")
    if schema.get("type") == "object":
        named = set(properties or ())
        if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != named:
            return False
    return all(map(_closed, schema.values()))


def counted(usage: object) -> TokenCount | None:
    """The tokens of a call, with thinking taken out of the completion; None where the server reports none, or what
    cannot be: then they are estimated, and no budget is spent without being seen.

    As leniently as servers write: one of two counts may be missing, and so may the details.
    """
    if not isinstance(usage, Mapping):
        return None
    counts = [usage[name] for name in ("prompt_tokens", "completion_tokens") if usage.get(name) is not None]
    if not counts or not all(map(_is_count, counts)):
        return None
    prompt, completion = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    thinking = count_in(completion, "reasoning_tokens")
    return TokenCount(
        input=count_in(usage, "prompt_tokens"),
        cached=count_in(prompt, "cached_tokens"),
        output=max(0, count_in(usage, "completion_tokens") - thinking),
        thinking=thinking,
    )


def count_in(counts: object, name: str) -> int:
    """The count of that name; 0 where there is none, or what cannot be one."""
    value = counts.get(name) if isinstance(counts, Mapping) else None
    return int(value) if _is_count(value) else 0


def _is_count(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and 0 <= value < MAX_COUNT


class FunctionReply(msgspec.Struct, frozen=True):
    """A function's name and arguments, or pieces of them."""

    name: str | None = None
    arguments: str | None = None


class CallReply(msgspec.Struct, frozen=True):
    """A call, or a piece of one; whole replies have no index."""

    index: int | None = None
    id: str | None = None
    function: FunctionReply = FunctionReply()

    def call(self, place: int) -> ToolCall:
        """The call; `place` is its index where it has none."""
        name, arguments = self.function.name or "", self.function.arguments or ""
        # Some servers omit the id, which clients need.
        new_id = f"call_{uuid4().hex}" if name else ""
        return ToolCall(
            id=self.id or new_id, name=name, arguments=arguments, index=place if self.index is None else self.index
        )


class MessageReply(msgspec.Struct, frozen=True):
    """A message, or a piece of one. Servers name the field of thoughts differently; Mistral puts them, and the text,
    into a list of parts.
    """

    content: str | list[Any] | None = None
    reasoning: Any = None
    reasoning_content: Any = None
    refusal: Any = None
    tool_calls: tuple[CallReply, ...] | None = None

    @property
    def text(self) -> str:
        """What was said, thoughts that are marked as such left out."""
        if isinstance(self.content, list):
            texts = (part.get("text") for part in self._parts if part.get("type") not in _THOUGHT_PARTS)
            return "".join(text for text in texts if isinstance(text, str))
        return self.content or ""

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The functions to call."""
        return tuple(call.call(place) for place, call in enumerate(self.tool_calls or ()))

    @property
    def thought(self) -> bool:
        """Whether it holds thoughts."""
        parts = any(part.get("type") in _THOUGHT_PARTS for part in self._parts)
        return parts or bool(self.reasoning or self.reasoning_content)

    @property
    def _parts(self) -> list[dict[str, Any]]:
        return [part for part in self.content if isinstance(part, dict)] if isinstance(self.content, list) else []


class TokenLogprob(msgspec.Struct, frozen=True):
    """A token and its natural log-probability."""

    token: str
    logprob: float


class TokenPosition(msgspec.Struct, frozen=True):
    """The likeliest tokens at one position."""

    top_logprobs: tuple[TokenLogprob, ...] = ()


class Logprobs(msgspec.Struct, frozen=True):
    """The likeliest tokens at each position."""

    content: tuple[TokenPosition, ...] | None = None


class Choice(msgspec.Struct, frozen=True):
    """An answer, whole (`message`) or a piece (`delta`); of /v1/completions either is a `text`. vLLM puts the stop
    sequence that it met in `stop_reason`; OpenRouter puts the error of a provider behind it in `error`.
    """

    index: int = 0
    message: MessageReply = MessageReply()
    delta: MessageReply = MessageReply()
    text: str | None = None
    finish_reason: Any = None
    stop_reason: Any = None
    logprobs: Logprobs | None = None
    error: Any = None

    @property
    def ended(self) -> str | None:
        """Why it ended, in lower case; None: it goes on, or the server does not say."""
        return None if self.finish_reason is None else str(self.finish_reason).lower()


class Completion(msgspec.Struct, frozen=True):
    """A reply, or a chunk of a streamed one. `error`: some gateways send it with a status of 200."""

    choices: tuple[Choice, ...] = ()
    usage: Any = None
    model: Any = None
    error: Any = None

    @property
    def tokens(self) -> TokenCount | None:
        """What the call has used; None where it does not say."""
        return counted(self.usage)

    @property
    def failure(self) -> Any:
        """The error that it reports, its own or that of its choice; None: it is a reply."""
        return self.error or next((choice.error for choice in self.choices if choice.error), None)


class ModelDetails(msgspec.Struct, frozen=True):
    """What llama.cpp says of a model: the context of one of its slots."""

    n_ctx: int | None = None


class Model(msgspec.Struct, frozen=True):
    """A model that is served. vLLM reports its context length, and where it is from, whatever it is called; llama.cpp
    and OpenRouter report the context elsewhere.
    """

    id: str
    root: str | None = None
    max_model_len: int | None = None
    context_length: int | None = None
    meta: ModelDetails | None = None

    @property
    def context_tokens(self) -> int | None:
        """Of prompt and reply together; None: the server does not say."""
        return self.max_model_len or self.context_length or (self.meta.n_ctx if self.meta else None)


class LoadedModel(msgspec.Struct, frozen=True):
    """A model in Ollama's memory, with the context it was loaded for."""

    name: str
    context_length: int | None = None


_OPEN = "<think>"


_CLOSE = "</think>"

_BARE_CLOSE = re.compile(r"(?:\A|\n)[ \t]{0,4}</think>")
"""The end of thoughts whose beginning stood in the prompt, as the templates of DeepSeek R1 and Qwen have it: on a line
of its own, unlike a tag that a model writes about."""


class ThoughtFilter:
    """Removes the thoughts at the start of a text that comes in pieces. Later tags are the model's own words.

    `opened`: the prompt has begun the thought, so everything waits for its end. `met_close`: an end has come whose
    beginning stood in the prompt, expected or not.
    """

    def __init__(self, *, opened: bool = False) -> None:
        self._held, self._recent = "", ""
        self._searched = 0
        self.met_close = False
        self._reading = self._until_close if opened else self._at_start

    def separated(self) -> None:
        """The server tells thoughts from text itself: nothing needs to wait for their end."""
        if self._reading == self._until_close:
            self._reading = self._at_start

    def feed(self, piece: str) -> str:
        """The text that is certainly no thought."""
        self._held += piece
        return self._reading()

    def end(self, *, cut: bool = False) -> str:
        """The text that was held back, after the last piece. A model that should have thought may have answered at
        once, unless it was `cut`.
        """
        answered = self._reading == self._until_close and not cut
        rest = self._held if answered or self._reading == self._at_start else ""
        self._held = ""
        return rest

    def _at_start(self) -> str:
        begun = self._held.lstrip()
        if begun.startswith(_OPEN):
            self._reading = self._in_thought
            return self._in_thought()
        if _OPEN.startswith(begun):
            return ""
        return self._pass()

    def _until_close(self) -> str:
        if self._held.lstrip().startswith(_OPEN):
            return self._at_start()
        found = self._held.find(_CLOSE, self._searched)
        if found < 0:
            self._searched = max(0, len(self._held) - len(_CLOSE))
            return ""
        self._held, self.met_close = self._held[found + len(_CLOSE) :], True
        self._reading = self._after_thought
        return self._after_thought()

    def _in_thought(self) -> str:
        _, closed, rest = self._held.partition(_CLOSE)
        if not closed:
            self._held = self._held[-len(_CLOSE) :]
            return ""
        self._held = rest
        self._reading = self._after_thought
        return self._after_thought()

    def _after_thought(self) -> str:
        self._held = self._held.lstrip()
        return self._pass() if self._held else ""

    def _pass(self) -> str:
        self._reading = self._pass
        text, self._held = self._held, ""
        recent = self._recent + text
        self.met_close = self.met_close or bool(_BARE_CLOSE.search(recent))
        self._recent = recent[-2 * len(_CLOSE) :]
        return text


def without_thoughts(text: str) -> str:
    """A whole text without its thoughts, also those whose beginning stood in the prompt."""
    close = _BARE_CLOSE.search(text)
    if close and _OPEN not in text[: close.start()]:
        return text[close.end() :].lstrip()
    thoughts = ThoughtFilter()
    return thoughts.feed(text) + thoughts.end()
