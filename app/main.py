"""The composition root: the application and the server."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from socket import socket
from types import FrameType

import uvicorn
from litestar import Litestar
from litestar.di import Provide

from app.api.answer import answer
from app.api.bodies import BodyRequest
from app.api.collections import create_collection, delete_collection, list_collections, show_collection
from app.api.documentation import REQUEST_ID, StructShapes, openapi_config
from app.api.documents import delete_document, list_documents, put_documents, show_document
from app.api.door import Door
from app.api.internal import confirm_presence, put_document, sync_files
from app.api.jobs import show_job
from app.api.operations import installed_version, live, ready, show_backends, show_version
from app.api.problems import on_error
from app.api.search import search
from app.api.uploads import DocumentBody, DocumentsRequest
from app.logs import configure_logging
from app.presence import announce, withdraw
from app.settings import Settings
from app.wiring import Services

ROUTES = (
    search,
    answer,
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
    show_job,
    confirm_presence,
    sync_files,
    put_document,
)


def create_app(settings: Settings, services: Services, samples: Path | None = None) -> Litestar:
    """The ASGI application. It starts and closes the services with its lifespan; see `Services.start` for `samples`."""
    shapes = StructShapes(DocumentsRequest, DocumentBody)
    app = Litestar(
        ROUTES,
        lifespan=[_lifetime(services, samples)],
        dependencies={"services": Provide(lambda: services, sync_to_thread=False, use_cache=True)},
        exception_handlers={Exception: on_error},
        openapi_config=openapi_config(installed_version()),
        request_class=BodyRequest,
        request_max_body_size=settings.service.max_body_bytes,
        response_headers=[REQUEST_ID],
        plugins=[shapes],
        logging_config=None,
    )
    shapes.describe(app.openapi_schema)
    app.asgi_handler = Door(app.asgi_handler, settings.service)
    return app


SAMPLES = Path(__file__).with_name("samples")


def serve(settings: Settings, services: Services, *, samples: bool = False) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is under way and return. A second signal cuts it short.

    With `samples`, an index without a collection gets the sample documents first.
    """
    service = settings.service
    configure_logging(service.log_format, service.log_level)
    config = uvicorn.Config(
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
        timeout_graceful_shutdown=max(1, round(service.shutdown_grace_s)),
    )
    Server(config, services).run()


class Server(uvicorn.Server):
    """Ends well: exit status 0 after a drain, and any second signal forces the end, not only SIGINT.

    While it listens, the command line can find it through the home directory.
    """

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Listen, then say where."""
        await super().startup(sockets)
        if self.started:
            home = self._services.settings.index.home
            self._services.presence = announce(home, _local_url(self.servers[0].sockets[0]))

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Drain; the command line no longer sends anything here."""
        if self._services.presence is not None:
            withdraw(self._services.settings.index.home, self._services.presence)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by the signal handler."""
        self.force_exit = self.should_exit
        self.should_exit = True


def _local_url(listening: socket) -> str:
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
