"""Documents that were handed over, not read from files: finishing them after a kill, taking them along in a rebuild."""

import asyncio

from indexing.pipeline.context import Target, Workbench
from indexing.pipeline.progress import Report, say_nothing
from indexing.pipeline.write_stage import Writer, delete, prepare


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
