"""The composition root: the application, and what serves it."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from litestar import Litestar
from litestar.di import Provide
from litestar.exceptions import MethodNotAllowedException, NotFoundException

from app.api.authentication import check_scopes, guard_of
from app.api.compat.errors import on_no_route
from app.api.compat.router import compatibility
from app.api.hand_on import Elsewhere
from app.api.middleware import RequestMiddleware
from app.api.multipart import DocumentBody, DocumentsRequest
from app.api.openapi import REQUEST_ID, StructShapes, describe_keys, openapi_config
from app.api.problem_details import on_error
from app.api.request import BodyRequest
from app.api.routes.answer import answer
from app.api.routes.chat import chat
from app.api.routes.collections import create_collection, delete_collection, list_collections, show_collection
from app.api.routes.complete import complete
from app.api.routes.documents import delete_document, list_documents, put_documents, show_document
from app.api.routes.internal import (
    confirm_presence,
    create_snapshot,
    list_snapshots,
    put_document,
    repair_collection,
    restore_snapshot,
    sync_files,
)
from app.api.routes.jobs import cancel_job, list_jobs, show_job
from app.api.routes.keys import create_key, list_keys, revoke_key, rotate_key
from app.api.routes.labelling import classify, moderate
from app.api.routes.operations import health, live, ready, show_backends, show_metrics, show_version
from app.api.routes.search import search
from app.api.routes.translate import translate
from app.api.routes.usage import estimate_cost, export_usage, show_usage
from app.api.routes.vision import VisionBody, vision
from app.config.settings import Settings
from app.instance import installed_version
from app.mcp.routes import Endpoint, serve_mcp
from app.observability.logging import configure_logging
from app.server import Server, bind, server_config
from app.web.routes import show_page, show_page_file
from app.wiring import Services
from indexing.errors import IndexBusy

ROUTES = (
    show_page,
    show_page_file,
    search,
    answer,
    chat,
    vision,
    classify,
    moderate,
    translate,
    complete,
    health,
    live,
    ready,
    show_version,
    show_metrics,
    show_backends,
    list_collections,
    create_collection,
    show_collection,
    delete_collection,
    put_documents,
    list_documents,
    show_document,
    delete_document,
    list_jobs,
    show_job,
    cancel_job,
    show_usage,
    export_usage,
    estimate_cost,
    create_key,
    list_keys,
    rotate_key,
    revoke_key,
    confirm_presence,
    sync_files,
    put_document,
    create_snapshot,
    list_snapshots,
    restore_snapshot,
    repair_collection,
    serve_mcp,
    compatibility,
)


def create_app(settings: Settings, services: Services, samples: Path | None = None) -> Litestar:
    """The ASGI application. It starts and closes the services with its lifespan; see `Services.start` for `samples`."""
    shapes = StructShapes(DocumentsRequest, DocumentBody, VisionBody)
    app = Litestar(
        ROUTES,
        lifespan=[_lifetime(services, samples)],
        dependencies=_dependencies(services),
        guards=[guard_of(lambda: services.access)],
        before_request=Elsewhere(services),
        exception_handlers={
            Exception: on_error,
            NotFoundException: on_no_route,
            MethodNotAllowedException: on_no_route,
        },
        openapi_config=openapi_config(installed_version()),
        request_class=BodyRequest,
        request_max_body_size=settings.service.max_body_bytes,
        response_headers=[REQUEST_ID],
        plugins=[shapes],
        logging_config=None,
    )
    check_scopes(app)
    shapes.describe(app.openapi_schema)
    describe_keys(app.openapi_schema, app.routes)
    app.asgi_handler = RequestMiddleware(app.asgi_handler, settings.service, services)
    return app


PROVIDED = (
    "accounts",
    "answerer",
    "backends",
    "chat_service",
    "classify_service",
    "complete_service",
    "documents",
    "embeddings",
    "jobs",
    "keys",
    "model",
    "moderate_service",
    "monitoring",
    "names",
    "rankers",
    "repairs",
    "searcher",
    "settings",
    "snapshots",
    "stopping",
    "text_ranker",
    "vision_service",
    "translate_service",
    "warm_up",
)
"""The attributes of `Services` that routes may ask for by name."""


def _dependencies(services: Services) -> dict[str, Provide]:
    """A route gets what it names as a parameter. `clients` and `pool` are opened first, if they are not yet open."""

    def attribute(name: str) -> Provide:
        def read() -> Any:
            return getattr(services, name)

        return Provide(read, sync_to_thread=False)

    async def clients() -> Any:
        return await services.clients()

    async def pool() -> Any:
        return await services.pool.get()

    agents = Endpoint(services)
    # Nothing is read of the services before a request: `presence` is set late, and tests hand the application on.
    return {name: attribute(name) for name in PROVIDED} | {
        "agents": Provide(lambda: agents, sync_to_thread=False),
        "clients": Provide(clients),
        "pool": Provide(pool),
        "open_store": Provide(lambda: services.store.get, sync_to_thread=False),
    }


SAMPLES = Path(__file__).with_name("samples")


def serve(settings: Settings, services: Services, *, samples: bool = False) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is under way and return. A second signal cuts it short.

    With `samples`, an index without a collection gets the sample documents first. Raises CannotListen and IndexBusy
    before anything is served, and IndexBusy where it ended because another replica has taken over.
    """
    service = settings.service
    configure_logging(service.log_format, service.log_level)
    with bind(service.host, service.port) as listening:
        app = create_app(settings, services, SAMPLES if samples else None)
        Server(server_config(app, service, services.replicas), services).run([listening])
    if services.replicas is not None and services.replicas.lost:
        raise IndexBusy(services.replicas.lost)


def _lifetime(services: Services, samples: Path | None) -> Callable[[Litestar], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncGenerator[None, None]:
        await services.start(samples)
        try:
            yield
        finally:
            # The server gives up waiting when some thread cannot be stopped, and says so; then asyncio cancels what is
            # left, this too, and to Litestar that would be an application that failed, with a traceback in the log.
            with suppress(asyncio.CancelledError):
                await services.close()

    return lifespan
