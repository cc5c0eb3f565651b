"""What the real vLLM says to tools that it was not started for."""

import time
from functools import partial
from typing import Any

import pytest

from app.backends.base import ChatRequest, Message
from app.backends.openai_compatible import VLLM
from app.backends.tools import ToolFallback
from app.domain import Function, Tools
from app.errors import MissingCapability
from tests.contract.sides import VllmSide
from tests.vllm.running import RunningVllm

pytestmark = [pytest.mark.anyio, pytest.mark.vllm, pytest.mark.timeout(300)]

WEATHER = Function(name="weather", description="of a town", parameters={"type": "object"})


def asking(**choice: Any) -> ChatRequest:
    tools = Tools(functions=(WEATHER,), **choice)
    return ChatRequest(messages=(Message(role="user", content="Is it wet in Ulm?"),), max_output_tokens=3, tools=tools)


async def test_its_refusal_is_known_for_what_it_is(vllm: RunningVllm) -> None:
    """So that whoever offers tools gets an answer without them, and who demands a call is told how to start it."""
    adapter, tooling = VllmSide(vllm).open(), ToolFallback("gemma", VLLM, time.monotonic)
    await adapter.probe(timeout_s=60)
    complete = partial(adapter.complete, timeout_s=60)
    reply = await tooling.serve(asking(), complete)
    assert (reply.calls, reply.tokens.output) == ((), 3)
    with pytest.raises(MissingCapability, match="--enable-auto-tool-choice"):
        await tooling.serve(asking(choice="required"), complete)
    await adapter.aclose()
