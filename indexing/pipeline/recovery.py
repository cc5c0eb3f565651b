"""Compares the manifest with the store, and gives back to either what it lost.

Passages carry the fields of their document, so a document that the manifest lost is put together from them: its text
with every offset as before, its title, source, pages and metadata. What lay between passages comes back as line feeds;
its structure (headings, tables) and whether it came from a file do not come back. So it is recorded as a submitted
document, and the next run over its file takes it over.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from indexing.documents import EVERYTHING, Document, PageStart, Passage
from indexing.pipeline.context import PipelineContext
from indexing.pipeline.manifest import DocumentRecord, Manifest, Totals
from indexing.pipeline.progress import Copied, Repaired, Report, say_nothing
from indexing.sqlite import set_aside_if_damaged
from indexing.store.base import CollectionInfo, VectorStore

log = logging.getLogger(__name__)

_PAGE = 2_000
_DOCUMENTS = 200
"""Documents that are put together and recorded at a time."""
_LARGEST_GAP = 1_000_000
"""Characters. More than this between two passages is no blank space, but a passage that is missing or damaged."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What the manifest has on record of a collection, and the passages in the store."""

    recorded: Totals
    stored: int

    @property
    def agree(self) -> bool:
        """Whether the counts are the same, or work is under way, so that they need not be."""
        return self.recorded.unfinished > 0 or self.recorded.passages == self.stored

    @property
    def lost(self) -> bool:
        """Whether the manifest knows nothing of a collection that holds something."""
        return self.recorded == Totals(0, 0, 0) and self.stored > 0


async def compare(manifest: Manifest, store: VectorStore, info: CollectionInfo) -> Comparison:
    """Compare counts, which is cheap. `info` is what the store says now."""
    recorded = await manifest.totals(info.spec.lineage)
    stored = info.passages
    if recorded.passages != stored and not recorded.unfinished:  # something may have been written in between
        stored = (await store.info(info.name)).passages
        again = await manifest.totals(info.spec.lineage)
        recorded = again if again == recorded else msgspec.structs.replace(again, unfinished=1)
    return Comparison(recorded=recorded, stored=stored)


async def repair(context: PipelineContext, name: str, report: Report = say_nothing) -> Repaired:
    """Make manifest and store agree; nothing that is known to either is lost.

    Documents that only the store has are recorded; if there are any, the manifest is the older of the two, and so are
    the versions of submitted documents of which only the store has another one. Documents that the store lacks passages
    of are announced, so that whoever finishes what is unfinished writes them again. Raises CollectionNotFound.
    """
    info = await context.store.info(name)
    lineage = info.spec.lineage
    stored: Counter[tuple[str, str]] = Counter()
    async for page in _pages(context, name):
        stored.update((passage.key, passage.version) for passage in page)
        report(Copied(step="checking", done=stored.total(), total=max(info.passages, stored.total())))
    known = await context.manifest.known(lineage)
    fullest: dict[str, tuple[int, str]] = {}
    for (document_id, version), count in stored.items():  # of several versions: a half-written one must not win
        fullest[document_id] = max(fullest.get(document_id, (0, "")), (count, version))
    orphans = {key: version for key, (_, version) in fullest.items() if key not in known}
    outdated = await _outdated(context, lineage, known, stored) if orphans else {}
    unrecorded = orphans | {key: fullest[key][1] for key in outdated if key in fullest}
    await _record(context, info, unrecorded, outdated, report)
    torn = [
        document_id
        for document_id, (version, passages) in known.items()
        if version is not None and stored[document_id, version] != passages and document_id not in unrecorded
    ]
    several = [document_id for document_id, versions in Counter(key for key, _ in stored).items() if versions > 1]
    incomplete = await _mend(context, info, torn, several)
    files = sum(record.path is not None for record in incomplete)
    return Repaired(collection=name, recovered=len(unrecorded), to_read=files, written=len(incomplete) - files)


async def _outdated(
    context: PipelineContext, lineage: str, known: dict[str, tuple[str | None, int]], stored: Counter[tuple[str, str]]
) -> dict[str, str]:
    """Submitted documents (id -> version) of whose version on record the store has nothing."""
    lacking = [key for key, (version, _) in known.items() if version is not None and not stored[key, version]]
    records = await context.manifest.whole(lineage, lacking)
    return {record.id: record.version for record in records if record.path is None}


async def _mend(
    context: PipelineContext, info: CollectionInfo, torn: Sequence[str], several: Sequence[str]
) -> list[DocumentRecord]:
    """Announce those of the documents `torn` that lack passages, and delete what does not count of those `several`.

    Nobody else writes them meanwhile; what somebody has written since the look at the store is left alone.
    """
    manifest, store, lineage = context.manifest, context.store, info.spec.lineage
    async with context.locks.holding(lineage, [*torn, *several]), context.gate(lineage).step():
        counts = {key: version for key, (version, _) in (await manifest.known(lineage)).items() if version is not None}
        incomplete = []
        for record in await manifest.whole(lineage, [key for key in torn if key in counts]):
            found = await store.passages(info.name, record.id, EVERYTHING)
            if sum(passage.version == record.version for passage in found) != record.passages:
                incomplete.append(record)
        await manifest.announce(lineage, incomplete)
        await store.delete_stale(info.name, {key: counts[key] for key in several if key in counts})
    return incomplete


async def recover_lost(context: PipelineContext) -> list[Repaired]:
    """Repair the collections of which the manifest knows nothing although they hold passages."""
    repaired = []
    for info in await context.store.collections():
        if (await compare(context.manifest, context.store, info)).lost:
            log.error("the manifest knows nothing of collection %r, which holds %d passages", info.name, info.passages)
            repaired.append(await repair(context, info.name))
            log.warning("recovered %d documents of collection %r", repaired[-1].recovered, info.name)
    return repaired


def document_of(passages: Sequence[Passage]) -> Document:
    """A document put together from its passages of one version, at least one."""
    first, length = passages[0], 0
    pieces: list[str] = []
    pages: dict[int, PageStart] = {}
    for passage in sorted(passages, key=lambda passage: passage.start):
        gap = passage.start - length
        piece = passage.text[-gap:] if gap < 0 else "\n" * min(gap, _LARGEST_GAP) + passage.text
        pieces.append(piece)
        length += len(piece)
        if passage.page is not None and passage.page not in pages:
            pages[passage.page] = PageStart(passage.start, passage.page)
        pages |= {page.number: page for page in passage.later_pages}
    return Document(
        text="".join(pieces),
        title=first.title,
        pages=tuple(sorted(pages.values(), key=lambda page: page.start)),
        metadata=first.metadata,
        allowed=first.allowed,
    )


def open_manifest(path: Path, quarantine: Path) -> Manifest:
    """The manifest. One that SQLite cannot read is moved to `quarantine` and replaced by an empty one.

    What the collections hold is then recovered from the store (`recover_lost`). Blocks. Raises StoreUnavailable.
    """
    if moved := set_aside_if_damaged(path, quarantine):
        log.error("the manifest is damaged and was moved to %s; it is made anew from the index", moved)
    return Manifest(path)


async def _pages(context: PipelineContext, name: str) -> AsyncIterator[list[Passage]]:
    cursor = None
    while True:
        page, cursor = await context.store.page(name, cursor, _PAGE, EVERYTHING)
        yield page
        if cursor is None:
            return


async def _record(
    context: PipelineContext,
    info: CollectionInfo,
    versions: dict[str, str],
    outdated: dict[str, str],
    report: Report,
) -> None:
    """Record these documents (id -> version) with bodies that are made from their passages, also instead of the
    `outdated` versions.
    """
    document_ids = list(versions)
    for start in range(0, len(document_ids), _DOCUMENTS):
        part = document_ids[start : start + _DOCUMENTS]
        records = [await _recovered(context, info, document_id, versions[document_id]) for document_id in part]
        await context.manifest.adopt(info.spec.lineage, [one for one in records if one is not None], instead=outdated)
        report(Copied(step="recovering", done=start + len(part), total=len(document_ids)))


async def _recovered(
    context: PipelineContext, info: CollectionInfo, document_id: str, version: str
) -> DocumentRecord | None:
    """None for a document that was deleted since."""
    found = await context.store.passages(info.name, document_id, EVERYTHING)
    passages = [passage for passage in found if passage.version == version]
    if not passages:
        return None
    body = await asyncio.to_thread(document_of, passages)
    return DocumentRecord(
        id=document_id,
        path=None,
        source=passages[0].source,
        title=passages[0].title,
        version=version,
        passages=len(passages),
        body=body,
        allowed=body.allowed,
        indexed_at=time.time(),
    )
