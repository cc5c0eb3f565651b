"""What everything that writes to a collection shares: the store, the manifest and the embedder, and that they agree."""

import asyncio
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from indexing.chunking.chunker import CHUNKER_VERSION
from indexing.disk import DiskGuard
from indexing.embedding.batching import LazyEmbedder, check_embedder
from indexing.embedding.calibration import dense_unit
from indexing.embedding.model import Embedder, embedder_fingerprint
from indexing.errors import CollectionDamaged, CollectionNotFound
from indexing.pipeline.manifest import Manifest
from indexing.pipeline.progress import Report, loading_model, say_nothing
from indexing.pipeline.queues import DocumentLocks, Gate, Turns
from indexing.pipeline.visibility import Visibility
from indexing.readers.limits import ReadLimits
from indexing.retrieval.bm25 import LEXICAL_VERSION, Lexical
from indexing.settings import EmbeddingSettings
from indexing.store.base import CollectionInfo, CollectionSpec, VectorStore


class Claims:
    """The documents of a lineage that one writer has in hand.

    Two writers of the same document would each delete the other's passages as stale.
    """

    def __init__(self, lineage: str, owners: dict[tuple[str, str], str]) -> None:
        self._lineage, self._owners = lineage, owners
        self._mine: set[str] = set()

    def claim(self, document_id: str, owner: str) -> str | None:
        """None, or the other owner that is writing this document at the moment."""
        holder = self._owners.setdefault((self._lineage, document_id), owner)  # atomic: several threads claim
        if holder == owner:
            self._mine.add(document_id)
        return None if holder == owner else holder

    def release(self, document_ids: Iterable[str]) -> None:
        """From now on the manifest says whose these are: of a run over millions, the claims would fill the memory."""
        for document_id in self._mine.intersection(document_ids):
            self._mine.discard(document_id)
            del self._owners[self._lineage, document_id]

    def release_all(self) -> None:
        """The writer is at its end."""
        self.release(list(self._mine))


class PipelineContext(msgspec.Struct, frozen=True, kw_only=True):
    """The parts that writers share.

    `disk` is asked before a document is announced, so that what is refused leaves no trace. `owners` says who is
    writing which document: lineage and document id -> a path, or "" for the API. `building` are the lineages of
    generations that no collection has yet. `units` are the measured scales of embedders.
    """

    store: VectorStore
    manifest: Manifest
    embedder: LazyEmbedder
    limits: ReadLimits
    lexical: Lexical
    disk: DiskGuard = msgspec.field(default_factory=lambda: DiskGuard(Path(), 0))
    visibility: Visibility = msgspec.field(default_factory=Visibility)
    locks: DocumentLocks = msgspec.field(default_factory=DocumentLocks)
    turns: Turns = msgspec.field(default_factory=Turns)
    gates: dict[str, Gate] = msgspec.field(default_factory=dict)
    owners: dict[tuple[str, str], str] = msgspec.field(default_factory=dict)
    building: set[str] = msgspec.field(default_factory=set)
    units: dict[str, float] = msgspec.field(default_factory=dict)

    def gate(self, lineage: str) -> Gate:
        """What every step of a writer to this lineage passes."""
        return self.gates.setdefault(lineage, Gate()) if lineage else Gate()  # "": of a damaged one it may be unknown

    async def model(self, report: Report = say_nothing) -> Embedder:
        """The embedding model, reported if it has to be loaded. Raises EmbedderUnavailable."""
        return await self.embedder.get(lambda model: report(loading_model(model)))

    @contextmanager
    def building_lineage(self, lineage: str) -> Iterator[None]:
        """What is recorded under it counts as needed until the block ends, though no collection has it yet."""
        self.building.add(lineage)
        try:
            yield
        finally:
            self.building.discard(lineage)

    @contextmanager
    def claiming(self, lineage: str) -> Iterator[Claims]:
        """Claims to documents that hold until the block ends, if they are not released before."""
        claims = Claims(lineage, self.owners)
        try:
            yield claims
        finally:
            claims.release_all()


def index_fingerprint(settings: EmbeddingSettings) -> str:
    """What a collection's vectors depend on: the model, the way documents are cut, and the lexical side."""
    return f"{embedder_fingerprint(settings)}; chunks {CHUNKER_VERSION}; {LEXICAL_VERSION}"


async def find_collection(context: PipelineContext, name: str) -> CollectionInfo | None:
    """The collection, or None. Raises EmbedderMismatch."""
    with suppress(CollectionNotFound):
        info = await context.store.info(name)
        check_embedder(info, context.embedder.fingerprint)
        return info
    return None


async def is_damaged(context: PipelineContext, name: str) -> bool:
    """Whether a collection, or a part of it, is damaged as far as is known; not one that only waits for space."""
    return any(one.name == name and not one.for_now for one in await context.store.damaged())


async def live_lineage(context: PipelineContext, name: str) -> str | None:
    """Of a damaged collection too, as far as it is known; None if there is no collection."""
    try:
        return (await context.store.info(name)).spec.lineage
    except CollectionNotFound:
        return None
    except CollectionDamaged as exc:
        return exc.lineage


async def ensure_collection(context: PipelineContext, name: str, report: Report = say_nothing) -> CollectionInfo:
    """The collection, created if it does not exist. Raises EmbedderMismatch."""
    return await find_collection(context, name) or await context.store.create(name, await new_spec(context, report))


async def new_spec(context: PipelineContext, report: Report = say_nothing) -> CollectionSpec:
    """The shape of a new collection, with the embedder's scale measured."""
    embedder = await context.model(report)
    fingerprint = context.embedder.fingerprint
    if fingerprint not in context.units:
        context.units[fingerprint] = round(await asyncio.to_thread(dense_unit, embedder), 4)
    return CollectionSpec(
        dimension=embedder.dimension,
        embedder=fingerprint,
        lineage=uuid.uuid4().hex,
        notes={"dense_unit": context.units[fingerprint]},
    )


async def show_what_counts(context: PipelineContext) -> None:
    """Before anything is read: readers see what counts of the documents that a killed process had under way."""
    for lineage, records in (await context.manifest.unfinished_all()).items():
        context.visibility.show(lineage, {record.id: record.counts for record in records})


async def forget_lost_lineages(context: PipelineContext) -> None:
    """Clear the manifest of what no collection holds any more."""
    recorded = await context.manifest.lineages()  # before the look at the store: of a newer one nothing is known there
    specs = [info.spec for info in await context.store.collections()]
    damaged = [one.spec for one in await context.store.damaged()]
    known = [spec for spec in damaged if spec is not None]
    if len(known) == len(damaged):  # else whose rows are whose is not known
        held = {spec.lineage for spec in (*specs, *known)} | context.building
        for lineage in recorded - held:
            await context.manifest.forget_lineage(lineage)
