"""What the graphs of a shard cover, what their build has left, and when another one is worth it."""

from pathlib import Path
from typing import NamedTuple

import msgspec

from indexing.store.seal import replace_file

OPTIMIZE_FROM = 20_000
"""Points without a graph that make building one worth it; and at least a tenth of all, up to `_MOST_WITHOUT_GRAPH`."""
_MOST_WITHOUT_GRAPH = 1.5
"""Times as many make it worth one however many there are: 30,000, which take 150 MB of memory."""

_REPLACED = 0.1
"""Of `OPTIMIZE_FROM`, and half of the points: so many that were replaced or deleted make a build worth it, too. Each
keeps 1.5 kB of memory and 5 of disk until then.
"""

BUILT = "built.json"
"""In the directory of a shard that a build has made. A start must not build in vain what the last one has left."""


class Coverage(NamedTuple):
    """How many points there are, how many of them no graph covers, and how many that were replaced or deleted still
    take memory and disk: the engine keeps them until it rewrites their segment, in a build. The latter two without
    those that the last build has left.
    """

    points: int
    unindexed: int
    replaced: int


class Left(msgspec.Struct, frozen=True):
    """What a build has left as it was: the engine makes no graph of a segment below 10 MB of vectors (160,000 of 16
    dimensions), and removes no earlier points from one until a fifth of them are.
    """

    unindexed: int = 0
    replaced: int = 0


def is_worth_a_build(coverage: Coverage, optimize_from: int = OPTIMIZE_FROM) -> bool:
    """Whether so many points are in no graph, or so many are left of earlier ones, that one is to be built."""
    points, most = coverage.points, int(optimize_from * _MOST_WITHOUT_GRAPH)
    return coverage.unindexed >= min(max(optimize_from, points // 10), most) or coverage.replaced >= min(
        max(int(optimize_from * _REPLACED), points // 2, 1), most
    )


def note_left(directory: Path, left: Left) -> None:
    """Write it down beside the shard. Raises OSError."""
    replace_file(directory / BUILT, msgspec.json.encode(left))


def left_by_build(directory: Path) -> Left:
    """What the build that has made the shard has left; nothing where there was none, or the note cannot be read."""
    try:
        return msgspec.json.decode((directory / BUILT).read_bytes(), type=Left)
    except (OSError, msgspec.DecodeError):
        return Left()
