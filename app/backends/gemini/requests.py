"""What we ask, as Google's SDK wants it."""

from collections.abc import Sequence
from typing import cast

from google.genai import types

from app.backends.base import ChatRequest, Message
from app.backends.gemini.models import Traits
from app.domain import Image
from app.errors import InvalidRequest

_MEDIA_TYPES = ("image/png", "image/jpeg", "image/webp")


def contents_of(messages: Sequence[Message]) -> types.Content | list[types.ContentUnion]:
    """The turns without the system's. Raises InvalidRequest for a picture that Gemini cannot read."""
    turns: list[types.ContentUnion] = [
        types.Content(role="model" if message.role == "assistant" else "user", parts=_parts(message))
        for message in messages
        if message.role != "system"
    ]
    # The SDK tries a list as a dozen things first: a fifth of all its work for a short request.
    return cast(types.Content, turns[0]) if len(turns) == 1 else turns


def config_of(request: ChatRequest, traits: Traits, service_tier: str | None) -> types.GenerateContentConfig:
    """Everything but the turns: one call, one reply, no tools, as little thinking as the model allows."""
    return types.GenerateContentConfig(
        system_instruction=next((turn.content for turn in request.messages if turn.role == "system"), None),
        temperature=request.temperature if traits.takes_temperature else None,
        max_output_tokens=request.max_output_tokens,
        stop_sequences=list(request.stop) or None,
        seed=request.seed,
        response_mime_type=None if request.schema is None else "application/json",
        response_json_schema=None if request.schema is None else dict(request.schema),
        thinking_config=_thinking(traits),
        service_tier=None if service_tier is None else types.ServiceTier(service_tier),
        # By default the SDK may call functions and go on by itself, with several requests for one call of ours.
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        automatic_continuation=False,
    )


def _thinking(traits: Traits) -> types.ThinkingConfig | None:
    if not traits.thinks:
        return None
    level = traits.thinking_level
    return types.ThinkingConfig(
        thinking_level=None if level is None else types.ThinkingLevel(level), thinking_budget=traits.thinking_budget
    )


def _parts(message: Message) -> list[types.Part]:
    parts = [_picture(image) for image in message.images]
    # Gemini refuses a part without text; without any part it refuses the turn, and rightly.
    return [*parts, types.Part.from_text(text=message.content)] if message.content else parts


def _picture(image: Image) -> types.Part:
    if image.media_type not in _MEDIA_TYPES:
        raise InvalidRequest(f"a picture must be one of {', '.join(_MEDIA_TYPES)}, not {image.media_type!r}")
    if not image.data:
        raise InvalidRequest("a picture is empty")
    return types.Part.from_bytes(data=image.data, mime_type=image.media_type)
