"""What the commands ask for: of the running service if there is one, or else in this process.

Only `app.cli.local` loads the index, the models and the API's schemas, and only when no service runs; and
`app.cli.local_models` the API's routes.
"""

import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from app.access.access import keys_of
from app.access.key_file import KeyAdministration
from app.access.keys import KeyInfo, KeyRequest, NewKey
from app.accounting.accounts import Accounts, UsageReport
from app.accounting.estimator.models import Estimate
from app.cli.http_client import RemoteService
from app.cli.json_lines import exchanged
from app.cli.writer import WAIT_S, WritingService, still_busy, whom_to_wait_for, writing_service
from app.config.settings import Settings
from app.config.validation import named_backends
from app.errors import InvalidRequest
from app.instance import find_service
from indexing.errors import IndexBusy
from indexing.pipeline.progress import (
    Event,
    Notice,
    Repaired,
    RepairRequest,
    Report,
    Restored,
    RestoreRequest,
    SnapshotInfo,
    SnapshotRequest,
    Summary,
    SyncRequest,
    say_nothing,
)
from indexing.postgres import clock_of, open_database

T = TypeVar("T")

ShowEvent = Callable[[str, dict[str, Any]], None]
"""Receives the name and the data of each event of a streamed answer."""

_RETRY_S = 0.5
"""Between two looks at an index that another process holds."""


def search(settings: Settings, body: dict[str, Any], report: Report = say_nothing) -> dict[str, Any]:
    """POST /search; returns the response's body. `report` hears when the embedding model is being loaded."""
    if service := _service(settings):
        return service.post("/search", body)
    from app.cli import local

    return local.search(settings, body, report)


def answer(settings: Settings, body: dict[str, Any], report: Report = say_nothing) -> dict[str, Any]:
    """POST /answer; returns the response's body."""
    if service := _service(settings):
        return service.post("/answer", body)
    from app.cli import local

    return local.answer(settings, body, report)


def ask_about_pictures(
    settings: Settings, options: dict[str, Any], pictures: Sequence[tuple[str, str | bytes]]
) -> dict[str, Any]:
    """POST /vision about `files` (bytes) and `image_url`s; returns the response's body."""
    if service := _service(settings):
        return service.post_form("/vision", options, pictures)
    from app.cli import local_models

    return local_models.ask_about_pictures(settings, options, pictures)


def complete_text(settings: Settings, body: dict[str, Any]) -> dict[str, Any]:
    """POST /complete; returns the response's body."""
    if service := _service(settings):
        return service.post("/complete", body)
    from app.cli import local_models

    return local_models.complete_text(settings, body)


def stream_answer(settings: Settings, body: dict[str, Any], show: ShowEvent, report: Report = say_nothing) -> None:
    """POST /answer as a stream; `show` receives the events as they arrive, "done" last."""
    if service := _service(settings):
        for name, data in service.stream("/answer", body):
            show(name, data)
        return
    from app.cli import local

    local.stream_answer(settings, body, show, report)


def stream_chat(settings: Settings, body: dict[str, Any], show: ShowEvent) -> None:
    """POST /chat as a stream; `show` receives the events as they arrive, "done" last."""
    if service := _service(settings):
        for name, data in service.stream("/chat", body):
            show(name, data)
        return
    from app.cli import local_models

    local_models.stream_chat(settings, body, show)


def index_files(settings: Settings, request: SyncRequest, report: Report) -> Summary:
    """Run the indexing pipeline over files; wait while another process holds the index."""
    return _run(settings, "/internal/sync", request, Summary, lambda local: local.index_files, report)


def index_stdin(
    settings: Settings,
    data: bytes,
    name: str,
    collection: str,
    report: Report = say_nothing,
    tenant: str = "",
    allowed: Sequence[str] = (),
) -> Summary:
    """Index the content of standard input as if it were a file called `name`, for a tenant and its groups."""

    def put_locally() -> Summary:
        from app.cli import local

        return local.index_bytes(settings, data, name, collection, report, tenant, allowed)

    def put_remotely(service: RemoteService) -> Summary:
        return service.put(data, name, collection, tenant, allowed)

    return _when_free(settings, put_remotely, put_locally, report)


def create_snapshot(settings: Settings, request: SnapshotRequest, report: Report) -> SnapshotInfo:
    """Write a snapshot of a collection."""
    return _run(settings, "/internal/snapshots", request, SnapshotInfo, lambda local: local.create_snapshot, report)


def restore_snapshot(settings: Settings, request: RestoreRequest, report: Report) -> Restored:
    """Restore a snapshot."""
    return _run(settings, "/internal/restore", request, Restored, lambda local: local.restore_snapshot, report)


def repair_collection(settings: Settings, request: RepairRequest, report: Report) -> Repaired:
    """Make the manifest and the store of a collection agree."""
    return _run(settings, "/internal/repair", request, Repaired, lambda local: local.repair_collection, report)


def list_snapshots(settings: Settings) -> list[SnapshotInfo]:
    """The snapshots in the home."""
    if service := _service(settings):
        return msgspec.convert(service.get("/internal/snapshots"), list[SnapshotInfo])
    from app.cli import local

    return local.list_snapshots(settings)


def collection_names(settings: Settings, report: Report) -> list[str]:
    """The names of all collections."""

    def names_locally() -> list[str]:
        from app.cli import local

        return local.collection_names(settings)

    def names_remotely(service: RemoteService) -> list[str]:
        return [str(collection["name"]) for collection in service.get("/collections")["collections"]]

    return _when_free(settings, names_remotely, names_locally, report)


def list_jobs(settings: Settings, params: dict[str, str]) -> Any:
    """GET /jobs with these parameters."""
    return _either(settings, lambda service: service.get("/jobs", params), lambda local: local.list_jobs, params)


def show_job(settings: Settings, job_id: str) -> Any:
    """GET /jobs/{id}."""
    return _either(settings, lambda service: service.get(_path("jobs", job_id)), lambda local: local.show_job, job_id)


def cancel_job(settings: Settings, job_id: str) -> None:
    """DELETE /jobs/{id}."""
    path = _path("jobs", job_id)
    _either(settings, lambda service: service.call("DELETE", path), lambda local: local.cancel_job, job_id)


def list_collections(settings: Settings) -> Any:
    """GET /collections."""
    return _either(settings, lambda service: service.get("/collections"), lambda local: local.list_collections)


def show_collection(settings: Settings, name: str) -> Any:
    """GET /collections/{name}."""
    path = _path("collections", name)
    return _either(
        settings,
        lambda service: service.call("GET", path, collection=name),
        lambda local: local.show_collection,
        name,
    )


def create_collection(settings: Settings, name: str) -> Any:
    """PUT /collections/{name}."""
    path = _path("collections", name)
    return _either(settings, lambda service: service.call("PUT", path), lambda local: local.create_collection, name)


def delete_collection(settings: Settings, name: str) -> None:
    """DELETE /collections/{name}."""
    path = _path("collections", name)
    _either(
        settings,
        lambda service: service.call("DELETE", path, collection=name),
        lambda local: local.delete_collection,
        name,
    )


def list_documents(settings: Settings, params: dict[str, str]) -> Any:
    """GET /documents with these parameters."""
    return _either(
        settings,
        lambda service: service.call("GET", "/documents", params=params, collection=params["collection"]),
        lambda local: local.list_documents,
        params,
    )


def show_document(settings: Settings, document_id: str, params: dict[str, str]) -> Any:
    """GET /documents/{id} with these parameters."""
    path = _path("documents", document_id)
    return _either(
        settings,
        lambda service: service.call("GET", path, params=params, collection=params["collection"]),
        lambda local: local.show_document,
        document_id,
        params,
    )


def delete_document(settings: Settings, document_id: str, params: dict[str, str]) -> None:
    """DELETE /documents/{id} with these parameters."""
    path = _path("documents", document_id)
    _either(
        settings,
        lambda service: service.call("DELETE", path, params=params, collection=params["collection"]),
        lambda local: local.delete_document,
        document_id,
        params,
    )


def judge_lines(
    settings: Settings, path: str, options: Mapping[str, Any], rows: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """POST `path` with JSON lines: the rows of the response as they come, the ending last."""
    presence = find_service(settings.index.home)
    if presence is not None:
        return exchanged(presence, path, options, rows)
    from app.cli import local_models

    return local_models.judge_lines(settings, path, options, rows)


def judge_later(
    settings: Settings, path: str, options: Mapping[str, Any], rows: AsyncGenerator[bytes, None], plan: Path, token: str
) -> AsyncGenerator[bytes, None]:
    """As `judge_lines`, in batches, which the file `plan` remembers. Always here: it may take a day."""
    from app.cli import local_models

    return local_models.judge_later(settings, path, options, rows, plan, token)


def create_key(settings: Settings, fields: dict[str, Any]) -> NewKey:
    """POST /keys."""
    body = msgspec.to_builtins(fields)
    if service := _service(settings):
        return msgspec.convert(service.post("/keys", body), NewKey)
    try:
        request = msgspec.convert(body, KeyRequest)
    except msgspec.ValidationError as exc:
        raise InvalidRequest(str(exc).replace("`", "")) from exc
    return _keys(settings).create(request)


def list_keys(settings: Settings) -> list[KeyInfo]:
    """GET /keys."""
    if service := _service(settings):
        return msgspec.convert(service.get("/keys")["keys"], list[KeyInfo])
    return _keys(settings, migrates=False).all()


def rotate_key(settings: Settings, name: str, overlap_s: float) -> NewKey:
    """POST /keys/{key}/rotate."""
    if service := _service(settings):
        return msgspec.convert(service.post(f"{_path('keys', name)}/rotate", {"overlap_s": overlap_s}), NewKey)
    return _keys(settings).rotate(name, overlap_s)


def revoke_key(settings: Settings, name: str) -> None:
    """DELETE /keys/{key}."""
    if service := _service(settings):
        service.call("DELETE", _path("keys", name))
    else:
        _keys(settings).revoke(name)


def _keys(settings: Settings, *, migrates: bool = True) -> KeyAdministration:
    """Of the home, or of the database; a service that cannot be reached from here notices what is changed."""
    database = open_database(settings.database.url, migrates=migrates)
    if database is not None:
        database.hear_clock()
    now = clock_of(database)
    keys = keys_of(settings.index.home, now, database)
    return KeyAdministration(keys, [backend.name for backend in named_backends(settings)], now)


def usage(settings: Settings, params: dict[str, str]) -> UsageReport:
    """GET /usage with these parameters."""
    if service := _service(settings):
        return msgspec.convert(service.get("/usage", params), UsageReport)
    return _accounts(settings).usage(**params)  # type: ignore[arg-type] # click has checked the group


def export_usage(settings: Settings, params: dict[str, str]) -> Iterator[bytes]:
    """GET /usage/export with these parameters, in pieces."""
    if service := _service(settings):
        return service.download("/usage/export", params)
    return _accounts(settings).export(**params)


def estimate_cost(settings: Settings, body: dict[str, Any]) -> Estimate:
    """POST /cost/estimate."""
    if service := _service(settings):
        return msgspec.convert(service.post("/cost/estimate", body), Estimate)
    from app.cli import local_models

    return _accounts(settings).estimate(local_models.workload(body))


def _accounts(settings: Settings) -> Accounts:
    """To read from: nothing is opened, and no file is created."""
    database = open_database(settings.database.url, migrates=False)
    return Accounts(settings.index.home, settings.backends, settings.budgets, database=database)


def _run(
    settings: Settings,
    path: str,
    request: SyncRequest | SnapshotRequest | RestoreRequest | RepairRequest,
    kind: type[T],
    locally: Callable[[Any], Callable[..., T]],
    report: Report,
) -> T:
    """The last event, a `kind`, of what the running service does at `path`, or a function of `app.cli.local` here."""

    def run_remotely(service: RemoteService) -> T:
        if isinstance(service, WritingService) and request.needs_files:
            service.require_files()
        return _last(service.run(path, request), kind, report)

    def run_locally() -> T:
        from app.cli import local

        return locally(local)(settings, request, report)

    return _when_free(settings, run_remotely, run_locally, report)


def _last(events: Iterator[Event], kind: type[T], report: Report) -> T:
    """The last event, after all of them have been reported."""
    for event in events:
        report(event)
        if isinstance(event, kind):
            return event
    raise AssertionError("RemoteService.run ends with the last event, or raises")


def _path(kind: str, name: str) -> str:
    return f"/{kind}/{quote(name, safe='')}"


def _either(
    settings: Settings, remotely: Callable[[RemoteService], Any], locally: Callable[[Any], Any], *arguments: object
) -> Any:
    """What the service that has the index answers, or else a function of `app.cli.local` to these arguments."""
    if service := _owner(settings):
        return remotely(service)
    from app.cli import local

    return locally(local)(settings, *arguments)


def _service(settings: Settings) -> RemoteService | None:
    presence = find_service(settings.index.home)
    return RemoteService(presence.url, presence.headers) if presence else None


def _owner(settings: Settings) -> RemoteService | None:
    """The service of this home, or else the one that writes to the index that they share."""
    return _service(settings) or writing_service(settings)


def _when_free(
    settings: Settings,
    remotely: Callable[[RemoteService], T],
    locally: Callable[[], T],
    report: Report,
    wait_s: float = WAIT_S,
) -> T:
    """Try until no other process holds the index; a service may start or stop in the meantime. One that others share is
    waited for so long.
    """
    begun: float | None = None
    while True:
        if service := _owner(settings):
            return remotely(service)
        try:
            return locally()
        except IndexBusy as exc:
            who = whom_to_wait_for(settings)
            if begun is None:
                why = f"for up to {wait_s:g} s: {who}" if who else f"for the index to become free: {exc}"
                report(Notice(stage="waiting", detail=f"waiting {why}"))
                begun = time.monotonic()
            elif who and time.monotonic() - begun >= wait_s:
                raise still_busy(who, wait_s) from exc
            time.sleep(_RETRY_S)
