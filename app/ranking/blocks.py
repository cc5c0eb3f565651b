"""Which candidates are shown to a model together. Pure; the candidates come best first."""

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")

MOST = 25
"""One list of 100 collapses; blocks of up to 25 with interleaved strength do not (JointRank, 2506.22262)."""


def interleave(ranked: Sequence[Item], most: int = MOST) -> list[list[Item]]:
    """As few blocks of at most `most` as possible, of sizes that differ by one at most, all equally strong.

    The candidates are dealt out in turns, forth and back. In each block strong and weak ones alternate.
    """
    ...


def windows(n: int, size: int = 20, step: int = 10) -> list[tuple[int, int]]:
    """RankGPT's schedule over n candidates: half-open [start, end) from the back to the front (2304.09542).

    9 windows for 100. `step` is at most `size`, so that winners move on into the next window.
    """
    ...
