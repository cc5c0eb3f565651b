"""Documents that are submitted over the API instead of read from files: put, delete, drop.

The manifest keeps a submitted document whole, so that a rebuild, or the run after a kill, can index it again.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Literal, TypeVar

import msgspec

from indexing.concurrency import finish
from indexing.documents import Audience, Document, document_key, printable, split_key
from indexing.errors import CollectionNotFound, WinnowError
from indexing.pipeline.context import Claims, PipelineContext, ensure_collection, find_collection, live_lineage
from indexing.pipeline.manifest import DocumentRecord
from indexing.pipeline.planning import file_document_id, holders_of, path_of
from indexing.pipeline.progress import Report, say_nothing
from indexing.pipeline.queues import LineageRetired
from indexing.pipeline.write_stage import WINDOW, Prepared, Writer, prepare

T = TypeVar("T")

Versions = dict[str, set[str]]
"""Document id -> versions of it; "" stands for none, as after a deletion."""

Overtaken = Callable[[Sequence[str]], Awaitable[Versions]]
"""Ids of documents in hand -> what somebody who came later than this writer made of them, or began to."""

Announce = Callable[[Mapping[str, str]], Awaitable[None]]
"""Hears what documents in hand are about to become: id -> version, "" where it is deleted."""

_DOCUMENTS_PER_PART = 64
_CHARACTERS_PER_PART = WINDOW * 800
"""About a window of passages: documents that are in one writer's hands together."""


async def none_overtaken(_: Sequence[str]) -> Versions:
    """For a writer whom nobody overtakes."""
    return {}


async def announce_nothing(_: Mapping[str, str]) -> None:
    """For a writer whom nobody needs to hear."""


class SubmittedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A document to index. Without an `id` its source names it, or else its content.

    It becomes one of `tenant` ("": of none). `writer` says which documents of the same id it may replace. Where a file
    held several, one of them has the ids of all in `whole`: what an earlier upload of the file had beside them is
    removed.
    """

    document: Document
    id: str = ""
    source: str = ""
    tenant: str = ""
    writer: Audience
    whole: tuple[str, ...] = ()

    def document_id(self) -> str:
        """Its own id; else one made from its source and key, or from its content if it has no source."""
        return self.id or file_document_id(self.source or self.document.content_hash(), self.document.key)

    def key(self) -> str:
        """What the manifest calls it (`indexing.documents.document_key`)."""
        return document_key(self.tenant, self.document_id())

    def holders(self) -> list[str]:
        """The keys of the files that it was in, if it was in a file."""
        return [document_key(self.tenant, one) for one in holders_of(self.document_id())]


class DocumentResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a document. `id` is null where none could be given. When it failed: `reason`, a stable code, and
    `detail`. `warnings` say what of its file is not in the text.
    """

    id: str | None
    source: str
    status: Literal["created", "updated", "unchanged", "failed"]
    passages: int = 0
    reason: str | None = None
    detail: str | None = None
    warnings: tuple[str, ...] = ()


async def put_documents(
    context: PipelineContext,
    collection: str,
    documents: Sequence[SubmittedDocument],
    report: Report = say_nothing,
    *,
    overtaken: Overtaken = none_overtaken,
    announce: Announce = announce_nothing,
) -> list[DocumentResult]:
    """Index these documents; searchable on return. One result each, in order; one that fails stops no other.

    `report` hears how many passages of the documents in hand are embedded. One that is as `overtaken` says stays so:
    "unchanged". `announce` hears what they become before anything is written: where it fails, nothing is. Both are
    asked while no other writer can have these documents. If this is cancelled or fails, what was written stays, and of
    what was being written nothing does.
    """
    await ensure_collection(context, collection)
    results: list[DocumentResult] = []
    for part in _parts(documents):
        put = partial(_put, documents=part, overtaken=overtaken, announce=announce)
        written, replaced = await _again_if_replaced(context, collection, put, report)
        results += written
        for document in replaced:
            file = document_key(document.tenant, file_document_id(document.source, ""))
            kept = frozenset(document_key(document.tenant, one) for one in document.whole)
            clear = partial(_delete, key=file, audience=document.writer, announce=announce, kept=kept)
            await _again_if_replaced(context, collection, clear)
    return results


async def delete_document(
    context: PipelineContext,
    collection: str,
    key: str,
    audience: Audience,
    *,
    announce: Announce = announce_nothing,
) -> bool:
    """Remove a document with its passages, and with what was attached to it; of an archive, whose id is that of its
    members up to the dot, all of these. False if there is none with that key that `audience` sees. `announce` as of
    `put_documents`; it hears of one that is not there as well.

    One that came from a file comes back with the next run over that file.
    """
    return await _again_if_replaced(
        context, collection, partial(_delete, key=key, audience=audience, announce=announce)
    )


async def drop_collection(context: PipelineContext, collection: str) -> None:
    """Delete a collection and everything recorded about it. Raises CollectionNotFound."""
    lineage = await live_lineage(context, collection)
    if lineage is None:
        raise CollectionNotFound(collection)

    async def drop() -> None:
        await context.store.drop(collection)
        await context.manifest.forget_lineage(lineage)

    try:
        await context.gate(lineage).retire(drop)
    except LineageRetired as exc:
        raise CollectionNotFound(collection) from exc


async def finish_submitted(context: PipelineContext, name: str, lineage: str, report: Report = say_nothing) -> None:
    """Write the submitted documents that a killed put left unfinished, and finish what was being deleted.

    What was being written from a file is left to whoever reads the file.
    """
    await finish_deletions(context, name, lineage)
    writer = Writer(context, name, lineage)
    left = [record.id for record in await context.manifest.unfinished(lineage) if record.submitted]
    for start in range(0, len(left), _DOCUMENTS_PER_PART):
        part = left[start : start + _DOCUMENTS_PER_PART]
        async with context.locks.holding(lineage, part):  # what somebody has in hand is finished by then
            found = [await context.manifest.pending_with_body(lineage, key) for key in part]
            await writer.write([await prepare_submitted(context, record, report) for record in found if record])


async def finish_deletions(context: PipelineContext, name: str, lineage: str) -> None:
    """Clear away what a killed writer had committed or deleted, and not cleared away. It needs no model."""
    writer = Writer(context, name, lineage)
    left = [record.id for record in await context.manifest.unfinished(lineage) if record.op != "write"]
    async with context.locks.holding(lineage, left):
        pending = [await context.manifest.pending(lineage, document_id) for document_id in left]
        await writer.settle([record for record in pending if record and record.op != "write"])


async def prepare_submitted(context: PipelineContext, record: DocumentRecord, report: Report = say_nothing) -> Prepared:
    """The passages of a document whose record has its body."""
    assert record.body is not None  # noqa: S101 - or it was not submitted
    return await asyncio.to_thread(prepare, record.body, record, await context.model(report))


async def _again_if_replaced(
    context: PipelineContext,
    collection: str,
    work: Callable[[PipelineContext, Writer], Awaitable[T]],
    report: Report = say_nothing,
) -> T:
    """Do the work with a writer to the collection; again if a rebuild replaces it meanwhile.

    Raises CollectionNotFound if it is dropped meanwhile.
    """
    while True:
        info = await find_collection(context, collection)
        if info is None:
            raise CollectionNotFound(collection)
        with suppress(LineageRetired):
            return await work(context, Writer(context, info.name, info.spec.lineage, report))


async def _delete(
    context: PipelineContext,
    writer: Writer,
    key: str,
    audience: Audience,
    announce: Announce,
    kept: frozenset[str] | None = None,
) -> bool:
    """The document and what it holds, at once; with `kept` only what of them is not among these."""
    keys = await _held(context, writer, key, kept)
    while True:
        async with context.locks.holding(writer.lineage, keys):
            now = await _held(context, writer, key, kept)
            if not set(now).issubset(keys):  # somebody has added to it meanwhile
                keys = now
                continue
            states = {one: await _state(context, writer, one, audience) for one in keys}
            if states.get(key) == "hidden":
                return False
            found = [one for one, state in states.items() if state == "there"]
            if found or kept is None:
                await announce(dict.fromkeys([key, *found] if kept is None else found, ""))
            if found:
                await writer.delete(found)
            return bool(found)


async def _held(context: PipelineContext, writer: Writer, key: str, kept: frozenset[str] | None) -> list[str]:
    """The document, and what was in its file as far as the manifest knows of it; without those in `kept`."""
    tenant, document_id = split_key(key)
    first, end = (document_key(tenant, document_id + sign) for sign in "./")  # one sign comes after the other
    held = await context.manifest.ids_between(writer.lineage, first, end)
    inside = [one for one in held if document_id in holders_of(split_key(one)[1])]
    return [one for one in (key, *inside) if one not in (kept or ())]


async def _state(
    context: PipelineContext, writer: Writer, key: str, audience: Audience
) -> Literal["there", "missing", "hidden"]:
    known = await context.manifest.document(writer.lineage, key)
    pending = await context.manifest.pending(writer.lineage, key)
    guarded = [one.allowed for one in (known, pending) if one is not None]
    if not all(audience.sees(split_key(key)[0], allowed) for allowed in guarded):
        return "hidden"
    return "there" if known is not None or (pending is not None and pending.op != "delete") else "missing"


def _parts(documents: Sequence[SubmittedDocument]) -> Iterator[list[SubmittedDocument]]:
    """Parts of about a window, in order; an id that comes twice is in two of them, so that the later one counts."""
    part: dict[str, SubmittedDocument] = {}
    characters = 0
    for document in documents:
        key = document.key()
        full = len(part) >= _DOCUMENTS_PER_PART or characters + len(document.document.text) > _CHARACTERS_PER_PART
        if part and (full or key in part):
            yield list(part.values())
            part, characters = {}, 0
        part[key] = document
        characters += len(document.document.text)
    if part:
        yield list(part.values())


async def _put(
    context: PipelineContext,
    writer: Writer,
    documents: Sequence[SubmittedDocument],
    overtaken: Overtaken,
    announce: Announce,
) -> tuple[list[DocumentResult], list[SubmittedDocument]]:
    """Documents of different ids. They are in this writer's hands until they are committed.

    Beside the results, those that say what their file held; but for one that stays as somebody else left it.
    """
    keys = [document.key() for document in documents]
    async with context.locks.holding(writer.lineage, keys):
        holders = {document.key(): document.holders() for document in documents}
        later = await overtaken(list(dict.fromkeys([*keys, *itertools.chain(*holders.values())])))
        left = {one for one, versions in later.items() if await _standing(context, writer, one) in versions}
        # What became of a mail or of an archive became of what is in it.
        stay = {one for one in keys if one in left or left.intersection(holders[one])}
        with context.claiming(writer.lineage) as claims:
            considered = [
                (await _left(context, writer, document), None)
                if document.key() in stay
                else await _consider(context, writer, claims, document)
                for document in documents
            ]
            results = [result for result, _ in considered]
            prepared = [prepared for _, prepared in considered if prepared]
            become = {
                document.key(): document.document.content_hash()
                for document, result in zip(documents, results, strict=True)
                if result.status != "failed"
            }
            try:
                await announce(become)
                await writer.write(prepared)
            except (asyncio.CancelledError, WinnowError):
                await finish(_give_up(context, writer, [one.record.id for one in prepared]))
                raise
    return results, [document for document in documents if document.whole and document.key() not in stay]


async def _standing(context: PipelineContext, writer: Writer, document_id: str) -> str:
    """The version of a document that counts; "" for none. What was begun and not committed does not."""
    known = await context.manifest.document(writer.lineage, document_id)
    return known.version if known else ""


async def _left(context: PipelineContext, writer: Writer, submitted: SubmittedDocument) -> DocumentResult:
    """A document that stays as somebody else left it."""
    known = await context.manifest.document(writer.lineage, submitted.key())
    source, passages = (known.source, known.passages) if known else (printable(submitted.source), 0)
    return DocumentResult(id=submitted.document_id(), source=source, status="unchanged", passages=passages)


async def _give_up(context: PipelineContext, writer: Writer, document_ids: Sequence[str]) -> None:
    """Leave of these what counts. What cannot be cleared away now stays hidden, and the next start clears it away."""
    with suppress(WinnowError, LineageRetired):
        pending = [await context.manifest.pending(writer.lineage, document_id) for document_id in document_ids]
        await writer.settle([record for record in pending if record])


async def _consider(
    context: PipelineContext, writer: Writer, claims: Claims, submitted: SubmittedDocument
) -> tuple[DocumentResult, Prepared | None]:
    """What becomes of a document, and what of it is to be written."""
    document = submitted.document
    record = DocumentRecord(
        id=submitted.key(),
        path=None,
        source=printable(submitted.source),
        title=printable(document.title),
        version=document.content_hash(),
        passages=0,
        body=document,
        allowed=document.allowed,
    )
    owner = claims.claim(record.id, "")  # before the look-up: no file may take this id in between
    earlier = await context.manifest.document(writer.lineage, record.id)
    pending = await context.manifest.pending(writer.lineage, record.id)  # what a killed writer left
    guarded = [known.allowed for known in (earlier, pending) if known is not None]
    if not all(submitted.writer.sees(submitted.tenant, allowed) for allowed in guarded):
        return _failed(record, "duplicate_id", "the id is taken; choose another"), None
    unfinished = pending if pending and pending.op == "write" else None
    file = next((known.source for known in (unfinished, earlier) if known and known.path is not None), None)
    if owner or file is not None:
        name = path_of(owner).name if owner else file
        return _failed(record, "duplicate_id", f"the id is taken by a document of the file {name}"), None
    if earlier is not None and earlier.version == record.version and not unfinished:
        return _unchanged(record, earlier.passages, document.warnings), None
    prepared = await prepare_submitted(context, record)
    if not prepared.passages:
        return _failed(record, "empty", "the document contains no text"), None
    result = DocumentResult(
        id=record.document_id,
        source=record.source,
        status="updated" if earlier else "created",
        passages=len(prepared.passages),
        warnings=document.warnings,
    )
    return result, prepared


def _failed(record: DocumentRecord, reason: str, detail: str) -> DocumentResult:
    return DocumentResult(id=record.document_id, source=record.source, status="failed", reason=reason, detail=detail)


def _unchanged(record: DocumentRecord, passages: int, warnings: tuple[str, ...]) -> DocumentResult:
    return DocumentResult(
        id=record.document_id, source=record.source, status="unchanged", passages=passages, warnings=warnings
    )
