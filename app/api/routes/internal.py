"""For the command line of the same user on the same machine: it proves itself by the token in the home directory."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import msgspec
import structlog
from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery, JSONBody
from litestar.response import Stream

from app.api.request import BodyRequest, StrictJSON
from app.errors import NotAllowed, WinnowError
from app.instance import TOKEN_HEADER, Failed
from app.wiring import Services
from indexing.pipeline.progress import Event, Summary, SyncRequest

MAX_DOCUMENT_BYTES = 100_000_000

log = structlog.get_logger()


@get("/internal/presence", status_code=204, include_in_schema=False)
async def confirm_presence(request: BodyRequest, services: NamedDependency[Services]) -> None:
    """That it is this service which wrote the file."""
    _check_token(request, services)


@post("/internal/sync", dto=StrictJSON[SyncRequest], return_dto=None, status_code=200, include_in_schema=False)
async def sync_files(request: BodyRequest, data: JSONBody[SyncRequest], services: NamedDependency[Services]) -> Stream:
    """Index files of this machine; answers with the run's events, one JSON object a line, as they happen."""
    _check_token(request, services)
    return Stream(_events(services, data), media_type="application/x-ndjson")


@post("/internal/document", status_code=200, include_in_schema=False, request_max_body_size=MAX_DOCUMENT_BYTES)
async def put_document(
    request: BodyRequest,
    name: FromQuery[str],
    collection: FromQuery[str],
    services: NamedDependency[Services],
) -> Summary:
    """Index the body as a file called `name` would be."""
    _check_token(request, services)
    return await services.library.put_bytes(await request.body(), name, collection)


def _check_token(request: BodyRequest, services: Services) -> None:
    expected = services.presence.token if services.presence else ""
    given = request.headers.get(TOKEN_HEADER, "")
    if not expected or not secrets.compare_digest(given.encode(), expected.encode()):
        raise NotAllowed("only the command line of the user who runs the service may ask for this")


async def _events(services: Services, request: SyncRequest) -> AsyncIterator[bytes]:
    """Closing this early, as when the caller goes away, stops the run; so does the service's end.

    What is written stays.
    """
    events: asyncio.Queue[Event | Failed] = asyncio.Queue()
    tasks = [asyncio.create_task(work(services, request, events)) for work in (_run, _stop)]
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


async def _run(services: Services, request: SyncRequest, events: asyncio.Queue[Event | Failed]) -> None:
    try:
        await services.library.sync(request, events.put_nowait)
    except WinnowError as exc:
        events.put_nowait(Failed(detail=str(exc)))
    except Exception:
        log.exception("indexing failed")
        events.put_nowait(Failed(detail="indexing failed inside the service; its log says more"))


async def _stop(services: Services, _: SyncRequest, events: asyncio.Queue[Event | Failed]) -> None:
    await services.stopping.wait()
    events.put_nowait(Failed(detail="the service is stopping; run the command again to finish what is left"))
