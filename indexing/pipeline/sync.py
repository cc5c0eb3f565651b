"""Brings a collection up to date with its sources."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from indexing.errors import CollectionNotFound, UnreadableDocument
from indexing.pipeline.context import (
    Target,
    Workbench,
    ensure_collection,
    find_collection,
    forget_lost_lineages,
    live_target,
    new_spec,
)
from indexing.pipeline.planning import Plan, PlannedSource, make_plan, plan_rebuild, with_files
from indexing.pipeline.progress import (
    Advanced,
    Finishing,
    Planned,
    Refused,
    Report,
    Summary,
    SyncRequest,
    say_nothing,
)
from indexing.pipeline.read_stage import Feeder, ready
from indexing.pipeline.sources import Found, Problem, discover
from indexing.pipeline.write_stage import Prepared, Writer, Written, delete, prepare
from indexing.store.base import CollectionInfo


async def finish_handed(bench: Workbench, target: Target, report: Report = say_nothing) -> None:
    """Write those that a killed put left unfinished, and delete those that a killed delete did."""
    writer = Writer(bench, target)
    for record in bench.manifest.unfinished(target.lineage):
        if record.path is None and not await _write(bench, target.lineage, record.id, writer, report):
            await delete(bench, target, [record.id])
    await writer.flush()


async def carry_over(bench: Workbench, lineage: str, writer: Writer, report: Report = say_nothing) -> None:
    """Make the writer's generation hold what was handed over to `lineage`, no more and no less."""
    there = bench.manifest.handed_over(writer.target.lineage)
    for document_id, version in bench.manifest.handed_over(lineage).items():
        if there.pop(document_id, "") != version or version is None:
            await _write(bench, lineage, document_id, writer, report)
    await writer.flush()
    await delete(bench, writer.target, list(there))


async def _write(bench: Workbench, lineage: str, document_id: str, writer: Writer, report: Report) -> bool:
    """False for a document of which nothing is left."""
    record = await asyncio.to_thread(bench.manifest.document_with_body, lineage, document_id)
    if record is None or record.body is None:
        return False
    embedder = await bench.embedder.get(report)
    await writer.add(await asyncio.to_thread(prepare, record.body, record, embedder))
    return True


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
        self._created = self._updated = self._deleted = 0

    async def run(self) -> Summary:
        """Plan, write, delete, and say what was done."""
        found = await asyncio.to_thread(discover, self._request.inputs, Path(self._request.cwd))
        live = await self._live()
        if self._request.rebuild and live is not None:
            await self._rebuild(found, live)
        else:
            await self._update(found)
        return await self._summary()

    async def _update(self, found: Found) -> None:
        bench, name = self._bench, self._request.collection
        info = await find_collection(bench, name)
        plan = await self._plan(found, info.spec.lineage if info else "")
        if info is None and not plan.work:
            return
        target = live_target(info or await ensure_collection(bench, name, self._report))
        async with bench.handing:
            await finish_handed(bench, target, self._report)
        await self._write(plan, Writer(bench, target, self._advanced))
        await self._delete_gone(target, plan.gone)
        if self._written.documents or self._deleted:
            self._report(Finishing(step="optimising the index"))
        await bench.store.optimize(target.name)

    async def _rebuild(self, found: Found, live: CollectionInfo) -> None:
        """Everything that the collection holds and that can still be had, into a fresh generation, then switch."""
        bench, name, lineage = self._bench, self._request.collection, live.spec.lineage
        earlier = bench.manifest.paths(lineage)
        plan = await asyncio.to_thread(plan_rebuild, found.sources, earlier, bench.limits)
        self._announce(plan, found.problems)
        spec = await new_spec(bench, self._report)
        fresh = Target(await bench.store.begin_rebuild(name, spec), spec.lineage)
        writer = Writer(bench, fresh, self._advanced)
        await carry_over(bench, lineage, writer, self._report)
        await self._write(plan, writer)
        self._report(Finishing(step="optimising and switching to the new index"))
        await bench.store.optimize(fresh.name)
        async with bench.handing:  # what was handed over in the meantime is in the live index alone
            await carry_over(bench, lineage, writer)
            self._deleted = sum(len(bench.manifest.versions(lineage, path)) for path in plan.gone)
            await bench.store.finish_rebuild(name, fresh.name)
            await forget_lost_lineages(bench)

    async def _live(self) -> CollectionInfo | None:
        with suppress(CollectionNotFound):
            return await self._bench.store.info(self._request.collection)
        return None

    async def _plan(self, found: Found, lineage: str) -> Plan:
        """Compare with the manifest; what a killed run left unfinished belongs to this one, wherever it lies."""
        manifest = self._bench.manifest
        unfinished = {record.path: record.source for record in manifest.unfinished(lineage) if record.path}
        indexed = manifest.paths(lineage).keys() | manifest.sources(lineage).keys()
        covers = found.covers if self._request.delete else (lambda _: False)
        sources = await asyncio.to_thread(with_files, found.sources, unfinished)
        plan = await asyncio.to_thread(
            make_plan, sources, manifest.sources(lineage), indexed, covers, unfinished.keys(), self._bench.limits
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
        for problem in problems:
            self._refuse(problem.name, problem.error(), problem.reason == "permission")

    async def _write(self, plan: Plan, writer: Writer) -> None:
        self._written = writer.written
        with self._bench.claims.of(writer.target.lineage) as claim:
            feeder = Feeder(self._bench, writer.target, claim, frozenset(plan.gone), self._refuse, self._report)
            for source, why in plan.unreadable:
                await feeder.refuse(source, why)
            await _pump(feeder, plan.work, writer)
        self._created, self._updated = feeder.created, feeder.updated
        self._deleted += feeder.deleted

    def _advanced(self, written: Written) -> None:
        self._report(Advanced(bytes=int(written.bytes), documents=written.documents, passages=written.passages))

    def _refuse(self, name: str, error: UnreadableDocument, kept: bool) -> None:
        refused = Refused(source=name, reason=error.reason, detail=error.detail, kept=kept)
        self._refused.append(refused)
        self._report(refused)

    async def _delete_gone(self, target: Target, paths: Sequence[str]) -> None:
        manifest = self._bench.manifest
        for path in paths:
            document_ids = list(manifest.versions(target.lineage, path))
            await delete(self._bench, target, document_ids)
            self._deleted += len(document_ids)
        manifest.forget(target.lineage, paths=paths)

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


async def _pump(feeder: Feeder, work: Sequence[PlannedSource], writer: Writer) -> None:
    """Write while the feeder reads ahead. An error of either side ends both, and comes out as it is."""
    queue = ready()
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(feeder.feed(work, queue))
            while (item := await queue.get()) is not None:
                if isinstance(item, Prepared):
                    await writer.add(item)
                else:
                    writer.finish_source(item)
            await writer.flush()
    except ExceptionGroup as group:
        first = group.exceptions[0]
        raise first from first.__cause__
