"""What becomes of a client's tools at a backend."""

import pytest

from app.backends.base import ChatRequest, Message
from app.backends.registry import PROVIDERS
from app.backends.tools import REMEMBER_S, ToolFallback, ToolsRefused, without_tools
from app.domain import Function, Image, ToolCall, Tools
from app.errors import MissingCapability, UpstreamRejected
from tests.fakes.adapters import ASKED

pytestmark = pytest.mark.anyio

TOOLS = Tools(functions=(Function(name="time"),))
CALLED = Message(role="assistant", content="", calls=(ToolCall(id="1", name="time", arguments="{}"),))
TOLD = Message(role="tool", content="noon", call_id="1")
PICTURE = Image(data=b"x", media_type="image/png")


class Backend:
    """Refuses tools while it is `without`, and keeps the requests."""

    def __init__(self, kind: str = "vllm", *, without: bool = False) -> None:
        self.now, self.without = 0.0, without
        self.requests: list[ChatRequest] = []
        self.tooling = ToolFallback("gemma", PROVIDERS[kind], lambda: self.now)

    async def answer(self, request: ChatRequest) -> str:
        self.requests.append(request)
        if request.tools and self.without:
            raise ToolsRefused("gemma", "gemma does not support tools (HTTP 400)")
        return "It is noon."

    async def serve(self, tools: Tools | None = TOOLS) -> list[bool]:
        """Whether each of the requests that it took had tools."""
        self.requests.clear()
        request = ChatRequest(messages=(*ASKED.messages, CALLED, TOLD), tools=tools)
        assert await self.tooling.serve(request, self.answer) == "It is noon."
        return [request.tools is not None for request in self.requests]


async def test_a_refusal_is_remembered_for_a_while() -> None:
    """A server that was started anew with tools is found out within a minute, and until then nobody asks in vain."""
    backend = Backend(without=True)
    assert await backend.serve() == [True, False]
    backend.without, backend.now = False, REMEMBER_S - 1
    assert await backend.serve() == [False]
    backend.now = REMEMBER_S
    assert await backend.serve() == [True]


async def test_another_refusal_is_the_callers() -> None:
    """Tools that are wrong in themselves are no reason to answer without them."""

    async def refuse(_: ChatRequest) -> str:
        raise UpstreamRejected("gemma", "gemma rejects the request (HTTP 400)")

    with pytest.raises(UpstreamRejected, match="rejects the request"):
        await Backend().tooling.serve(ChatRequest(messages=ASKED.messages, tools=TOOLS), refuse)


@pytest.mark.parametrize("kind", ["gemini", "ollama"])
async def test_who_cannot_be_made_to_call_is_not_asked(kind: str) -> None:
    """Gemini is given no tools, and Ollama lets its models choose."""
    backend = Backend(kind)
    with pytest.raises(MissingCapability):
        await backend.serve(Tools(functions=TOOLS.functions, choice="required"))
    assert not backend.requests
    assert await backend.serve() == [kind == "ollama"]


async def test_without_tools_nobody_hears_of_calls() -> None:
    """What tools said in a conversation that offers none any more is the user's, in one turn with what is beside it."""
    backend = Backend()
    assert await backend.serve(tools=None) == [False]
    [request] = backend.requests
    assert request.messages == (Message(role="user", content="What is the answer?\n\nnoon"),)


def test_a_conversation_without_tools_stays_as_it_is() -> None:
    """Each turn by itself, even of the same side; with tools, their pictures and the assistant's words are kept."""
    plain = ChatRequest(messages=(*ASKED.messages, *ASKED.messages))
    assert without_tools(plain) is plain
    seen = Message(role="tool", content="", images=(PICTURE,), call_id="1")
    said = Message(role="assistant", content="Let me see.", calls=CALLED.calls)
    bare = without_tools(ChatRequest(messages=(*ASKED.messages, said, seen), tools=TOOLS))
    assert bare.messages[1:] == (
        Message(role="assistant", content="Let me see."),
        Message(role="user", content="", images=(PICTURE,)),
    )
    assert bare.tools is None
