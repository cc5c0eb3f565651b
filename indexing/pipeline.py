"""Files on disk into a collection: plan, read, chunk, embed, store, forget what is gone.

A run can be killed at any moment: the next one finds what was announced and not committed, and completes it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from indexing.collections import (
    Target,
    Workbench,
    ensure_collection,
    find_collection,
    forget_lost_lineages,
    live_target,
    new_spec,
)
from indexing.documents import Document
from indexing.embedding import Embedder
from indexing.errors import CollectionNotFound, UnreadableDocument
from indexing.manifest import DocumentRecord, SourceRecord
from indexing.planning import Plan, PlannedSource, make_plan, plan_rebuild, with_files
from indexing.progress import Advanced, Finishing, Planned, Refused, Report, Summary, say_nothing
from indexing.readers.worker import ReaderPool
from indexing.sources import Found, Problem, discover
from indexing.store.base import CollectionInfo
from indexing.writing import Prepared, Writer, Written, prepare

_AHEAD = 64
"""Prepared documents that may wait for the writer."""

_AT_ONCE = 32
"""Documents of one source that are cut into passages in one go."""

_Queue = asyncio.Queue[Prepared | SourceRecord | None]


class SyncRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A run over files. `inputs` are files, directories or globs, relative to `cwd`.

    `delete` removes documents whose files are gone from within the inputs. `rebuild` embeds everything anew beside the
    live index, this collection's earlier files and handed-over documents included, and then switches.
    """

    inputs: tuple[str, ...]
    cwd: str
    collection: str = "default"
    delete: bool = True
    rebuild: bool = False


async def sync(bench: Workbench, request: SyncRequest, report: Report = say_nothing) -> Summary:
    """Bring the collection in line with the files. Run one at a time over a workbench."""
    return await _Sync(bench, request, report).run()


class _Sync:
    """One run; holds what its steps share."""

    def __init__(self, bench: Workbench, request: SyncRequest, report: Report) -> None:
        self._bench = bench
        self._request = request
        self._report = report
        self._begun = time.perf_counter()
        self._refused: list[Refused] = []
        self._written = Written()
        self._created = self._updated = self._unchanged = self._deleted = 0

    async def run(self) -> Summary:
        """Plan, write, delete, and say what was done."""
        found = await asyncio.to_thread(discover, self._request.inputs, Path(self._request.cwd))
        if self._request.rebuild:
            await self._rebuild(found)
        else:
            await self._update(found)
        return await self._summary()

    async def _update(self, found: Found) -> None:
        info = await find_collection(self._bench, self._request.collection)
        target = live_target(info) if info else None
        plan = await self._plan(found, target)
        if plan.work or (target and self._bench.manifest.unfinished(target.lineage)):
            target = target or live_target(await ensure_collection(self._bench, self._request.collection, self._report))
            await self._write(plan, target)
        if target and plan.gone:
            await self._delete_gone(target, plan.gone)
        if target and (self._written.documents or self._deleted):
            self._report(Finishing(step="optimising the index"))
            await self._bench.store.optimize(target.name)

    async def _rebuild(self, found: Found) -> None:
        """Everything that the collection holds and that can still be had, into a fresh generation, then switch."""
        live = await self._live()
        lineage = live.spec.lineage if live else ""
        plan = await asyncio.to_thread(plan_rebuild, found.sources, self._bench.manifest.paths(lineage))
        self._announce(plan, found.problems)
        spec = await new_spec(self._bench, self._report)
        if live is None:
            await self._bench.store.create(self._request.collection, spec)
        name = await self._bench.store.begin_rebuild(self._request.collection, spec)
        await self._write(plan, Target(name, spec.lineage), list(self._bench.manifest.handed_over(lineage)))
        self._deleted = len(plan.gone)
        self._report(Finishing(step="optimising and switching to the new index"))
        await self._bench.store.optimize(name)
        await self._bench.store.finish_rebuild(self._request.collection, name)
        await forget_lost_lineages(self._bench)

    async def _live(self) -> CollectionInfo | None:
        with suppress(CollectionNotFound):
            return await self._bench.store.info(self._request.collection)
        return None

    async def _plan(self, found: Found, target: Target | None) -> Plan:
        """Compare with the manifest; what a killed run left unfinished belongs to this one, wherever it lies."""
        manifest, lineage = self._bench.manifest, target.lineage if target else ""
        unfinished = {record.path: record.source for record in manifest.unfinished(lineage) if record.path}
        indexed = manifest.paths(lineage)
        covers = found.covers if self._request.delete else (lambda _: False)
        sources = await asyncio.to_thread(with_files, found.sources, unfinished)
        plan = await asyncio.to_thread(
            make_plan, sources, manifest.sources(lineage), indexed.keys(), covers, unfinished.keys()
        )
        merely_gone = {p for p in found.problems if p.reason == "not_found" and any(map(p.scope.covers, indexed))}
        self._announce(plan, [p for p in found.problems if p not in merely_gone])
        return plan

    def _announce(self, plan: Plan, problems: Sequence[Problem]) -> None:
        changed = sum(work.known for work in plan.work)
        self._report(
            Planned(
                new=len(plan.work) - changed,
                changed=changed,
                unchanged=len(plan.unchanged),
                gone=len(plan.gone),
                bytes=sum(work.bytes for work in plan.work),
            )
        )
        for source, error in plan.unreadable:
            reason = UnreadableDocument("permission", f"it cannot be opened: {error.strerror}")
            self._refuse(source.name, reason, kept=not self._request.rebuild)
        for problem in problems:
            self._refuse(problem.name, problem.error(), kept=problem.reason == "permission")

    async def _write(self, plan: Plan, target: Target, handed: Sequence[DocumentRecord] = ()) -> None:
        embedder = await self._bench.embedder.get(self._report)
        writer = Writer(self._bench, embedder, target, self._advanced)
        for record in (*handed, *self._bench.manifest.unfinished(target.lineage)):
            await self._write_handed(record, writer)
        queue: _Queue = asyncio.Queue(_AHEAD)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read_all(plan.work, target, embedder, queue))
            while (item := await queue.get()) is not None:
                if isinstance(item, Prepared):
                    await writer.add(item)
                else:
                    writer.finish_source(item)
            await writer.flush()
        self._written = writer.written

    async def _write_handed(self, record: DocumentRecord, writer: Writer) -> None:
        if record.body is not None:
            again = msgspec.structs.replace(record, version=record.body.content_hash())
            await writer.add(await asyncio.to_thread(prepare, record.body, again, writer.embedder))

    def _advanced(self, written: Written) -> None:
        self._report(Advanced(bytes=int(written.bytes), documents=written.documents, passages=written.passages))

    async def _read_all(self, work: Sequence[PlannedSource], target: Target, embedder: Embedder, queue: _Queue) -> None:
        async with ReaderPool(self._bench.limits) as pool:
            for planned in work:
                try:
                    documents = await pool.read(planned.path, planned.source.name)
                except UnreadableDocument as exc:
                    self._refuse(planned.source.name, exc, kept=planned.known)
                    continue
                refused = len(self._refused)
                async for prepared in self._prepare(planned, documents, target, embedder):
                    await queue.put(prepared)
                if len(self._refused) == refused:  # else the next run looks at it, and says so, again
                    await queue.put(planned.record())
        await queue.put(None)

    async def _prepare(
        self, planned: PlannedSource, documents: Sequence[Document], target: Target, embedder: Embedder
    ) -> AsyncIterator[Prepared]:
        """The new and changed documents of a source, cut into passages; those that it no longer has are deleted."""
        earlier = self._bench.manifest.versions(target.lineage, str(planned.source.path))
        share = planned.bytes / max(1, sum(len(d.text) for d in documents))
        fresh = []
        for document in documents:
            record = planned.document_record(document)
            before = earlier.pop(record.id, "")
            if before == record.version:
                self._unchanged += 1
            elif not self._taken(target, planned, record):
                self._created, self._updated = self._created + (before == ""), self._updated + (before != "")
                fresh.append((document, record, share * len(document.text)))
        for start in range(0, len(fresh), _AT_ONCE):
            for prepared in await asyncio.to_thread(_prepare_all, fresh[start : start + _AT_ONCE], embedder):
                yield prepared
        await self._delete(target, list(earlier))

    def _taken(self, target: Target, planned: PlannedSource, record: DocumentRecord) -> bool:
        """Whether another source holds this id already; two owners would delete each other's passages."""
        owner = self._bench.manifest.document(target.lineage, record.id)
        if owner is None or owner.path == record.path:
            return False
        detail = f"its id {record.id!r} is taken by a document of {owner.source or 'the API'}"
        self._refuse(planned.source.name, UnreadableDocument("duplicate_id", detail), kept=False)
        return True

    def _refuse(self, name: str, error: UnreadableDocument, *, kept: bool) -> None:
        refused = Refused(source=name, reason=error.reason, detail=error.detail, kept=kept)
        self._refused.append(refused)
        self._report(refused)

    async def _delete_gone(self, target: Target, paths: Sequence[str]) -> None:
        for path in paths:
            await self._delete(target, list(self._bench.manifest.versions(target.lineage, path)))
        self._bench.manifest.forget(target.lineage, paths=paths)

    async def _delete(self, target: Target, document_ids: Sequence[str]) -> None:
        if document_ids:
            await self._bench.store.delete_documents(target.name, document_ids)
            self._bench.manifest.forget(target.lineage, document_ids)
            self._deleted += len(document_ids)

    async def _summary(self) -> Summary:
        info = await self._live()
        documents = self._bench.manifest.count(info.spec.lineage) if info else 0
        summary = Summary(
            collection=self._request.collection,
            created=self._created,
            updated=self._updated,
            unchanged=max(0, documents - self._created - self._updated),
            deleted=self._deleted,
            refused=tuple(self._refused),
            passages=self._written.passages,
            total_documents=documents,
            total_passages=info.passages if info else 0,
            seconds=round(time.perf_counter() - self._begun, 3),
            embed_seconds=round(self._written.embed_seconds, 3),
            rebuilt=self._request.rebuild,
        )
        self._report(summary)
        return summary


def _prepare_all(fresh: Sequence[tuple[Document, DocumentRecord, float]], embedder: Embedder) -> list[Prepared]:
    return [prepare(document, record, embedder, weight) for document, record, weight in fresh]
