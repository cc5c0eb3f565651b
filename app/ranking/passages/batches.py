"""Which candidates are shown to a model together. Pure; the candidates come best first."""

import math
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")

MOST = 25
"""One list of 100 collapses; blocks of up to 25 with interleaved strength do not (JointRank, 2506.22262)."""


def interleave(ranked: Sequence[Item], most: int = MOST) -> list[list[Item]]:
    """As few blocks of at most `most` as possible, of sizes that differ by one at most, all equally strong.

    The candidates are dealt out in turns, forth and back. In each block strong and weak ones alternate, the strongest
    first, so that its place says little about a passage.
    """
    count = math.ceil(len(ranked) / most)
    blocks: list[list[Item]] = [[] for _ in range(count)]
    for at, item in enumerate(ranked):
        turn, place = divmod(at, count)
        blocks[place if turn % 2 == 0 else count - 1 - place].append(item)
    return [_alternating(block) for block in blocks]


def windows(n: int, size: int = 20, step: int = 10) -> list[tuple[int, int]]:
    """RankGPT's schedule over n candidates: half-open [start, end) from the back to the front (2304.09542).

    9 windows for 100. With a `step` below `size`, winners move on into the next window.
    """
    starts = [*range(n - size, 0, -step), 0] if n else []
    return [(start, min(n, start + size)) for start in starts]


def _alternating(block: Sequence[Item]) -> list[Item]:
    """First, last, second, last but one, ..."""
    return [block[at // 2] if at % 2 == 0 else block[-1 - at // 2] for at in range(len(block))]
