"""Brings a collection up to date with its sources.

    update    plan (new, changed, gone) -> read -> chunk -> embed -> upsert -> delete what is gone
    rebuild   everything into a new generation beside the live one -> switch

Documents that were submitted over the API have no file: an update finishes what a killed run left of them, and a
rebuild carries them over.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from indexing.documents import EVERYTHING, split_key
from indexing.errors import CollectionDamaged, CollectionNotFound, Conflict, UnreadableDocument
from indexing.pipeline.context import (
    PipelineContext,
    ensure_collection,
    find_collection,
    forget_lost_lineages,
    is_damaged,
    live_lineage,
    new_spec,
)
from indexing.pipeline.ingest import finish_submitted, prepare_submitted
from indexing.pipeline.manifest import IndexedFile, SourceRecord
from indexing.pipeline.planning import Plan, distinct, make_plan, path_of, plan_rebuild, with_files
from indexing.pipeline.progress import Notice, NotIndexed, Planned, Report, Summary, SyncRequest, say_nothing
from indexing.pipeline.queues import LineageRetired
from indexing.pipeline.read_stage import Reading, ReadyQueue, SourceReader
from indexing.pipeline.recovery import compare, document_of, repair
from indexing.pipeline.sources import UNSEEN, Discovery, Unreadable, discover
from indexing.pipeline.write_stage import Prepared, Writer
from indexing.readers.limits import UNREADABLE_BY_NATURE
from indexing.store.base import CollectionInfo


async def sync(
    context: PipelineContext, request: SyncRequest, report: Report = say_nothing, reading: Reading | None = None
) -> Summary:
    """Bring the collection in line with the files, read by `reading` or in this process.

    Run one at a time over a context.
    """
    try:
        return await _SyncRun(context, request, report, reading).run()
    except LineageRetired as exc:  # it was dropped meanwhile: runs do not replace each other's
        raise CollectionNotFound(request.collection) from exc


class _SyncRun:
    """One run; holds what its steps share."""

    def __init__(self, context: PipelineContext, request: SyncRequest, report: Report, reading: Reading | None) -> None:
        self._context = context
        self._reading = reading
        self._request = request
        self._report = report
        self._begun = time.perf_counter()
        self._refused: list[NotIndexed] = []
        self._writer: Writer | None = None
        self._created = self._updated = self._deleted = 0

    async def run(self) -> Summary:
        """Plan, write, delete, and report what was done."""
        discovery = await asyncio.to_thread(self._discover)
        with suppress(CollectionDamaged):
            await self._recover()
        # One that is damaged is made anew from the files and the manifest.
        lineage = await live_lineage(self._context, self._request.collection) if self._request.rebuild else None
        if lineage is not None:
            await self._rebuild(discovery, lineage)
        else:
            await self._update(discovery)
        return await self._summary()

    def _discover(self) -> Discovery:
        """What there is, for the tenant and the groups of the request."""
        request = self._request
        discovery, groups = discover(request.inputs, Path(request.cwd)), tuple(sorted({*(request.allowed or ())}))
        sources = [msgspec.structs.replace(one, tenant=request.tenant, allowed=groups) for one in discovery.sources]
        return msgspec.structs.replace(discovery, sources=tuple(sources))

    def _covers(self, discovery: Discovery, key: str) -> bool:
        """Whether this run would find the file, were it there: for its own tenant, and for no other one."""
        tenant, path = split_key(key)
        return tenant == self._request.tenant and discovery.covers(path)

    def _check_groups(self, discovery: Discovery, indexed: Mapping[str, IndexedFile]) -> None:
        """Open no files to everybody in the tenant whose groups the request has not mentioned. Raises Conflict."""
        if self._request.allowed is not None:
            return
        guarded = [source.key for source in discovery.sources if source.key in indexed and indexed[source.key].allowed]
        if guarded:
            groups = ", ".join(indexed[guarded[0]].allowed)
            more = f" and {len(guarded) - 1} more" if len(guarded) > 1 else ""
            raise Conflict(
                f"{path_of(guarded[0])}{more} may be seen by groups alone ({groups}): name the groups again with "
                "--allowed, or give --open to let all of the tenant see what is there"
            )

    async def _update(self, discovery: Discovery) -> None:
        context, name = self._context, self._request.collection
        info = await find_collection(context, name)
        plan = await self._plan(discovery, info.spec.lineage if info else "")
        if info is None and not plan.work:
            for source, error in plan.unreadable:
                self._refuse(source.name, error, False, False)
            return
        info = info or await ensure_collection(context, name, self._report)
        writer = Writer(context, info.name, info.spec.lineage, self._report)
        await finish_submitted(context, writer.name, writer.lineage, self._report)
        await self._write(plan, writer)
        for path in plan.gone:
            document_ids = list(await context.manifest.versions(writer.lineage, path))
            await writer.delete(document_ids)
            self._deleted += len(document_ids)
        await context.manifest.forget_sources(writer.lineage, plan.gone)
        if writer.documents or self._deleted:
            self._report(Notice(stage="finishing", detail="optimising the index"))
        await context.store.optimize(name)

    async def _rebuild(self, discovery: Discovery, lineage: str) -> None:
        """Everything that the collection holds and that still exists, into a new generation, then switch."""
        context, name = self._context, self._request.collection
        earlier = await context.manifest.files(lineage)
        self._check_groups(discovery, earlier)
        plan = await asyncio.to_thread(plan_rebuild, discovery.sources, earlier, context.limits)
        gone = [path for path in plan.gone if self._request.delete and self._covers(discovery, path)]
        kept = [path for path in plan.gone if path not in gone]
        await self._check_losses(lineage, kept)
        self._announce(msgspec.structs.replace(plan, gone=tuple(gone)), discovery.problems, earlier)
        spec = await new_spec(context, self._report)
        with context.building_lineage(spec.lineage):
            generation = await context.store.begin_rebuild(name, spec)
            writer = Writer(context, generation, spec.lineage, self._report)
            await carry_over(context, lineage, writer, self._report)
            await self._keep_texts(lineage, kept, writer)
            await self._write(plan, writer)
            self._report(Notice(stage="finishing", detail="optimising and switching to the new index"))
            await context.store.optimize(generation)
            await carry_over(context, lineage, writer)  # most of what was submitted in the meantime

            async def switch() -> None:
                await carry_over(context, lineage, writer)
                for path in gone:
                    self._deleted += len(await context.manifest.versions(lineage, path))
                await context.store.finish_rebuild(name, generation)

            await context.gate(lineage).retire(switch)
        await forget_lost_lineages(context)

    async def _check_losses(self, lineage: str, kept: Sequence[str]) -> None:
        """Refuse to rebuild a damaged collection if the files and the manifest cannot give back what it held.

        `kept` are files that are gone, of which only the passages are left.
        """
        if self._request.force or not await is_damaged(self._context, self._request.collection):
            return
        recorded = await self._context.manifest.totals(lineage)
        if kept:
            why = f"{len(kept)} of its files no longer exist, such as {path_of(kept[0])}"
        elif not recorded.documents and not recorded.unfinished:
            why = "the manifest does not know what it held"
        else:
            return
        raise self._loss(why)

    def _loss(self, why: str) -> Conflict:
        return Conflict(
            f"a rebuild of the damaged collection {self._request.collection!r} would lose documents: {why}. winnow "
            "snapshot restore goes back to a snapshot; --force rebuilds without them"
        )

    async def _keep_texts(self, lineage: str, paths: Sequence[str], writer: Writer) -> None:
        """Carry documents over whose files are gone, but not from where this run looks: from their passages.

        Raises Conflict where these cannot be read, unless that is forced.
        """
        manifest, store = self._context.manifest, self._context.store
        for path in paths:
            for document_id in await manifest.versions(lineage, path):
                record = await manifest.document(lineage, document_id)
                try:
                    found = await store.passages(self._request.collection, document_id, EVERYTHING)
                except CollectionDamaged as exc:
                    if self._request.force:
                        continue
                    raise self._loss(
                        f"the passages of {path_of(path)}, which no longer exists, cannot be read"
                    ) from exc
                passages = [p for p in found if record is not None and p.version == record.version]
                if record is not None and passages:
                    whole = msgspec.structs.replace(record, body=document_of(passages))
                    prepared = await prepare_submitted(self._context, whole, self._report)
                    await writer.add(msgspec.structs.replace(prepared, record=record))
        await writer.flush()

    async def _recover(self) -> None:
        """Before a run changes anything: what the manifest has lost would be read again, or by a rebuild be lost."""
        live = await self._live()
        if live is None:
            return
        found = await compare(self._context.manifest, self._context.store, live)
        if found.lost or (self._request.rebuild and not found.agree):
            detail = "the manifest does not agree with the index; what it has lost is recovered from there"
            self._report(Notice(stage="waiting", detail=detail))
            await repair(self._context, live.name)

    async def _live(self) -> CollectionInfo | None:
        with suppress(CollectionNotFound):
            return await self._context.store.info(self._request.collection)
        return None

    async def _plan(self, discovery: Discovery, lineage: str) -> Plan:
        """Compare with the manifest; what a killed run left unfinished belongs to this one, wherever it is."""
        manifest = self._context.manifest
        records = await manifest.unfinished(lineage)
        unfinished = {
            record.path: IndexedFile(record.source, record.allowed)
            for record in records
            if record.path and record.op == "write"
        }
        finished = {source.path: source.hash async for page in manifest.source_pages(lineage) for source in page}
        files = await manifest.files(lineage)
        refused = await manifest.refused(lineage)
        self._check_groups(discovery, files)

        def covers(key: str) -> bool:
            return self._covers(discovery, key)

        def compare() -> tuple[Plan, list[Unreadable], list[str]]:
            indexed = files.keys() | finished.keys()
            own = [path for tenant, path in map(split_key, indexed) if tenant == self._request.tenant]
            deletes = covers if self._request.delete else (lambda _: False)
            sources = distinct(with_files(discovery.sources, unfinished), files)
            known = {} if self._request.retry_refused else refused
            plan = make_plan(sources, finished, indexed, deletes, unfinished.keys(), self._context.limits, known)
            problems = [
                (source, error)
                for source, error in discovery.problems
                # An input that was indexed and no longer exists is gone, which is no problem.
                if error.reason != "not_found" or not any(map(source.scope.covers, own))
            ]
            # What is read now, and what is gone.
            listed, read = {source.key for source in sources}, {record.path for record in plan.work}
            outdated = [path for path in refused if path in read or (path not in listed and covers(path))]
            return plan, problems, outdated

        plan, problems, outdated = await asyncio.to_thread(compare)
        if outdated:
            await manifest.forget_refused(lineage, outdated)
        self._announce(plan, problems, {*files, *finished})
        return plan

    def _announce(self, plan: Plan, problems: Sequence[Unreadable], indexed: Iterable[str]) -> None:
        """What there is to do, and what could not be looked at: of what is `indexed` (keys) from there all is kept."""
        self._report(
            Planned(
                new=len(plan.work) - plan.changed,
                changed=plan.changed,
                unchanged=len(plan.unchanged),
                gone=len(plan.gone),
                bytes=sum(source.bytes for source in plan.work),
            )
        )
        own = [path for tenant, path in map(split_key, indexed) if tenant == self._request.tenant]
        for source, error in problems:
            kept = error.reason in UNSEEN and any(map(source.scope.covers, own))
            self._refuse(source.name, error, kept, False)

    async def _write(self, plan: Plan, writer: Writer) -> None:
        self._writer = writer
        with self._context.claiming(writer.lineage) as claims:
            writer.on_commit = claims.release
            gone = frozenset(plan.gone)
            reader = SourceReader(self._context, writer, claims, gone, self._refuse, self._report, self._reading)
            for source, error in plan.unreadable:
                await reader.refuse(source.key, source.name, error)
            for source, error in plan.refused:
                await reader.refuse(source.key, source.name, error, known=True)
            await _pump(reader, plan.work, writer)
        self._created, self._updated = reader.created, reader.updated
        self._deleted += reader.deleted

    def _refuse(self, name: str, error: UnreadableDocument, kept: bool, known: bool) -> None:
        # What was readable and no longer is has left an outdated version behind: that is a failure.
        skipped = error.reason in UNREADABLE_BY_NATURE and not kept
        refused = NotIndexed(
            source=name, reason=error.reason, detail=error.detail, kept=kept, skipped=skipped, known=known
        )
        self._refused.append(refused)
        self._report(refused)

    async def _summary(self) -> Summary:
        info = await self._live()
        documents = await self._context.manifest.count(info.spec.lineage) if info else 0
        summary = Summary(
            collection=self._request.collection,
            created=self._created,
            updated=self._updated,
            unchanged=max(0, documents - self._created - self._updated),
            deleted=self._deleted,
            refused=tuple(self._refused),
            passages=self._writer.passages if self._writer else 0,
            total_documents=documents,
            total_passages=info.passages if info else 0,
            seconds=round(time.perf_counter() - self._begun, 3),
            embed_seconds=round(self._writer.embed_seconds, 3) if self._writer else 0.0,
            rebuilt=self._request.rebuild,
        )
        self._report(summary)
        return summary


async def carry_over(context: PipelineContext, lineage: str, writer: Writer, report: Report = say_nothing) -> None:
    """Make the writer's generation hold what was submitted to `lineage`, no more and no less."""
    manifest = context.manifest
    copied = await manifest.submitted(writer.lineage)
    submitted: dict[str, str | None] = {**await manifest.submitted(lineage)}
    # What a killed put left unfinished is carried over in its new version.
    submitted |= {record.id: record.version for record in await manifest.unfinished(lineage) if record.submitted}
    for document_id, version in submitted.items():
        if copied.pop(document_id, "") != version:
            record = await manifest.pending_with_body(lineage, document_id)
            record = record or await manifest.document_with_body(lineage, document_id)
            if record is not None and record.body is not None:
                await writer.add(await prepare_submitted(context, record, report))
    await writer.flush()
    await writer.delete(list(copied))


async def _pump(reader: SourceReader, sources: Sequence[SourceRecord], writer: Writer) -> None:
    """Write while the reader reads ahead. An error of either side ends both, and is raised as it is."""
    queue = ReadyQueue()
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(reader.read(sources, queue))
            while (item := await queue.get()) is not None:
                if isinstance(item, Prepared):
                    await writer.add(item)
                else:
                    writer.finish_source(item)
            await writer.flush()
    except ExceptionGroup as group:
        first = group.exceptions[0]
        raise first from first.__cause__
