"""What every writer to a collection stands on: the store, the manifest and the embedder, and that they agree."""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

import msgspec

from indexing.chunking.chunker import CHUNKER_VERSION
from indexing.embedding.calibration import dense_unit
from indexing.embedding.model import Embedder, embedder_fingerprint, load_embedder
from indexing.errors import CollectionNotFound, EmbedderMismatch
from indexing.pipeline.manifest import Manifest
from indexing.pipeline.progress import LoadingModel, Report, say_nothing
from indexing.readers.limits import ReadLimits
from indexing.retrieval.bm25 import LEXICAL_VERSION, Lexical
from indexing.settings import EmbeddingSettings
from indexing.store.base import CollectionInfo, CollectionSpec, VectorStore


class EmbedderSource(Protocol):
    """An embedder whose fingerprint is known before it is loaded."""

    @property
    def fingerprint(self) -> str:
        """What a collection's vectors depend on."""

    async def get(self, report: Report = say_nothing) -> Embedder:
        """The embedder, loaded once. Raises EmbedderUnavailable; a later call tries again."""


class LazyEmbedder:
    """The configured embedding model, loaded in a thread when it is first needed, once."""

    def __init__(
        self, settings: EmbeddingSettings, load: Callable[[EmbeddingSettings], Embedder] = load_embedder
    ) -> None:
        self._settings = settings
        self._load = load
        self._loading = asyncio.Lock()
        self._embedder: Embedder | None = None

    @property
    def fingerprint(self) -> str:
        """What a collection's vectors depend on: the model, the way documents are cut, and the lexical side."""
        return f"{embedder_fingerprint(self._settings)}; chunks {CHUNKER_VERSION}; {LEXICAL_VERSION}"

    @property
    def loaded(self) -> bool:
        return self._embedder is not None

    async def get(self, report: Report = say_nothing) -> Embedder:
        """Raises EmbedderUnavailable; a later call tries again."""
        async with self._loading:
            if self._embedder is None:
                report(LoadingModel(model=self._settings.model))
                self._embedder = await asyncio.to_thread(self._load, self._settings)
            return self._embedder


Claim = Callable[[str, str], str | None]
"""(document id, owner) -> None, or the other owner that is writing this document just now."""


class Claims:
    """Who is writing which document: two writers of the same one would delete each other's passages."""

    def __init__(self) -> None:
        self._owners: dict[tuple[str, str], str] = {}

    @contextmanager
    def of(self, lineage: str) -> Iterator[Claim]:
        """Claims that hold until the block ends."""
        mine: set[tuple[str, str]] = set()

        def claim(document_id: str, owner: str) -> str | None:
            key = (lineage, document_id)
            holder = self._owners.setdefault(key, owner)
            if holder == owner:
                mine.add(key)
            return None if holder == owner else holder

        try:
            yield claim
        finally:
            for key in mine:
                del self._owners[key]


class Workbench(msgspec.Struct, frozen=True, kw_only=True):
    """The parts that writers share. Whoever changes documents that were handed over holds `handing`."""

    store: VectorStore
    manifest: Manifest
    embedder: EmbedderSource
    limits: ReadLimits
    lexical: Lexical
    claims: Claims = msgspec.field(default_factory=Claims)
    handing: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)


class Target(msgspec.Struct, frozen=True):
    """Where to write: `name` for the store (a collection or a generation under construction), `lineage` for the
    manifest.
    """

    name: str
    lineage: str


def live_target(info: CollectionInfo) -> Target:
    """The generation that readers see."""
    return Target(info.name, info.spec.lineage)


def check_embedder(info: CollectionInfo, fingerprint: str) -> None:
    """Raises EmbedderMismatch when the collection's vectors were made by something else than what is configured."""
    if info.spec.embedder != fingerprint:
        raise EmbedderMismatch(
            f"the collection {info.name!r} was indexed with [{info.spec.embedder}], but [{fingerprint}] is configured: "
            f"run `winnow index --rebuild --collection {info.name}`, or configure the earlier model again; "
            'searches of mode "sparse" work meanwhile'
        )


async def find_collection(bench: Workbench, name: str) -> CollectionInfo | None:
    """The collection, or None. Raises EmbedderMismatch."""
    with suppress(CollectionNotFound):
        info = await bench.store.info(name)
        check_embedder(info, bench.embedder.fingerprint)
        return info
    return None


async def ensure_collection(bench: Workbench, name: str, report: Report = say_nothing) -> CollectionInfo:
    """The collection, created when it is not there. Raises EmbedderMismatch."""
    return await find_collection(bench, name) or await bench.store.create(name, await new_spec(bench, report))


async def new_spec(bench: Workbench, report: Report = say_nothing) -> CollectionSpec:
    """The shape of a new collection, with the embedder's scale measured."""
    embedder = await bench.embedder.get(report)
    unit = await asyncio.to_thread(dense_unit, embedder)
    return CollectionSpec(
        dimension=embedder.dimension,
        embedder=bench.embedder.fingerprint,
        lineage=uuid.uuid4().hex,
        notes={"dense_unit": round(unit, 4)},
    )


async def forget_lost_lineages(bench: Workbench) -> None:
    """Clear the manifest of what no collection holds any more. Not while a rebuild is under way."""
    bench.manifest.keep_lineages([info.spec.lineage for info in await bench.store.collections()])
