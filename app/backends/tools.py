"""A client's tools, for the backends that support them; for the others, the conversation without them."""

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
"""How long a refusal counts: a server does not say when it was restarted with tools."""

log = structlog.get_logger()


class ToolsRefused(UpstreamRejected):
    """The server, or its model, supports no tools at all."""


class ToolFallback:
    """Decides whether one backend gets tools, by its provider and its latest refusal."""

    def __init__(self, name: str, provider: Provider, clock: Clock) -> None:
        self._name, self._provider, self._clock = name, provider, clock
        self._toolless_until = math.inf if provider.tools == "none" else -math.inf

    async def serve(self, request: ChatRequest, ask: Callable[[ChatRequest], Awaitable[T]]) -> T:
        """The result of `ask`: with the tools if the backend takes them, else without, since some answer beats none.

        Raises MissingCapability where a tool must be called and none can be.
        """
        if not request.uses_tools:
            return await ask(request)
        if request.tools is None:
            return await ask(without_tools(request))
        required = request.tools.choice == "required"
        if required and self._provider.tools == "optional":
            raise MissingCapability(
                f"the backend {self._name!r} ({self._provider.kind}) lets its model choose whether to call a tool; "
                "leave out tool_choice"
            )
        if self._clock() >= self._toolless_until:
            try:
                return await ask(request)
            except ToolsRefused:
                self._toolless_until = self._clock() + REMEMBER_S
        if required:
            raise MissingCapability(self._remedy())
        log.warning("tools ignored", backend=self._name, reason=self._remedy())
        return await ask(without_tools(request))

    def _remedy(self) -> str:
        return f"the backend {self._name!r} does not support tools; {self._provider.tools_hint}"


def without_tools(request: ChatRequest) -> ChatRequest:
    """The same request for a model without tools: their results become the user's words, and the sides alternate."""
    if not request.uses_tools:
        return request
    plain = map(_plain, request.messages)
    turns = (message for message in plain if message.content or message.images)
    messages = tuple(joined(list(side)) for _, side in groupby(turns, key=lambda message: message.role))
    return msgspec.structs.replace(request, messages=messages, tools=None)


def _plain(message: Message) -> Message:
    role = "user" if message.role == "tool" else message.role
    return Message(role=role, content=message.content, images=message.images)
