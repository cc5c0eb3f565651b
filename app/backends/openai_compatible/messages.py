"""What goes over the wire: request bodies and the replies that are read. Pure."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Literal
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

Limit = Literal["max_tokens", "max_completion_tokens"]


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """How to call a model. `quiet`: the fields that stop it from thinking; {} where it does not think.

    `exact`: it accepts any temperature; OpenAI's thinking models do not. `infill`: None where it cannot.
    """

    kind: str
    model: str
    limit: Limit = "max_tokens"
    exact: bool = True
    quiet: Mapping[str, Any] = {}
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


class TokenDetails(msgspec.Struct, frozen=True):
    """Of the prompt's tokens, those that came from the cache; of the completion's, those of thinking."""

    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class UsageReply(msgspec.Struct, frozen=True):
    """The tokens of a call."""

    prompt_tokens: int = 0
    completion_tokens: int | None = None
    prompt_tokens_details: TokenDetails | None = None
    completion_tokens_details: TokenDetails | None = None

    def count(self) -> TokenCount:
        """The tokens, with thinking taken out of the completion."""
        prompt, completion = self.prompt_tokens_details, self.completion_tokens_details
        thinking = (completion and completion.reasoning_tokens) or 0
        return TokenCount(
            input=self.prompt_tokens,
            cached=(prompt and prompt.cached_tokens) or 0,
            output=max(0, (self.completion_tokens or 0) - thinking),
            thinking=thinking,
        )


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
    """A message, or a piece of one. Servers name the field of thoughts differently."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: tuple[CallReply, ...] | None = None

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The functions to call."""
        return tuple(call.call(place) for place, call in enumerate(self.tool_calls or ()))

    @property
    def thought(self) -> bool:
        """Whether it holds thoughts."""
        return bool(self.reasoning or self.reasoning_content)


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
    sequence that it met in `stop_reason`.
    """

    index: int = 0
    message: MessageReply = MessageReply()
    delta: MessageReply = MessageReply()
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: Any = None
    logprobs: Logprobs | None = None


class Completion(msgspec.Struct, frozen=True):
    """A reply, or a chunk of a streamed one. `error`: some gateways send it with a status of 200."""

    choices: tuple[Choice, ...] = ()
    usage: UsageReply | None = None
    model: str | None = None
    error: Any = None


class Model(msgspec.Struct, frozen=True):
    """A model that is served; vLLM reports its context length, and where it is from, whatever it is called."""

    id: str
    root: str | None = None
    max_model_len: int | None = None


class LoadedModel(msgspec.Struct, frozen=True):
    """A model in Ollama's memory, with the context it was loaded for."""

    name: str
    context_length: int | None = None


_OPEN = "<think>"


_CLOSE = "</think>"


class ThoughtFilter:
    """Removes the thoughts at the start of a text that comes in pieces. Later tags are the model's own words."""

    def __init__(self) -> None:
        self._held = ""
        self._reading = self._at_start

    def feed(self, piece: str) -> str:
        """The text that is certainly no thought."""
        self._held += piece
        return self._reading()

    def end(self) -> str:
        """The text that was held back, after the last piece."""
        rest = self._held if self._reading == self._at_start else ""
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
        return text


def without_thoughts(text: str) -> str:
    """A whole text without its thoughts."""
    thoughts = ThoughtFilter()
    return thoughts.feed(text) + thoughts.end()
