"""Use cases around what is indexed: bring a collection in line with files, take and give up documents."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from indexing.collections import Workbench
from indexing.errors import IndexingError
from indexing.intake import Handed, Intake, Outcome
from indexing.pipeline import SyncRequest, sync
from indexing.progress import Report, Summary, Waiting, say_nothing


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
            try:
                return await sync(await self._bench(), request, report)
            except* IndexingError as group:
                raise group.exceptions[0] from None

    async def put(self, collection: str, documents: Sequence[Handed]) -> list[Outcome]:
        """Index documents that are handed over."""
        return await Intake(await self._bench()).put(collection, documents)

    async def delete(self, collection: str, document_id: str) -> bool:
        """Remove a document; False when there is none of that id."""
        return await Intake(await self._bench()).delete(collection, document_id)
