"""What texts are labelled with, and what a model said of one."""

import msgspec

from app.domain import Evidence, Label
from app.errors import pointing_at
from app.text.fencing import clean, neutralise

MOST_LABELS = 64


class Labelling(msgspec.Struct, frozen=True, kw_only=True):
    """The labels as prompts show them, on one line each. `exclusive`: exactly one fits a text; else any number of them.

    `instructions` are the caller's, beside the labels' descriptions.
    """

    labels: tuple[Label, ...]
    instructions: str = ""
    exclusive: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """Of the labels, in their order."""
        return tuple(label.name for label in self.labels)


class Judgement(msgspec.Struct, frozen=True):
    """The probability of each label, in their order; they sum to 1 where the labels are exclusive."""

    scores: tuple[float, ...]
    evidence: Evidence


def labelling_of(
    labels: tuple[Label, ...], instructions: str = "", *, exclusive: bool = True, field: str = "labels"
) -> Labelling:
    """Labels made safe for prompts. Raises InvalidRequest for two that are the same then, or one that is empty."""
    shown = tuple(Label(name=one_line(label.name), description=one_line(label.description)) for label in labels)
    seen: dict[str, int] = {}
    for at, label in enumerate(shown):
        if not label.name:
            raise pointing_at(f"/{field}/{at}", "a name needs a visible character")
        if label.name in seen:
            raise pointing_at(f"/{field}/{at}", f"the same name as /{field}/{seen[label.name]}")
        seen[label.name] = at
    return Labelling(labels=shown, instructions=neutralise(clean(instructions)).strip(), exclusive=exclusive)


def one_line(text: str) -> str:
    """A text for a line of a prompt: control tokens broken up, without invisible characters."""
    return " ".join(neutralise(clean(text)).split())
