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

_NICENESS = 10
_PAGE = 512
_READING_S = 2.0
_WORDY = 200
"""Letters."""


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
    _read(shard, list(config["sparse_vectors"]))
    shard.close()


def _read(shard: EdgeShard, sparse_names: list[str]) -> None:
    began, offset = time.monotonic(), None
    while time.monotonic() - began < _READING_S:
        request = ScrollRequest(limit=_PAGE, offset=offset, with_payload=True, with_vector=True)
        records, following = shard.scroll(request)
        if not all("document_id" in (record.payload or {}) for record in records):
            raise ValueError("texts of its passages are gone")
        wordy = [record for record in records if _is_wordy((record.payload or {})["text"])]
        if wordy and not any(_has_terms(record.vector, sparse) for record in wordy for sparse in sparse_names):
            raise ValueError("the terms of its passages are gone")
        if following is None:
            return
        offset = str(following)


def _is_wordy(text: str) -> bool:
    """A text that surely has terms; a short one may consist of words that are not indexed."""
    return sum(map(str.isalpha, text)) >= _WORDY


def _has_terms(vectors: object, name: str) -> bool:
    sparse = vectors.get(name) if isinstance(vectors, dict) else None
    return isinstance(sparse, SparseVector) and any(sparse.values)


if __name__ == "__main__":
    {"optimize": optimize, "check": check}[sys.argv[1]](sys.argv[2])
