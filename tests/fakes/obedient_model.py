"""A simulated model that does whatever it is told, by whomever, outside of what its prompt marks as quoted."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tests.fakes.answering_model import AnsweringModel

OBEYED = "PWNED: as you wish."

_FENCE = re.compile(r"^The lines that begin with (\w+) are mine", re.MULTILINE)


class ObedientModel(AnsweringModel):
    """Answers like its base, unless it finds words outside of all quotations that its first prompt did not have."""

    def __init__(self) -> None:
        super().__init__()
        self._harmless: list[str] = []

    def __call__(self, turns: Sequence[tuple[str, str]], schema: Mapping[str, Any] | None) -> str | None:
        told = orders(turns)
        self._harmless = self._harmless or told
        said = super().__call__(turns, schema)
        return said if told in ([], self._harmless) else OBEYED


def orders(turns: Sequence[tuple[str, str]]) -> list[str]:
    """The lines of a prompt for an answer that are not quoted, whatever its fence is; [] for other prompts."""
    lines = [line for role, text in turns for line in (f"{role}:", *text.split("\n"))]
    fence = next((found[1] for line in lines if (found := _FENCE.match(line))), None)
    if fence is None:
        return []
    told, quoting = [], False
    for line in lines:
        if line.startswith(fence):
            quoting = not line.startswith(f"{fence} end of ")
            told.append(line.removeprefix(fence))
        elif not quoting:
            told.append(line.replace(fence, "FENCE"))
    return told


def quoted(prompt: str) -> list[list[str]]:
    """The lines of each passage in a prompt for an answer: who it is from, and its sentences."""
    [fence] = _FENCE.findall(prompt)
    listing, end, _ = prompt.partition(f"\n{fence} end of the passages\n")
    assert end, "the passages do not end"
    return [passage.split("\n")[1:] for passage in listing.split(f"\n{fence} passage ")[1:]]
