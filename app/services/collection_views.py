"""Collections as they are shown, and whether one is as somebody wants it."""

from typing import Literal

import msgspec

from app.errors import Conflict, FieldProblem
from indexing.documents import Audience
from indexing.pipeline.context import PipelineContext
from indexing.pipeline.recovery import compare
from indexing.store.base import CollectionInfo, CollectionSpec, Damaged, Distance

Status = Literal["ready", "embedder_mismatch", "incomplete", "damaged"]


class Collection(msgspec.Struct, frozen=True, kw_only=True):
    """A collection as users see it.

    `embedder` is the fingerprint of the model that made its vectors. `status` "embedder_mismatch" means that searches
    need `winnow index --rebuild` first, "incomplete" that documents are unknown or lack passages: `winnow collections
    repair`. One that is "damaged" serves nothing: `detail` says what is wrong and the way back; of others, why they are
    slower than they should be. `bytes` is null where the store does not tell.
    """

    name: str
    documents: int
    passages: int
    bytes: int | None
    embedder: str
    vector_size: int
    distance: Distance
    status: Status
    detail: str = ""


async def described(context: PipelineContext, info: CollectionInfo, audience: Audience) -> Collection:
    """To others than the operator, the counts are of what they may see, and no more is told."""
    status: Status = "ready" if info.spec.embedder == context.embedder.fingerprint else "embedder_mismatch"
    if not audience.unrestricted:
        documents, passages = await context.manifest.seen(info.spec.lineage, audience)
        return _shown(info.name, info.spec, documents, passages, status)
    found = await compare(context.manifest, context.store, info)
    if status == "ready" and not found.agree:
        status = "incomplete"
    size = await context.store.bytes_on_disk(info.name)
    return _shown(info.name, info.spec, found.recorded.documents, info.passages, status, size=size, detail=info.detail)


async def described_damage(context: PipelineContext, damaged: Damaged, audience: Audience) -> Collection:
    """One that serves nothing, with the way back."""
    spec = damaged.spec or CollectionSpec(dimension=0, embedder="")
    documents, _ = await context.manifest.seen(spec.lineage, audience)
    return _shown(damaged.name, spec, documents, 0, "damaged", detail=damaged.text())


def _shown(
    name: str,
    spec: CollectionSpec,
    documents: int,
    passages: int,
    status: Status,
    *,
    size: int | None = None,
    detail: str = "",
) -> Collection:
    return Collection(
        name=name,
        documents=documents,
        passages=passages,
        bytes=size,
        embedder=spec.embedder,
        vector_size=spec.dimension,
        distance=spec.distance,
        status=status,
        detail=detail,
    )


def check_shape(name: str, **shape: tuple[object, object]) -> None:
    """Raise Conflict where an expected value (None: any) is not the actual one; `shape` has both."""
    problems = tuple(
        FieldProblem(f"/{field}", f"it is {actual!r} here, not {expected!r}")
        for field, (expected, actual) in shape.items()
        if expected not in (None, actual)
    )
    if problems:
        listed = "; ".join(f"{problem.pointer[1:]}: {problem.detail}" for problem in problems)
        raise Conflict(f"collection {name!r} cannot have this shape: {listed}", problems)
