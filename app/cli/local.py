"""The commands' work in this process, where no service runs on the home directory.

Loads what the service loads, but no web framework, which `serve` and `app.cli.local_models` need. `app.cli.session`
imports it only when it is needed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from app.api.bodies import decode
from app.api.schemas import AnswerRequest, SearchRequest, payload
from app.config.settings import Settings
from app.domain import ANONYMOUS, Query
from app.services import document_views as views
from app.services.document_validation import SubmittedFile
from app.services.documents import document_not_found
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

    return run(settings, work)


def answer(settings: Settings, body: dict[str, Any], report: Report) -> dict[str, Any]:
    """What POST /answer answers to this body."""
    question = decode(msgspec.json.encode(body), AnswerRequest).to_question()

    async def work(services: Services) -> dict[str, Any]:
        await _prepare(services, question.search, report)
        response: dict[str, Any] = msgspec.to_builtins(await services.answerer.answer(question, ANONYMOUS))
        return response

    return run(settings, work)


def serve(settings: Settings) -> None:
    """Serve this machine on a free port until a signal comes. Raises CannotListen, IndexBusy."""
    from app.main import serve as run

    service = msgspec.structs.replace(settings.service, host="127.0.0.1", port=0)
    settings = msgspec.structs.replace(settings, service=service)
    run(settings, build_services(settings))


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

    run(settings, work)


def index_files(settings: Settings, request: SyncRequest, report: Report) -> Summary:
    """Run the pipeline. Raises IndexBusy."""
    return run(settings, lambda services: services.documents.sync(request, report))


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

    return run(settings, work)


def create_snapshot(settings: Settings, request: SnapshotRequest, report: Report) -> SnapshotInfo:
    """Write a snapshot. Raises IndexBusy."""
    return run(settings, lambda services: services.snapshots.create(request, report))


def restore_snapshot(settings: Settings, request: RestoreRequest, report: Report) -> Restored:
    """Restore a snapshot. Raises IndexBusy."""
    return run(settings, lambda services: services.snapshots.restore(request, report))


def repair_collection(settings: Settings, request: RepairRequest, report: Report) -> Repaired:
    """Make the manifest and the store of a collection agree. Raises IndexBusy."""
    return run(settings, lambda services: services.repairs.repair(request.collection, report))


def list_snapshots(settings: Settings) -> list[SnapshotInfo]:
    """The snapshots in the home; nothing is opened."""
    return run(settings, lambda services: services.snapshots.all())


def collection_names(settings: Settings) -> list[str]:
    """The names of all collections. Raises IndexBusy."""

    async def names(services: Services) -> list[str]:
        return [info.name for info in await (await services.store.get()).collections()]

    return run(settings, names)


def list_jobs(settings: Settings, params: dict[str, str]) -> dict[str, Any]:
    """What GET /jobs answers."""
    arguments = {**params, "limit": int(params["limit"])}
    return shown(settings, lambda services: services.jobs.page(EVERYTHING, **arguments))  # type: ignore[arg-type] # click has checked the state


def show_job(settings: Settings, job_id: str) -> dict[str, Any]:
    """What GET /jobs/{id} answers."""
    return shown(settings, lambda services: services.jobs.find(job_id, EVERYTHING))


def cancel_job(settings: Settings, job_id: str) -> None:
    """As DELETE /jobs/{id}."""
    run(settings, lambda services: services.jobs.cancel(job_id, EVERYTHING))


def list_collections(settings: Settings) -> dict[str, Any]:
    """What GET /collections answers."""

    async def work(services: Services) -> dict[str, Any]:
        return {"collections": await services.documents.collections(EVERYTHING)}

    return shown(settings, work)


def show_collection(settings: Settings, name: str) -> dict[str, Any]:
    """What GET /collections/{name} answers."""
    return shown(settings, lambda services: services.documents.collection(name, EVERYTHING))


def create_collection(settings: Settings, name: str) -> dict[str, Any]:
    """What PUT /collections/{name} answers."""

    async def work(services: Services) -> object:
        collection, _ = await services.documents.create(name, settings.embedding.model, EVERYTHING)
        return collection

    return shown(settings, work)


def delete_collection(settings: Settings, name: str) -> None:
    """As DELETE /collections/{name}."""

    async def work(services: Services) -> None:
        await services.jobs.cancel_all(name)
        await services.documents.drop(name, EVERYTHING)

    run(settings, work)


def list_documents(settings: Settings, params: dict[str, str]) -> dict[str, Any]:
    """What GET /documents answers."""
    collection, cursor, limit = params["collection"], params["cursor"], int(params["limit"])
    return shown(
        settings, lambda services: views.list_documents(services.documents, collection, cursor, limit, EVERYTHING)
    )


def show_document(settings: Settings, document_id: str, params: dict[str, str]) -> dict[str, Any]:
    """What GET /documents/{id} answers."""

    async def work(services: Services) -> object:
        return await views.show_document(
            services.documents,
            params["collection"],
            document_id,
            audience=EVERYTHING,
            include_text=params["include_text"] == "true",
            tenant=params.get("tenant"),
        )

    return shown(settings, work)


def delete_document(settings: Settings, document_id: str, params: dict[str, str]) -> None:
    """As DELETE /documents/{id}."""
    collection, tenant = params["collection"], params.get("tenant")

    async def work(services: Services) -> None:
        overtake = services.jobs.overtake
        if not await services.documents.delete(collection, document_id, overtake, EVERYTHING, tenant):
            raise document_not_found(collection, document_id)

    run(settings, work)


async def _prepare(services: Services, query: Query, report: Report, *, model: bool = True) -> None:
    """Load what a running service has loaded long before, so that the timings are not those of the start."""
    # An unknown collection is an error at once, not after seconds of loading.
    await (await services.store.get()).info(query.collection)
    if model:
        await _load_model(services, report)


async def _load_model(services: Services, report: Report) -> None:
    report(loading_model(services.settings.embedding.model))
    await services.model.get()


def shown(settings: Settings, work: Callable[[Services], Awaitable[object]]) -> dict[str, Any]:
    """The result of `work` as it is in JSON."""
    shown: dict[str, Any] = msgspec.to_builtins(run(settings, work))
    return shown


def run(settings: Settings, work: Callable[[Services], Awaitable[T]]) -> T:
    async def working() -> T:
        services = build_services(settings)
        try:
            return await work(services)
        finally:
            await services.close()

    return asyncio.run(working())
