"""The reading half of the pipeline: planned sources -> their new and changed documents, cut into passages."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from indexing.documents import Document
from indexing.embedding.model import Embedder
from indexing.errors import UnreadableDocument
from indexing.pipeline.context import Claim, Target, Workbench
from indexing.pipeline.manifest import DocumentRecord, SourceRecord
from indexing.pipeline.planning import PlannedSource
from indexing.pipeline.progress import Report
from indexing.pipeline.sources import Source
from indexing.pipeline.write_stage import WINDOW, Prepared, delete, prepare
from indexing.readers.sandbox.pool import ReaderPool

T = TypeVar("T")

_AT_ONCE = 32
"""Documents of one source that are cut into passages in one go."""

Refuse = Callable[[str, UnreadableDocument, bool], None]
"""(source, why, whether an earlier version stays in the index)."""


class Lookahead(Generic[T]):
    """What is ready for a consumer. A producer waits while what lies here weighs `limit` or more."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._weight = 0
        self._items: deque[tuple[T, int]] = deque()
        self._changed = asyncio.Condition()

    async def put(self, item: T, weight: int = 0) -> None:
        """Waits for room."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._weight < self._limit)
            self._items.append((item, weight))
            self._weight += weight
            self._changed.notify_all()

    async def get(self) -> T:
        """Waits for an item."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._items)
            item, weight = self._items.popleft()
            self._weight -= weight
            self._changed.notify_all()
            return item


Ready = Lookahead[Prepared | SourceRecord | None]
"""Documents; after the documents of a source its record, unless it has to be looked at again; at the end None."""


def ready() -> Ready:
    """Room for two windows: one to take while another is being read."""
    return Lookahead(2 * WINDOW)


class _Fresh(NamedTuple):
    document: Document
    record: DocumentRecord
    weight: float


class _Compared(NamedTuple):
    """A source's documents against the manifest. `left` are ids that it no longer has."""

    fresh: list[_Fresh]
    created: int
    taken: list[UnreadableDocument]
    left: list[str]


class Feeder:
    """Reads sources one after the other, ahead of the writer. Counts what it feeds.

    `gone` are paths whose documents may be taken over by another source.
    """

    def __init__(
        self, bench: Workbench, target: Target, claim: Claim, gone: AbstractSet[str], refuse: Refuse, report: Report
    ) -> None:
        self._bench = bench
        self._target = target
        self._claim = claim
        self._gone = gone
        self._refuse = refuse
        self._report = report
        self.created = self.updated = self.deleted = 0

    async def feed(self, work: Sequence[PlannedSource], out: Ready) -> None:
        """All of the sources; one that cannot be read is refused."""
        async with ReaderPool(self._bench.limits) as pool:
            for planned in work:
                try:
                    documents = await pool.read(planned.path, planned.source.name)
                except UnreadableDocument as exc:
                    await self.refuse(planned.source, exc)
                    continue
                await self._feed_one(planned, documents, out)
        await out.put(None)

    async def refuse(self, source: Source, why: UnreadableDocument) -> None:
        """Say so. The earlier version stays, but for what a killed run left half done."""
        versions = self._bench.manifest.versions(self._target.lineage, str(source.path))
        half_done = [document_id for document_id, version in versions.items() if version is None]
        await self._delete(half_done)
        self._refuse(source.name, why, len(versions) > len(half_done))

    async def _feed_one(self, planned: PlannedSource, documents: Sequence[Document], out: Ready) -> None:
        compared = await asyncio.to_thread(self._compare, planned, documents)
        self.created += compared.created
        self.updated += len(compared.fresh) - compared.created
        for refusal in compared.taken:
            self._refuse(planned.source.name, refusal, False)
        async for prepared in self._prepared(compared.fresh):
            await out.put(prepared, len(prepared.passages) + 1)
        await self._delete(compared.left)
        if not compared.taken:  # else the next run looks at it, and says so, again
            await out.put(planned.record())

    def _compare(self, planned: PlannedSource, documents: Sequence[Document]) -> _Compared:
        """In a thread: hashing takes its time."""
        earlier = self._bench.manifest.versions(self._target.lineage, str(planned.path))
        fresh, taken, created = [], [], 0
        for document in documents:
            record = planned.document_record(document)
            before = earlier.pop(record.id, "")
            if before == record.version:
                continue
            if owner := self._other_owner(record):
                taken.append(UnreadableDocument("duplicate_id", f"Its id {record.id!r} is taken by {owner}."))
                continue
            created += before == ""
            fresh.append((document, record))
        share = planned.bytes / max(1, sum(len(document.text) for document, _ in fresh))
        weighed = [_Fresh(document, record, share * len(document.text)) for document, record in fresh]
        return _Compared(weighed, created, taken, list(earlier))

    def _other_owner(self, record: DocumentRecord) -> str:
        """Who else holds this id already, or writes it just now; two owners would delete each other's passages."""
        path = record.path or ""
        holder = self._bench.manifest.document(self._target.lineage, record.id)
        if holder is not None and holder.path != path and holder.path not in self._gone:
            return f"a document of {holder.source or 'the API'}"
        claimed = self._claim(record.id, path)
        return "" if claimed is None else f"a document of {Path(claimed).name or 'the API'}"

    async def _prepared(self, fresh: Sequence[_Fresh]) -> AsyncIterator[Prepared]:
        for start in range(0, len(fresh), _AT_ONCE):
            embedder = await self._bench.embedder.get(self._report)
            for prepared in await asyncio.to_thread(_prepare_all, fresh[start : start + _AT_ONCE], embedder):
                yield prepared

    async def _delete(self, document_ids: Sequence[str]) -> None:
        await delete(self._bench, self._target, document_ids)
        self.deleted += len(document_ids)


def _prepare_all(fresh: Sequence[_Fresh], embedder: Embedder) -> list[Prepared]:
    return [prepare(document, record, embedder, weight) for document, record, weight in fresh]
