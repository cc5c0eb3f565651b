"""Optimises one Qdrant Edge shard and ends: `python edge_optimize.py DIRECTORY`.

A process of its own, because `EdgeShard.optimize` holds the interpreter's lock for as long as it runs (measured: 9 s at
40k x 384, in which no other thread ran at all). Run by path, so that it needs nothing but the engine.
"""

import os
import sys

from qdrant_edge import EdgeShard

_NICENESS = 5


def main(directory: str) -> None:
    if hasattr(os, "nice"):
        os.nice(_NICENESS)  # searches go first
    shard = EdgeShard.load(directory)
    shard.optimize()
    shard.close()


if __name__ == "__main__":
    main(sys.argv[1])
