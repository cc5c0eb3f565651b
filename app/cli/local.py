"""The commands' work in this process, where no service runs on the home directory.

Loads what the service loads. `app.cli.session` imports it only when it is needed.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from app.accounting.estimator.models import Workload
from app.api.json_lines import Rows, entries_of, row_of
from app.api.request import decode
from app.api.routes.chat import ChatBody
from app.api.routes.complete import CompleteBody
from app.api.routes.labelling import ClassifyOptionsBody, ModerateOptionsBody
from app.api.routes.translate import TranslateOptionsBody
from app.api.routes.usage import EstimateRequest
from app.api.routes.vision import VisionOptions, numbered
from app.api.schemas import AnswerRequest, SearchRequest
from app.api.sse import payload
from app.backends.client import BackendClient
from app.backends.settings import model_or_auto
from app.config.settings import Settings
from app.domain import ANONYMOUS, ChatResult, Query
from app.services import document_views as views
from app.services.batches import Batch, batch_of
from app.services.document_validation import SubmittedFile
from app.services.documents import document_not_found
from app.services.half_price import HalfPrice, PatientJudge, PlacedText
from app.wiring import Services, build_services
from indexing.documents import EVERYTHING
from indexing.pipeline.progress import (
    Repaired,
    RepairRequest,
    Report,
    Restored,
    RestoreRequest,
    SnapshotInfo,
    SnapshotRequest,
    Summary,
    SyncRequest,
    loading_model,
)

T = TypeVar("T")


def search(settings: Settings, body: dict[str, Any], report: Report) -> dict[str, Any]:
    """What POST /search answers to this body."""
    query = decode(msgspec.json.encode(body), SearchRequest).to_query()

    async def work(services: Services) -> dict[str, Any]:
        await _prepare(services, query, report, model=query.mode != "sparse")
        response: dict[str, Any] = msgspec.to_builtins(await services.searcher.search(query, ANONYMOUS))
        return response

    return _run(settings, work)


def answer(settings: Settings, body: dict[str, Any], report: Report) -> dict[str, Any]:
    """What POST /answer answers to this body."""
    question = decode(msgspec.json.encode(body), AnswerRequest).to_question()

    async def work(services: Services) -> dict[str, Any]:
        await _prepare(services, question.search, report)
        response: dict[str, Any] = msgspec.to_builtins(await services.answerer.answer(question, ANONYMOUS))
        return response

    return _run(settings, work)


def serve(settings: Settings) -> None:
    """Serve this machine on a free port until a signal comes. Raises CannotListen, IndexBusy."""
    from app.main import serve as run

    service = msgspec.structs.replace(settings.service, host="127.0.0.1", port=0)
    settings = msgspec.structs.replace(settings, service=service)
    run(settings, build_services(settings))


def ask_about_pictures(
    settings: Settings, options: dict[str, Any], pictures: Sequence[tuple[str, str | bytes]]
) -> dict[str, Any]:
    """What POST /vision answers to this."""
    task = decode(msgspec.json.encode(options), VisionOptions).to_task(numbered(pictures))

    async def work(services: Services) -> ChatResult:
        return (await services.vision_service.chat(task, ANONYMOUS)).result

    return _shown(settings, work)


def complete_text(settings: Settings, body: dict[str, Any]) -> dict[str, Any]:
    """What POST /complete answers to this body."""
    task = decode(msgspec.json.encode(body), CompleteBody).to_task()

    async def work(services: Services) -> ChatResult:
        return (await services.complete_service.complete(task, ANONYMOUS)).result

    return _shown(settings, work)


def stream_answer(
    settings: Settings, body: dict[str, Any], show: Callable[[str, dict[str, Any]], None], report: Report
) -> None:
    """The events that POST /answer streams, to `show`; the last one is "done"."""
    question = decode(msgspec.json.encode(body), AnswerRequest).to_question()

    async def work(services: Services) -> None:
        await _prepare(services, question.search, report)
        async for event in services.answerer.stream(question, ANONYMOUS):
            name, data = payload(event)
            show(name, msgspec.to_builtins(data))

    _run(settings, work)


def stream_chat(settings: Settings, body: dict[str, Any], show: Callable[[str, dict[str, Any]], None]) -> None:
    """The events that POST /chat streams, to `show`; the last one is "done"."""
    task = decode(msgspec.json.encode(body), ChatBody).to_task()

    async def work(services: Services) -> None:
        async with aclosing(services.chat_service.stream_chat(task, ANONYMOUS)) as events:
            async for event in events:
                name, data = payload(event)
                show(name, msgspec.to_builtins(data))

    _run(settings, work)


async def judge_lines(
    settings: Settings, path: str, options: Mapping[str, Any], rows: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """The rows that POST `path` answers to these rows, the ending last. Closing it ends the calls."""
    services = build_services(settings, patient=True)
    try:
        batch = await _BATCHES[path](services, options)
        async with aclosing(Rows(batch, "", None).written(entries_of(rows))) as lines:
            async for line in lines:
                yield line
    finally:
        await rows.aclose()
        await services.close()


async def judge_later(
    settings: Settings, path: str, options: Mapping[str, Any], rows: AsyncGenerator[bytes, None], plan: Path, token: str
) -> AsyncGenerator[bytes, None]:
    """As `judge_lines`, in a backend's batches. Raises InvalidRequest, UpstreamError, BudgetExceeded."""
    kind, make = _LATER[path]
    body = decode(msgspec.json.encode(options), kind)
    services = build_services(settings)
    try:
        judge = await make(services, body)
        client = await _with_batches(services, body.backend)
        later = HalfPrice(client, services.accounts.meter, plan, token, path.removeprefix("/"), judge)
        async with aclosing(later.outcomes(_placed(rows))) as outcomes:
            async for outcome in outcomes:
                yield row_of(outcome, "", None)
    finally:
        await rows.aclose()
        await services.close()


_LATER: Mapping[str, tuple[type[Any], Callable[[Services, Any], Awaitable[PatientJudge[Any]]]]] = {
    "/chat": (ChatBody, lambda services, body: services.chat_service.judge(body.to_options())),
    "/classify": (ClassifyOptionsBody, lambda services, body: services.classify_service.judge(body.to_options())),
    "/moderate": (ModerateOptionsBody, lambda services, body: services.moderate_service.judge(body.to_options())),
    "/translate": (TranslateOptionsBody, lambda services, body: services.translate_service.judge(body.to_options())),
}


async def _with_batches(services: Services, requested: str | None) -> BackendClient:
    """The backend that is named, or the first one that has batches."""
    name = requested or services.backends.default
    clients = (await services.router.get()).route(model_or_auto(name), frozenset(("chat",))).clients
    return next((client for client in clients if client.adapter.batches is not None), clients[0])


async def _placed(rows: AsyncGenerator[bytes, None]) -> AsyncGenerator[PlacedText, None]:
    async for row in rows:
        yield _PLACED.decode(row)


_PLACED = msgspec.json.Decoder(PlacedText)


async def _judged(services: Services, options: Mapping[str, Any], kind: type[Any], service: Any) -> Batch[Any]:
    body = decode(msgspec.json.encode(options), kind)
    deadline_s = services.settings.routing.deadline_s
    return await batch_of(service, body.to_options(), ANONYMOUS, concurrency=body.concurrency, deadline_s=deadline_s)


_BATCHES: Mapping[str, Callable[[Services, Mapping[str, Any]], Awaitable[Batch[Any]]]] = {
    "/chat": lambda services, options: _judged(services, options, ChatBody, services.chat_service),
    "/classify": lambda services, options: _judged(services, options, ClassifyOptionsBody, services.classify_service),
    "/moderate": lambda services, options: _judged(services, options, ModerateOptionsBody, services.moderate_service),
    "/translate": lambda services, options: _judged(
        services, options, TranslateOptionsBody, services.translate_service
    ),
}


def index_files(settings: Settings, request: SyncRequest, report: Report) -> Summary:
    """Run the pipeline. Raises IndexBusy."""
    return _run(settings, lambda services: services.documents.sync(request, report))


def index_bytes(
    settings: Settings,
    data: bytes,
    name: str,
    collection: str,
    report: Report,
    tenant: str,
    allowed: Sequence[str],
) -> Summary:
    """Index one document as a file called `name` would be, for a tenant and its groups. Raises IndexBusy."""
    file = SubmittedFile(name=name, data=data, tenant=tenant, allowed=tuple(allowed), writer=EVERYTHING)

    async def work(services: Services) -> Summary:
        await services.context.get()  # a busy index is noticed before the model is loaded
        await _load_model(services, report)
        return await services.documents.put_bytes(file, collection, services.jobs.overtake)

    return _run(settings, work)


def create_snapshot(settings: Settings, request: SnapshotRequest, report: Report) -> SnapshotInfo:
    """Write a snapshot. Raises IndexBusy."""
    return _run(settings, lambda services: services.snapshots.create(request, report))


def restore_snapshot(settings: Settings, request: RestoreRequest, report: Report) -> Restored:
    """Restore a snapshot. Raises IndexBusy."""
    return _run(settings, lambda services: services.snapshots.restore(request, report))


def repair_collection(settings: Settings, request: RepairRequest, report: Report) -> Repaired:
    """Make the manifest and the store of a collection agree. Raises IndexBusy."""
    return _run(settings, lambda services: services.repairs.repair(request.collection, report))


def list_snapshots(settings: Settings) -> list[SnapshotInfo]:
    """The snapshots in the home; nothing is opened."""
    return _run(settings, lambda services: services.snapshots.all())


def collection_names(settings: Settings) -> list[str]:
    """The names of all collections. Raises IndexBusy."""

    async def names(services: Services) -> list[str]:
        return [info.name for info in await (await services.store.get()).collections()]

    return _run(settings, names)


def list_jobs(settings: Settings, params: dict[str, str]) -> dict[str, Any]:
    """What GET /jobs answers."""
    arguments = {**params, "limit": int(params["limit"])}
    return _shown(settings, lambda services: services.jobs.page(EVERYTHING, **arguments))  # type: ignore[arg-type] # click has checked the state


def show_job(settings: Settings, job_id: str) -> dict[str, Any]:
    """What GET /jobs/{id} answers."""
    return _shown(settings, lambda services: services.jobs.find(job_id, EVERYTHING))


def cancel_job(settings: Settings, job_id: str) -> None:
    """As DELETE /jobs/{id}."""
    _run(settings, lambda services: services.jobs.cancel(job_id, EVERYTHING))


def list_collections(settings: Settings) -> dict[str, Any]:
    """What GET /collections answers."""

    async def work(services: Services) -> dict[str, Any]:
        return {"collections": await services.documents.collections(EVERYTHING)}

    return _shown(settings, work)


def show_collection(settings: Settings, name: str) -> dict[str, Any]:
    """What GET /collections/{name} answers."""
    return _shown(settings, lambda services: services.documents.collection(name, EVERYTHING))


def create_collection(settings: Settings, name: str) -> dict[str, Any]:
    """What PUT /collections/{name} answers."""

    async def work(services: Services) -> object:
        collection, _ = await services.documents.create(name, settings.embedding.model, EVERYTHING)
        return collection

    return _shown(settings, work)


def delete_collection(settings: Settings, name: str) -> None:
    """As DELETE /collections/{name}."""

    async def work(services: Services) -> None:
        await services.jobs.cancel_all(name)
        await services.documents.drop(name, EVERYTHING)

    _run(settings, work)


def list_documents(settings: Settings, params: dict[str, str]) -> dict[str, Any]:
    """What GET /documents answers."""
    collection, cursor, limit = params["collection"], params["cursor"], int(params["limit"])
    return _shown(
        settings, lambda services: views.list_documents(services.documents, collection, cursor, limit, EVERYTHING)
    )


def show_document(settings: Settings, document_id: str, params: dict[str, str]) -> dict[str, Any]:
    """What GET /documents/{id} answers."""

    async def work(services: Services) -> object:
        documents, include_text = services.documents, params["include_text"] == "true"
        collection = params["collection"]
        return await views.show_document(
            documents, collection, document_id, audience=EVERYTHING, include_text=include_text
        )

    return _shown(settings, work)


def delete_document(settings: Settings, document_id: str, collection: str) -> None:
    """As DELETE /documents/{id}."""

    async def work(services: Services) -> None:
        if not await services.documents.delete(collection, document_id, services.jobs.overtake, EVERYTHING):
            raise document_not_found(collection, document_id)

    _run(settings, work)


def workload(body: dict[str, Any]) -> Workload:
    """What POST /cost/estimate is asked for, checked as there."""
    return decode(msgspec.json.encode(body), EstimateRequest).to_workload()


async def _prepare(services: Services, query: Query, report: Report, *, model: bool = True) -> None:
    """Load what a running service has loaded long before, so that the timings are not those of the start."""
    # An unknown collection is an error at once, not after seconds of loading.
    await (await services.store.get()).info(query.collection)
    if model:
        await _load_model(services, report)


async def _load_model(services: Services, report: Report) -> None:
    report(loading_model(services.settings.embedding.model))
    await services.model.get()


def _shown(settings: Settings, work: Callable[[Services], Awaitable[object]]) -> dict[str, Any]:
    """The result of `work` as it is in JSON."""
    shown: dict[str, Any] = msgspec.to_builtins(_run(settings, work))
    return shown


def _run(settings: Settings, work: Callable[[Services], Awaitable[T]]) -> T:
    async def run() -> T:
        services = build_services(settings)
        try:
            return await work(services)
        finally:
            await services.close()

    return asyncio.run(run())
