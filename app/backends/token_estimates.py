"""How many tokens a call may take, before anyone has counted them."""

from collections.abc import Sequence

import msgspec

from app.backends.base import ChatRequest, Conversation
from app.domain import TokenCount, ToolCall, Tools

BYTES_PER_TOKEN = 4

TOKENS_PER_MESSAGE = 5
"""The marks around a turn."""

TOKENS_PER_IMAGE = 1120
"""Gemini 3's for a picture at its default resolution; Gemma 3 takes 256."""


def tokens_of(text: str) -> int:
    """About how many tokens a text is: a quarter of its UTF-8 bytes, rounded up.

    Bytes, because a Chinese character (three) is most of a token, and a Latin letter (one) about a quarter. For prose
    in the vocabularies of Gemini, Gemma and Qwen expect it within a third either way; digits and code can be twice as
    many. Good enough to reserve and to book a call that was cut off; never used when the server tells.
    """
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def tokens_of_prompt(messages: Conversation) -> int:
    """About how many tokens a conversation is, with its pictures and calls."""
    return sum(
        TOKENS_PER_MESSAGE
        + tokens_of(message.content)
        + TOKENS_PER_IMAGE * len(message.images)
        + tokens_of_calls(message.calls)
        for message in messages
    )


def tokens_of_calls(calls: Sequence[ToolCall]) -> int:
    """About how many tokens they are."""
    return sum(tokens_of(call.name + call.arguments) for call in calls)


def tokens_of_tools(tools: Tools | None) -> int:
    """About how many tokens they add to a prompt: most models read them as JSON."""
    return tokens_of(msgspec.json.encode(tools.functions).decode()) if tools else 0


def worst_of_chat(request: ChatRequest) -> TokenCount:
    """The most that a completion may use."""
    prompt = tokens_of_prompt(request.messages) + tokens_of_tools(request.tools)
    return TokenCount(input=prompt, output=request.max_output_tokens)


def worst_of_scoring(prompts: Sequence[Conversation]) -> TokenCount:
    """The most that a scoring may use: each prompt, and one token after it."""
    return TokenCount(input=sum(map(tokens_of_prompt, prompts)), output=len(prompts))


def total(tokens: TokenCount) -> int:
    """All of them, as a limit per minute counts them."""
    return tokens.input + tokens.output + tokens.thinking
