"""Use case: collections and documents, written and read."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Literal

import msgspec

from app.errors import Conflict, FieldProblem, NotFound, Overloaded
from app.services.document_validation import (
    Submission,
    SubmittedFile,
    Validated,
    failed,
    validate,
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
from indexing.pipeline.progress import Notice, NotIndexed, Report, Summary, SyncRequest, say_nothing
from indexing.pipeline.sync import sync
from indexing.readers.sandbox.pool import ReaderPool
from indexing.store.base import CollectionInfo, Distance, check_name

MAX_AT_ONCE = 64
"""Uploads that may be under way; each holds its documents in memory."""

_SLICE = 64
"""Documents indexed at a time, after which other writers to the collection get their turn."""

_READERS = 2
_RETRY_AFTER_S = 5.0


class Collection(msgspec.Struct, frozen=True, kw_only=True):
    """A collection as users see it.

    `embedder` is the fingerprint of the model that made its vectors. `status` "other embedder" means that searches need
    `winnow index --rebuild` first. `bytes` is null where the store does not tell.
    """

    name: str
    documents: int
    passages: int
    bytes: int | None
    embedder: str
    vector_size: int
    distance: Distance
    status: Literal["ready", "other embedder"]


class Documents:
    """Collections and their documents. The context is asked for with each call, so that it can be opened late."""

    def __init__(self, context: Callable[[], Awaitable[PipelineContext]]) -> None:
        self._context = context
        self._syncing = asyncio.Lock()
        self._uploads = 0
        self._readers: ReaderPool | None = None

    async def close(self) -> None:
        """End the reader processes."""
        if self._readers is not None:
            await self._readers.__aexit__(None, None, None)

    async def sync(self, request: SyncRequest, report: Report = say_nothing) -> Summary:
        """Index files, one run at a time; a second one reports that it waits. Raises the errors of `indexing`."""
        if self._syncing.locked():
            detail = "another run is writing to the index; this one starts when it has finished"
            report(Notice(stage="waiting", detail=detail))
        async with self._syncing:
            return await sync(await self._context(), request, report)

    @asynccontextmanager
    async def no_sync(self) -> AsyncIterator[None]:
        """Keep runs over files out meanwhile."""
        async with self._syncing:
            yield

    async def collections(self) -> list[Collection]:
        """All collections by name."""
        context = await self._context()
        return [await _described(context, info) for info in await context.store.collections()]

    async def collection(self, name: str) -> Collection:
        """Raises CollectionNotFound."""
        context = await self._context()
        return await _described(context, await context.store.info(name))

    async def create(
        self,
        name: str,
        model: str,
        *,
        embedding_model: str | None = None,
        vector_size: int | None = None,
        distance: Distance | None = None,
    ) -> tuple[Collection, bool]:
        """The collection, and whether it is new. `model` is the configured embedding model.

        Raises InvalidName, EmbedderMismatch, and Conflict where it is not of the model, size or distance given.
        """
        check_name(name)
        context = await self._context()
        async with context.submission_lock:
            existing = await find_collection(context, name)
            size = existing.spec.dimension if existing else (await context.embedder.get()).dimension
            actual_distance = existing.spec.distance if existing else "cosine"
            _check_shape(
                name,
                embedding_model=(embedding_model, model),
                vector_size=(vector_size, size),
                distance=(distance, actual_distance),
            )
            info = existing or await ensure_collection(context, name)
        return await _described(context, info), existing is None

    async def drop(self, name: str) -> None:
        """Delete a collection with its documents. Raises CollectionNotFound."""
        await drop_collection(await self._context(), name)

    async def admit(self, collection: str) -> None:
        """Check, before any work, that documents may be put there. Raises InvalidName, EmbedderMismatch."""
        check_name(collection)
        await find_collection(await self._context(), collection)

    @contextmanager
    def uploading(self) -> Iterator[None]:
        """Count an upload while its caller waits. Raises Overloaded if there are too many."""
        if self._uploads >= MAX_AT_ONCE:
            raise Overloaded("too many uploads are under way; try again later", _RETRY_AFTER_S)
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1

    async def read(self, submissions: Sequence[Submission]) -> list[Validated]:
        """The documents of all submissions in order, each with its id, or why it cannot be indexed."""
        unvalidated = [document for submission in submissions for document in await self._read(submission)]
        return await asyncio.to_thread(validate, unvalidated)

    async def index(
        self,
        collection: str,
        documents: Sequence[Validated],
        on_results: Callable[[Sequence[DocumentResult]], None] = lambda _: None,
    ) -> list[DocumentResult]:
        """Index what `read` gave; one result each, in order. `on_results` gets each slice once it is searchable."""
        results: list[DocumentResult] = []
        for start in range(0, len(documents), _SLICE):
            part = documents[start : start + _SLICE]
            done = await self._index(collection, part)
            on_results(done)
            results.extend(done)
        return results

    async def page(self, collection: str, *, after: str, limit: int) -> tuple[list[DocumentRecord], bool]:
        """Up to `limit` documents by id, those after `after`, and whether more follow. Raises CollectionNotFound."""
        context = await self._context()
        lineage = (await context.store.info(collection)).spec.lineage
        records = await context.manifest.documents(lineage, after=after, limit=limit + 1)
        return records[:limit], len(records) > limit

    async def document(self, collection: str, document_id: str) -> tuple[DocumentRecord, list[Passage]]:
        """A document and its passages in order. Raises CollectionNotFound, NotFound."""
        context = await self._context()
        lineage = (await context.store.info(collection)).spec.lineage
        record = await context.manifest.document(lineage, document_id)
        if record is None or record.version is None:
            raise document_not_found(collection, document_id)
        return record, await context.store.passages(collection, document_id)

    async def put(self, collection: str, documents: Sequence[SubmittedDocument]) -> list[DocumentResult]:
        """Index submitted documents."""
        return await put_documents(await self._context(), collection, documents)

    async def put_bytes(self, data: bytes, name: str, collection: str) -> Summary:
        """Read a document that is not a file of ours, as if it were called `name`, and index it."""
        context, begun = await self._context(), time.perf_counter()
        try:
            async with ReaderPool(context.limits) as pool:
                documents = await pool.read(data, name)
        except UnreadableDocument as exc:
            refused = (NotIndexed(source=name, reason=exc.reason, detail=exc.detail),)
            return Summary(collection=collection, refused=refused)
        submitted = [SubmittedDocument(document=document, id=own_id(document), source=name) for document in documents]
        outcomes = await self.put(collection, submitted)
        return await self._summary(collection, name, outcomes, time.perf_counter() - begun)

    async def delete(self, collection: str, document_id: str) -> bool:
        """Remove a document; False when there is none of that id. Raises CollectionNotFound."""
        return await delete_document(await self._context(), collection, document_id)

    async def _summary(self, collection: str, name: str, outcomes: Sequence[DocumentResult], seconds: float) -> Summary:
        context = await self._context()
        info = await context.store.info(collection)
        count = Counter(outcome.status for outcome in outcomes)
        return Summary(
            collection=collection,
            created=count["created"],
            updated=count["updated"],
            unchanged=count["unchanged"],
            refused=tuple(
                NotIndexed(source=name, reason=o.reason or "", detail=o.detail or "") for o in outcomes if o.reason
            ),
            passages=sum(outcome.passages for outcome in outcomes if outcome.status != "unchanged"),
            total_documents=await context.manifest.count(info.spec.lineage),
            total_passages=info.passages,
            seconds=round(seconds, 3),
        )

    async def _read(self, submission: Submission) -> list[Validated]:
        if not isinstance(submission, SubmittedFile):
            return [submission]
        if self._readers is None:
            self._readers = ReaderPool((await self._context()).limits, _READERS)
        try:
            documents = await self._readers.read(submission.data, submission.name, submission.media_type)
        except UnreadableDocument as exc:
            return [failed(exc.reason, exc.detail, source=submission.name)]
        return [
            SubmittedDocument(document=document, id=own_id(document), source=submission.name) for document in documents
        ]

    async def _index(self, collection: str, part: Sequence[Validated]) -> list[DocumentResult]:
        good = [submission for submission in part if isinstance(submission, SubmittedDocument)]
        outcomes = iter(await self.put(collection, good) if good else ())
        return [next(outcomes) if isinstance(submission, SubmittedDocument) else submission for submission in part]


def document_not_found(collection: str, document_id: str) -> NotFound:
    """The error for a missing document."""
    return NotFound(f"document {document_id!r} not found in collection {collection!r}")


async def _described(context: PipelineContext, info: CollectionInfo) -> Collection:
    return Collection(
        name=info.name,
        documents=await context.manifest.count(info.spec.lineage),
        passages=info.passages,
        bytes=await context.store.bytes_on_disk(info.name),
        embedder=info.spec.embedder,
        vector_size=info.spec.dimension,
        distance=info.spec.distance,
        status="ready" if info.spec.embedder == context.embedder.fingerprint else "other embedder",
    )


def _check_shape(name: str, **shape: tuple[object, object]) -> None:
    """Raise Conflict where an expected value (None: any) is not the actual one; `shape` has both."""
    problems = tuple(
        FieldProblem(f"/{field}", f"it is {actual!r} here, not {expected!r}")
        for field, (expected, actual) in shape.items()
        if expected not in (None, actual)
    )
    if problems:
        listed = "; ".join(f"{problem.pointer[1:]}: {problem.detail}" for problem in problems)
        raise Conflict(f"collection {name!r} cannot have this shape: {listed}", problems)
