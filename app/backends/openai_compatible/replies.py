"""What comes back from an OpenAI-style server, as far as we read it: unknown fields ignored, wrong types refused."""

from typing import Any
from uuid import uuid4

import msgspec

from app.domain import TokenCount, ToolCall


class PromptDetails(msgspec.Struct, frozen=True):
    """A part of the prompt's tokens came from the cache."""

    cached_tokens: int | None = None


class CompletionDetails(msgspec.Struct, frozen=True):
    """A part of the completion's tokens was thought."""

    reasoning_tokens: int | None = None


class UsageReply(msgspec.Struct, frozen=True):
    """Tokens of a call."""

    prompt_tokens: int = 0
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None

    def count(self) -> TokenCount:
        """With the thinking taken out of the completion."""
        prompt, completion = self.prompt_tokens_details, self.completion_tokens_details
        thinking = (completion and completion.reasoning_tokens) or 0
        return TokenCount(
            input=self.prompt_tokens,
            cached=(prompt and prompt.cached_tokens) or 0,
            output=max(0, (self.completion_tokens or 0) - thinking),
            thinking=thinking,
        )


class Called(msgspec.Struct, frozen=True):
    """A function's name and arguments, or pieces of them."""

    name: str | None = None
    arguments: str | None = None


class CallReply(msgspec.Struct, frozen=True):
    """A call, or a piece of one; whole replies tell no index."""

    index: int | None = None
    id: str | None = None
    function: Called = Called()

    def call(self, place: int) -> ToolCall:
        """In our words; `place` is its index where it tells none. Some servers forget the id, which clients need."""
        name, arguments = self.function.name or "", self.function.arguments or ""
        made_up = f"call_{uuid4().hex}" if name else ""
        return ToolCall(
            id=self.id or made_up, name=name, arguments=arguments, index=place if self.index is None else self.index
        )


class Said(msgspec.Struct, frozen=True):
    """A message, or a piece of one. Servers disagree on what thoughts are called."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: tuple[CallReply, ...] | None = None

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The functions that are to be called."""
        return tuple(call.call(place) for place, call in enumerate(self.tool_calls or ()))

    @property
    def thought(self) -> bool:
        """Whether it holds thoughts."""
        return bool(self.reasoning or self.reasoning_content)


class TokenChance(msgspec.Struct, frozen=True):
    """A token that may come and its natural log-probability."""

    token: str
    logprob: float


class TokenChances(msgspec.Struct, frozen=True):
    """What may have come at one place."""

    top_logprobs: tuple[TokenChance, ...] = ()


class Logprobs(msgspec.Struct, frozen=True):
    """One for each token that was made."""

    content: tuple[TokenChances, ...] | None = None


class Choice(msgspec.Struct, frozen=True):
    """An answer, whole (`message`) or a piece (`delta`). vLLM tells the stop word that it met in `stop_reason`."""

    index: int = 0
    message: Said = Said()
    delta: Said = Said()
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
    """One that is served; vLLM tells its context length."""

    id: str
    max_model_len: int | None = None


class Models(msgspec.Struct, frozen=True):
    """Those that are served."""

    data: tuple[Model, ...] | None = None


class Tokens(msgspec.Struct, frozen=True):
    """vLLM's tokenization."""

    tokens: tuple[int, ...]


class Version(msgspec.Struct, frozen=True):
    """Of vLLM or Ollama."""

    version: str


class Shown(msgspec.Struct, frozen=True):
    """What Ollama says of a model."""

    capabilities: tuple[str, ...] = ()


class LoadedModel(msgspec.Struct, frozen=True):
    """A model in Ollama's memory, with the context it was loaded for."""

    name: str
    context_length: int | None = None


class Loaded(msgspec.Struct, frozen=True):
    """Those in memory."""

    models: tuple[LoadedModel, ...] = ()
