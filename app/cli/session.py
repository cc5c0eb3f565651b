"""The commands' work: through the running service when there is one, or else here, in this process."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import msgspec

from app.accounting.accounts import Accounts, UsageReport
from app.accounting.estimator.models import Estimate
from app.api.request import decode
from app.api.routes.usage import EstimateRequest
from app.api.schemas import AnswerRequest, SearchRequest
from app.api.sse import payload
from app.cli.http_client import RemoteService
from app.config.settings import Settings
from app.domain import Query, Question
from app.instance import find_service
from app.wiring import Services, build_services
from indexing.errors import IndexBusy
from indexing.pipeline.progress import Notice, Report, Summary, SyncRequest, loading_model, say_nothing

T = TypeVar("T")

ShowEvent = Callable[[str, dict[str, Any]], None]
"""Gets the name and the data of an event of a streamed answer."""

_LOOK_AGAIN_S = 0.5


def search(settings: Settings, body: dict[str, Any], report: Report = say_nothing) -> dict[str, Any]:
    """A /search with this body; the response's body. `report` hears that the model is being loaded."""
    if service := _service(settings):
        return service.post("/search", body)
    query = decode(msgspec.json.encode(body), SearchRequest).to_query()

    async def find(services: Services) -> Any:
        await _prepare(services, query, report, model=query.mode != "sparse")
        return msgspec.to_builtins(await services.searcher.search(query))

    found: dict[str, Any] = _run(settings, find)
    return found


def answer(settings: Settings, body: dict[str, Any], report: Report = say_nothing) -> dict[str, Any]:
    """An /answer with this body; the response's body."""
    if service := _service(settings):
        return service.post("/answer", body)
    question = _question(body)

    async def reply(services: Services) -> Any:
        await _prepare(services, question.search, report)
        return msgspec.to_builtins(await services.answerer.answer(question))

    answered: dict[str, Any] = _run(settings, reply)
    return answered


def stream_answer(settings: Settings, body: dict[str, Any], show: ShowEvent, report: Report = say_nothing) -> None:
    """An /answer with this body; `show` gets the events of api.md as they come, the last one is "done"."""
    if service := _service(settings):
        for name, data in service.stream_answer(body):
            show(name, data)
        return
    question = _question(body)

    async def reply(services: Services) -> None:
        await _prepare(services, question.search, report)
        async for event in services.answerer.stream(question):
            name, data = payload(event)
            show(name, msgspec.to_builtins(data))

    _run(settings, reply)


def index_files(settings: Settings, request: SyncRequest, report: Report) -> Summary:
    """Run the pipeline, in the service if there is one; while another run holds the index, wait."""
    return _when_free(
        settings,
        lambda service: _index_remotely(service, request, report),
        lambda services: services.library.sync(request, report),
        report,
    )


def index_stdin(settings: Settings, data: bytes, name: str, collection: str, report: Report = say_nothing) -> Summary:
    """Index what came from standard input, as a file called `name` would be."""

    async def put(services: Services) -> Summary:
        await services.bench.get()
        await _load_model(services, report)
        return await services.library.put_bytes(data, name, collection)

    return _when_free(settings, lambda service: service.put(data, name, collection), put, report)


def usage(settings: Settings, params: dict[str, str]) -> UsageReport:
    """A GET /usage with these parameters."""
    if service := _service(settings):
        return msgspec.convert(service.ask("/usage", params), UsageReport)
    return _accounts(settings).usage(**params)  # type: ignore[arg-type] # the command line knows the groups


def export_usage(settings: Settings, params: dict[str, str]) -> Iterator[bytes]:
    """A GET /usage/export with these parameters, in pieces."""
    if service := _service(settings):
        return service.download("/usage/export", params)
    return _accounts(settings).export(**params)


def estimate_cost(settings: Settings, body: dict[str, Any]) -> Estimate:
    """A POST /cost/estimate with this body."""
    if service := _service(settings):
        return msgspec.convert(service.post("/cost/estimate", body), Estimate)
    return _accounts(settings).estimate(decode(msgspec.json.encode(body), EstimateRequest).to_workload())


def _accounts(settings: Settings) -> Accounts:
    """To look into: nothing is opened, no file is made."""
    return Accounts(settings.index.home, settings.backends, settings.budgets)


def _when_free(
    settings: Settings,
    there: Callable[[RemoteService], T],
    here: Callable[[Services], Awaitable[T]],
    report: Report,
) -> T:
    told = False
    while True:
        if service := _service(settings):
            return there(service)
        try:
            return _run(settings, here)
        except IndexBusy as exc:
            if not told:
                report(Notice(stage="waiting", detail=f"waiting until the index is free: {exc}"))
            told = True
            time.sleep(_LOOK_AGAIN_S)


def _index_remotely(service: RemoteService, request: SyncRequest, report: Report) -> Summary:
    summary = Summary(collection=request.collection)
    for event in service.sync(request):
        report(event)
        summary = event if isinstance(event, Summary) else summary
    return summary


def _service(settings: Settings) -> RemoteService | None:
    presence = find_service(settings.index.home)
    return RemoteService(presence) if presence else None


def _question(body: dict[str, Any]) -> Question:
    return decode(msgspec.json.encode(body), AnswerRequest).to_question()


async def _prepare(services: Services, query: Query, report: Report, *, model: bool = True) -> None:
    """What a running service has done long before: else the times told would be those of the start."""
    await (await services.store.get()).info(query.collection)
    if model:
        await _load_model(services, report)


async def _load_model(services: Services, report: Report) -> None:
    report(loading_model(services.settings.embedding.model))
    await services.model.get()


def _run(settings: Settings, work: Callable[[Services], Awaitable[T]]) -> T:
    async def run() -> T:
        services = build_services(settings)
        try:
            return await work(services)
        finally:
            await services.close()

    return asyncio.run(run())
