"""POST /chat, as JSON or as server-sent events."""

from typing import Annotated

import msgspec
from litestar import Response, post
from litestar.params import JSONBody
from msgspec import Meta

from app.api import sse as events
from app.api.openapi import problems
from app.api.request import BodyRequest, Injected, StrictJSON, caller_of, while_connected
from app.api.schemas import Name, TurnBody
from app.config.settings import Settings
from app.domain import ChatResult, ChatTask, Turn
from app.errors import pointing_at
from app.services.chat import ChatService

Text = Annotated[str, Meta(min_length=1, max_length=100_000)]


class ChatBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /chat: `message`, or `messages` of which the last one is the user's."""

    message: Text | None = None
    messages: Annotated[list[TurnBody], Meta(min_length=1, max_length=200)] | None = None
    system: Annotated[str, Meta(max_length=100_000)] = ""
    backend: Annotated[Name, Meta(description='The backend: a configured name, or "auto".')] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=65_536)] = 1024
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.0
    stream: bool = False

    def to_task(self) -> ChatTask:
        """Raises InvalidRequest pointing at the field."""
        return ChatTask(
            messages=self._turns(),
            system=self.system,
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


@post(
    "/chat",
    dto=StrictJSON[ChatBody],
    return_dto=None,
    status_code=200,
    operation_id="chat",
    operation_class=events.Streamable,
    summary="Chat with a model",
    responses=problems(400, 402, 403, 413, 415, 422, 502, 503, 504),
)
async def chat(
    request: BodyRequest, data: JSONBody[ChatBody], chat_service: Injected[ChatService], settings: Injected[Settings]
) -> Response[ChatResult]:
    """A model's reply, without any documents; with the backend that served it, its cost, and the time of every stage.

    `"stream": true`, or the header `Accept: text/event-stream`, gives the events `delta`, and `done` or `error`.
    """
    task, caller = data.to_task(), caller_of(request)
    if data.stream or events.wants_events(request.headers.get("accept")):
        return await events.streamed(request, chat_service.stream_chat(task, caller), settings.service.ping_s)
    result = (await while_connected(request, chat_service.chat(task, caller))).result
    request.scope["state"]["timings"] = result.timings_ms
    return Response(result)
