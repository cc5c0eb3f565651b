"""Use cases: collections and documents, written and looked at."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from app.errors import Conflict, FieldProblem, NotFound, Overloaded
from app.services.document_validation import (
    Examined,
    Offer,
    OfferedFile,
    Rejected,
    examined,
    rejection,
)
from indexing.documents import Passage
from indexing.errors import UnreadableDocument
from indexing.pipeline.context import PipelineContext, ensure_collection, find_collection
from indexing.pipeline.ingest import (
    DocumentResult,
    SubmittedDocument,
    delete_document,
    drop_collection,
    put_documents,
)
from indexing.pipeline.manifest import DocumentRecord
from indexing.pipeline.planning import own_id
from indexing.pipeline.progress import Notice, Refused, Report, Summary, SyncRequest, say_nothing
from indexing.pipeline.sync import sync
from indexing.readers.sandbox.pool import ReaderPool
from indexing.store.base import CollectionInfo, check_name


class Page(msgspec.Struct, frozen=True):
    """A part of a list; `more` says whether something follows."""

    records: list[DocumentRecord]
    more: bool


class Catalogue:
    """What collections hold. The workbench is asked for with each call, so that it can be opened late."""

    def __init__(self, bench: Callable[[], Awaitable[PipelineContext]]) -> None:
        self._bench = bench

    async def count(self, lineage: str) -> int:
        """The documents of a filling of a collection."""
        bench = await self._bench()
        return await bench.manifest.count(lineage)

    async def page(self, collection: str, *, after: str, limit: int) -> Page:
        """Documents by id, those after `after`. Raises CollectionNotFound."""
        bench = await self._bench()
        lineage = (await bench.store.info(collection)).spec.lineage
        records = await bench.manifest.documents(lineage, after=after, limit=limit + 1)
        return Page(records[:limit], len(records) > limit)

    async def document(self, collection: str, document_id: str) -> tuple[DocumentRecord, list[Passage]]:
        """A document and its passages in order. Raises CollectionNotFound, NotFound."""
        bench = await self._bench()
        lineage = (await bench.store.info(collection)).spec.lineage
        record = await bench.manifest.document(lineage, document_id)
        if record is None or record.version is None:
            raise NotFound(no_document(collection, document_id))
        return record, await bench.store.passages(collection, document_id)


def no_document(collection: str, document_id: str) -> str:
    """The sentence for it."""
    return f"there is no document {document_id!r} in the collection {collection!r}"


MAX_AT_ONCE = 64
"""Uploads that may be under way; each holds its documents in memory."""

_SLICE = 64
"""Documents that are indexed before another put to the same collection gets its turn."""

_READERS = 2
_RETRY_AFTER_S = 5.0


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller expects of a collection; None where anything will do."""

    embedding_model: str | None = None
    vector_size: int | None = None
    distance: str | None = None


class Library:
    """Writes to collections. The workbench is asked for with each call, so that it can be opened late."""

    def __init__(self, bench: Callable[[], Awaitable[PipelineContext]]) -> None:
        self._bench = bench
        self._syncing = asyncio.Lock()
        self._uploads = 0
        self._readers: ReaderPool | None = None

    async def close(self) -> None:
        """Let go of the reader processes."""
        if self._readers is not None:
            await self._readers.__aexit__(None, None, None)

    async def sync(self, request: SyncRequest, report: Report = say_nothing) -> Summary:
        """One run at a time; a second one says that it waits. Raises the errors of `indexing`."""
        if self._syncing.locked():
            detail = "another run is writing to the index; this one starts when it has finished"
            report(Notice(stage="waiting", detail=detail))
        async with self._syncing:
            return await sync(await self._bench(), request, report)

    async def create(self, name: str, shape: Shape, model: str) -> tuple[CollectionInfo, bool]:
        """The collection, and whether it is new. `model` is the configured embedding model.

        Raises InvalidName, EmbedderMismatch, and Conflict where `shape` is another.
        """
        check_name(name)
        bench = await self._bench()
        async with bench.submission_lock:
            found = await find_collection(bench, name)
            size = found.spec.dimension if found else (await bench.embedder.get()).dimension
            actual = {
                "embedding_model": model,
                "vector_size": size,
                "distance": found.spec.distance if found else "cosine",
            }
            _agree(name, shape, actual)
            return found or await ensure_collection(bench, name), found is None

    async def drop(self, name: str) -> None:
        """Delete a collection with its documents. Raises CollectionNotFound."""
        await drop_collection(await self._bench(), name)

    async def admit(self, collection: str) -> None:
        """Whether documents may be put there, before any work. Raises InvalidName, EmbedderMismatch."""
        check_name(collection)
        await find_collection(await self._bench(), collection)

    @contextmanager
    def uploading(self) -> Iterator[None]:
        """Around everything that is done with an upload while its caller waits. Raises Overloaded."""
        if self._uploads >= MAX_AT_ONCE:
            raise Overloaded("too many uploads are under way; try again later", _RETRY_AFTER_S)
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1

    async def read(self, offers: Sequence[Offer]) -> list[Examined]:
        """The documents of all offers in order, each with its id, or why it cannot be indexed."""
        found = [document for offer in offers for document in await self._read(offer)]
        return await asyncio.to_thread(examined, found)

    async def index(
        self,
        collection: str,
        documents: Sequence[Examined],
        tell: Callable[[Sequence[DocumentResult]], None] = lambda _: None,
    ) -> list[DocumentResult]:
        """Index what `read` gave; one result each, in order, told slice by slice. Searchable when told."""
        results: list[DocumentResult] = []
        for start in range(0, len(documents), _SLICE):
            part = documents[start : start + _SLICE]
            done = await self._index(collection, part)
            tell(done)
            results.extend(done)
        return results

    async def put(self, collection: str, documents: Sequence[SubmittedDocument]) -> list[DocumentResult]:
        """Index documents that are handed over."""
        return await put_documents(await self._bench(), collection, documents)

    async def put_bytes(self, data: bytes, name: str, collection: str) -> Summary:
        """Read a document that is not a file of ours, as if it were called `name`, and index it."""
        bench, begun = await self._bench(), time.perf_counter()
        try:
            async with ReaderPool(bench.limits) as pool:
                documents = await pool.read(data, name)
        except UnreadableDocument as exc:
            refused = (Refused(source=name, reason=exc.reason, detail=exc.detail),)
            return Summary(collection=collection, refused=refused)
        handed = [SubmittedDocument(document=document, id=own_id(document), source=name) for document in documents]
        outcomes = await self.put(collection, handed)
        return await self._summary(collection, name, outcomes, time.perf_counter() - begun)

    async def delete(self, collection: str, document_id: str) -> bool:
        """Remove a document; False when there is none of that id. Raises CollectionNotFound."""
        return await delete_document(await self._bench(), collection, document_id)

    async def _summary(self, collection: str, name: str, outcomes: Sequence[DocumentResult], seconds: float) -> Summary:
        bench = await self._bench()
        info = await bench.store.info(collection)
        count = Counter(outcome.status for outcome in outcomes)
        return Summary(
            collection=collection,
            created=count["created"],
            updated=count["updated"],
            unchanged=count["unchanged"],
            refused=tuple(
                Refused(source=name, reason=o.reason or "", detail=o.detail or "") for o in outcomes if o.reason
            ),
            passages=sum(outcome.passages for outcome in outcomes if outcome.status != "unchanged"),
            total_documents=await bench.manifest.count(info.spec.lineage),
            total_passages=info.passages,
            seconds=round(seconds, 3),
        )

    async def _read(self, offer: Offer) -> list[Examined]:
        if not isinstance(offer, OfferedFile):
            return [offer]
        if self._readers is None:
            self._readers = ReaderPool((await self._bench()).limits, _READERS)
        try:
            documents = await self._readers.read(offer.data, offer.name, offer.media_type)
        except UnreadableDocument as exc:
            return [Rejected(reason=exc.reason, detail=exc.detail, source=offer.name)]
        return [SubmittedDocument(document=document, id=own_id(document), source=offer.name) for document in documents]

    async def _index(self, collection: str, part: Sequence[Examined]) -> list[DocumentResult]:
        good = [offer for offer in part if isinstance(offer, SubmittedDocument)]
        outcomes = iter(await self.put(collection, good) if good else ())
        return [next(outcomes) if isinstance(offer, SubmittedDocument) else rejection(offer) for offer in part]


def _agree(name: str, shape: Shape, actual: dict[str, object]) -> None:
    wanted = {field: value for field, value in msgspec.structs.asdict(shape).items() if value is not None}
    problems = tuple(
        FieldProblem(f"/{field}", f"it is {actual[field]!r} here, not {value!r}")
        for field, value in wanted.items()
        if value != actual[field]
    )
    if problems:
        said = "; ".join(f"{problem.pointer[1:]}: {problem.detail}" for problem in problems)
        raise Conflict(f"the collection {name!r} cannot have that shape: {said}", problems)
