"""The reading half of the pipeline: planned sources -> their new and changed documents, cut into passages.

What reads is a `Reading`: this process (`read_here`), or the machines of a cluster (`indexing.distributed`), which also
cut and embed. What the manifest has to say about the documents is asked here.
"""

import asyncio
import tempfile
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, aclosing
from functools import partial
from pathlib import Path

import msgspec

from indexing.documents import Document, Refused
from indexing.embedding.model import Embedder
from indexing.errors import UnreadableDocument
from indexing.pipeline.context import Claims, PipelineContext
from indexing.pipeline.languages import LanguageHint
from indexing.pipeline.manifest import DocumentRecord, OwnerOf, RefusedRecord, SourceRecord
from indexing.pipeline.planning import document_record, own_id, path_of
from indexing.pipeline.progress import Notice, Report, reading_scan
from indexing.pipeline.write_stage import WINDOW, Prepared, Writer, prepare
from indexing.readers.limits import UNREADABLE_BY_NATURE, OnPage, ReadLimits, ignore_pages, reading
from indexing.readers.sandbox.child import Reply
from indexing.readers.sandbox.pool import ReaderPool

_DOCUMENTS_PER_STEP = 32
"""Documents of one source that are cut into passages in one call to a thread."""

_WAITING_CHARACTERS = 4 * 2**20
"""Of the passages between the reader and the writer."""

_PASSING = frozenset({"not_found", "permission", "unreachable", "timeout", "crashed"})
"""Reasons that another run may not meet with the same file."""

Refuse = Callable[[str, UnreadableDocument, bool, bool], None]
"""(source, why, whether an earlier version stays in the index, whether an earlier run knew it already)."""

Changed = tuple[Document, DocumentRecord]
"""A document that is new or differs from what is indexed."""

Versions = Mapping[str, str | None]
"""Document id -> the version that is indexed, None for one that is being written or deleted."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A document that is new or has changed: as it was read, to be cut here, or `prepared` already.

    `own`: its id came with it, not from the path of its file.
    """

    record: DocumentRecord
    own: bool
    document: Document | None = None
    prepared: Prepared | None = None


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in a source, or in a piece of it, beside what is indexed of it. After a piece comes `more`; with
    the last one come `removed`, the ids that the source no longer has. `size`: of how many bytes, if not of all.
    """

    found: Sequence[Found]
    removed: Sequence[str] = ()
    refused: Sequence[Refused] = ()
    warnings: Sequence[str] = ()
    size: int | None = None
    more: bool = False


Outcome = Content | UnreadableDocument

Reading = Callable[
    [Sequence[SourceRecord], Callable[[str], Awaitable[Versions]]], AsyncGenerator[tuple[SourceRecord, Outcome], None]
]
"""(sources, path -> what is indexed of it) -> each source with its content, or its contents one after the other, in
their order. It asks once for each path, before the first content of its source."""

Ready = Prepared | SourceRecord | None
"""A document; after the documents of a source its record, unless it has to be read again next time; at the end None."""


class ReadyQueue:
    """What is ready to be written. The reader waits while the queue holds two windows of passages or more: one for the
    writer to take while another is being read; or so many characters, where passages are long.
    """

    def __init__(self, passages: int = 2 * WINDOW, characters: int = _WAITING_CHARACTERS) -> None:
        self._room = (passages, characters)
        self._held = (0, 0)
        self._items: deque[Ready] = deque()
        self._changed = asyncio.Condition()

    async def put(self, item: Ready) -> None:
        """Waits for room."""
        async with self._changed:
            await self._changed.wait_for(self._has_room)
            self._items.append(item)
            self._count(item, 1)
            self._changed.notify_all()

    async def get(self) -> Ready:
        """Waits for an item."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._items)
            item = self._items.popleft()
            self._count(item, -1)
            self._changed.notify_all()
            return item

    def _has_room(self) -> bool:
        return all(held < room for held, room in zip(self._held, self._room, strict=True))

    def _count(self, item: Ready, sign: int) -> None:
        if isinstance(item, Prepared):
            passages, characters = self._held
            self._held = (passages + sign * (len(item.passages) + 1), characters + sign * item.characters)


class _Progress:
    """How far a source has been taken. `earlier` is what is indexed of it, `size` the bytes of it that no document was
    queued for. It is `complete` if no part of it was refused but by nature, and `owned` if no id of its documents
    belongs to another source.
    """

    def __init__(self, earlier: Versions) -> None:
        self.earlier = earlier
        self.size = 0
        self.complete = self.owned = True


class SourceReader:
    """Reads sources one after the other, ahead of the writer. Counts what it finds.

    `gone` are paths whose documents another source may take over.
    """

    def __init__(
        self,
        context: PipelineContext,
        writer: Writer,
        claims: Claims,
        gone: AbstractSet[str],
        refuse: Refuse,
        report: Report,
        reading: Reading | None = None,
    ) -> None:
        self._context = context
        self._reading = reading or partial(read_here, context.limits, report)
        self._writer = writer
        self._claims = claims
        self._gone = gone
        self._refuse = refuse
        self._report = report
        self._hint = LanguageHint(report)
        self.created = self.updated = self.deleted = 0

    async def read(self, sources: Sequence[SourceRecord], queue: ReadyQueue) -> None:
        """All of the sources; one that cannot be read is refused."""
        indexed: dict[str, Versions] = {}

        async def versions(path: str) -> Versions:
            indexed[path] = await self._context.manifest.versions(self._writer.lineage, path)
            return indexed[path]

        progress: _Progress | None = None
        async with aclosing(self._reading(sources, versions)) as outcomes:
            async for source, outcome in outcomes:
                if isinstance(outcome, UnreadableDocument):
                    if progress is None:
                        await self.refuse(source.path, source.name, outcome)
                    else:  # the writer may have documents of it in hand, which stay
                        self._refuse(source.name, outcome, True, False)
                    await self._remember(source, outcome)
                    progress = None
                    indexed.pop(source.path, None)
                    continue
                for warning in outcome.warnings:
                    self._report(Notice(stage="advice", detail=f"{source.name}: {warning}"))
                progress = progress or _Progress(indexed.pop(source.path))
                await self._take(source, outcome, progress, queue)
                progress = progress if outcome.more else None
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

    async def _take(self, source: SourceRecord, content: Content, progress: _Progress, queue: ReadyQueue) -> None:
        """Queue what differs from the manifest, and delete what the source no longer has.

        While parts of it fail, nobody knows what it no longer has; and the next run reads, and reports, it again.
        """
        manifest, lineage = self._context.manifest, self._writer.lineage
        changed, earlier = content.found, progress.earlier
        progress.size += source.bytes if content.size is None else content.size
        # Documents that were recovered after the manifest was lost belong to nobody, until their file is read again.
        unknown = [(one.record, not one.own) for one in changed if one.record.id not in earlier]
        if await manifest.take_over(lineage, unknown):
            earlier = await manifest.versions(lineage, source.path)
            changed = [one for one in changed if earlier.get(one.record.id, "") != one.record.version]
        fresh, refusals = await manifest.with_owners(lineage, lambda owner_of: self._claimed(changed, owner_of))
        for refusal in refusals:
            self._refuse(source.name, refusal, False, False)
        created = sum(one.record.id not in earlier for one in fresh)
        self.created += created
        self.updated += len(fresh) - created
        async for prepared in self._prepared(progress, fresh):
            await queue.put(prepared)
        for part in content.refused:
            self._refuse(f"{source.name}{part.part}", UnreadableDocument(part.reason, part.detail), False, False)
        progress.owned &= not refusals
        progress.complete &= all(part.reason in UNREADABLE_BY_NATURE for part in content.refused)
        if progress.complete and not content.more:
            await self._delete(content.removed)
            if progress.owned:
                await queue.put(source)

    def _claimed(self, changed: Sequence[Found], owner_of: OwnerOf) -> tuple[list[Found], list[UnreadableDocument]]:
        """The documents whose ids are free, now claimed, and a refusal for each other one.

        Who holds an id already, or writes it at the moment, keeps it: two owners would delete each other's passages.
        """
        fresh, refusals = [], []
        for one in changed:
            record = one.record
            path, source = owner_of(record.id) or (record.path, "")
            if path != record.path and path not in self._gone:
                owner: str | None = source
            else:
                owner = self._claims.claim(record.id, record.path or "")
                owner = None if owner is None else path_of(owner).name
            if owner is None:
                fresh.append(one)
            else:
                detail = f"Its id {record.document_id!r} is taken by a document of {owner or 'the API'}."
                refusals.append(UnreadableDocument("duplicate_id", detail))
        return fresh, refusals

    async def _prepared(self, progress: _Progress, fresh: Sequence[Found]) -> AsyncIterator[Prepared]:
        for one in fresh:
            if one.prepared is not None:
                yield one.prepared
        uncut = [(one.document, one.record) for one in fresh if one.document is not None]
        bytes_per_character = progress.size / max(1, sum(len(document.text) for document, _ in uncut))
        progress.size = 0 if fresh else progress.size
        for start in range(0, len(uncut), _DOCUMENTS_PER_STEP):
            embedder = await self._context.model(self._report)
            step = uncut[start : start + _DOCUMENTS_PER_STEP]
            self._hint.look(embedder.model_id, [(record.source, document.text) for document, record in step])
            for prepared in await asyncio.to_thread(_prepare_all, step, embedder, bytes_per_character):
                yield prepared

    async def _delete(self, document_ids: Sequence[str]) -> None:
        await self._writer.delete(document_ids)
        self.deleted += len(document_ids)


async def read_here(
    limits: ReadLimits,
    report: Report,
    sources: Sequence[SourceRecord],
    versions: Callable[[str], Awaitable[Versions]],
) -> AsyncGenerator[tuple[SourceRecord, Outcome], None]:
    """One source after the other, a large one piece by piece, in a reader of this process (a `Reading`)."""
    async with ReaderPool(limits) as pool:
        for source in sources:
            earlier = await versions(source.path)
            try:
                async with aclosing(contents(pool, source, earlier, reading_scan(source.name, report))) as pieces:
                    async for content in pieces:
                        yield source, content
            except UnreadableDocument as exc:
                yield source, exc


async def contents(
    pool: ReaderPool, source: SourceRecord, earlier: Versions, on_page: OnPage = ignore_pages
) -> AsyncGenerator[Content]:
    """What is new or has changed in a source beside what is indexed of it (`earlier`), a large one piece by piece.

    Raises UnreadableDocument, after some pieces too. Close it (`contextlib.aclosing`).
    """
    gone, warned = set(earlier), set[str]()
    async with aclosing(read_source(pool, source, on_page)) as pieces:
        async for piece in pieces:
            changed, ids = await asyncio.to_thread(compare, source, piece.documents, earlier)
            gone -= ids
            warnings = {warning: None for one in piece.documents for warning in one.warnings}
            yield Content(
                found=[
                    Found(record=record, own=bool(own_id(document)), document=document) for document, record in changed
                ],
                removed=() if piece.more else sorted(gone),
                refused=piece.refused,
                warnings=[warning for warning in warnings if warning not in warned],
                size=piece.size,
                more=piece.more,
            )
            warned.update(warnings)


async def read_source(
    pool: ReaderPool, source: SourceRecord, on_page: OnPage = ignore_pages
) -> AsyncGenerator[Reply, None]:
    """What is in a source (`ReaderPool.pieces`), fetched for the time of reading if it lies elsewhere.

    Raises UnreadableDocument.
    """
    path = path_of(source.path)
    with ExitStack() as stack:
        if not isinstance(path, Path):
            remote, path = path, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="winnow-")), "file")
            await asyncio.to_thread(remote.fetch, path)
        async with aclosing(pool.pieces(path, source.name, on_page=on_page)) as pieces:
            async for piece in pieces:
                yield piece


def compare(source: SourceRecord, documents: Sequence[Document], earlier: Versions) -> tuple[list[Changed], set[str]]:
    """The new and changed documents, and the ids of all of them. Hashing takes its time."""
    documents = [msgspec.structs.replace(document, allowed=source.allowed) for document in documents]
    records = [document_record(source, document) for document in documents]
    pairs = zip(documents, records, strict=True)
    changed = [(document, record) for document, record in pairs if earlier.get(record.id, "") != record.version]
    return changed, {record.id for record in records}


def _prepare_all(fresh: Sequence[Changed], embedder: Embedder, bytes_per_character: float) -> list[Prepared]:
    return [prepare(document, record, embedder, bytes_per_character * len(document.text)) for document, record in fresh]
