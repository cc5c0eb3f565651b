"""One ranking from the dense and the sparse side. Pure."""

from collections.abc import Mapping
from typing import Any

import msgspec

from indexing.documents import Passage
from indexing.store.base import Retrieved


class Fused(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate of either side. `fused` >= 0; `score` is `fused` over its own maximum possible value, in [0,1]."""

    passage: Passage
    dense: float | None
    sparse: float | None
    fused: float
    score: float


def fuse(query: str, retrieved: Retrieved, notes: Mapping[str, Any]) -> list[Fused]:
    """By descending score, ties by passage id. A side that was not searched counts for nothing.

    `notes` are the collection's (`CollectionSpec.notes`).
    """
    raise NotImplementedError
