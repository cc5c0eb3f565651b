"""The body of a chat completion, read leniently, and what it becomes."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from app.api.bodies import field_problem
from app.api.compat.inputs import MAX_QUERY_CHARACTERS
from app.backends.base import joined
from app.domain import ChatTask, Function, PictureSource, Query, Question, ToolCall, Tools, Turn
from app.errors import pointing_at

T = TypeVar("T", bound=msgspec.Struct)


class ToolBody(msgspec.Struct, frozen=True, kw_only=True):
    """A function that a model may call."""

    function: Function
    type: Literal["function"] = "function"


class CalledFunction(msgspec.Struct, frozen=True, kw_only=True):
    """`arguments` is JSON in a string."""

    name: str
    arguments: str = ""


class CallBody(msgspec.Struct, frozen=True, kw_only=True):
    """A call, as replies tell it and clients repeat it."""

    id: str
    function: CalledFunction
    type: Literal["function"] = "function"


def tools_of(tools: Any, choice: Any, *, parallel: bool | None) -> Tools | None:
    """The tools of a request; None if it has none. Raises InvalidRequest."""
    functions = tuple(tool.function for tool in _read(tools, ToolBody, "/tools"))
    match choice:
        case None | "auto" | "none":
            offered = Tools(functions=functions, choice=choice or "auto", parallel=parallel)
        case "required" if functions:
            offered = Tools(functions=functions, choice="required", parallel=parallel)
        case {"type": "function", "function": {"name": str(name)}} if name in {one.name for one in functions}:
            offered = Tools(functions=functions, choice="required", only=name, parallel=parallel)
        case _:
            raise pointing_at("/tool_choice", "give auto, none, required, or the name of one of the tools")
    return offered if functions else None


def calls_of(given: Any, pointer: str) -> tuple[ToolCall, ...]:
    """An assistant's calls in the conversation so far. Raises InvalidRequest below `pointer`."""
    return tuple(
        ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
        for call in _read(given, CallBody, f"{pointer}/tool_calls")
    )


def whole_calls(calls: Sequence[ToolCall]) -> list[CallBody]:
    """The calls of a whole reply."""
    return [CallBody(id=call.id, function=CalledFunction(name=call.name, arguments=call.arguments)) for call in calls]


def call_pieces(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    """The calls of a chunk: only the first piece of a call has its id and name."""
    return [_piece(call) for call in calls]


def _piece(call: ToolCall) -> dict[str, Any]:
    function = {"arguments": call.arguments}
    if not call.name:
        return {"index": call.index, "function": function}
    return {"index": call.index, "id": call.id, "type": "function", "function": {"name": call.name, **function}}


def _read(given: Any, kind: type[T], pointer: str) -> list[T]:
    try:
        return msgspec.convert(given or [], list[kind], strict=False)  # type: ignore[valid-type]
    except msgspec.ValidationError as exc:
        problem = field_problem(str(exc), kind)
        raise pointing_at(f"{pointer}{problem.pointer}", problem.detail) from exc


MAX_EARLIER_TURNS = 50
MAX_TURN_CHARACTERS = 100_000
MAX_INSTRUCTIONS = 4000
MAX_ANSWER_TOKENS = 8192
MAX_CHAT_TOKENS = 65_536

OPENAI_TEMPERATURE = 1.0
"""OpenAI's default, for chats with a model."""

_SYSTEM = ("system", "developer")


class ImageURL(msgspec.Struct, frozen=True):
    """An http(s) URL, or a `data:` URL of a picture or a PDF."""

    url: str


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a message. Parts that are neither text nor picture are ignored."""

    type: str = "text"
    text: str | None = None
    image_url: ImageURL | str | None = None


class MessageBody(msgspec.Struct, frozen=True, kw_only=True):
    """A message. The role "developer" counts as "system", an unknown role as "user"."""

    role: str
    content: str | list[Part] | None = None
    tool_calls: Any = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """Its text parts, one per line."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content or () if part.text)

    @property
    def speaker(self) -> Literal["system", "user", "assistant", "tool"]:
        """The role under which a model gets it."""
        if self.role == "tool" and self.tool_call_id:
            return "tool"
        return "system" if self.role in _SYSTEM else "assistant" if self.role == "assistant" else "user"

    def turn(self, pointer: str) -> Turn:
        """A message of any role but the system's. Raises InvalidRequest below `pointer`."""
        speaker, pictures = self.speaker, self._pictures(pointer)
        calls = calls_of(self.tool_calls, pointer) if speaker == "assistant" else ()
        call_id = (self.tool_call_id or "") if speaker == "tool" else ""
        return Turn(speaker, self.text, pictures, calls, call_id)  # type: ignore[arg-type]

    def _pictures(self, pointer: str) -> tuple[PictureSource, ...]:
        parts = enumerate(self.content if isinstance(self.content, list) else ())
        return tuple(
            PictureSource(f"{pointer}/content/{place}/image_url", given if isinstance(given, str) else given.url)
            for place, part in parts
            if (given := part.image_url) is not None
        )


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`include_usage`: a last chunk without choices has the usage."""

    include_usage: bool | None = None


class JSONSchema(msgspec.Struct, frozen=True, kw_only=True):
    """Its `name` and `strict` are ignored."""

    schema: dict[str, Any] | None = None


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    """ "text", "json_object" or "json_schema"."""

    type: str = "text"
    json_schema: JSONSchema | None = None


class ChatCompletionBody(msgspec.Struct, frozen=True, kw_only=True):
    """POST /v1/chat/completions. What is not named here is ignored; tools are for a backend's own model."""

    model: str
    messages: Annotated[list[MessageBody], Meta(min_length=1, max_length=1000)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    n: int | None = None
    response_format: ResponseFormat | None = None
    tools: Any = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    metadata: Any = None

    def check(self) -> None:
        """Raises InvalidRequest for what cannot be done and must not be ignored."""
        if self.n not in (None, 1):
            raise pointing_at("/n", "only one choice is supported; send several requests for more")

    def offered(self) -> Tools | None:
        """The tools that a model may call. Raises InvalidRequest."""
        return tools_of(self.tools, self.tool_choice, parallel=self.parallel_tool_calls)

    def check_unaided(self) -> None:
        """Answers from a collection call no tools. Raises InvalidRequest where one must be called."""
        if self.tool_choice not in (None, "auto", "none"):
            raise pointing_at(
                "/tool_choice", "answers from a collection call no tools; leave it out, or use a backend's own model"
            )

    def schema(self) -> Mapping[str, Any] | None:
        """The JSON Schema that the reply must fit. Raises InvalidRequest."""
        match self.response_format:
            case None | ResponseFormat(type="text"):
                return None
            case ResponseFormat(type="json_object"):
                return {"type": "object"}
            case ResponseFormat(type="json_schema", json_schema=JSONSchema(schema=dict() as schema)):
                return schema
        raise pointing_at("/response_format", 'give "text", "json_object", or "json_schema" with a json_schema.schema')

    def tokens(self, default: int, most: int) -> int:
        """The limit of the reply: the requested one, at most `most`. -1 is Ollama's word for the default."""
        requested = self.max_completion_tokens or self.max_tokens or 0
        return min(requested, most) if requested > 0 else default

    def to_question(self, collection: str, backend: str | None) -> Question:
        """The last user message as the question, after the turns before it. Raises InvalidRequest."""
        if self.schema() is not None:
            raise pointing_at("/response_format", "answers from a collection are text; use a backend's own model")
        question, earlier = question_of(self.messages)
        return Question(
            search=Query(text=question, collection=collection, backend=backend),
            messages=earlier,
            instructions=system_of(self.messages)[:MAX_INSTRUCTIONS],
            max_output_tokens=self.tokens(Question(search=Query(text="")).max_output_tokens, MAX_ANSWER_TOKENS),
            temperature=self.temperature or 0.0,
        )

    def to_task(self, backend: str | None, tokens: int, tools: Tools | None = None) -> ChatTask:
        """The conversation as it is, for a model. Raises InvalidRequest."""
        turns = _turns(self.messages)
        if not turns or turns[-1].role == "assistant":
            raise pointing_at(f"/messages/{len(self.messages) - 1}", "the last message must be the user's, or a tool's")
        return ChatTask(
            messages=turns,
            system=system_of(self.messages),
            backend=backend,
            max_output_tokens=self.tokens(tokens, MAX_CHAT_TOKENS),
            temperature=OPENAI_TEMPERATURE if self.temperature is None else self.temperature,
            schema=self.schema(),
            stop=tuple(filter(None, [self.stop] if isinstance(self.stop, str) else self.stop or ())),
            seed=self.seed,
            tools=tools,
        )


def question_of(messages: Sequence[MessageBody]) -> tuple[str, tuple[Turn, ...]]:
    """The last user message and the turns before it, cut to what /answer takes. Raises InvalidRequest."""
    place = max((place for place, message in enumerate(messages) if message.role == "user"), default=None)
    if place is None:
        raise pointing_at("/messages", "a message of the user is missing")
    if not (question := messages[place].text.strip()):
        raise pointing_at(f"/messages/{place}/content", "the question is empty")
    spoken_before = (
        message for message in messages[:place] if message.role in ("user", "assistant") and message.text.strip()
    )
    earlier = [Turn(message.speaker, message.text[:MAX_TURN_CHARACTERS]) for message in spoken_before]  # type: ignore[arg-type]
    return question[:MAX_QUERY_CHARACTERS], tuple(earlier[-MAX_EARLIER_TURNS:])


def system_of(messages: Iterable[MessageBody]) -> str:
    """All system messages in one."""
    return "\n\n".join(message.text for message in messages if message.speaker == "system" and message.text)


def _turns(messages: Sequence[MessageBody]) -> tuple[Turn, ...]:
    """Users and assistants alternate, as many models require: adjacent messages of one side, but tools', are joined."""
    turns = [
        message.turn(f"/messages/{place}") for place, message in enumerate(messages) if message.speaker != "system"
    ]
    spoken = [turn for turn in turns if turn.content or turn.images or turn.calls or turn.call_id]
    return tuple(joined(list(side)) for _, side in groupby(spoken, key=lambda turn: (turn.role, turn.call_id)))
