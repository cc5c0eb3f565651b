"""Use case: chat with a model, without the index; with pictures, where the model sees."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence

import msgspec

from app.backends.attempt import OpenStream
from app.backends.base import Call, Capability, ChatRequest, Deadline, Message, Reply, call_of
from app.backends.client import BackendClient
from app.backends.router import Route, Router
from app.backends.settings import model_or_auto
from app.domain import (
    Caller,
    CallsDelta,
    ChatDone,
    ChatEvent,
    ChatResult,
    ChatTask,
    Image,
    ReplyToText,
    TextDelta,
    ToolCall,
    Turn,
)
from app.observability.timing import Stopwatch
from app.services.batches import Judged
from app.services.pictures import Pictures

STAGE, VISION = "chat", "vision"

IMAGES = "images"
"""A timing: fetching and decoding the pictures of a chat."""


class Dialogue:
    """How a backend is asked, and what is made of its reply, piece by piece. This one leaves both as they are."""

    @property
    def over(self) -> bool:
        """Whether enough has come: then the call upstream ends."""
        return False

    async def request(self, request: ChatRequest, client: BackendClient, call: Call) -> ChatRequest:
        """What this backend is asked in place of `request`."""
        return request

    def feed(self, piece: str) -> str:
        """What can be told of the reply already."""
        return piece

    def end(self) -> str:
        """The rest."""
        return ""


class ChatService:
    """Runs chats on the backends. The router is asked for with each, so that it can be opened late.

    `default` serves chats that name no backend ("auto" if it is no model); `deadline_s` bounds each, after its pictures
    are there. They are accounted and timed as `stage`.
    """

    def __init__(
        self,
        router: Callable[[], Awaitable[Router]],
        default: str,
        deadline_s: float,
        pictures: Pictures,
        stage: str = STAGE,
    ) -> None:
        self._router = router
        self._default = model_or_auto(default)
        self._deadline_s = deadline_s
        self._pictures = pictures
        self.stage = stage

    async def chat(self, task: ChatTask, caller: Caller) -> ChatDone:
        """The whole reply. Raises UnknownBackend, MissingCapability, BudgetExceeded, Overloaded, UpstreamError, and
        InvalidRequest pointing at a picture.
        """
        route, watch = await self._route(task), Stopwatch()
        request = _request(task, await self._images(task, watch))
        call = call_of(self.stage, self._deadline_s, caller)
        with watch.stage(self.stage):
            served = await route.complete(request, call)
        result = ChatResult(
            text=served.value.text,
            finish_reason=served.value.finish_reason,
            backend=served.use,
            usage=call.account.usage(),
            timings_ms=watch.timings_ms(),
        )
        return ChatDone(result, served.value.calls)

    async def stream_chat(
        self, task: ChatTask, caller: Caller, dialogue: Dialogue | None = None
    ) -> AsyncGenerator[ChatEvent, None]:
        """The same reply as it is made. Raises the same before the first event, and UpstreamError after it.

        Closing it ends the call upstream.
        """
        route, watch = await self._route(task), Stopwatch()
        request = _request(task, await self._images(task, watch))
        call = call_of(self.stage, self._deadline_s, caller)
        text, finish_reason, calls, dialogue = "", None, list[ToolCall](), dialogue or Dialogue()

        async def ask(client: BackendClient, failover_deadline: Deadline | None) -> OpenStream:
            return await client.stream(await dialogue.request(request, client, call), call, failover_deadline)

        with watch.stage(self.stage):
            with watch.stage("first_token"):
                served = await route.first(call, ask)
            try:
                async for delta in served.value:
                    finish_reason = delta.finish_reason or finish_reason
                    if piece := dialogue.feed(delta.text):
                        text += piece
                        yield TextDelta(piece)
                    if delta.calls:
                        calls += delta.calls
                        yield CallsDelta(delta.calls)
                    if dialogue.over:
                        finish_reason = "stop"
                        break
            finally:
                await served.value.aclose()
        if rest := dialogue.end():
            text += rest
            yield TextDelta(rest)
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

    async def judge(self, task: ChatTask) -> "Replier":
        """Has a model reply to texts, each as a message after those of `task`. Raises as `chat`."""
        return Replier(await self._route(task), _request(task))

    async def _route(self, task: ChatTask) -> Route:
        """So nothing is fetched where no backend sees."""
        sees = any(turn.images for turn in task.messages)
        needs: frozenset[Capability] = frozenset(("chat", "images") if sees else ("chat",))
        return (await self._router()).route(task.backend, needs, default=self._default)

    async def _images(self, task: ChatTask, watch: Stopwatch) -> Iterable[tuple[Image, ...]]:
        """Those of each picture of the task."""
        sources = [source for turn in task.messages for source in turn.images]
        if not sources:
            return ()
        with watch.stage(IMAGES):
            return await self._pictures.images(sources)


class Replier:
    """Has a model reply to texts, one by one: a `TextJudge`, and a `PatientJudge`."""

    def __init__(self, route: Route, request: ChatRequest) -> None:
        self._route, self._request = route, request

    async def one(self, text: str, call: Call) -> Judged[ReplyToText]:
        """Raises what the model's call raises."""
        (request,) = self.requests(text)
        served = await self._route.complete(request, call)
        return Judged(result=self.read(text, (served.value,), served.use.used), backend=served.use)

    def requests(self, text: str) -> Sequence[ChatRequest]:
        """One, with the text as the last message."""
        turns = (*self._request.messages, Message(role="user", content=text))
        return (msgspec.structs.replace(self._request, messages=turns),)

    def read(self, _text: str, replies: Sequence[Reply], _backend: str) -> ReplyToText:
        """As it is."""
        (reply,) = replies
        return ReplyToText(text=reply.text, finish_reason=reply.finish_reason)


def _request(task: ChatTask, images: Iterable[tuple[Image, ...]] = ()) -> ChatRequest:
    """`images` are those of each picture of the task, in their order."""
    system, left = (Message(role="system", content=task.system),) if task.system else (), iter(images)

    def message(turn: Turn) -> Message:
        shown = tuple(image for _ in turn.images for image in next(left))
        return Message(role=turn.role, content=turn.content, images=shown, calls=turn.calls, call_id=turn.call_id)

    turns = tuple(map(message, task.messages))
    return ChatRequest(
        messages=(*system, *turns),
        max_output_tokens=task.max_output_tokens,
        temperature=task.temperature,
        schema=task.schema,
        stop=task.stop,
        seed=task.seed,
        tools=task.tools,
    )
