"""Tools of the client's, for the backends that know them; for the others, a conversation without them."""

import math
from collections.abc import Awaitable, Callable
from itertools import groupby
from typing import TypeVar

import msgspec
import structlog

from app.backends.base import ChatRequest, Clock, Message, joined
from app.backends.provider import Provider
from app.errors import MissingCapability, UpstreamRejected

T = TypeVar("T")

REMEMBER_S = 60.0
"""How long a refusal counts: nobody tells us when a server was started anew, with tools."""

log = structlog.get_logger()


class ToolsRefused(UpstreamRejected):
    """The server, or its model, takes no tools at all."""


class ToolFallback:
    """What to do about tools at one backend, as far as its kind and its refusals tell."""

    def __init__(self, name: str, provider: Provider, clock: Clock) -> None:
        self._name, self._provider, self._clock = name, provider, clock
        self._toolless_until = math.inf if provider.tools == "none" else -math.inf

    async def serve(self, request: ChatRequest, ask: Callable[[ChatRequest], Awaitable[T]]) -> T:
        """What `ask` makes of it: with the tools if they are taken, else without, for an answer is better than none.

        Raises MissingCapability where one must be called and none can be.
        """
        if not request.uses_tools:
            return await ask(request)
        if request.tools is None:
            return await ask(without_tools(request))
        demanded = request.tools.choice == "required"
        if demanded and self._provider.tools == "optional":
            raise MissingCapability(
                f"the backend {self._name!r} ({self._provider.kind}) lets its model choose whether to call a tool; "
                "leave out tool_choice"
            )
        if self._clock() >= self._toolless_until:
            try:
                return await ask(request)
            except ToolsRefused:
                self._toolless_until = self._clock() + REMEMBER_S
        if demanded:
            raise MissingCapability(self._remedy())
        log.warning("tools ignored", backend=self._name, reason=self._remedy())
        return await ask(without_tools(request))

    def _remedy(self) -> str:
        return f"the backend {self._name!r} takes no tools; {self._provider.tools_hint}"


def without_tools(request: ChatRequest) -> ChatRequest:
    """The same for a model without tools: what they said is the user's, and each side speaks in turn."""
    if not request.uses_tools:
        return request
    said = map(_plain, request.messages)
    spoken = (message for message in said if message.content or message.images)
    messages = tuple(joined(list(side)) for _, side in groupby(spoken, key=lambda message: message.role))
    return msgspec.structs.replace(request, messages=messages, tools=None)


def _plain(message: Message) -> Message:
    role = "user" if message.role == "tool" else message.role
    return Message(role=role, content=message.content, images=message.images)
