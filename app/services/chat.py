"""Use case: chat with a model, without the index."""

from collections.abc import AsyncGenerator, Awaitable, Callable

import msgspec

from app.backends.base import Call, ChatRequest, Message, call_of
from app.backends.router import Route, Router
from app.backends.settings import AUTO, RESERVED
from app.domain import (
    Caller,
    CallsDelta,
    ChatDone,
    ChatEvent,
    ChatResult,
    ChatTask,
    ReplyToText,
    TextDelta,
    ToolCall,
)
from app.observability.timing import Stopwatch
from app.services.batches import Batch, Judged

STAGE = "chat"


class ChatService:
    """Runs chats on the backends. The router is asked for with each, so that it can be opened late.

    `default` serves chats that name no backend ("auto" if it is no model); `deadline_s` bounds each.
    """

    def __init__(self, router: Callable[[], Awaitable[Router]], default: str, deadline_s: float) -> None:
        self._router = router
        self._default = AUTO if default in RESERVED else default
        self._deadline_s = deadline_s

    async def chat(self, task: ChatTask, caller: Caller) -> ChatDone:
        """The whole reply. Raises UnknownBackend, MissingCapability, BudgetExceeded, Overloaded, UpstreamError."""
        route, watch, call = await self.route(task), Stopwatch(), call_of(STAGE, self._deadline_s, caller)
        with watch.stage(STAGE):
            served = await route.complete(_request(task), call)
        result = ChatResult(
            text=served.value.text,
            finish_reason=served.value.finish_reason,
            backend=served.use,
            usage=call.account.usage(),
            timings_ms=watch.timings_ms(),
        )
        return ChatDone(result, served.value.calls)

    async def stream_chat(self, task: ChatTask, caller: Caller) -> AsyncGenerator[ChatEvent, None]:
        """The same reply as it is made. Raises the same before the first event, and UpstreamError after it.

        Closing it ends the call upstream.
        """
        route, watch, call, text = await self.route(task), Stopwatch(), call_of(STAGE, self._deadline_s, caller), ""
        finish_reason, calls = None, list[ToolCall]()
        with watch.stage(STAGE):
            with watch.stage("first_token"):
                served = await route.stream(_request(task), call)
            try:
                async for delta in served.value:
                    finish_reason = delta.finish_reason or finish_reason
                    if delta.text:
                        text += delta.text
                        yield TextDelta(delta.text)
                    if delta.calls:
                        calls += delta.calls
                        yield CallsDelta(delta.calls)
            finally:
                await served.value.aclose()
        yield ChatDone(
            ChatResult(
                text=text,
                finish_reason=finish_reason or "stop",
                backend=served.use,
                usage=call.account.usage(),
                timings_ms=watch.timings_ms(),
            ),
            tuple(calls),
        )

    async def batch(self, task: ChatTask, caller: Caller, concurrency: int) -> Batch[ReplyToText]:
        """For texts to each of which the model replies, as to a message after those of `task`.

        Raises UnknownBackend, MissingCapability.
        """
        judge = _Replier(await self.route(task), _request(task))
        return Batch(judge, lambda: call_of(STAGE, self._deadline_s, caller), concurrency)

    def for_text(self, task: ChatTask) -> Callable[[str], ChatRequest]:
        """What a model is asked for a text, as in a batch."""
        return lambda text: _for_text(_request(task), text)

    async def route(self, task: ChatTask) -> Route:
        """The backends that may serve it. Raises UnknownBackend, MissingCapability."""
        return (await self._router()).route(task.backend or self._default, frozenset(("chat",)))


class _Replier:
    """Has a model reply to texts, one by one: a `TextJudge`."""

    def __init__(self, route: Route, request: ChatRequest) -> None:
        self._route, self._request = route, request

    async def one(self, text: str, call: Call) -> Judged[ReplyToText]:
        served = await self._route.complete(_for_text(self._request, text), call)
        result = ReplyToText(text=served.value.text, finish_reason=served.value.finish_reason)
        return Judged(result=result, backend=served.use)


def _for_text(request: ChatRequest, text: str) -> ChatRequest:
    turns = (*request.messages, Message(role="user", content=text))
    return msgspec.structs.replace(request, messages=turns)


def _request(task: ChatTask) -> ChatRequest:
    system = (Message(role="system", content=task.system),) if task.system else ()
    turns = tuple(
        Message(role=turn.role, content=turn.content, images=turn.images, calls=turn.calls, call_id=turn.call_id)
        for turn in task.messages
    )
    return ChatRequest(
        messages=(*system, *turns),
        max_output_tokens=task.max_output_tokens,
        temperature=task.temperature,
        schema=task.schema,
        stop=task.stop,
        seed=task.seed,
        tools=task.tools,
    )
