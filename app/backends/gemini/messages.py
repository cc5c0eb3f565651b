"""Requests as Google's SDK wants them, replies as the service wants them, and how models differ. Pure."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal, cast

import msgspec
from google.genai import types
from google.genai.types import Candidate, FinishReason, GenerateContentResponse

from app.backends import base as ports
from app.backends.base import ChatRequest, Message
from app.domain import Image, TokenCount
from app.errors import InvalidRequest, Refused, UpstreamBadReply


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """How to keep a model from thinking, as far as possible: by a level, or by a budget in tokens.

    Neither: it does not think. `takes_temperature` False: it ignores the temperature.
    """

    thinking_level: Literal["MINIMAL", "LOW"] | None = None
    thinking_budget: int | None = None
    takes_temperature: bool = True

    @property
    def thinks(self) -> bool:
        """Whether it can think at all."""
        return self.thinking_level is not None or self.thinking_budget is not None


# The first matching pattern counts. The pro models cannot stop thinking; these are the lowest values they accept.
_TRAITS = (
    ("gemini-1*", Traits()),
    ("gemini-2.0-*", Traits()),
    ("gemini-2.5-pro*", Traits(thinking_budget=128)),
    ("gemini-2.5-*", Traits(thinking_budget=0)),
    ("gemini-3*-pro*", Traits(thinking_level="LOW")),
    ("gemini-3.5-flash-lite*", Traits(thinking_level="MINIMAL", takes_temperature=False)),
    ("gemma-3*", Traits()),
)
_NEWEST = Traits(thinking_level="MINIMAL")


def traits_of(model: str) -> Traits:
    """The traits of a model id, with or without a path before it; unknown models count as the newest generation."""
    name = model.rpartition("/")[2]
    return next((traits for pattern, traits in _TRAITS if fnmatchcase(name, pattern)), _NEWEST)


_MEDIA_TYPES = ("image/png", "image/jpeg", "image/webp")


def contents_of(messages: Sequence[Message]) -> types.Content | list[types.ContentUnion]:
    """All turns but the system's. Raises InvalidRequest for a picture that Gemini cannot read."""
    turns: list[types.ContentUnion] = [
        types.Content(role="model" if message.role == "assistant" else "user", parts=_parts(message))
        for message in messages
        if message.role != "system"
    ]
    # The SDK tries a list as a dozen other types first: a fifth of all its work for a short request.
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
        # By default the SDK may call functions and continue by itself: several requests for one call of ours.
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
    # Gemini rejects a part without text; a turn without any part it rejects too, and rightly.
    return [*parts, types.Part.from_text(text=message.content)] if message.content else parts


def _picture(image: Image) -> types.Part:
    if image.media_type not in _MEDIA_TYPES:
        raise InvalidRequest(f"a picture must be one of {', '.join(_MEDIA_TYPES)}, not {image.media_type!r}")
    if not image.data:
        raise InvalidRequest("a picture is empty")
    return types.Part.from_bytes(data=image.data, mime_type=image.media_type)


_ENDINGS: dict[FinishReason, ports.FinishReason] = {
    FinishReason.STOP: "stop",
    FinishReason.MAX_TOKENS: "length",
    FinishReason.CONTINUATION: "length",
}
_REFUSALS = frozenset(
    {
        FinishReason.SAFETY,
        FinishReason.RECITATION,
        FinishReason.LANGUAGE,
        FinishReason.BLOCKLIST,
        FinishReason.PROHIBITED_CONTENT,
        FinishReason.SPII,
        FinishReason.ESCALATION,
        FinishReason.PUP_LIMITED_DISABLED,
        FinishReason.MODEL_ARMOR,
        FinishReason.IMAGE_SAFETY,
        FinishReason.IMAGE_PROHIBITED_CONTENT,
        FinishReason.IMAGE_RECITATION,
    }
)
_KNOWN_REASONS = frozenset(FinishReason)
"""As of this SDK: a word that Google adds later becomes a member at run time."""


class Reading:
    """One reply while it is read: the only chunk of a whole one, or those of a stream.

    `tokens` are those of the call so far; None: none were reported yet.
    """

    def __init__(self, service: str, model: str) -> None:
        self.service = service
        self.model = model
        self.tokens: TokenCount | None = None
        self._finish: FinishReason | None = None
        self._has_text = False

    def take(self, chunk: GenerateContentResponse) -> str:
        """The text that this chunk adds. Raises Refused, UpstreamBadReply."""
        self.tokens = _tokens(chunk) or self.tokens
        self.model = chunk.model_version or self.model
        candidate = chunk.candidates[0] if chunk.candidates else None
        if candidate is None:
            self._check_prompt(chunk)
            return ""
        self._finish = candidate.finish_reason or self._finish
        self._check_answer()
        text = _text(candidate)
        self._has_text = self._has_text or bool(text)
        return text

    def end(self, *, may_be_empty: bool) -> ports.FinishReason:
        """Why the reply ended, after its last chunk. `may_be_empty`: a stop sequence can come first.

        Raises UpstreamBadReply when it is not whole.
        """
        if self._finish is None:
            raise self._bad("its reply broke off")
        ending = _ENDINGS[self._finish]
        if ending == "stop" and not self._has_text and not may_be_empty:
            raise self._bad("its reply is empty")
        return ending

    def _check_prompt(self, chunk: GenerateContentResponse) -> None:
        if chunk.prompt_feedback and chunk.prompt_feedback.block_reason:
            raise Refused(self.service, f"{self.service} declines the prompt for safety", tokens=self.tokens)

    def _check_answer(self) -> None:
        reason = self._finish
        if reason is None or reason in _ENDINGS:
            return
        if reason in _REFUSALS:
            why = f"{self.service} declined to answer ({reason.value})"
            raise Refused(self.service, why, tokens=self.tokens)
        raise self._bad(
            "its reply ended for " + (reason.value if reason in _KNOWN_REASONS else "a reason unknown to us")
        )

    def _bad(self, what: str) -> UpstreamBadReply:
        return UpstreamBadReply(self.service, f"{self.service}: {what}", tokens=self.tokens)


def _tokens(chunk: GenerateContentResponse) -> TokenCount | None:
    usage = chunk.usage_metadata
    if usage is None:
        return None
    tokens = TokenCount(
        input=usage.prompt_token_count or 0,
        cached=usage.cached_content_token_count or 0,
        output=usage.candidates_token_count or 0,
        thinking=usage.thoughts_token_count or 0,
    )
    return None if min(tokens.input, tokens.cached or 0, tokens.output, tokens.thinking) < 0 else tokens


def _text(candidate: Candidate) -> str:
    parts = candidate.content.parts if candidate.content and candidate.content.parts else []
    return "".join(part.text for part in parts if part.text and not part.thought)
