"""What Gemini's models differ in, as data: a new generation is a line here."""

from fnmatch import fnmatchcase
from typing import Literal

import msgspec


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """How to keep a model from thinking, as far as it can be kept: by a level or by a budget in tokens.

    Neither: it does not think. `takes_temperature` False: it ignores what it is told.
    """

    thinking_level: Literal["MINIMAL", "LOW"] | None = None
    thinking_budget: int | None = None
    takes_temperature: bool = True

    @property
    def thinks(self) -> bool:
        """Whether it can think at all."""
        return self.thinking_level is not None or self.thinking_budget is not None


# The first pattern that fits counts. The pro models cannot stop thinking; these are the least that they take.
_KNOWN = (
    ("gemini-1*", Traits()),
    ("gemini-2.0-*", Traits()),
    ("gemini-2.5-pro*", Traits(thinking_budget=128)),
    ("gemini-2.5-*", Traits(thinking_budget=0)),
    ("gemini-3*-pro*", Traits(thinking_level="LOW")),
    ("gemini-3.5-flash-lite*", Traits(thinking_level="MINIMAL", takes_temperature=False)),
    ("gemma-3*", Traits()),
)
_NEWEST = Traits(thinking_level="MINIMAL")


def traits_of(model: str) -> Traits:
    """By the model's id, with or without a path before it; an unknown one is taken for one of the newest generation."""
    name = model.rpartition("/")[2]
    return next((traits for pattern, traits in _KNOWN if fnmatchcase(name, pattern)), _NEWEST)
