"""What a run of questions tells while it goes on."""

from collections.abc import Callable

import msgspec


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a step is; `failed` of the `done` did not work."""

    step: str
    done: int
    total: int
    usd: float = 0.0
    failed: int = 0


Tell = Callable[[Progress], None]


def tell_nobody(_: Progress) -> None:
    """For callers who do not listen."""
