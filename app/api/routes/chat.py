"""POST /chat, as JSON, as server-sent events, or for many messages as JSON lines."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import msgspec
from litestar import Response, post
from litestar.params import JSONBody
from msgspec import Meta

from app.api import sse as events
from app.api.json_lines import JSONLines, JSONOrLines, LinesResponse, is_json_lines
from app.api.openapi import problems
from app.api.request import BodyRequest, Injected, caller_of
from app.api.schemas import Name, TurnBody
from app.config.settings import Settings
from app.domain import ChatResult, ChatTask, Turn
from app.errors import InvalidRequest, pointing_at
from app.services.batches import DEFAULT_CONCURRENCY, MAX_CONCURRENCY, batch_of
from app.services.chat import ChatService

Text = Annotated[str, Meta(min_length=1, max_length=100_000)]


class ChatBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /chat: `message`, or `messages` of which the last one is the user's."""

    message: Text | None = None
    messages: Annotated[list[TurnBody], Meta(min_length=1, max_length=200)] | None = None
    system: Annotated[str, Meta(max_length=100_000)] = ""
    system_prompt: Annotated[str, Meta(max_length=100_000, description="Another name of `system`.")] = ""
    backend: Annotated[Name, Meta(description='The backend: a configured name, or "auto".')] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=65_536)] = 1024
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.0
    stream: bool = False
    concurrency: Annotated[
        int, Meta(ge=1, le=MAX_CONCURRENCY, description="Of JSON lines: how many are replied to at once.")
    ] = DEFAULT_CONCURRENCY

    def to_options(self) -> ChatTask:
        """What is asked of each row of JSON lines, without its text. Raises InvalidRequest."""
        if self.message is not None or self.messages is not None or self.stream:
            raise InvalidRequest("with JSON lines the rows are the messages; leave out message, messages and stream")
        return self._task(())

    def to_task(self) -> ChatTask:
        """Raises InvalidRequest pointing at the field."""
        return self._task(self._turns())

    def _task(self, turns: tuple[Turn, ...]) -> ChatTask:
        if self.system and self.system_prompt:
            raise pointing_at("/system_prompt", 'this is another name of "system"; give one of them')
        return ChatTask(
            messages=turns,
            system=self.system or self.system_prompt,
            backend=self.backend,
            max_output_tokens=self.max_output_tokens,
            temperature=self.temperature,
        )

    def _turns(self) -> tuple[Turn, ...]:
        if (self.message is None) == (self.messages is None):
            raise pointing_at("/message", 'give either "message" or "messages"')
        if self.messages is None:
            return (Turn("user", self.message or ""),)
        if self.messages[-1].role != "user":
            raise pointing_at(f"/messages/{len(self.messages) - 1}/role", "the last message must be the user's")
        return tuple(Turn(turn.role, turn.content) for turn in self.messages)


@dataclass
class ChatOperation(JSONLines, events.Streamable):
    """Events, and JSON lines."""

    def __post_init__(self) -> None:
        events.Streamable.__post_init__(self)
        JSONLines.__post_init__(self)


@post(
    "/chat",
    dto=JSONOrLines[ChatBody],
    return_dto=None,
    status_code=200,
    operation_id="chat",
    operation_class=ChatOperation,
    summary="Chat with a model",
    responses=problems(400, 401, 402, 403, 413, 415, 422, 429, 502, 503, 504),
    opt={"scope": "tasks"},
)
async def chat(
    request: BodyRequest, data: JSONBody[ChatBody], chat_service: Injected[ChatService], settings: Injected[Settings]
) -> Response[ChatResult]:
    """A model's reply, without any documents; with the backend that served it, its cost, and the time of every stage.

    A body of JSON lines (`application/x-ndjson`) is many messages, each in a row of its own: `{"id"?, "text"}` or a
    string, with the options in the URL. Each gets a row, in order, while the body is still being read.

    `"stream": true`, or the header `Accept: text/event-stream`, gives the events `delta`, and `done` or `error`.
    """
    caller = caller_of(request)
    if is_json_lines(request):
        options, deadline_s = data.to_options(), settings.routing.deadline_s
        batch = await batch_of(chat_service, options, caller, concurrency=data.concurrency, deadline_s=deadline_s)
        return LinesResponse(request, batch)
    task = data.to_task()
    whole, stream = partial(chat_service.chat, task, caller), partial(chat_service.stream_chat, task, caller)
    return await events.whole_or_streamed(request, whole, stream, settings.service.ping_s, stream=data.stream)
