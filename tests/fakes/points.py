"""Small passages with vectors, for stores; and everything that lies in one."""

from typing import Any

import numpy as np

from indexing.documents import Passage, from_payload, passage_id
from indexing.store.base import CollectionSpec, Point, SparseVector, Vector, VectorStore
from indexing.store.embedded import EmbeddedStore
from indexing.store.server import ServerStore

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


async def everything(store: VectorStore, name: str) -> list[Passage]:
    """Every passage of a collection, read below the port: what a kill left behind too. In no particular order."""
    if isinstance(store, EmbeddedStore):
        rows = await store._read(name, lambda shard: list(shard._scroll(None)))
        return [from_payload(key, payload) for key, payload in rows]
    assert isinstance(store, ServerStore)
    records = [record async for record in store._scroll(name, None)]
    return [from_payload(str(record.id), record.payload or {}) for record in records]
