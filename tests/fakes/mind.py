"""What a fake server's model makes of a conversation."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Mind = Callable[[Sequence[tuple[str, str]], Mapping[str, Any] | None], str | None]
"""(role, text) of each turn, and the reply's schema if there is one, to the reply. None: it has none of its own."""


def no_mind(turns: Sequence[tuple[str, str]], schema: Mapping[str, Any] | None) -> None:
    """Has never anything to say."""
