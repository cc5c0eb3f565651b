"""The reading half of the pipeline: planned sources -> their new and changed documents, cut into passages."""

import asyncio
import tempfile
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from indexing.documents import Document, Refused
from indexing.embedding.model import Embedder
from indexing.errors import UnreadableDocument
from indexing.pipeline.context import Claim, PipelineContext
from indexing.pipeline.languages import LanguageHint
from indexing.pipeline.manifest import DocumentRecord, OwnerOf, RefusedRecord, SourceRecord
from indexing.pipeline.planning import document_record, own_id, path_of
from indexing.pipeline.progress import Notice, Report
from indexing.pipeline.sources import Location
from indexing.pipeline.write_stage import WINDOW, Prepared, Writer, prepare
from indexing.readers.limits import UNREADABLE_BY_NATURE, reading
from indexing.readers.sandbox.pool import ReaderPool

_DOCUMENTS_PER_STEP = 32
"""Documents of one source that are cut into passages in one call to a thread."""

_PASSING = frozenset({"not_found", "permission", "unreachable", "timeout", "crashed"})
"""Reasons that another run may not meet with the same file."""

Refuse = Callable[[str, UnreadableDocument, bool, bool], None]
"""(source, why, whether an earlier version stays in the index, whether an earlier run knew it already)."""

Changed = tuple[Document, DocumentRecord]
"""A document that is new or differs from what is indexed."""

Ready = Prepared | SourceRecord | None
"""A document; after the documents of a source its record, unless it has to be read again next time; at the end None."""


class ReadyQueue:
    """What is ready to be written. The reader waits while the queue holds two windows of passages or more:
    one for the writer to take while another is being read.
    """

    def __init__(self, limit: int = 2 * WINDOW) -> None:
        self._limit = limit
        self._weight = 0
        self._items: deque[tuple[Ready, int]] = deque()
        self._changed = asyncio.Condition()

    async def put(self, item: Ready, weight: int = 0) -> None:
        """Waits for room."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._weight < self._limit)
            self._items.append((item, weight))
            self._weight += weight
            self._changed.notify_all()

    async def get(self) -> Ready:
        """Waits for an item."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._items)
            item, weight = self._items.popleft()
            self._weight -= weight
            self._changed.notify_all()
            return item


class SourceReader:
    """Reads sources one after the other, ahead of the writer. Counts what it finds.

    `gone` are paths whose documents another source may take over.
    """

    def __init__(
        self,
        context: PipelineContext,
        writer: Writer,
        claim: Claim,
        gone: AbstractSet[str],
        refuse: Refuse,
        report: Report,
    ) -> None:
        self._context = context
        self._writer = writer
        self._claim = claim
        self._gone = gone
        self._refuse = refuse
        self._report = report
        self._hint = LanguageHint(report)
        self.created = self.updated = self.deleted = 0

    async def read(self, sources: Sequence[SourceRecord], queue: ReadyQueue) -> None:
        """All of the sources; one that cannot be read is refused."""
        async with ReaderPool(self._context.limits) as pool:
            for source in sources:
                try:
                    async with _at_hand(path_of(source.path)) as path:
                        parts = await pool.read(path, source.name)
                except UnreadableDocument as exc:
                    await self.refuse(source.path, source.name, exc)
                    await self._remember(source, exc)
                    continue
                documents = [part for part in parts if isinstance(part, Document)]
                for warning in dict.fromkeys(warning for document in documents for warning in document.warnings):
                    self._report(Notice(stage="advice", detail=f"{source.name}: {warning}"))
                await self._read_one(source, documents, [part for part in parts if isinstance(part, Refused)], queue)
        await queue.put(None)

    async def refuse(self, path: str, name: str, error: UnreadableDocument, *, known: bool = False) -> None:
        """Report it. The earlier version stays, except for what a killed run left half done."""
        manifest, lineage = self._context.manifest, self._writer.lineage
        half_done = [record for record in await manifest.unfinished(lineage) if record.path == path]
        await self._writer.settle(half_done)
        self._refuse(name, error, bool(await manifest.versions(lineage, path)), known)

    async def _remember(self, source: SourceRecord, error: UnreadableDocument) -> None:
        """Unless the reason is not in the file alone, but in what the machine allows or was doing."""
        if error.reason in _PASSING:
            return
        record = RefusedRecord(
            path=source.path,
            hash=source.hash,
            reading=reading(self._context.limits),
            reason=error.reason,
            detail=error.detail,
        )
        await self._context.manifest.remember_refused(self._writer.lineage, record)

    async def _read_one(
        self, source: SourceRecord, documents: Sequence[Document], refused: Sequence[Refused], queue: ReadyQueue
    ) -> None:
        """Queue what differs from the manifest, and delete what the source no longer has.

        While parts of it fail, nobody knows what it no longer has; and the next run reads, and reports, it again.
        """
        manifest, lineage = self._context.manifest, self._writer.lineage
        earlier = await manifest.versions(lineage, source.path)
        changed, removed = await asyncio.to_thread(_compare, source, documents, earlier)
        # Documents that were recovered after the manifest was lost belong to nobody, until their file is read again.
        unknown = [(record, not own_id(document)) for document, record in changed if record.id not in earlier]
        if await manifest.take_over(lineage, unknown):
            earlier = await manifest.versions(lineage, source.path)
            changed = [pair for pair in changed if earlier.get(pair[1].id, "") != pair[1].version]
        fresh, refusals = await manifest.with_owners(lineage, lambda owner_of: self._claimed(changed, owner_of))
        for refusal in refusals:
            self._refuse(source.name, refusal, False, False)
        created = sum(record.id not in earlier for _, record in fresh)
        self.created += created
        self.updated += len(fresh) - created
        async for prepared in self._prepared(source, fresh):
            await queue.put(prepared, len(prepared.passages) + 1)
        for part in refused:
            self._refuse(f"{source.name}{part.part}", UnreadableDocument(part.reason, part.detail), False, False)
        if all(part.reason in UNREADABLE_BY_NATURE for part in refused):
            await self._delete(removed)
            if not refusals:
                await queue.put(source)

    def _claimed(self, changed: Sequence[Changed], owner_of: OwnerOf) -> tuple[list[Changed], list[UnreadableDocument]]:
        """The documents whose ids are free, now claimed, and a refusal for each other one.

        Who holds an id already, or writes it at the moment, keeps it: two owners would delete each other's passages.
        """
        fresh, refusals = [], []
        for document, record in changed:
            path, source = owner_of(record.id) or (record.path, "")
            if path != record.path and path not in self._gone:
                owner: str | None = source
            else:
                owner = self._claim(record.id, record.path or "")
                owner = None if owner is None else path_of(owner).name
            if owner is None:
                fresh.append((document, record))
            else:
                detail = f"Its id {record.document_id!r} is taken by a document of {owner or 'the API'}."
                refusals.append(UnreadableDocument("duplicate_id", detail))
        return fresh, refusals

    async def _prepared(self, source: SourceRecord, fresh: Sequence[Changed]) -> AsyncIterator[Prepared]:
        bytes_per_character = source.bytes / max(1, sum(len(document.text) for document, _ in fresh))
        for start in range(0, len(fresh), _DOCUMENTS_PER_STEP):
            embedder = await self._context.model(self._report)
            step = fresh[start : start + _DOCUMENTS_PER_STEP]
            self._hint.look(embedder.model_id, [(record.source, document.text) for document, record in step])
            for prepared in await asyncio.to_thread(_prepare_all, step, embedder, bytes_per_character):
                yield prepared

    async def _delete(self, document_ids: Sequence[str]) -> None:
        await self._writer.delete(document_ids)
        self.deleted += len(document_ids)


@asynccontextmanager
async def _at_hand(path: Location) -> AsyncGenerator[Path, None]:
    """The file, fetched for the time of the block if it lies elsewhere. Raises UnreadableDocument."""
    if isinstance(path, Path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="winnow-") as folder:
        copy = Path(folder, "file")
        await asyncio.to_thread(path.fetch, copy)
        yield copy


def _compare(
    source: SourceRecord, documents: Sequence[Document], earlier: Mapping[str, str | None]
) -> tuple[list[Changed], list[str]]:
    """The new and changed documents, and the ids that the source no longer has. Hashing takes its time."""
    documents = [msgspec.structs.replace(document, allowed=source.allowed) for document in documents]
    records = [document_record(source, document) for document in documents]
    ids = {record.id for record in records}
    pairs = zip(documents, records, strict=True)
    changed = [(document, record) for document, record in pairs if earlier.get(record.id, "") != record.version]
    return changed, [document_id for document_id in earlier if document_id not in ids]


def _prepare_all(fresh: Sequence[Changed], embedder: Embedder, bytes_per_character: float) -> list[Prepared]:
    return [prepare(document, record, embedder, bytes_per_character * len(document.text)) for document, record in fresh]
