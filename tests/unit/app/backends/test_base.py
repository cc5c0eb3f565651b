"""Tokens before anyone has counted them."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from app.backends.base import ChatRequest, Message, tokens_of, tokens_of_prompt, worst_of_chat, worst_of_scoring
from app.domain import Function, Image, TokenCount, ToolCall, Tools


@given(st.text(), st.text())
def test_it_adds_up(one: str, other: str) -> None:
    """A whole text is never more than its parts, nor less than the larger of them, and only no text is no token."""
    assert max(tokens_of(one), tokens_of(other)) <= tokens_of(one + other) <= tokens_of(one) + tokens_of(other)
    assert (tokens_of(one) == 0) == (one == "")


def test_scripts_are_told_apart() -> None:
    """An English word is a token or two, and a Chinese character most of one."""
    assert tokens_of("The warehouse ships orders on weekdays.") == 10
    assert tokens_of("仓库在工作日发货。") == 7


def test_half_a_surrogate_is_a_text_too() -> None:
    """Text that no encoding can write is estimated all the same."""
    assert tokens_of("\ud800") == 1


def test_the_worst_of_a_call() -> None:
    """Prompts with their pictures, and all that may be written."""
    prompt = (Message(role="user", content="four", images=(Image(data=b"", media_type="image/png"),)),)
    assert tokens_of_prompt(prompt) == 5 + 1 + 1120
    assert worst_of_chat(ChatRequest(messages=prompt, max_output_tokens=7)) == TokenCount(input=1126, output=7)
    assert worst_of_scoring([prompt, prompt]) == TokenCount(input=2252, output=2)


def test_tools_are_a_part_of_the_prompt() -> None:
    """They are counted as the JSON that most models read, and so is what an assistant called."""
    tools = Tools(functions=(Function(name="time", description="x" * 400),))
    request = ChatRequest(messages=(Message(role="user", content="four"),), max_output_tokens=7)
    offered = worst_of_chat(msgspec.structs.replace(request, tools=tools)).input - worst_of_chat(request).input
    assert 100 < offered < 120
    call = ToolCall(id="1", name="time", arguments='{"zone": "CET"}')
    assert tokens_of_prompt((Message(role="assistant", content="", calls=(call,)),)) == 5 + 5
