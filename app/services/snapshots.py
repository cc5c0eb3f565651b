"""Use case: snapshots of collections, written, listed and restored."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from app.errors import Conflict, NotFound, WinnowError
from app.services.documents import Documents
from indexing.disk import DiskGuard
from indexing.errors import CollectionDamaged, CollectionNotFound
from indexing.pipeline.context import PipelineContext, is_damaged
from indexing.pipeline.progress import (
    Report,
    Restored,
    RestoreRequest,
    SnapshotInfo,
    SnapshotRequest,
)
from indexing.pipeline.snapshot import SUFFIX, SnapshotFile, create_snapshot, file_errors, restore_snapshot
from indexing.store.base import check_name


class Snapshots:
    """Snapshots in one directory of the home, or wherever the caller says. One is written or restored at a time."""

    def __init__(
        self, context: Callable[[], Awaitable[PipelineContext]], documents: Documents, disk: DiskGuard, winnow: str
    ) -> None:
        """`disk` guards the directory of the snapshots. `winnow` is the version that they name."""
        self._context = context
        self._documents = documents
        self._directory = disk.directory
        self._reserve_bytes = disk.reserve_bytes
        self._winnow = winnow
        self._busy = asyncio.Lock()

    async def create(self, request: SnapshotRequest, report: Report) -> SnapshotInfo:
        """Write a snapshot of a collection, which stays in use.

        Raises CollectionNotFound, Conflict where the file exists, and StoreUnavailable where it cannot be written.
        """
        async with self._busy:
            return await self._create(await self._context(), request, report)

    async def all(self) -> list[SnapshotInfo]:
        """The snapshots in the home by name, damaged ones too."""
        return await asyncio.to_thread(lambda: [_described(path) for path in sorted(self._paths())])

    async def restore(self, request: RestoreRequest, report: Report) -> Restored:
        """Check a snapshot and restore it; nothing is changed before all of it has been checked.

        A collection that is replaced is kept as a snapshot; the files of a damaged one are kept by the store. Raises
        NotFound, Conflict where the collection exists, is not damaged and `force` is not set, and StoreUnavailable for
        a snapshot that is damaged.
        """
        begun = time.perf_counter()
        async with self._busy:
            context = await self._context()
            snapshot = await asyncio.to_thread(self._open, request.snapshot)
            if request.collection not in (None, snapshot.head.collection):
                raise Conflict(f"{snapshot.path} holds collection {snapshot.head.collection!r}, not the one named")
            name = check_name(request.name or snapshot.head.collection)
            exists, damaged = await _state(context, name)
            if exists and not damaged and not request.force:
                raise Conflict(
                    f"collection {name!r} exists; --as NEWNAME restores beside it, --force replaces it (and keeps a "
                    "snapshot of it)"
                )
            await snapshot.check(report)
            warnings = _warnings(snapshot, context.embedder.fingerprint, name)
            kept = await self._keep(context, name, report, warnings) if exists and not damaged else None
            async with self._documents.no_sync(name):
                info = await restore_snapshot(context, snapshot, name, report)
        return Restored(
            collection=name,
            documents=snapshot.head.documents,
            passages=info.passages,
            files=snapshot.head.files,
            seconds=round(time.perf_counter() - begun, 3),
            replaced=exists,
            kept=kept,
            warnings=tuple(warnings),
        )

    async def _create(self, context: PipelineContext, request: SnapshotRequest, report: Report) -> SnapshotInfo:
        path = await asyncio.to_thread(self._target, check_name(request.collection), request.output)
        disk = DiskGuard(path.parent, self._reserve_bytes)
        return await create_snapshot(context, request.collection, path, disk, self._winnow, report)

    async def _keep(self, context: PipelineContext, name: str, report: Report, warnings: list[str]) -> str | None:
        """A snapshot of what is about to be replaced; None, and a warning, if it can no longer be read."""
        try:
            return (await self._create(context, SnapshotRequest(collection=name), report)).path
        except WinnowError as exc:
            warnings.append(f"no snapshot of the replaced collection could be written: {exc}")
            return None

    def _target(self, collection: str, output: str | None) -> Path:
        """The file to write. Raises StoreUnavailable if its directory cannot be made."""
        name = f"{collection}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        directory, chosen = self._directory, None
        if output is not None:
            chosen = Path(output)
            directory = chosen if chosen.is_dir() or output.endswith("/") else chosen.parent
            chosen = None if directory == chosen else chosen
        with file_errors(directory):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if chosen is not None:
            return chosen
        candidates = (directory / f"{name}{f'-{n}' if n else ''}{SUFFIX}" for n in range(1000))
        return next(path for path in candidates if not path.exists())

    def _open(self, snapshot: str) -> SnapshotFile:
        """A path, or the name of a file in the home with or without its extension."""
        named = [self._directory / snapshot, self._directory / f"{snapshot}{SUFFIX}"] if "/" not in snapshot else []
        for path in (Path(snapshot), *named):
            if path.is_file():
                return SnapshotFile(path)
        raise NotFound(f"snapshot {snapshot!r} not found; winnow snapshot list shows those in {self._directory}")

    def _paths(self) -> list[Path]:
        with suppress(NotFound), file_errors(self._directory):
            return [path for path in self._directory.iterdir() if path.name.endswith(SUFFIX)]
        return []


def _described(path: Path) -> SnapshotInfo:
    try:
        return SnapshotFile(path).info()
    except WinnowError as exc:
        return SnapshotInfo(path=str(path), problem=str(exc))


async def _state(context: PipelineContext, name: str) -> tuple[bool, bool]:
    """Whether the collection exists, and whether it is damaged, or a part of it, as far as is known."""
    try:
        await context.store.info(name)
    except CollectionNotFound:
        return False, False
    except CollectionDamaged:
        return True, True
    return True, await is_damaged(context, name)


def _warnings(snapshot: SnapshotFile, fingerprint: str, name: str) -> list[str]:
    embedder = snapshot.head.spec.embedder
    if embedder == fingerprint:
        return []
    return [
        f"its vectors come from [{embedder}], but [{fingerprint}] is configured: before searching, configure that "
        f"model again or run winnow index --rebuild --collection {name}"
    ]
