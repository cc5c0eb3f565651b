"""A question in a conversation, made to stand by itself."""

from collections.abc import Awaitable, Callable

import msgspec

from app.answering.prompts import condense_request
from app.answering.questions import Reading, earlier, read
from app.backends.base import ChatRequest, Reply
from app.domain import Question
from app.errors import WinnowError

Complete = Callable[[ChatRequest], Awaitable[Reply]]

_LONGEST = 1000
"""Characters of a standalone question; what is longer is no question."""

_QUOTES = "\"'“”„«»`* "


class Understood(msgspec.Struct, frozen=True, kw_only=True):
    """What to look for. `standalone` is a model's wording of the question, "" where nobody was asked for one."""

    reading: Reading
    standalone: str = ""
    warnings: tuple[str, ...] = ()


async def understand(question: Question, complete: Complete | None) -> Understood:
    """One cheap call of `complete`, where earlier turns are needed. Without it, or if it fails, rules do what they can.

    Never fails.
    """
    text = question.search.text
    reading = read(text, question.messages)
    if reading.stands_alone or complete is None:
        return Understood(reading=reading, warnings=_read_together(reading))
    try:
        reply = await complete(condense_request(text, earlier(text, question.messages)))
    except WinnowError as exc:
        return _by_rule(reading, exc.code)
    standalone = _standalone(reply)
    if not standalone:
        return _by_rule(reading, "bad_reply")
    if standalone == " ".join(text.split()):
        return Understood(reading=read(text))
    return Understood(reading=read(standalone), standalone=standalone, warnings=(_read_as(standalone),))


def _standalone(reply: Reply) -> str:
    """The first line of the reply; "" when that cannot be a question."""
    first = next(iter(reply.text.strip().splitlines()), "").strip(_QUOTES)
    return "" if reply.finish_reason == "length" or len(first) > _LONGEST else " ".join(first.split())


def _by_rule(reading: Reading, code: str) -> Understood:
    failed = f"The question was not reworded with the help of earlier turns ({code})."
    return Understood(reading=reading, warnings=(failed, *_read_together(reading)))


def _read_together(reading: Reading) -> tuple[str, ...]:
    return ("The question was read together with the previous one.",) if reading.leans_back else ()


def _read_as(standalone: str) -> str:
    return f"The question was read as: {standalone}"
