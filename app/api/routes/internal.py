"""For the command line of the same user on the same machine, which sends the token from the home directory."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import msgspec
import structlog
from litestar import get, post
from litestar.params import FromQuery, JSONBody
from litestar.response import Stream

from app.api.request import BodyRequest, Injected, StrictJSON
from app.errors import NotAllowed, WinnowError
from app.instance import TOKEN_HEADER, Failed, Presence
from app.services.documents import Documents
from indexing.pipeline.progress import Event, Summary, SyncRequest

MAX_DOCUMENT_BYTES = 100_000_000

log = structlog.get_logger()


@get("/internal/presence", status_code=204, include_in_schema=False)
async def confirm_presence(request: BodyRequest, presence: Injected[Presence | None]) -> None:
    """Confirm that this service wrote the token."""
    _check_token(request, presence)


@post("/internal/sync", dto=StrictJSON[SyncRequest], return_dto=None, status_code=200, include_in_schema=False)
async def sync_files(
    request: BodyRequest,
    data: JSONBody[SyncRequest],
    presence: Injected[Presence | None],
    documents: Injected[Documents],
    stopping: Injected[asyncio.Event],
) -> Stream:
    """Index files of this machine; answers with the run's events, one JSON object a line, as they happen."""
    _check_token(request, presence)
    return Stream(_events(data, documents, stopping), media_type="application/x-ndjson")


@post("/internal/document", status_code=200, include_in_schema=False, request_max_body_size=MAX_DOCUMENT_BYTES)
async def put_document(
    request: BodyRequest,
    name: FromQuery[str],
    collection: FromQuery[str],
    presence: Injected[Presence | None],
    documents: Injected[Documents],
) -> Summary:
    """Index the body as a file called `name` would be."""
    _check_token(request, presence)
    return await documents.put_bytes(await request.body(), name, collection)


def _check_token(request: BodyRequest, presence: Presence | None) -> None:
    expected = presence.token if presence else ""
    given = request.headers.get(TOKEN_HEADER, "")
    if not expected or not secrets.compare_digest(given.encode(), expected.encode()):
        raise NotAllowed("only the command line of the user who runs the service may ask for this")


async def _events(request: SyncRequest, documents: Documents, stopping: asyncio.Event) -> AsyncIterator[bytes]:
    """Closing this early, as when the caller goes away, stops the run; so does the service's end.

    What is written stays.
    """
    events: asyncio.Queue[Event | Failed] = asyncio.Queue()

    async def run() -> None:
        try:
            await documents.sync(request, events.put_nowait)
        except WinnowError as exc:
            events.put_nowait(Failed(detail=str(exc)))
        except Exception:
            log.exception("indexing failed")
            events.put_nowait(Failed(detail="indexing failed inside the service; its log says more"))

    async def stop() -> None:
        await stopping.wait()
        events.put_nowait(Failed(detail="the service is stopping; run the command again to finish what is left"))

    tasks = [asyncio.create_task(run()), asyncio.create_task(stop())]
    try:
        while True:
            event = await events.get()
            yield msgspec.json.encode(event) + b"\n"
            if isinstance(event, Summary | Failed):
                return
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
