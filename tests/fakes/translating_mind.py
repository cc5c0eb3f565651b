"""A simulated model that translates what stands between the lines of the fence, as the real prompt tells it to."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.fakes.mind import Mind

_FENCE = re.compile(r"between two lines that say (\w+)\.")
_WORDS = re.compile(r"(?<![{%<$/&\w])[a-z]{3,}(?![}\w=])")


def text_in(turns: Sequence[tuple[str, str]]) -> str | None:
    """The text of a prompt that asks for a translation; None for another prompt."""
    if not (fence := _FENCE.search(turns[0][1])):
        return None
    return turns[-1][1].split(f"{fence[1]}\n", 1)[1].split(f"\n{fence[1]}", 1)[0]


def backwards(text: str) -> str:
    """A language whose words are ours, read from the end."""
    return _WORDS.sub(lambda word: word.group()[::-1], text)


def translates(change: Callable[[str], str] = backwards, corrected: Callable[[str], str] | None = None) -> Mind:
    """`change` makes the reply; `corrected` that to a second prompt, which says what was wrong."""

    def mind(turns: Sequence[tuple[str, str]], schema: Mapping[str, Any] | None) -> str | None:
        if (text := text_in(turns)) is None:
            return None
        again = "An earlier translation was wrong" in turns[-1][1]
        return (corrected or change)(text) if again else change(text)

    return mind
