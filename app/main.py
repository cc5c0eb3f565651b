"""The composition root: the application and the server."""

import asyncio
import gc
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from socket import AF_INET, AF_INET6, AI_PASSIVE, SOCK_STREAM, SocketType, create_server, getaddrinfo, socket
from types import FrameType
from typing import Any

import structlog
import uvicorn
from litestar import Litestar
from litestar.di import Provide
from litestar.exceptions import MethodNotAllowedException, NotFoundException

from app.api.compat.errors import on_no_route
from app.api.compat.router import compatibility
from app.api.middleware import RequestMiddleware, is_loopback
from app.api.multipart import DocumentBody, DocumentsRequest
from app.api.openapi import REQUEST_ID, StructShapes, openapi_config
from app.api.problem_details import on_error
from app.api.request import BodyRequest
from app.api.routes.answer import answer
from app.api.routes.chat import chat
from app.api.routes.collections import create_collection, delete_collection, list_collections, show_collection
from app.api.routes.documents import delete_document, list_documents, put_documents, show_document
from app.api.routes.internal import (
    confirm_presence,
    create_snapshot,
    list_snapshots,
    put_document,
    restore_snapshot,
    sync_files,
)
from app.api.routes.jobs import cancel_job, list_jobs, show_job
from app.api.routes.operations import live, ready, redirect_to_schema, show_backends, show_version
from app.api.routes.search import search
from app.api.routes.usage import estimate_cost, export_usage, show_usage
from app.config.settings import ServiceSettings, Settings
from app.errors import WinnowError
from app.instance import announce, installed_version, withdraw
from app.observability.logging import configure_logging
from app.wiring import Services, ensure_directory

log = structlog.get_logger()

ROUTES = (
    redirect_to_schema,
    search,
    answer,
    chat,
    live,
    ready,
    show_version,
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
    confirm_presence,
    sync_files,
    put_document,
    create_snapshot,
    list_snapshots,
    restore_snapshot,
    compatibility,
)


KEEP_ALIVE_S = 75
"""Longer than clients and proxies keep an idle connection (httpx 5, aiohttp 15, load balancers 60 s). So they close it
first; if we did, their next request could be on its way already.
"""


def create_app(settings: Settings, services: Services, samples: Path | None = None) -> Litestar:
    """The ASGI application. It starts and closes the services with its lifespan; see `Services.start` for `samples`."""
    shapes = StructShapes(DocumentsRequest, DocumentBody)
    app = Litestar(
        ROUTES,
        lifespan=[_lifetime(services, samples)],
        dependencies=_dependencies(services),
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
    shapes.describe(app.openapi_schema)
    app.asgi_handler = RequestMiddleware(app.asgi_handler, settings.service)
    return app


PROVIDED = (
    "accounts",
    "answerer",
    "backends",
    "chat_service",
    "documents",
    "embeddings",
    "jobs",
    "model",
    "names",
    "presence",
    "rankers",
    "searcher",
    "settings",
    "snapshots",
    "stopping",
    "text_ranker",
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

    # Nothing is read of the services before a request: `presence` is set late, and tests hand the application on.
    return {name: attribute(name) for name in PROVIDED} | {
        "clients": Provide(clients),
        "pool": Provide(pool),
        "open_store": Provide(lambda: services.store.get, sync_to_thread=False),
    }


SAMPLES = Path(__file__).with_name("samples")


def serve(settings: Settings, services: Services, *, samples: bool = False) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is under way and return. A second signal cuts it short.

    With `samples`, an index without a collection gets the sample documents first. Raises CannotListen and IndexBusy
    before anything is served.
    """
    service = settings.service
    configure_logging(service.log_format, service.log_level)
    with bind(service.host, service.port) as listening:
        Server(server_config(settings, services, samples=samples), services).run([listening])


class CannotListen(WinnowError):
    """The address is in use, or not one of this machine."""


def bind(host: str, port: int) -> socket:
    """A listening socket; IPv4 if the name has addresses of both kinds. Raises CannotListen."""
    try:
        addresses = getaddrinfo(host, port, type=SOCK_STREAM, flags=AI_PASSIVE)
        family, *_, address = min(info for info in addresses if info[0] in (AF_INET, AF_INET6))
        return create_server(address[:2], family=family, backlog=2048)
    except OSError as exc:
        # create_server appends the address to the message, which has it already.
        reason = (str(exc.strerror or exc)).partition(" (while")[0].lower()
        detail = f"cannot listen on {host}:{port}: {reason}; choose with --host and --port (0 takes any free port)"
        raise CannotListen(detail) from exc


def server_config(settings: Settings, services: Services, *, samples: bool) -> uvicorn.Config:
    """The settings of uvicorn."""
    service = settings.service
    return uvicorn.Config(
        create_app(settings, services, SAMPLES if samples else None),
        host=service.host,
        port=service.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(service.shutdown_grace_s)),
    )


class Server(uvicorn.Server):
    """Exits with status 0 after a drain; any second signal forces the end, not only SIGINT.

    While it listens, the command line can find it through the home directory. It opens the index before it listens: a
    second service on the same home raises IndexBusy.
    """

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services
        self._freezing: asyncio.Task[None] | None = None

    async def serve(self, sockets: list[socket] | None = None) -> None:
        """Own the index and the ledger, then serve until told to stop."""
        ensure_directory(self._services.settings.index.home)
        await self._services.store.get()
        self._services.accounts.open()
        await super().serve(sockets)

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Listen, then announce the address."""
        await super().startup(sockets)
        if self.started:
            home = self._services.settings.index.home
            url = _local_url(self.servers[0].sockets[0])
            self._services.presence = announce(home, url)
            self._announce_url(url)
            self._freezing = asyncio.create_task(_freeze_heap(self._services))

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Drain, after the command line can no longer find the service."""
        if self._services.presence is not None:
            withdraw(self._services.settings.index.home, self._services.presence)
        self._services.stopping.set()
        if self._freezing is not None:
            self._freezing.cancel()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by the signal handler."""
        self.force_exit = self.should_exit
        self.should_exit = True

    def _announce_url(self, url: str) -> None:
        """On a terminal a line for people, else an event for the log."""
        if sys.stderr.isatty():
            sys.stderr.write(f"{_startup_message(self._services.settings.service, url)}\n")
        else:
            log.info(f"running on {url}")


async def _freeze_heap(services: Services) -> None:
    """Exempt what was loaded to serve (libraries, the model) from garbage collection, once the service is warm.

    It is half a million objects, and each full collection held up all requests for a fifth of a second.
    """
    await services.warm_up.done.wait()
    gc.collect()
    gc.freeze()
    log.info("warmed up", objects=gc.get_freeze_count())


def _startup_message(service: ServiceSettings, url: str) -> str:
    line = f"Winnow is listening on {url} (API reference: {url}/schema); Ctrl-C stops it."
    if is_loopback(service.host):
        return line
    whom = (
        "all who reach it"
        if service.allow_anonymous
        else "programs on this machine; WINNOW_ALLOW_ANONYMOUS=1 lets others in"
    )
    return f"{line}\nIt listens on {service.host} and serves {whom}."


def _local_url(listening: SocketType) -> str:
    """How a program on this machine reaches a listening socket."""
    host, port = listening.getsockname()[:2]
    address = ip_address(host)
    if address.is_unspecified:
        address = ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"http://{address}:{port}" if address.version == 4 else f"http://[{address}]:{port}"


def _lifetime(services: Services, samples: Path | None) -> Callable[[Litestar], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncGenerator[None, None]:
        await services.start(samples)
        try:
            yield
        finally:
            await services.close()

    return lifespan
