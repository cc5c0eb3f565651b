"""Use cases around what is indexed: bring a collection in line with files, take and give up documents."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from indexing.collections import Workbench
from indexing.errors import UnreadableDocument
from indexing.intake import Handed, Intake, Outcome
from indexing.pipeline import SyncRequest, sync
from indexing.planning import own_id
from indexing.progress import Refused, Report, Summary, Waiting, say_nothing
from indexing.readers.worker import ReaderPool


class Library:
    """Writes to collections. The workbench is asked for with each call, so that it can be opened late."""

    def __init__(self, bench: Callable[[], Awaitable[Workbench]]) -> None:
        self._bench = bench
        self._syncing = asyncio.Lock()

    async def sync(self, request: SyncRequest, report: Report = say_nothing) -> Summary:
        """One run at a time; a second one says that it waits. Raises the errors of `indexing`."""
        if self._syncing.locked():
            report(Waiting(detail="another run is writing to the index; this one starts when it has finished"))
        async with self._syncing:
            return await sync(await self._bench(), request, report)

    async def put(self, collection: str, documents: Sequence[Handed]) -> list[Outcome]:
        """Index documents that are handed over."""
        return await Intake(await self._bench()).put(collection, documents)

    async def put_bytes(self, data: bytes, name: str, collection: str) -> Summary:
        """Read a document that is not a file of ours, as if it were called `name`, and index it."""
        bench, begun = await self._bench(), time.perf_counter()
        try:
            async with ReaderPool(bench.limits) as pool:
                documents = await pool.read(data, name)
        except UnreadableDocument as exc:
            refused = (Refused(source=name, reason=exc.reason, detail=exc.detail),)
            return Summary(collection=collection, refused=refused)
        handed = [Handed(document=document, id=own_id(document), source=name) for document in documents]
        outcomes = await self.put(collection, handed)
        return await self._summary(collection, name, outcomes, time.perf_counter() - begun)

    async def _summary(self, collection: str, name: str, outcomes: Sequence[Outcome], seconds: float) -> Summary:
        bench = await self._bench()
        info = await bench.store.info(collection)
        count = Counter(outcome.status for outcome in outcomes)
        return Summary(
            collection=collection,
            created=count["created"],
            updated=count["updated"],
            unchanged=count["unchanged"],
            refused=tuple(
                Refused(source=name, reason=o.reason or "", detail=o.detail or "") for o in outcomes if o.reason
            ),
            passages=sum(outcome.passages for outcome in outcomes if outcome.status != "unchanged"),
            total_documents=bench.manifest.count(info.spec.lineage),
            total_passages=info.passages,
            seconds=round(seconds, 3),
        )

    async def delete(self, collection: str, document_id: str) -> bool:
        """Remove a document; False when there is none of that id."""
        return await Intake(await self._bench()).delete(collection, document_id)
