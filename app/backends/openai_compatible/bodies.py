"""What is sent to an OpenAI-style server: pure."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from app.backends.base import ChatRequest, Conversation, Message
from app.config.backends import Kind
from app.domain import Image, Tools

Body = dict[str, Any]

RUNAWAYS = ("\n\n\n", "\t" * 16, " " * 64)
"""vLLM's JSON can run away in white space until its tokens are spent; none of these stands in a sane document."""


Limit = Literal["max_tokens", "max_completion_tokens"]


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """How a model wants to be asked. `quiet`: the fields that stop it from thinking; {} where it does not think.

    `exact`: it takes any temperature; OpenAI's thinking models do not.
    """

    kind: Kind
    model: str
    limit: Limit = "max_tokens"
    exact: bool = True
    quiet: Mapping[str, Any] = {}


def asking(traits: Traits, tokens: int, temperature: float = 0.0) -> Body:
    """What every request says. The temperature is always told: a server's default is the model's own."""
    body: Body = {"model": traits.model, traits.limit: tokens, **traits.quiet}
    return body | {"temperature": temperature} if traits.exact else body


def chat_body(request: ChatRequest, traits: Traits) -> Body:
    """A chat completion."""
    body = asking(traits, request.max_output_tokens, request.temperature)
    body["messages"] = messages(request.messages)
    stop = request.stop
    if request.schema is not None:
        body["response_format"] = response_format(request.schema, traits.kind)
        stop = (*stop, *RUNAWAYS) if traits.kind == "vllm" else stop
    if stop:
        body["stop"] = stop
    if request.seed is not None:
        body["seed"] = request.seed
    return body | tool_fields(request.tools, traits.kind)


def stream_body(request: ChatRequest, traits: Traits) -> Body:
    """A chat completion in pieces. vLLM counts along, so that a stream given up is known by what it cost."""
    counting = {"continuous_usage_stats": True} if traits.kind == "vllm" else {}
    return chat_body(request, traits) | {"stream_options": {"include_usage": True, **counting}}


def messages(conversation: Conversation) -> list[Body]:
    """The turns in OpenAI's shape."""
    return [{"role": message.role, "content": _content(message), **_calling(message)} for message in conversation]


def tool_fields(tools: Tools | None, kind: Kind) -> Body:
    """What may be called. Ollama reads no tool_choice: where none may be called, it had better not know of any."""
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


def response_format(schema: Mapping[str, Any], kind: Kind = "vllm") -> Body:
    """Structured output. OpenAI holds to a schema only if told `strict`, and takes only closed objects then."""
    known = _without_unique_items(schema)
    strict = {"strict": True} if kind == "openai" and _closed(known) else {}
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": known, **strict}}


def _without_unique_items(schema: Any) -> Any:
    """vLLM refuses `uniqueItems`, which no grammar can hold; whoever asked checks the reply anyway."""
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
