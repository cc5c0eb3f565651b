"""What a judge meant by its reply, whatever it wrote. Pure; never raises; linear in the reply's length.

Passages go by the numbers that the prompt gave them. Every repair is counted by kind:

    empty, not_json (prose or fences around it, or cut off), too_long, other_shape, several (values; the last counts),
    repeated_key, unknown_grade, odd_id ("[3]", 3.0, "passage 3"), unknown_id, repeated_id, missing_id, junk
"""

from collections.abc import Collection, Mapping

import msgspec


class GradesRead(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers under each grade, best first, each once: under its lowest grade if it was listed twice.

    `complete`: what is not listed is grade 0. If not, nothing is known about it: the reply was cut off or illegible.
    """

    listed: Mapping[int, tuple[int, ...]]
    complete: bool
    repairs: Mapping[str, int]


class OrderRead(msgspec.Struct, frozen=True, kw_only=True):
    """All numbers, each once: those of the reply at their first mention, the missing ones as they came.

    `legible` is False when the reply named none of them.
    """

    order: tuple[int, ...]
    legible: bool
    repairs: Mapping[str, int]


def read_grades(text: str, numbers: Collection[int]) -> GradesRead:
    """From {"3": [numbers], "2": [...], "1": [...]}, or what comes near it."""
    ...


def read_order(text: str, numbers: Collection[int]) -> OrderRead:
    """From [numbers], {"order": [numbers]} or "[3] > [1] > [2]", or what comes near it."""
    ...
