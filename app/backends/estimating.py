"""How many tokens a call may take, before anyone has counted them."""

from collections.abc import Sequence

from app.backends.ports import ChatRequest, Conversation
from app.domain import TokenCount

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
    """About how many tokens a conversation is, with its pictures."""
    return sum(
        TOKENS_PER_MESSAGE + tokens_of(message.content) + TOKENS_PER_IMAGE * len(message.images) for message in messages
    )


def worst_of_chat(request: ChatRequest) -> TokenCount:
    """The most that a completion may use."""
    return TokenCount(input=tokens_of_prompt(request.messages), output=request.max_output_tokens)


def worst_of_scoring(prompts: Sequence[Conversation]) -> TokenCount:
    """The most that a scoring may use: each prompt, and one token after it."""
    return TokenCount(input=sum(map(tokens_of_prompt, prompts)), output=len(prompts))


def total(tokens: TokenCount) -> int:
    """All of them, as a limit per minute counts them."""
    return tokens.input + tokens.output + tokens.thinking
