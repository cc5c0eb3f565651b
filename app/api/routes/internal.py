"""For the command line of the same user on the same machine, which sends the token from the home directory; and for one
elsewhere that shares the database, which sends the secret of the replica that writes.

No key will do instead: these routes read and write files of this machine.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import msgspec
import structlog
from litestar import get, post
from litestar.params import FromQuery, JSONBody
from litestar.response import Stream

from app.access.keys import OPERATOR
from app.api.hand_on import FILES
from app.api.request import BodyRequest, Injected, StrictJSON
from app.errors import WinnowError
from app.instance import Failed
from app.services.document_validation import SubmittedFile
from app.services.documents import Documents
from app.services.jobs import Jobs
from app.services.repairs import Repairs
from app.services.snapshots import Snapshots
from indexing.documents import EVERYTHING
from indexing.pipeline.progress import (
    Event,
    Last,
    RepairRequest,
    Report,
    RestoreRequest,
    SnapshotInfo,
    SnapshotRequest,
    Summary,
    SyncRequest,
)

MAX_DOCUMENT_BYTES = 100_000_000

log = structlog.get_logger()

_question = partial(get, include_in_schema=False)
_command = partial(post, status_code=200, include_in_schema=False)
_ASKED = {"scope": OPERATOR}
_OF_FILES = {"scope": OPERATOR, FILES: True}


@_question("/internal/presence", status_code=204, opt=_ASKED)
async def confirm_presence() -> None:
    """Confirm that this service wrote the token."""


@_command("/internal/sync", dto=StrictJSON[SyncRequest], return_dto=None, opt=_OF_FILES)
async def sync_files(
    data: JSONBody[SyncRequest],
    documents: Injected[Documents],
    stopping: Injected[asyncio.Event],
) -> Stream:
    """Index files of this machine; answers with the run's events, one JSON object a line, as they happen."""
    return _stream(lambda report: documents.sync(data, report), stopping)


@_command("/internal/snapshots", dto=StrictJSON[SnapshotRequest], return_dto=None, opt=_OF_FILES)
async def create_snapshot(
    data: JSONBody[SnapshotRequest],
    snapshots: Injected[Snapshots],
    stopping: Injected[asyncio.Event],
) -> Stream:
    """Write a snapshot; events as of /internal/sync, the last one describes it."""
    return _stream(lambda report: snapshots.create(data, report), stopping)


@_question("/internal/snapshots", opt=_OF_FILES)
async def list_snapshots(snapshots: Injected[Snapshots]) -> list[SnapshotInfo]:
    """The snapshots in the home."""
    return await snapshots.all()


@_command("/internal/restore", dto=StrictJSON[RestoreRequest], return_dto=None, opt=_OF_FILES)
async def restore_snapshot(
    data: JSONBody[RestoreRequest],
    snapshots: Injected[Snapshots],
    stopping: Injected[asyncio.Event],
) -> Stream:
    """Restore a snapshot; events as of /internal/sync, the last one says what was restored."""
    return _stream(lambda report: snapshots.restore(data, report), stopping)


@_command("/internal/repair", dto=StrictJSON[RepairRequest], return_dto=None, opt=_ASKED)
async def repair_collection(
    data: JSONBody[RepairRequest],
    repairs: Injected[Repairs],
    stopping: Injected[asyncio.Event],
) -> Stream:
    """Make manifest and store agree; events as of /internal/sync, the last one says what was done."""
    return _stream(lambda report: repairs.repair(data.collection, report), stopping)


@_command("/internal/document", request_max_body_size=MAX_DOCUMENT_BYTES, opt=_ASKED)
async def put_document(
    request: BodyRequest,
    name: FromQuery[str],
    collection: FromQuery[str],
    documents: Injected[Documents],
    jobs: Injected[Jobs],
    tenant: FromQuery[str] = "",
    allowed: FromQuery[list[str] | None] = None,
) -> Summary:
    """Index the body as a file called `name` would be, for a tenant and its groups."""
    body = await request.body()
    file = SubmittedFile(name=name, data=body, tenant=tenant, allowed=tuple(allowed or ()), writer=EVERYTHING)
    return await documents.put_bytes(file, collection, jobs.overtake)


def _stream(run: Callable[[Report], Awaitable[Last]], stopping: asyncio.Event) -> Stream:
    return Stream(_events(run, stopping), media_type="application/x-ndjson")


async def _events(run: Callable[[Report], Awaitable[Last]], stopping: asyncio.Event) -> AsyncIterator[bytes]:
    """What the run reports, and last what it returns or why it failed.

    Closing this early, as when the caller goes away, stops the run; so does the service's end. What is written stays.
    """
    events: asyncio.Queue[Event | Failed] = asyncio.Queue()

    async def finish() -> None:
        try:
            last: Last | Failed = await run(events.put_nowait)
        except WinnowError as exc:
            last = Failed(detail=str(exc))
        except Exception:
            log.exception("a command failed")
            last = Failed(detail="this failed inside the service; its log says more")
        events.put_nowait(last)

    async def stop() -> None:
        await stopping.wait()
        events.put_nowait(Failed(detail="the service is stopping; run the command again to finish what is left"))

    tasks = [asyncio.create_task(finish()), asyncio.create_task(stop())]
    try:
        while True:
            event = await events.get()
            yield msgspec.json.encode(event) + b"\n"
            if isinstance(event, Last | Failed):
                return
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
