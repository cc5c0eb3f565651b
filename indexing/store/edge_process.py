"""Does one thing to a Qdrant Edge shard and ends: `python edge_process.py optimize|check DIRECTORY`.

A process of its own: `EdgeShard.optimize` holds the interpreter's lock for as long as it runs (measured: 9 s at
40k x 384, in which no other thread ran at all), and damaged files can end the process that opens them. Run by path, so
that it needs nothing but the engine.
"""

import json
import os
import sys
import time
from pathlib import Path

from qdrant_edge import EdgeShard, Query, QueryRequest, ScrollRequest, SparseVector

_NICENESS = 5
_PAGE = 512
_READING_S = 2.0


def optimize(directory: str) -> None:
    """Build what is missing of its graphs."""
    if hasattr(os, "nice"):
        os.nice(_NICENESS)  # searches go first
    shard = EdgeShard.load(directory)
    shard.optimize()
    shard.close()


def check(directory: str) -> None:
    """Search each side, and read passages for up to two seconds; fails if anything does not work as it should."""
    shard = EdgeShard.load(directory)
    config = json.loads((Path(directory) / "edge_config.json").read_text())
    (name, vectors), *_ = config["vectors"].items()
    nearest = shard.query(QueryRequest(limit=1, query=Query.Nearest([1.0] * vectors["size"], using=name)))
    if shard.info().points_count and not nearest:
        raise ValueError("its vectors are gone")
    for sparse in config["sparse_vectors"]:
        shard.query(QueryRequest(limit=1, query=Query.Nearest(SparseVector([1], [1.0]), using=sparse)))
    _read(shard)
    shard.close()


def _read(shard: EdgeShard) -> None:
    began, offset = time.monotonic(), None
    while time.monotonic() - began < _READING_S:
        records, following = shard.scroll(ScrollRequest(limit=_PAGE, offset=offset, with_payload=True))
        if not all("document_id" in (record.payload or {}) for record in records):
            raise ValueError("texts of its passages are gone")
        if following is None:
            return
        offset = str(following)


if __name__ == "__main__":
    {"optimize": optimize, "check": check}[sys.argv[1]](sys.argv[2])
