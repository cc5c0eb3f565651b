"""What can be asked of a language model, whoever serves it: the ports that ranking, answering and tasks stand on.

An adapter makes one attempt: it retries nothing and counts nothing, and turns whatever its SDK raises into
`app.errors.UpstreamError`s. `app.backends.client` puts limits, retries and accounting around it.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from app.domain import Image, TokenCount, ToolCall, Tools, Turn

Role = Literal["system", "user", "assistant", "tool"]

FinishReason = Literal["stop", "length"]
"""A reply that was cut for its safety is no reply: it raises Refused."""

Capability = Literal["chat", "structured", "images", "logprobs", "thinking"]
"""`logprobs`: first-token log-probabilities, hence a LabelScorer. `thinking`: it can think, and is told not to."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A turn. Pictures stand before the text, and only in a user's turn.

    `calls` are an assistant's. A "tool" tells what came of the call `call_id`.
    """

    role: Role
    content: str
    images: tuple[Image, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""


Conversation = tuple[Message, ...]
"""At most one system message, which comes first; the last one is the user's, or a tool's."""


S = TypeVar("S", Turn, Message)


def joined(side: Sequence[S]) -> S:
    """Several turns of one side as one, as many models insist: texts as paragraphs, pictures and calls in order."""
    return msgspec.structs.replace(
        side[0],
        content="\n\n".join(turn.content for turn in side if turn.content),
        images=tuple(image for turn in side for image in turn.images),
        calls=tuple(call for turn in side for call in turn.calls),
    )


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One completion. `schema` is a JSON Schema: the text will be JSON and should fit it (whoever asked must check).

    An adapter meets tools, and turns about them, only if `app.backends.tools` says that it knows them.
    """

    messages: Conversation
    max_output_tokens: int = 1024
    temperature: float = 0.0
    schema: Mapping[str, Any] | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    tools: Tools | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A whole completion. `text` may be empty when `finish_reason` is "length": thinking can use up all tokens.

    `calls` only where there were tools; "stop" is also why a reply ended with them.

    `model` is what the server says it used.
    """

    text: str
    finish_reason: FinishReason
    tokens: TokenCount
    model: str
    calls: tuple[ToolCall, ...] = ()


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a completion. `tokens` are those of the whole call up to here, whenever the server tells them.

    The last one carries `finish_reason`, and `tokens` if the server told any; a stream that ends without a finish
    reason was cut off, and raises instead.
    """

    text: str = ""
    finish_reason: FinishReason | None = None
    tokens: TokenCount | None = None
    calls: tuple[ToolCall, ...] = ()


class LabelScores(msgspec.Struct, frozen=True, kw_only=True):
    """What the first token after each conversation would be: natural log-probabilities, in the order of the labels.

    They are raw, not normalised over the labels. None: the server did not tell that label's (it is below `floor`, the
    lowest log-probability that it told for this conversation).
    """

    logprobs: tuple[float | None, ...]
    floor: float


class Scoring(msgspec.Struct, frozen=True, kw_only=True):
    """Scores in the order of the conversations; None where that one failed. `requests` calls were made."""

    scores: tuple[LabelScores | None, ...]
    tokens: TokenCount
    requests: int = 1


class ChatModel(Protocol):
    """Completes conversations. Raises UpstreamError, Refused; asyncio.CancelledError cancels the call upstream."""

    async def complete(self, request: ChatRequest, timeout_s: float) -> Reply:
        """`timeout_s` is for all of it."""
        ...

    def stream(self, request: ChatRequest, timeout_s: float) -> AsyncGenerator[Delta, None]:
        """`timeout_s` is for all of it. Closing the generator ends the call upstream and returns its connection."""
        ...


class LabelScorer(Protocol):
    """Reads first-token log-probabilities. Raises like ChatModel when every conversation failed."""

    async def score(self, prompts: Sequence[Conversation], labels: Sequence[str], timeout_s: float) -> Scoring:
        """Labels are single tokens of the model, such as "0", "1", "2", "3"."""
        ...


class Probed(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter found out about its server. `model` is the configured one, or the server's only or first one.

    `context_tokens` None: the server does not say. `server` is its own name and version, "" if untold. Finding out took
    `requests` calls of the model, and `tokens`.
    """

    model: str
    capabilities: frozenset[Capability]
    context_tokens: int | None = None
    server: str = ""
    requests: int = 0
    tokens: TokenCount = TokenCount()


class Adapter(ChatModel, Protocol):
    """One backend's SDK behind the ports, and its connections."""

    @property
    def scorer(self) -> LabelScorer | None:
        """None when the server gives no log-probabilities, or before the first probe."""
        ...

    async def probe(self, timeout_s: float) -> Probed:
        """Ask the server what it is and can do; the adapter remembers it. Raises UpstreamError.

        Costs no more than a few tokens. The model that is not configured is the one found here.
        """
        ...

    async def ping(self, timeout_s: float) -> None:
        """Whether the server is there and takes our key, without a token spent. Raises UpstreamError."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...
