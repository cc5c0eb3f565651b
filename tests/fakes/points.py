"""Small passages with vectors, for stores."""

from typing import Any

import numpy as np

from indexing.documents import Passage, passage_id
from indexing.store.base import CollectionSpec, Point, SparseVector, Vector

SPEC = CollectionSpec(dimension=4, embedder="model-a")


def vector(*values: float) -> Vector:
    """Four dimensions; what is not given is 0."""
    return np.array([*values, *[0.0] * (4 - len(values))], dtype=np.float32)


def passage(document_id: str, *, ordinal: int = 0, version: str = "v1", **fields: Any) -> Passage:
    fields.setdefault("text", f"{document_id} {ordinal}")
    return Passage(
        id=passage_id(document_id, version, ordinal),
        document_id=document_id,
        version=version,
        ordinal=ordinal,
        start=0,
        end=len(fields["text"]),
        **fields,
    )


def point(
    document_id: str, *, dense: Vector | None = None, sparse: dict[int, float] | None = None, **fields: Any
) -> Point:
    """`sparse` maps token ids to weights."""
    return Point(
        passage=passage(document_id, **fields),
        dense=vector(1.0) if dense is None else dense,
        sparse=SparseVector(list(sparse), list(sparse.values())) if sparse else None,
    )
