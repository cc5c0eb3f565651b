"""Use case: collections and documents, written and read."""

import asyncio
import time
import unicodedata
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path

import structlog

from app.errors import InvalidRequest, NotFound, Overloaded, WinnowError
from app.services.admission import Gates
from app.services.collection_views import Collection, check_shape, described, described_damage
from app.services.document_validation import (
    Submission,
    SubmittedFile,
    Validated,
    WholeFile,
    failed,
    groups_problem,
    owned,
    tenant_problem,
    validate,
)
from app.services.indexing_time import IndexingTime
from app.services.job_records import Outcome
from indexing.concurrency import Resource
from indexing.documents import Audience, Document, Passage, Refused, document_key
from indexing.errors import CollectionNotFound, UnreadableDocument
from indexing.pipeline.context import PipelineContext, ensure_collection, find_collection
from indexing.pipeline.ingest import (
    Announce,
    DocumentResult,
    Overtaken,
    SubmittedDocument,
    announce_nothing,
    delete_document,
    drop_collection,
    finish_deletions,
    finish_submitted,
    none_overtaken,
    put_documents,
)
from indexing.pipeline.manifest import DocumentRecord
from indexing.pipeline.progress import Notice, NotIndexed, Report, Summary, SyncRequest, reading_scan, say_nothing
from indexing.pipeline.read_stage import Reading
from indexing.pipeline.sync import sync
from indexing.readers.sandbox.pool import ReaderPool
from indexing.store.base import CollectionInfo, Distance, check_name

MAX_AT_ONCE = 64
"""Uploads whose callers wait until they are indexed."""

SMALL_UPLOAD = 20_000
"""Bytes; a dozen passages."""

MAX_BODY_BYTES = 500_000_000
"""Of all uploads together that are being received, or that somebody waits for: they are in memory."""

Overtake = Callable[[str, Mapping[str, str]], Awaitable[None]]
"""(collection, id -> version that a document is about to have, "" for none): jobs that came earlier leave it so."""

_READERS = 2
_RETRY_AFTER_S = 5.0


log = structlog.get_logger()


def no_cluster(address: str) -> Reading:
    """For what has none. Raises InvalidRequest."""
    raise InvalidRequest(
        f"the Ray cluster at {address} can write to a Qdrant server only, not to an index in this process: set "
        "QDRANT_URL, or leave --ray out"
    )


class Documents:
    """Collections and their documents. The context is asked for with each call, so that it can be opened late.

    `on_cluster` gives what reads on the Ray cluster at an address.
    """

    def __init__(
        self,
        context: Callable[[], Awaitable[PipelineContext]],
        gates: Gates,
        on_cluster: Callable[[str], Reading] = no_cluster,
    ) -> None:
        self._context, self._gates, self._on_cluster = context, gates, on_cluster
        self.indexing_time = IndexingTime()
        self._syncing: dict[str, asyncio.Lock] = {}
        self._unfinished: dict[str, str] = {}
        """Why documents of a collection are unfinished, as it was logged."""
        self._uploads = self._body_bytes = 0
        self._readers = Resource(self._open_readers)
        self._slow_readers = Resource(self._open_readers)
        """For what is read no faster than it is indexed: others do not wait for that."""

    async def close(self) -> None:
        """End the reader processes."""
        for readers in (self._readers, self._slow_readers):
            if (pool := await readers.settled()) is not None:
                await pool.close()

    async def sync(self, request: SyncRequest, report: Report = say_nothing) -> Summary:
        """Index files, one run at a time in a collection; a second one reports that it waits. Raises the errors of
        `indexing`, and InvalidRequest.
        """
        if problem := tenant_problem(request.tenant) or groups_problem(request.allowed or ()):
            raise InvalidRequest(problem)
        syncing = self._syncing.setdefault(request.collection, asyncio.Lock())
        if syncing.locked():
            detail = "another run is writing to the collection; this one starts when it has finished"
            report(Notice(stage="waiting", detail=detail))
        async with syncing:
            reading = self._on_cluster(request.ray) if request.ray else None
            return await sync(await self._context(), request, report, reading)

    @asynccontextmanager
    async def no_sync(self, collection: str) -> AsyncIterator[None]:
        """Keep runs over files out of the collection meanwhile."""
        async with self._syncing.setdefault(collection, asyncio.Lock()):
            yield

    async def finish_unfinished(self) -> None:
        """Finish in every collection what a killed process left. Raises one of the errors, after all have been tried:
        then it is worth trying again, or the next run over files finishes it.
        """
        context = await self._context()
        failure: WinnowError | None = None
        for info in await context.store.collections():
            try:
                await self._finish(context, info)
            except WinnowError as exc:
                failure = exc
                if self._unfinished.get(info.name) != str(exc):
                    log.error("documents stay unfinished", collection=info.name, detail=str(exc))
                self._unfinished[info.name] = str(exc)
            except Exception:
                log.exception("documents stay unfinished", collection=info.name)
        if failure is not None:
            raise failure

    async def _finish(self, context: PipelineContext, info: CollectionInfo) -> None:
        name, lineage = info.name, info.spec.lineage
        if not (unfinished := await context.manifest.unfinished(lineage)):
            return
        if name not in self._unfinished:
            log.info("finishing what an earlier run left", collection=name, documents=len(unfinished))
        await finish_deletions(context, name, lineage)
        await find_collection(context, name)  # whether the embedder is still the collection's
        await finish_submitted(context, name, lineage)
        if any(record.path for record in await context.manifest.unfinished(lineage)):
            await self.sync(SyncRequest(inputs=(), cwd=".", collection=name, delete=False))
        log.info("finished what an earlier run left", collection=name)

    async def collections(self, audience: Audience) -> list[Collection]:
        """By name: all for the operator, else those in which the audience has documents."""
        context = await self._context()
        collections = [await described(context, info, audience) for info in await context.store.collections()]
        collections += [await described_damage(context, one, audience) for one in await context.store.damaged()]
        shown = [one for one in collections if audience.admits(one.name) and (audience.unrestricted or one.documents)]
        return sorted(shown, key=lambda collection: collection.name)

    async def names(self, audience: Audience) -> list[str]:
        """The names of `collections`, without those that are damaged."""
        context = await self._context()
        infos = [info for info in await context.store.collections() if audience.admits(info.name)]
        if audience.unrestricted:
            return [info.name for info in infos]
        return [info.name for info in infos if (await context.manifest.seen(info.spec.lineage, audience))[0]]

    async def collection(self, name: str, audience: Audience) -> Collection:
        """Raises CollectionNotFound."""
        audience.check(name)
        context = await self._context()
        return await described(context, await context.store.info(name), audience)

    async def create(
        self,
        name: str,
        model: str,
        audience: Audience,
        *,
        embedding_model: str | None = None,
        vector_size: int | None = None,
        distance: Distance | None = None,
    ) -> tuple[Collection, bool]:
        """The collection, and whether it is new. `model` is the configured embedding model.

        Raises InvalidName, EmbedderMismatch, and Conflict where it is not of the model, size or distance given.
        """
        check_name(name)
        audience.check(name)
        context = await self._context()
        existing = await find_collection(context, name)
        size = existing.spec.dimension if existing else (await context.embedder.get()).dimension
        actual_distance = existing.spec.distance if existing else "cosine"
        check_shape(
            name,
            embedding_model=(embedding_model, model),
            vector_size=(vector_size, size),
            distance=(distance, actual_distance),
        )
        info = existing or await ensure_collection(context, name)
        return await described(context, info, audience), existing is None

    async def drop(self, name: str, audience: Audience) -> None:
        """Delete a collection with everybody's documents. Raises CollectionNotFound."""
        audience.check(name)
        await drop_collection(await self._context(), name)

    async def admit(self, collection: str, audience: Audience) -> None:
        """Check, before any work, that documents may be put there. Raises InvalidName, EmbedderMismatch, and
        CollectionNotFound where there is no such collection for `audience`, and it cannot make it.
        """
        check_name(collection)
        audience.check(collection)
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

    @contextmanager
    def receiving(self) -> Iterator[Callable[[int], None]]:
        """Counts the bytes of a body as they arrive, until the block ends. The count raises Overloaded."""
        held = 0

        def count(size: int) -> None:
            nonlocal held
            if self._body_bytes + size > MAX_BODY_BYTES:
                raise Overloaded("too many large uploads are being received; try again later", _RETRY_AFTER_S)
            held += size
            self._body_bytes += size

        try:
            yield count
        finally:
            self._body_bytes -= held

    async def read(self, submissions: Sequence[Submission], report: Report = say_nothing) -> list[Validated]:
        """The documents of all submissions in order, each with its id, or why it cannot be indexed.

        `report` hears how far OCR is with a scan.
        """
        async with aclosing(self.read_in_pieces(submissions, report)) as pieces:
            return [document async for piece in pieces for document in piece]

    async def read_in_pieces(
        self, submissions: Sequence[Submission], report: Report = say_nothing, *, slowly: bool = False
    ) -> AsyncGenerator[list[Validated]]:
        """As `read`, some megabytes of large files at a time. Close it (`contextlib.aclosing`). `slowly`: each piece is
        indexed before the next one is taken.
        """
        seen: set[str] = set()
        for _, group in groupby(submissions, lambda one: isinstance(one, SubmittedFile)):
            alike = list(group)
            if documents := [one for one in alike if not isinstance(one, SubmittedFile)]:
                yield await asyncio.to_thread(validate, documents, seen)
            for file in (one for one in alike if isinstance(one, SubmittedFile)):
                whole = WholeFile()
                readers = self._slow_readers if slowly and file.path else self._readers
                async with aclosing(self._parts(file, await readers.get(), report)) as pieces:
                    async for parts in pieces:
                        yield whole.add(await asyncio.to_thread(validate, parts, seen))
                yield whole.end()

    async def _parts(self, file: SubmittedFile, pool: ReaderPool, report: Report) -> AsyncGenerator[list[Validated]]:
        on_page = reading_scan(file.name, report)
        try:
            if not file.path:
                found = await pool.read(file.data, file.name, file.media_type, on_page)
                yield list(map(file.submitted, found))
                return
            async with aclosing(pool.pieces(Path(file.path), file.name, file.media_type, on_page)) as replies:
                async for reply in replies:
                    parts: list[Document | Refused] = [*reply.documents, *reply.refused]
                    yield list(map(file.submitted, parts))
        except UnreadableDocument as exc:
            yield [failed(exc.reason, exc.detail, source=file.name)]

    async def _open_readers(self) -> ReaderPool:
        return ReaderPool((await self._context()).limits, _READERS)

    async def index(
        self,
        collection: str,
        documents: Sequence[Validated],
        report: Report = say_nothing,
        overtaken: Overtaken = none_overtaken,
        announce: Announce = announce_nothing,
    ) -> list[DocumentResult]:
        """Index what `read` gave; one result each, in order. `report` hears how far it is; `overtaken` and `announce`
        are as of `put_documents`.
        """
        good = [submission for submission in documents if isinstance(submission, SubmittedDocument)]
        outcomes = iter(await self._put_measured(collection, good, report, overtaken, announce) if good else ())
        return [next(outcomes) if isinstance(submission, SubmittedDocument) else submission for submission in documents]

    async def room(self, collection: str) -> None:
        """For who writes much while nobody waits: see `indexing.store.base.VectorStore`."""
        await (await self._context()).store.room(collection)

    async def index_at_once(
        self, collection: str, documents: Sequence[Validated], size: int, overtake: Overtake
    ) -> list[DocumentResult]:
        """As `index`, for a caller who waits, and uploaded `size` bytes. Jobs that came earlier leave these documents
        alone: `overtake` tells them. Raises Overloaded.

        Only small uploads pass the gate: they are let in by the time that they take, and large ones would spoil it.
        """
        announce = partial(overtake, collection)
        if size > SMALL_UPLOAD:
            return await self.index(collection, documents, announce=announce)
        async with self._gates.texts.visit():
            return await self.index(collection, documents, announce=announce)

    async def intended(self, collection: str, documents: Sequence[Validated]) -> list[Outcome]:
        """What becomes of these documents if they are indexed now and nothing goes wrong."""
        context = await self._context()
        info = await find_collection(context, collection)
        outcomes: list[Outcome] = []
        for document in documents:
            if not isinstance(document, SubmittedDocument):
                outcomes.append("failed")
                continue
            record = await context.manifest.document(info.spec.lineage, document.key()) if info else None
            same = record is not None and record.version == document.document.content_hash()
            outcomes.append("unchanged" if same else "updated" if record else "created")
        return outcomes

    async def page(
        self, collection: str, audience: Audience, *, after: str, limit: int
    ) -> tuple[list[DocumentRecord], bool]:
        """Up to `limit` documents by key, those after the key `after`, and whether more follow.

        Raises CollectionNotFound.
        """
        audience.check(collection)
        context = await self._context()
        async with self._gates.readings.visit():
            lineage = (await context.store.info(collection)).spec.lineage
            records = await context.manifest.documents(lineage, audience, after=after, limit=limit + 1)
        return records[:limit], len(records) > limit

    async def document(
        self, collection: str, document_id: str, audience: Audience, tenant: str | None = None
    ) -> tuple[DocumentRecord, list[Passage]]:
        """A document and its passages in order. `tenant` says to the operator's request whose it is; None: nobody's.

        Raises CollectionNotFound, NotFound.
        """
        audience.check(collection)
        context = await self._context()
        async with self._gates.readings.visit():
            lineage = (await context.store.info(collection)).spec.lineage
            for key in _keys(document_id, audience, tenant):
                while (record := await context.manifest.document(lineage, key)) is not None:
                    if not audience.sees(record.tenant, record.allowed):
                        break
                    found = await context.store.passages(collection, record.id, audience)
                    passages = [passage for passage in found if passage.version == record.version]
                    if len(passages) == record.passages or record == await context.manifest.document(lineage, key):
                        return record, passages
                    # Else the next version was committed in between.
        raise document_not_found(collection, document_id)

    async def submitted_text(self, collection: str, record: DocumentRecord) -> str | None:
        """The text of this version of a document as it was submitted; None if it came from a file."""
        context = await self._context()
        lineage = (await context.store.info(collection)).spec.lineage
        whole = await context.manifest.document_with_body(lineage, record.id)
        return whole.body.text if whole and whole.body and whole.version == record.version else None

    async def put(self, collection: str, documents: Sequence[SubmittedDocument]) -> list[DocumentResult]:
        """Index submitted documents."""
        return await put_documents(await self._context(), collection, documents)

    async def put_bytes(self, file: SubmittedFile, collection: str, overtake: Overtake) -> Summary:
        """Read an operator's document that is no file of ours, and index it. `overtake` as of `index_at_once`."""
        begun = time.perf_counter()
        documents = await self.read(owned([file]))
        outcomes = await self.index(collection, documents, announce=partial(overtake, collection))
        return await self._summary(collection, file.name, outcomes, time.perf_counter() - begun)

    async def delete(
        self,
        collection: str,
        document_id: str,
        overtake: Overtake,
        audience: Audience,
        tenant: str | None = None,
    ) -> bool:
        """Remove a document; False when there is none of that id. `overtake` as of `index_at_once`, in both cases;
        `tenant` as of `document`.

        Raises CollectionNotFound.
        """
        audience.check(collection)
        context = await self._context()
        for key in _keys(document_id, audience, tenant):
            if await delete_document(context, collection, key, audience, announce=partial(overtake, collection)):
                return True
        return False

    async def _summary(self, collection: str, name: str, outcomes: Sequence[DocumentResult], seconds: float) -> Summary:
        context = await self._context()
        try:
            info = await context.store.info(collection)
        except CollectionNotFound:  # nothing that could be read has made it
            info = None
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
            total_documents=await context.manifest.count(info.spec.lineage) if info else 0,
            total_passages=info.passages if info else 0,
            seconds=round(seconds, 3),
        )

    async def _put_measured(
        self,
        collection: str,
        documents: Sequence[SubmittedDocument],
        report: Report,
        overtaken: Overtaken,
        announce: Announce,
    ) -> list[DocumentResult]:
        context = await self._context()
        await context.model()  # how long loading takes says nothing about indexing
        begun = time.perf_counter()
        results = await put_documents(context, collection, documents, report, overtaken=overtaken, announce=announce)
        passages = sum(result.passages for result in results if result.status in ("created", "updated"))
        self.indexing_time.add(passages, time.perf_counter() - begun)
        return results


def _spellings(document_id: str) -> Iterable[str]:
    """Ids are stored in NFC; those of indexes that an earlier version made, as they came."""
    return dict.fromkeys((unicodedata.normalize("NFC", document_id), document_id))


def _keys(document_id: str, audience: Audience, tenant: str | None) -> list[str]:
    """What the document may be called; nothing where another tenant's is asked for."""
    owner = tenant if audience.unrestricted and tenant else audience.tenant
    if tenant not in (None, owner):
        return []
    return [document_key(owner, spelling) for spelling in _spellings(document_id)]


def document_not_found(collection: str, document_id: str) -> NotFound:
    """The error for a missing document."""
    return NotFound(f"document {document_id!r} not found in collection {collection!r}")
