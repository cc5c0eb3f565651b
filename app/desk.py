"""The commands' work: through the running service when there is one, or else here, in this process."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec

from app.api.bodies import decode
from app.api.schemas import AnswerRequest, SearchRequest
from app.presence import find_service
from app.remote import RemoteService, ServiceRefused
from app.settings import Settings
from app.wiring import Services, build_services
from indexing.errors import IndexBusy
from indexing.pipeline import SyncRequest
from indexing.progress import Report, Summary, Waiting

T = TypeVar("T")

_LOOK_AGAIN_S = 1.0


def search(settings: Settings, body: dict[str, Any]) -> dict[str, Any]:
    """A /search with this body; the response's body."""
    if presence := find_service(settings.index.home):
        return RemoteService(presence).post("/search", body)
    query = decode(msgspec.json.encode(body), SearchRequest).to_query()
    return _here(settings, lambda services: services.searcher.search(query))


def answer(settings: Settings, body: dict[str, Any]) -> dict[str, Any]:
    """An /answer with this body; the response's body."""
    if presence := find_service(settings.index.home):
        return RemoteService(presence).post("/answer", body)
    question = decode(msgspec.json.encode(body), AnswerRequest).to_question()
    return _here(settings, lambda services: services.answerer.answer(question))


def index_files(settings: Settings, request: SyncRequest, report: Report) -> Summary:
    """Run the pipeline, in the service if there is one; while another run holds the index, wait."""
    told = False
    while True:
        if presence := find_service(settings.index.home):
            return _index_remotely(RemoteService(presence), request, report)
        try:
            return _run(settings, lambda services: services.library.sync(request, report))
        except IndexBusy as exc:
            if not told:
                report(Waiting(detail=f"waiting: {exc}"))
            told = True
            time.sleep(_LOOK_AGAIN_S)


def index_stdin(settings: Settings, data: bytes, name: str, collection: str) -> Summary:
    """Index what came from standard input, as a file called `name` would be."""
    if presence := find_service(settings.index.home):
        return RemoteService(presence).put(data, name, collection)
    return _run(settings, lambda services: services.library.put_bytes(data, name, collection))


def _index_remotely(service: RemoteService, request: SyncRequest, report: Report) -> Summary:
    for event in service.sync(request):
        report(event)
        if isinstance(event, Summary):
            return event
    raise ServiceRefused("the service stopped before the run was complete; run the command again to finish it")


def _here(settings: Settings, work: Callable[[Services], Awaitable[T]]) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.to_builtins(_run(settings, work))
    return body


def _run(settings: Settings, work: Callable[[Services], Awaitable[T]]) -> T:
    async def run() -> T:
        async with _services(settings) as services:
            return await work(services)

    return asyncio.run(run())


@asynccontextmanager
async def _services(settings: Settings) -> AsyncIterator[Services]:
    services = build_services(settings)
    try:
        yield services
    finally:
        await services.close()
